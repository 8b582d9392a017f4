"""SIGTERM and Ctrl-C: the step is finished and the state saved before the program ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from . import distributed

SIGNALS = (signal.SIGTERM, signal.SIGINT)
TOGETHER = 2.0
"""Seconds."""


class RunFailure(RuntimeError):
    """A run cannot go on; what was good is saved."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop by the signal of this number; `detail` says where it is."""

    def __init__(self, number: int, detail: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{detail}")
        self.number = number
        self.command: str | None = None
        """What continues the run."""

    def __str__(self) -> str:
        return f"{self.args[0]}; continue with: {self.command}" if self.command else str(self.args[0])


class StopRequest:
    """While it is entered, SIGTERM and Ctrl-C raise Interrupted; within `deferred` they set `number` instead.

    A second signal raises in either case, unless it comes with the first: a launcher passes on to its processes what
    they got themselves. A signal that the program was started to ignore (nohup) stays ignored; outside the main thread
    nothing changes.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._since = 0.0
        self._deferred = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """What must be finished, and looks at `number` when it can stop."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def agreed(self) -> int | None:
        """The signal that any rank got, on every rank."""
        return distributed.largest(self.number or 0) or None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._deferred and self.number is not None and time.monotonic() - self._since < TOGETHER:
            return
        first, self.number = self.number is None, number
        if not (self._deferred and first):
            raise Interrupted(number)
        self._since = time.monotonic()
        if not distributed.is_main():
            return
        # print() must not be called again from within itself, which a signal may interrupt
        os.write(2, f"\n{signal.Signals(number).name}: finishing the step and saving; once more stops now\n".encode())


def ignore_in_worker(_: int) -> None:
    """For DataLoader workers: a signal to the whole process group must not take them from the step that is finished."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
