"""What the Triton kernels do across the tiles of a program, and with more classes than they keep."""

from __future__ import annotations

import math

import pytest
import torch
from triton.runtime.interpreter import InterpreterBuilder

import sure_fast
from sure_fast.ops import _triton
from tests._tolerances import tolerance

if _triton.MISSING is not None:
    pytest.skip(_triton.MISSING, allow_module_level=True)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).mul(3).to(DEVICE)


@pytest.mark.parametrize("classes", [4, 6, 9])
@pytest.mark.parametrize("evidence", ["softplus", "exp"])
def test_evidential_loss_of_several_tiles(classes, evidence):
    from sure_fast.kernels.evidential_loss import PROGRAM

    z = logits(2, classes, 3, PROGRAM // 2 + 37)
    y = torch.randint(0, classes, z[:, 0].shape, device=DEVICE)
    y[:, 0, ::5] = 255
    found = {}
    for backend, dtype in (("triton", torch.float32), ("reference", torch.float64)):
        leaf = z.to(dtype).requires_grad_()
        out = sure_fast.evidential_loss(
            leaf, y, evidence=evidence, ignore_index=255, class_weights=[1.0 + c for c in range(classes)],
            return_uncertainty=True, backend=backend,
        )  # fmt: skip
        total = out.data + out.kl + out.dice + out.uncertainty.mean()
        found[backend] = (out.data, out.kl, out.dice, out.uncertainty, *torch.autograd.grad(total, leaf))
    *terms, gradient = zip(found["triton"], found["reference"], strict=True)
    for got, want in terms:
        torch.testing.assert_close(got.double(), want.double(), **tolerance(torch.float32))
    got, want = gradient
    scale = want.abs().max()
    bounds = tolerance(torch.float32, "evidential_loss.gradient")
    torch.testing.assert_close(got.double() / scale, want.double() / scale, **bounds)


@pytest.mark.parametrize("size", [(3, 37, 130), (70, 65)])
def test_centers_beyond_the_map_find_the_nearest_boundary(size):
    from sure_fast.kernels.noise_uncertainty_loss import Arguments, center_values

    label = torch.zeros(3, *size, dtype=torch.int64)
    label[0, ..., -1], label[1, ..., 0, 0] = 1, 1  # of the last image there is no boundary
    exact = sure_fast.boundary_distance(label[:, None] if len(size) == 3 else label, backend="reference")
    squared = torch.where(exact <= 4, exact.square().round(), 255).to(torch.uint8)
    centers = torch.stack([torch.randint(0, n, (3, 5), generator=torch.Generator().manual_seed(n)) for n in size], -1)
    valid = torch.ones(3, 5, dtype=torch.bool)
    valid[0, 1] = False
    z = logits(3, 2, *size)
    arguments = Arguments(
        (z, z, z), centers.to(DEVICE), torch.zeros(2), valid.to(DEVICE), 4.0, "exp", squared=squared.to(DEVICE)
    )
    found = center_values(arguments)[3].view(3, 5).cpu()
    wanted = torch.stack([exact[n][tuple(centers[n].T)] for n in range(3)]).double()
    wanted[0, 1] = math.nan
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0, equal_nan=True)
    assert wanted.isfinite().any()
    assert found[2].isinf().all()


@pytest.mark.parametrize("length", [1024, 1027])
def test_what_is_loaded_with_a_far_neighbour_is_not_summed(length):
    """A logit that is no number beside a far voxel is loaded with it."""
    z = logits(1, 3, 1, length)
    distance = torch.full((1, 1, length), 9.0, device=DEVICE)
    distance[..., ::3] = 1.0
    z[..., ::3] = math.nan
    leaf = z.clone().requires_grad_()
    centers = torch.tensor([[[0, 1]]], device=DEVICE)
    out = sure_fast.noise_uncertainty_loss(
        leaf, leaf, leaf, distance, centers, torch.tensor([0.2, 0.4], device=DEVICE), threshold=4.0, backend="triton"
    )
    (gradient,) = torch.autograd.grad(out.far, leaf)
    known = z[0, :, 0, distance[0, 0] > 4].double()
    wanted = 3 * (3 / (1 + known.clamp(-10, 10).exp()).sum(0)).mean()
    torch.testing.assert_close(out.far.double(), wanted, **tolerance(torch.float32))
    assert gradient.isfinite().all()
    assert not gradient[..., ::3].any()


@pytest.mark.skipif(not _triton.INTERPRETED, reason="looks at the loads of the interpreter")
@pytest.mark.parametrize("size", [(2, 5), (3, 7), (1, 16)])
def test_nothing_is_loaded_beyond_the_logits(size, monkeypatch):
    """Of the last voxels too, whose group of four reaches out of the tensor."""
    memory = torch.zeros(3, 256)
    tensors = [part[: 3 * math.prod(size)].view(1, 3, *size).requires_grad_() for part in memory]
    beyond = [(z.data_ptr() + z.numel() * 4, part.data_ptr() + 1024) for z, part in zip(tensors, memory, strict=True)]
    load, loads = InterpreterBuilder.create_masked_load, []

    def looked_at(self, pointers, mask, *others):
        at = pointers.data[mask.data.astype(bool)]
        loads.append(len(at))
        assert not any(((first <= at) & (at < end)).any() for first, end in beyond)
        return load(self, pointers, mask, *others)

    monkeypatch.setattr(InterpreterBuilder, "create_masked_load", looked_at)
    out = sure_fast.noise_uncertainty_loss(
        *tensors, torch.full((1, *size), 9.0), torch.zeros(1, 1, 2, dtype=torch.long), torch.tensor([0.1, 0.5]),
        backend="triton",
    )  # fmt: skip
    torch.autograd.grad(out.far, tensors)
    assert sum(loads) > 0
