"""One loss over the batches of all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

_group: dist.ProcessGroup | None = None


@contextmanager
def across_ranks(group: dist.ProcessGroup | None = None) -> Iterator[None]:
    """Within the block the evidential terms are those of the batch of all ranks together, the same on each.

    Their sums over voxels are added up across the ranks, a few numbers per call. With gradients averaged over the
    ranks, as DistributedDataParallel does, the evidential part of a step is that of one process with the whole batch,
    Dice over the batch and ignored voxels included. Every rank must compute the same losses in the same order.
    Applies to the whole process.

    Args:
        group: of torch.distributed; None: all ranks.

    Raises:
        RuntimeError: torch.distributed is not initialised.
    """
    global _group
    if not dist.is_initialized():
        raise RuntimeError("across_ranks: torch.distributed is not initialised")
    before = _group
    _group = dist.group.WORLD if group is None else group
    try:
        yield
    finally:
        _group = before


def number_of_ranks() -> int:
    """Of torch.distributed; 1 without it."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_across_ranks() -> bool:
    """Whether sums are added up over ranks."""
    return _group is not None


def summed(sums: Tensor) -> Tensor:
    """`sums` added up over the ranks within `across_ranks`, else as they are."""
    return sums if _group is None else _AllReduce.apply(sums, _group)


class _AllReduce(torch.autograd.Function):
    """Every rank's loss depends on every rank's summand, so the gradients are added up as well."""

    @staticmethod
    def forward(ctx, sums: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        total = sums.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total, None
