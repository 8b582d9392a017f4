"""One writer a folder: a lock that dies with the process that holds it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO

from . import console, distributed
from .config import ConfigError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
TAKEN = (errno.EACCES, errno.EAGAIN)
"""Errors of a lock that another process holds; others say that the file system has none."""
_held: set[Path] = set()


@contextmanager
def held(folder: Path, *, fresh: bool = False) -> Iterator[Path]:
    """Within the block no other process writes into the folder, which is made where it is missing; yields it.

    The lock is the system's, on a file in the folder: it ends with the process, however that ends. Of several ranks
    rank 0 holds it for all. A folder that was made for the lock and stayed empty is removed again.

    Args:
        fresh: the folder must be a new one; where the name is taken, it is folder-2, folder-3 and so on.

    Raises:
        ConfigError: another process holds it, or the folder cannot be made.
    """
    made: list[Path] = []
    files: list[IO[str]] = []

    def acquire() -> Path:
        chosen = _make_fresh(folder, made) if fresh else _make(folder, made)
        try:
            files.append(_lock(chosen))
        except BaseException:
            _remove(made)
            raise
        return chosen

    chosen = distributed.from_main(acquire)
    try:
        yield chosen
    finally:
        for file in files:
            _release(chosen, file)
        _remove(made)


def is_empty(folder: Path) -> bool:
    """Whether nothing but a lock is in it."""
    return not any(path.name != NAME for path in folder.iterdir())


def _make(folder: Path, made: list[Path]) -> Path:
    """Makes the folder; `made` gets what had to be made, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError(f"output {folder}: expected a folder, got a file") from None
    except OSError as error:
        raise ConfigError(f"output {folder}: cannot be made: {error.strerror}") from None
    made.extend(missing)
    return folder


def _make_fresh(base: Path, made: list[Path]) -> Path:
    """Makes `base`, or where that is taken the next one; making a folder succeeds in one process only."""
    for number in count(1):
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        missing = [path for path in folder.parents if not path.exists()]
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"output {folder}: cannot be made: {error.strerror}") from None
        made.extend([folder, *missing])
        return folder
    raise AssertionError


def _lock(folder: Path) -> IO[str]:
    path = folder / NAME
    # Locks are a process's own: a second one of this process would be granted.
    if path.resolve() in _held:
        raise ConfigError(f"output {folder}: this process is writing into it already; choose another output")
    while True:
        try:
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise ConfigError(f"output {folder}: cannot be written: {error.strerror}") from None
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in TAKEN:
                console.say(f"note: {folder}: no locks here ({error.strerror}); one job at a time may use it", True)
                break
            file.seek(0)
            owner = file.read().strip()
            file.close()
            raise ConfigError(
                f"output {folder}: {owner or 'another process'} is writing into it; wait for it, or choose another "
                "output"
            ) from None
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            break
        file.close()  # the holder before removed it between the two calls
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    _held.add(path.resolve())
    return file


def _release(folder: Path, file: IO[str]) -> None:
    path = folder / NAME
    _held.discard(path.resolve())
    path.unlink(missing_ok=True)
    file.close()


def _remove(made: list[Path]) -> None:
    for folder in made:
        try:
            folder.rmdir()
        except OSError:  # it holds something by now
            return
