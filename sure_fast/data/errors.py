"""The one error of this room."""

from __future__ import annotations


class DataError(ValueError):
    """Bad data or a bad data argument: one line naming the file or argument, what was expected and what came."""

    def __init__(self, message: str) -> None:
        # Decoders put line breaks in their messages; a command line prints this as one line.
        super().__init__(" ".join(message.split()))
