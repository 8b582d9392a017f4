"""A training step launches few kernels on a GPU, counted on the meta device."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu import launches
from sure_fast.ops import _triton

MOST = {
    "default": 51,
    "a copy of every image": 43,
    "two copies of every image": 59,
    "paper": 36,
    "paper, no mining": 32,
}
"""Launches of torch and Triton in a step. More is for a reason that is told beside the number; fewer is put here."""
CALLS = {"default": 2, "a copy of every image": 2, "two copies of every image": 3, "paper": 3, "paper, no mining": 3}
"""Calls of the CUDA library, which launches several kernels in each."""


@pytest.mark.skipif(_triton.MISSING is not None, reason=str(_triton.MISSING))
@pytest.mark.parametrize("form", launches.FORMS)
def test_a_step_launches_no_more_than_it_did(form):
    counted = launches.step(form)
    table = "\n".join(launches.table(counted, 2))
    assert counted.of(launches.TORCH, launches.TRITON) <= MOST[form], table
    assert counted.of(launches.LIBRARY) == CALLS[form], table


def test_what_is_counted():
    with launches.counted() as counted:
        x = torch.empty(4, 4, device=launches.META, requires_grad=True)
        y = (2 * x[0]).unsqueeze(0).sum()
        assert counted.of(launches.TORCH) == 2
        torch.ones(2) + 1  # on the CPU
        torch.empty(0, device=launches.META) + 1
        assert counted.of(launches.TORCH) == 2
        y.backward()  # of ones, times two, and a row of zeros to which it is copied
    assert counted.of(launches.TORCH) >= 5
    assert any("backward" not in line for _, _, line in counted.counts)
