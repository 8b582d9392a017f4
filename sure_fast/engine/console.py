"""What a command prints: for any encoding, into pipes that close, as a bar on a terminal and as lines in a file."""

from __future__ import annotations

import codecs
import errno
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

T = TypeVar("T")
ASCII = {
    "–": "-", "−": "-", "—": "-", "…": "...", "±": "+-", "×": "x", "·": ".", "≥": ">=", "≤": "<=", "≠": "!=",
    "→": "->", "↑": "^", "↓": "v", "σ": "sigma", "μ": "mu", "β": "beta", "γ": "gamma", "δ": "delta", "Δ": "delta ",
}  # fmt: skip
"""What stands for a character that the output's encoding does not have; "?" for any other."""
ERRORS = "sure_fast.ascii"
GONE = (errno.EPIPE, errno.EIO, errno.ESHUTDOWN)
"""Errors of an output whose reader or terminal is gone."""
EVERY = 30.0
"""Seconds between two lines of progress in a file."""


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(ASCII.get(character, "?") for character in error.object[error.start : error.end]), error.end


codecs.register_error(ERRORS, _in_ascii)


class Lasting:
    """An output that takes every text; once its reader is gone, as with `| head`, the rest is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ERRORS)

    def write(self, text: str) -> int:
        with self._tolerating():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._tolerating():
            self._stream.flush()

    @contextmanager
    def _tolerating(self) -> Iterator[None]:
        """Within the block an output that is gone becomes one that takes everything."""
        try:
            yield
        except OSError as error:
            if error.errno not in GONE:
                raise
            with suppress(OSError, ValueError):
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, self._stream.fileno())
                os.close(nothing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def make_lasting() -> None:
    """Standard output and standard error take every text from now on."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Lasting):
            setattr(sys, name, Lasting(stream))


_journal: Path | None = None


@contextmanager
def journal(path: Path) -> Iterator[None]:
    """Within the block what is said also goes to the end of a file."""
    global _journal
    before, _journal = _journal, path
    try:
        yield
    finally:
        _journal = before


def say(text: str, warning: bool = False) -> None:
    """Prints lines, a warning to standard error, and keeps them in the journal where there is one."""
    print(text, file=sys.stderr if warning else sys.stdout, flush=True)
    if _journal is not None:
        with suppress(OSError), open(_journal, "a", encoding="utf-8") as file:  # a full disk ends no run here
            file.write(text + "\n")


def bar(items: Iterable[T] | None, title: str, unit: str, *, shown: bool = True, **options: Any) -> Any:
    """Progress through items: tqdm's bar on a terminal; elsewhere a line every half minute, none in a short loop.

    Args:
        items: what is gone through; None with `total=` where `update` tells the progress.
        title, unit: what is done, and what one item is called.
        shown: False: nothing is printed.
        options: total, initial, and what else tqdm takes.
    """
    if shown and not sys.stderr.isatty():
        return Progress(items, title, unit, **options)
    from tqdm import tqdm

    return tqdm(items, desc=title, unit=unit, disable=not shown, **options)


class Progress(Generic[T]):
    """Stands in for a tqdm bar where there is no terminal."""

    def __init__(
        self,
        items: Iterable[T] | None,
        title: str,
        unit: str,
        *,
        total: int | None = None,
        initial: int = 0,
        clock: Callable[[], float] = time.monotonic,
        **_: Any,
    ) -> None:
        self.items, self.title, self.unit, self.done = items, title, unit, initial
        self.total = len(items) if total is None and hasattr(items, "__len__") else total  # type: ignore[arg-type]
        self._clock, self._initial, self._detail = clock, initial, ""
        self._started = self._told = clock()

    def __iter__(self) -> Iterator[T]:
        for item in self.items or ():
            yield item
            self.update()

    def update(self, number: int = 1) -> None:
        self.done += number
        now = self._clock()
        if now - self._told < EVERY or self.done == self.total:
            return
        self._told = now
        line = f"{self.title}: {self.done} of {self.total or '?'} {self.unit}s"
        if self.total and self.done > self._initial:
            rate = (now - self._started) / (self.done - self._initial)
            line += f", {duration(rate * (self.total - self.done))} left"
        print(line + (f", {self._detail}" if self._detail else ""), file=sys.stderr, flush=True)

    def set_postfix(self, values: dict[str, Any]) -> None:
        self._detail = ", ".join(f"{name}={value}" for name, value in values.items())

    def set_postfix_str(self, text: str) -> None:
        self._detail = text

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Progress[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def attempt(what: str, function: Callable[[], object], report: Callable[[str], object]) -> None:
    """Runs what a result does not depend on, a picture for example: where it fails, that is told, and all goes on."""
    try:
        function()
    except Exception as error:
        report(f"note: {what} could not be made: {type(error).__name__}: {' '.join(str(error).split())}")


def duration(seconds: float) -> str:
    """In the two largest units.

    Example:
        >>> duration(0.42), duration(42), duration(754), duration(7500)
        ('0.4 s', '42 s', '12 min 34 s', '2 h 05 min')
    """
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
