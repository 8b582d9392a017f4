"""What the command lines share: flags, one line for what the user can mend, and exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from . import console, lock
from .config import ConfigError, keys, suggestion
from .signals import Interrupted, RunFailure


class Parser(argparse.ArgumentParser):
    """One line for a wrong flag, with the flag that may have been meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            hint = _hint(unknown[0].split("=")[0], flags) if unknown[0].startswith("-") else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return options

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message}", file=sys.stderr)
        sys.exit(2)


def _hint(flag: str, flags: list[str]) -> str:
    """The flag that may have been meant, or the option that has none."""
    name = flag.lstrip("-").replace("-", "_")
    if "--set" in flags:
        for key in keys():
            if name == key.split(".")[1] or name == key:
                return f"; give it as --set {key}=VALUE"
    return suggestion(flag, flags)


LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""Environment variable: 1 has torch ask Linux for pages of 2 MiB for its large CPU tensors, 0 has it not."""


def run(program: str, main: Callable[[], None]) -> None:
    """Runs a command: bad input ends with one line and code 2, a failed run with 1, a signal with 128 + its number."""
    console.make_lasting()
    # torch reads it at its first large tensor. Feature maps are allocated anew in every step, and page by page their
    # memory costs a tenth of a step on the CPU (docs/large-jobs.md).
    os.environ.setdefault(LARGE_PAGES, "1")
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


def new_folder(path: Path, overwrite: bool = False, *, hint: str = " (or --overwrite)") -> Path:
    """Refuses a folder that holds something; does not create it.

    Args:
        hint: what else the command takes.
    """
    if path.exists() and not path.is_dir():
        raise ConfigError(f"output {path}: expected a folder, got a file")
    if path.is_dir() and not lock.is_empty(path) and not overwrite:
        raise ConfigError(f"output {path}: expected a new or empty folder{hint}, got one with files")
    return path
