"""How many kernels a call that sorts pairs launches, and the scratch memory it asks for: both depend on sizes alone."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks.gpu import launches as steps
from sure_fast.ops import _triton
from sure_fast.ops import gradient_uncertainty_loss as op


@pytest.fixture
def launches(emulation):
    """Of a call, without running what it launches."""

    def count(shape, dtype=torch.float32, label=None):
        u, g = torch.zeros(2, *shape, dtype=dtype)
        labels = None if label is None else torch.zeros(shape, dtype=label)
        emulation.count_launches(True)
        sure_fast.gradient_uncertainty_loss(u, g, torch.zeros(shape), label=labels, backend="cuda")
        return emulation.launches()

    return count


@pytest.mark.parametrize(
    ("shape", "dtype", "label", "most"),
    [
        ((24, 128, 128), torch.float32, None, 17),
        ((24, 128, 128), torch.float64, None, 17),
        ((24, 128, 128), torch.float32, torch.uint8, 19),
        ((24, 128, 128), torch.float32, torch.int32, 20),
        ((24, 128, 128), torch.float32, torch.int64, 20),
        ((1, 100, 100, 100), torch.float32, None, 15),
        ((1, 100, 100, 100), torch.float64, None, 15),
        ((24, 64, 64), torch.float32, None, 10),
    ],
)
def test_launches_of_the_pair_loss(shape, dtype, label, most, launches):
    assert launches(shape, dtype, label) <= most


@pytest.mark.parametrize(("op", "most"), [(sure_fast.pair_concordance, 12), (sure_fast.spearman, 9)])
def test_launches_of_rankings(op, most, emulation):
    a, b = torch.zeros(2, 1, 1_000_000)
    emulation.count_launches(True)
    op(a, b, backend="cuda")
    assert emulation.launches() <= most


@pytest.mark.skipif(_triton.MISSING is not None, reason=str(_triton.MISSING))
@pytest.mark.parametrize(("form", "most"), [("default", 85), ("a copy of every image", 77)])
def test_launches_of_a_whole_step(form, most, launches):
    """Of two images of 128 voxels an edge: those of torch and Triton do not depend on the size."""
    step = steps.step(form)
    pairs = launches((2, 128, 128, 128))
    assert step.of(steps.TORCH, steps.TRITON) + pairs * step.of(steps.LIBRARY) <= most


@pytest.mark.parametrize(
    ("dtype", "label", "most"),
    [(torch.float32, None, 37), (torch.float64, None, 45), (torch.float32, torch.int64, 37)],
)
def test_scratch_of_the_pair_loss(dtype, label, most, emulation):
    n = 1_000_000
    u, d = torch.zeros(1, n, dtype=dtype), torch.zeros(1, n)
    labels = None if label is None else torch.zeros(1, n, dtype=label)
    args = emulation.PairArgs(
        u, u, d, labels, threshold=1.0, num_pairs=0, seed=0, normalize=False, compared=op.COMPARED
    )
    assert emulation.gradient_uncertainty_workspace(args, emulation.Stream(0, 132)) / n < most
