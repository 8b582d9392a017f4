"""How time and memory grow: the supervision of one training step with the volume, L_gu with its boundary voxels."""

from __future__ import annotations

import pytest
import torch

from benchmarks.bench_gradient_uncertainty_loss import IMPLEMENTATIONS, case
from benchmarks.bench_uncertainty_supervision import Batch, ours
from benchmarks.common import row

EDGES = (32, 64, 96, 128, 192, 256)
VOXELS = (10**3, 10**4, 10**5, 10**6, 10**7)
# where a baseline stops: beyond, it takes minutes or more memory than there is
LARGEST_EDGE = {"eager reference": 128}
LARGEST_PAIRS = {"eager reference": 10**6, "n × n matrix": 10**4, "10⁷ sampled pairs an image, sure_fast": 10**7}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("name", ["sure_fast", *LARGEST_EDGE])
def test_training_step(benchmark, name, edge):
    if edge > LARGEST_EDGE.get(name, edge):
        pytest.skip("too large for this baseline")
    batch = Batch((1, 1, edge, edge, edge), 3, copies=2)
    expected = ours(batch, "reference")() if edge <= LARGEST_EDGE["eager reference"] else None
    step = ours(batch, None if name == "sure_fast" else "reference")
    benchmark.extra_info["size"] = edge**3
    rounds = "once" if name != "sure_fast" or edge > 192 else "slow"
    row(benchmark, "scaling: training step, 3 classes", name, step, expected, rtol=1e-3, atol=1e-6, rounds=rounds)


@pytest.mark.parametrize("voxels", VOXELS)
@pytest.mark.parametrize("name", ["sure_fast", *LARGEST_PAIRS])
def test_pairs(benchmark, name, voxels):
    if voxels > LARGEST_PAIRS.get(name, voxels):
        pytest.skip("too large for this baseline")
    u, g, d = case(1, voxels)

    def step():
        loss = IMPLEMENTATIONS[name](u, g, d)
        torch.autograd.grad(loss, u)
        return loss.detach()

    benchmark.extra_info["size"] = voxels
    expected = IMPLEMENTATIONS["sure_fast"](u, g, d).detach()
    rtol = 0.02 if "sampled" in name else 1e-3  # sampled pairs give an estimate
    rounds = "slow" if voxels < 10**6 and name == "sure_fast" else "once"
    row(
        benchmark,
        "scaling: gradient_uncertainty_loss forward + backward",
        name,
        step,
        expected,
        rtol=rtol,
        rounds=rounds,
    )
