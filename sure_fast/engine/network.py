"""The network as the loss sees it: cut off, timed, in its precision."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

STAGES = ("network", "noisy")


class Network:
    """The network, with the loss cut off from it, so that the time of each can be told.

    Its answers are leaves, where the loss's backward ends; `backward` carries their gradients on through the network.
    The first answer is that to the clean image, the others are those to noisy ones. An empty batch, the share of a rank
    that has none, gets an empty answer without asking the network.

    Args:
        model: image [N, K, *S] -> logits [N, num_classes, *S], or in training a list of them, the finest first, of
            which those of a noisy image count no further than the finest.
        coarser: outputs that it gives in training beside the finest; an empty batch has as many.
        precision: makes the context of every forward.
        memory_format: of the images.
        clock: seconds; one that waits for the device tells its time, not that of launching the work.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Any],
        num_classes: int,
        *,
        coarser: int = 0,
        precision: Callable[[], AbstractContextManager[None]] = nullcontext,
        memory_format: torch.memory_format = torch.contiguous_format,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.model, self.num_classes, self.precision, self.clock = model, num_classes, precision, clock
        self.memory_format, self.coarser = memory_format, coarser
        self.answers: list[tuple[float, list[Tensor], list[Tensor]]] = []
        self.calls = 0
        self.forwards = 0
        """Images answered, one with a backward for three."""
        self.seconds_of = dict.fromkeys(STAGES, 0.0)

    @property
    def seconds(self) -> float:
        return sum(self.seconds_of.values())

    def __call__(self, image: Tensor) -> Tensor:
        """The finest logits."""
        return self.levels(image)[0]

    def levels(self, image: Tensor, clean: int | None = None) -> list[Tensor]:
        """The logits of every resolution that the network gives, the finest first.

        Args:
            clean: how many of the images are clean, the first ones; None: in the first call all, later none.
        """
        started, first = self.clock(), self.calls == 0
        self.calls += 1
        grad = torch.is_grad_enabled()
        if len(image) == 0:
            number = 1 + (self.coarser if first else 0)
            shape = (0, self.num_classes, *image.shape[2:])
            return [image.new_zeros(shape).requires_grad_(grad) for _ in range(number)]
        share = float(first) if clean is None else clean / len(image)
        self.forwards += len(image) * (3 if grad else 1)
        with self.precision():
            answer = self.model(image.contiguous(memory_format=self.memory_format))
        self._count(started, share)
        levels = list(answer) if isinstance(answer, (list, tuple)) else [answer]
        if not grad:
            return levels
        levels = levels if first else levels[:1]
        leaves = [level.detach().requires_grad_() for level in levels]
        self.answers.append((share, levels, leaves))
        return leaves

    def backward(self, before_last: Callable[[], object] | None = None) -> None:
        """To the parameters; frees the answers. The first answer, which alone has coarser outputs, is the last one.

        Args:
            before_last: called when one backward is left, which reaches every parameter that has a gradient.
        """
        answers = [
            (share, [(level, leaf.grad) for level, leaf in zip(levels, leaves, strict=True) if leaf.grad is not None])
            for share, levels, leaves in self.answers
        ]
        self.answers.clear()
        answers = [(share, used) for share, used in answers if used]
        while answers:
            share, used = answers.pop()
            if not answers and before_last is not None:
                before_last()
            started = self.clock()
            torch.autograd.backward([level for level, _ in used], [grad for _, grad in used])
            self._count(started, share)

    def _count(self, started: float, share: float) -> None:
        """The time since then, of which this share is of clean images."""
        seconds = self.clock() - started
        for stage, part in zip(STAGES, (share, 1 - share), strict=True):
            self.seconds_of[stage] += part * seconds
