"""What the command lines share: one line for what the user can mend, and exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from . import console, lock
from .config import ConfigError
from .signals import Interrupted


class RunFailure(RuntimeError):
    """Training cannot go on; what was good is saved."""


def run(program: str, main: Callable[[], None]) -> None:
    """Runs a command: bad input ends with one line and code 2, a failed run with 1, a signal with 128 + its number."""
    console.make_lasting()
    try:
        main()
    except (ValueError, TypeError, OSError) as error:
        fail(program, error, 2)
    except RunFailure as error:
        fail(program, error, 1)
    except KeyboardInterrupt as error:
        if os.environ.get("RANK", "0") == "0":  # the ranks of torchrun all have been stopped
            print(f"{program}: {error if isinstance(error, Interrupted) else 'interrupted'}", file=sys.stderr)
        sys.exit(128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT))


def fail(program: str, message: object, code: int) -> None:
    if not getattr(message, "told", False):  # by another rank
        print(f"{program}: error: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(code)


def choose_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device: {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def new_folder(path: Path, overwrite: bool = False) -> Path:
    """Refuses a folder that holds something; does not create it."""
    if path.exists() and not path.is_dir():
        raise ConfigError(f"output {path}: expected a folder, got a file")
    if path.is_dir() and not lock.is_empty(path) and not overwrite:
        raise ConfigError(f"output {path}: expected a new or empty folder (or --overwrite), got one with files")
    return path
