"""gradient_uncertainty_loss, forward + backward: every pair by sorting, sampled pairs, and the n × n matrix."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks.common import row


def case(images: int, voxels: int):
    generator = torch.Generator().manual_seed(0)
    u, g = (torch.rand(images, 1, voxels, generator=generator) for _ in range(2))
    return u.requires_grad_(), g, torch.zeros(images, 1, voxels)


def exact(u, g, d):
    return sure_fast.gradient_uncertainty_loss(u, g, d)


def reference(u, g, d):
    return sure_fast.gradient_uncertainty_loss(u, g, d, backend="reference")


def sampled(backend, num_pairs):
    def loss(u, g, d):
        return sure_fast.gradient_uncertainty_loss(u, g, d, pairs="sampled", num_pairs=num_pairs, backend=backend)

    return loss


def matrix(u, g, d):
    losses = []
    for x, y in zip(u[:, 0], g[:, 0], strict=True):
        v = (y[:, None] - y) * (x[:, None] - x)
        losses.append(v.relu().sum() / (v > 0).sum())
    return torch.stack(losses).mean()


IMPLEMENTATIONS = {
    "sure_fast": exact,
    "eager reference": reference,
    "n × n matrix": matrix,
    "10⁷ sampled pairs an image, sure_fast": sampled("cpu", 10**7),
    "10⁷ sampled pairs an image, PyTorch": sampled("reference", 10**7),
}


@pytest.mark.parametrize(("images", "voxels"), [(2, 6000), (1, 1_000_000)])
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_gradient_uncertainty_loss(benchmark, name, images, voxels):
    if voxels > 10_000 and name != "sure_fast":
        pytest.skip("only the kernel is timed at this size")
    u, g, d = case(images, voxels)

    def step():
        loss = IMPLEMENTATIONS[name](u, g, d)
        return loss.detach(), torch.autograd.grad(loss, u)[0]

    group = f"gradient_uncertainty_loss forward + backward, {images} × {voxels} boundary voxels"
    if name == "sure_fast" and voxels > 10_000:
        return row(benchmark, group, name, step, step(), rounds="slow")
    loss = matrix(u.double(), g.double(), d)
    expected = loss.detach().float(), torch.autograd.grad(loss, u)[0]
    if "sampled" in name:  # an estimate: its value within the sampling error, its gradient too noisy to compare
        return row(benchmark, group, name, lambda: step()[0], expected[0], rtol=0.02, rounds="slow")
    return row(benchmark, group, name, step, expected, rtol=1e-3, atol=1e-8, rounds="slow")
