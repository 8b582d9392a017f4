"""Interpreted Triton kernels read and write the memory of their arguments alone: what a sanitizer tells on a GPU.

What lies between the elements of an argument, or in another argument, counts as inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import numpy as np
from torch import Tensor


class OutsideError(AssertionError):
    """A kernel would have read or written what is none of its arguments."""


class Memory:
    """The bytes from the first to the last element of each tensor of a launch."""

    def __init__(self, arguments: Sequence[object]) -> None:
        tensors = [t for t in arguments if isinstance(t, Tensor) and t.numel()]
        first = np.array([t.data_ptr() for t in tensors], np.int64)
        end = first + [
            (sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) + 1) * t.itemsize for t in tensors
        ]
        order = np.argsort(first, kind="stable")
        self.first, self.end = first[order], np.maximum.accumulate(end[order])

    def check(self, what: str, pointers, mask) -> None:
        width = -(-pointers.get_element_ty().primitive_bitwidth // 8)
        used = pointers.data[np.broadcast_to(mask.data, pointers.data.shape).astype(bool)].astype(np.int64)
        if not used.size:
            return
        argument = np.searchsorted(self.first, used, "right") - 1
        outside = (argument < 0) | (used + width > self.end[argument])
        if outside.any():
            raise OutsideError(f"{np.count_nonzero(outside)} {what} outside of the kernel's arguments")


@contextmanager
def checked() -> Iterator[None]:
    """Within the block a launch raises where its kernel leaves its arguments."""
    from triton.runtime.interpreter import GridExecutor, InterpreterBuilder

    memory: list[Memory] = []
    prepare, load = GridExecutor._init_args_hst, InterpreterBuilder.create_masked_load
    store, atomic = InterpreterBuilder.create_masked_store, InterpreterBuilder.create_atomic_rmw

    def prepared(self, *arguments):
        given, named = prepare(self, *arguments)
        memory[:] = [Memory([*given, *named.values()])]
        return given, named

    def checked_load(self, pointers, mask, *others):
        memory[0].check("loads", pointers, mask)
        return load(self, pointers, mask, *others)

    def checked_store(self, pointers, value, mask, *others):
        memory[0].check("stores", pointers, mask)
        return store(self, pointers, value, mask, *others)

    def checked_atomic(self, operation, pointers, value, mask, *others):
        memory[0].check("atomic operations", pointers, mask)
        return atomic(self, operation, pointers, value, mask, *others)

    with (
        mock.patch.object(GridExecutor, "_init_args_hst", prepared),
        mock.patch.object(InterpreterBuilder, "create_masked_load", checked_load),
        mock.patch.object(InterpreterBuilder, "create_masked_store", checked_store),
        mock.patch.object(InterpreterBuilder, "create_atomic_rmw", checked_atomic),
    ):
        yield
