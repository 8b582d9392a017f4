"""How many kernels a call of the pair loss launches, and the scratch memory it asks for: both depend on sizes alone."""

from __future__ import annotations

import pytest
import torch

import sure_fast
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
        ((24, 128, 128), torch.float32, None, 50),
        ((24, 128, 128), torch.float64, None, 68),
        ((24, 128, 128), torch.float32, torch.uint8, 58),
        ((24, 128, 128), torch.float32, torch.int32, 62),
        ((24, 128, 128), torch.float32, torch.int64, 62),
        ((1, 100, 100, 100), torch.float32, None, 44),
        ((1, 100, 100, 100), torch.float64, None, 62),
        ((24, 64, 64), torch.float32, None, 10),
    ],
)
def test_launches_of_the_pair_loss(shape, dtype, label, most, launches):
    assert launches(shape, dtype, label) <= most


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
