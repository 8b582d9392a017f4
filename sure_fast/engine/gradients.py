"""The mean over the ranks of every gradient, on its way while the backward still runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from . import distributed

BUCKET = 25 * 2**20
"""Bytes of gradients in one message."""


class GradientAverage:
    """Averages the gradients of a model over the ranks.

    `start` says that the next backward is the last one before the weights change: with accumulation and with noisy
    copies gradients add up in several of them. As soon as it has made the gradients of a bucket, their sum over the
    ranks is asked for and the backward goes on; `finish` asks for what is left, waits, and writes the means. Buckets
    are fixed, from the last parameter to the first, and go in their order, so that every rank sends the same messages
    in the same order whatever its backward reaches: a rank without images calls `finish` alone, and an absent gradient
    counts as 0. All ranks get the same bits, NaN included. Until `finish` there is one more copy of the gradients.

    DistributedDataParallel would do so for one forward of a network that it wraps; here the loss is cut off from the
    network, which is asked several times, and on a rank without images not at all. A network under torch.compile gives
    its gradients when its backward ends, and nothing is sent before.

    Args:
        parameters: of the model, those that require a gradient; in a process of its own nothing happens.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.ranks = distributed.world_size()
        trained = [parameter for parameter in parameters if parameter.requires_grad] if self.ranks > 1 else []
        self.buckets = cut(trained[::-1])
        self._bucket_of = {id(parameter): k for k, bucket in enumerate(self.buckets) for parameter in bucket}
        self._watching = False
        self._missing: list[set[int]] = []
        self._sent: list[tuple[Tensor, dist.Work]] = []
        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(self._arrived)

    def start(self) -> None:
        """What the next backward leaves in a parameter's gradient is final."""
        self._missing = [{id(parameter) for parameter in bucket} for bucket in self.buckets]
        self._sent, self._watching = [], True

    def _arrived(self, parameter: Tensor) -> None:
        if not self._watching:
            return
        bucket = self._bucket_of[id(parameter)]
        if bucket < len(self._sent):
            raise RuntimeError(
                "a gradient changed after it was sent to the other ranks: a backward of the network has to reach each "
                "parameter once (with torch.utils.checkpoint by use_reentrant=False)"
            )
        self._missing[bucket].discard(id(parameter))
        while len(self._sent) < len(self.buckets) and not self._missing[len(self._sent)]:
            self._send()

    def _send(self) -> None:
        bucket = self.buckets[len(self._sent)]
        for parameter in bucket:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.reshape(-1) for parameter in bucket if parameter.grad is not None])
        work = dist.all_reduce(flat, async_op=True)
        assert work is not None
        self._sent.append((flat, work))

    def finish(self) -> None:
        """The means are in the parameters' gradients; on a GPU in its stream, without waiting for it."""
        if not self._watching:
            self.start()
        self._watching = False
        while len(self._sent) < len(self.buckets):
            self._send()
        for bucket, (flat, work) in zip(self.buckets, self._sent, strict=True):
            work.wait()
            flat /= self.ranks
            for parameter, mean in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                assert parameter.grad is not None
                parameter.grad.copy_(mean.view(parameter.shape))
        self._sent = []


def cut(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """In their order into buckets of one dtype and at most `BUCKET` bytes, or one parameter."""
    buckets: list[list[nn.Parameter]] = []
    size = 0
    for parameter in parameters:
        if not buckets or size + parameter.nbytes > BUCKET or parameter.dtype != buckets[-1][0].dtype:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += parameter.nbytes
    return buckets
