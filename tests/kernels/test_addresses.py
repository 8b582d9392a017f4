"""Whether the check of addresses sees a kernel that leaves its arguments."""

from __future__ import annotations

import pytest
import torch

from sure_fast.ops import _triton

if _triton.MISSING is not None or not _triton.INTERPRETED:
    pytest.skip("addresses are those of interpreted kernels", allow_module_level=True)

import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError


@triton.jit
def _copy(x, out, first, size, LANES: tl.constexpr):
    lane = tl.arange(0, LANES)
    tl.store(out + lane, tl.load(x + first + lane, mask=lane < size), mask=lane < size)


@triton.jit
def _count(out, size, LANES: tl.constexpr):
    lane = tl.arange(0, LANES)
    tl.atomic_add(out + lane, tl.full([LANES], 1, tl.int64), mask=lane < size, sem="relaxed")


def copied(x, out, first, size):
    _copy[(1,)](x, out, first, size, 16)
    return out.tolist()


def test_what_is_inside_passes():
    wide = torch.arange(20.0)
    assert copied(wide, torch.zeros(16), 4, 16) == wide[4:].tolist()
    assert copied(wide[5:9], torch.zeros(4), 0, 4) == [5, 6, 7, 8]
    assert copied(wide[:0], torch.zeros(1), 0, 0) == [0]


@pytest.mark.parametrize(
    ("x", "out", "first", "size"),
    [
        (torch.zeros(7), torch.zeros(8), 0, 8),
        (torch.zeros(8), torch.zeros(7), 0, 8),
        (torch.zeros(8), torch.zeros(8), -1, 8),
        (torch.zeros(1).expand(3), torch.zeros(3), 0, 3),
        (torch.zeros(8)[2:5], torch.zeros(4), 0, 4),
        (torch.zeros(0), torch.zeros(1), 0, 1),
    ],
    ids=["a load behind", "a store behind", "a load before", "an expanded number", "behind a slice", "of nothing"],
)
def test_what_is_outside_raises(x, out, first, size):
    with pytest.raises(InterpreterError, match="outside of the kernel's arguments"):
        copied(x, out, first, size)


def test_atomic_operations_are_seen():
    counts = torch.zeros(9, dtype=torch.int64)
    _count[(1,)](counts, 9, 16)
    assert counts.tolist() == [1] * 9
    with pytest.raises(InterpreterError, match="4 atomic operations outside"):
        _count[(1,)](counts[:5], 9, 16)
