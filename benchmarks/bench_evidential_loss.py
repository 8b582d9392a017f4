"""evidential_loss, forward + backward: fused, the eager reference, and torch.compile of the reference."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks.common import row

SHAPES = [(24, 4, 128, 128), (2, 4, 96, 96, 96)]


def case(shape):
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(shape, generator=generator) * 3).requires_grad_()
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


def step(loss, logits, target):
    logits.grad = None
    out = loss(logits, target)
    out.backward()
    return out.detach(), logits.grad


def reference(logits, target):
    return sure_fast.EvidentialLoss(evidence="softplus", backend="reference")(logits, target, epoch=5).total


IMPLEMENTATIONS = {
    "sure_fast": lambda: lambda z, y: sure_fast.EvidentialLoss(evidence="softplus")(z, y, epoch=5).total,
    "eager reference": lambda: reference,
    "torch.compile(reference)": lambda: torch.compile(reference),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_evidential_loss(benchmark, name, shape):
    logits, target = case(shape)
    expected = step(reference, logits.double().detach().requires_grad_(), target)
    expected = (expected[0].float(), expected[1].float())
    loss = IMPLEMENTATIONS[name]()
    row(
        benchmark,
        f"evidential_loss forward + backward {list(shape)}",
        name,
        lambda: step(loss, logits, target),
        expected,
        rtol=1e-3,
        atol=1e-8,
    )
