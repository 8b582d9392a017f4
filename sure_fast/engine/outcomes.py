"""What the steps of a run gave, brought to the host; from a GPU while the next step runs, so that none waits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Place(NamedTuple):
    """A step: its epoch, from 0, its batch within it, and its number over all epochs."""

    epoch: int
    batch: int
    step: int


def copy_of(numbers: Tensor) -> tuple[Tensor, torch.cuda.Event]:
    """On the host, and what tells when it holds the numbers."""
    host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
    host.copy_(numbers, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(numbers.device))
    return host, copied


class Outcomes:
    """A queue: what is put in comes out at once, or with `late` when the next is put in.

    Args:
        late: the numbers are on a GPU, and are copied while it goes on.
    """

    def __init__(self, late: bool) -> None:
        self.late = late
        self._waiting: list[tuple[Place, Tensor, torch.cuda.Event]] = []

    def put(self, place: Place, numbers: Tensor) -> list[tuple[Place, list[float]]]:
        """Takes those of a step; gives what can be read without waiting for the step."""
        if not self.late:
            return [(place, numbers.tolist())]
        before = self.rest()
        self._waiting.append((place, *copy_of(numbers)))
        return before

    def rest(self) -> list[tuple[Place, list[float]]]:
        """All that has not come out yet; waits for it."""
        waiting, self._waiting = self._waiting, []
        for *_, copied in waiting:
            copied.synchronize()
        return [(place, host.tolist()) for place, host, _ in waiting]
