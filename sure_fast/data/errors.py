"""The one error of this room."""

from __future__ import annotations

from typing import NamedTuple


class DataError(ValueError):
    """Bad data or a bad data argument: one line naming the file or argument, what was expected and what came."""

    def __init__(self, message: str) -> None:
        # Decoders put line breaks in their messages; a command line prints this as one line.
        super().__init__(" ".join(message.split()))


class Fault(NamedTuple):
    """Why a case is left out, or what is to be known of it."""

    case: str
    reason: str
    """One line that names the file."""
