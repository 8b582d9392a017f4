"""Every op of logits and images on drawn shapes, strides, dtypes and labels; every op from several Python threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sure_fast
from sure_fast.losses.schedule import total_of_terms
from tests._tolerances import tolerance

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@st.composite
def batches(draw):
    """Logits, labels and an image of one batch: sizes from 1, any memory layout, voxels without a label."""
    dims = draw(st.integers(2, 3))
    size = [draw(st.integers(1, 40 if dims == 2 else 11)) for _ in range(dims)]
    n, classes = draw(st.integers(1, 3)), draw(st.integers(2, 5))
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([0.1, 3.0, 30.0]))
    wide = torch.randn((n, classes + 1, *size, 2), generator=generator, dtype=torch.float64) * scale
    layout = draw(st.sampled_from(["contiguous", "channels_last", "channel slice", "every other", "transposed"]))
    if layout == "channel slice":
        logits = wide.to(dtype)[..., 0].contiguous()[:, 1:]
    elif layout == "every other":
        logits = wide.to(dtype)[:, 1:, ..., 0]
    else:
        logits = wide[:, 1:, ..., 0].to(dtype).contiguous()
        if layout == "channels_last":
            kind = torch.channels_last if dims == 2 else torch.channels_last_3d
            logits = logits.to(memory_format=kind)
        if layout == "transposed":
            logits = logits.transpose(-1, -2).contiguous().transpose(-1, -2)
    label = torch.randint(0, classes, (n, *size), generator=generator)
    label = label.to(draw(st.sampled_from([torch.int64, torch.int32, torch.uint8])))
    ignore = draw(st.sampled_from([None, 200, classes - 1]))
    if ignore == 200:
        label[torch.rand(label.shape, generator=generator) < 0.3] = ignore
    return logits, label, ignore


def agree(got, want, dtype, what=""):
    assert got.dtype == dtype
    scale = want.abs().amax().clamp(1e-3) if want.numel() else 1.0
    torch.testing.assert_close(got.double() / scale, want / scale, **tolerance(dtype, what))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(batches(), st.sampled_from(["digamma", "log", "mse"]))
def test_evidential_loss(batch, kind):
    logits, label, ignore = batch
    leaf, exact = logits.detach().requires_grad_(), logits.double().requires_grad_()
    options = {"kind": kind, "ignore_index": ignore}
    got = sure_fast.evidential_loss(leaf, label, backend="cpu", **options)
    want = sure_fast.evidential_loss(exact, label, backend="reference", **options)
    compute = torch.float64 if logits.dtype == torch.float64 else torch.float32
    for name in ("data", "kl", "dice"):
        torch.testing.assert_close(
            getattr(got, name).double(), getattr(want, name), **tolerance(compute, "evidential_loss.voxels")
        )
    # means of many voxels would vanish in half precision
    number = label.numel()
    gradient, exact_gradient = (
        torch.autograd.grad(total_of_terms(*out[:3], epoch=9) * number, z)[0] for out, z in ((got, leaf), (want, exact))
    )
    agree(gradient, exact_gradient, logits.dtype, "evidential_loss.gradient")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(batches(), st.sampled_from(["softplus", "relu", "exp"]))
def test_dirichlet_uncertainty(batch, evidence):
    logits = batch[0]
    leaf, exact = logits.detach().requires_grad_(), logits.double().requires_grad_()
    got = sure_fast.dirichlet_uncertainty(leaf, evidence=evidence, backend="cpu")
    want = sure_fast.dirichlet_uncertainty(exact, evidence=evidence, backend="reference")
    agree(got.detach(), want.detach(), logits.dtype)
    agree(torch.autograd.grad(got.sum(), leaf)[0], torch.autograd.grad(want.sum(), exact)[0], logits.dtype)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(batches(), st.sampled_from(["sobel", "central"]))
def test_gradient_magnitude(batch, operator):
    image = batch[0][:, :1]
    got = sure_fast.gradient_magnitude(image, operator=operator, backend="cpu")
    agree(got, sure_fast.gradient_magnitude(image.double(), operator=operator, backend="reference"), image.dtype)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(batches())
def test_segmentation_stats(batch):
    logits, label, ignore = batch
    got = sure_fast.segmentation_stats(logits, label, ignore_index=ignore, backend="cpu")
    want = sure_fast.segmentation_stats(logits.float(), label, ignore_index=ignore, backend="reference")
    assert torch.equal(got.confusion.sum(), want.confusion.sum())
    for field in ("number", "uncertainty"):
        assert torch.equal(getattr(got, field).sum(-1), getattr(want, field).sum(-1))
    total = want.number.sum(-1).double()
    # a probability is rounded to 2^-30 and to float32
    assert bool(((got.confidence.sum(-1) - want.confidence.sum(-1)).abs() <= 1e-6 * total).all())
    # of float64 logits every bin is the same
    exact = sure_fast.segmentation_stats(logits.double(), label, ignore_index=ignore, backend="cpu")
    want = sure_fast.segmentation_stats(logits.double(), label, ignore_index=ignore, backend="reference")
    for field in ("confusion", "number", "hits", "uncertainty", "errors"):
        assert torch.equal(getattr(exact, field), getattr(want, field)), field


@settings(max_examples=40, deadline=None, derandomize=True)
@given(batches())
def test_noise_uncertainty_loss(batch):
    logits, label, ignore = batch
    d = sure_fast.boundary_distance(label, ignore_index=ignore)
    n, *size = label.shape
    generator = torch.Generator().manual_seed(0)
    centers = torch.stack([torch.randint(0, s, (n, 4), generator=generator) for s in size], -1)
    levels = torch.tensor([0.2, 0.9])
    # which centers and pairs violate an order is a rounding away where u saturates: all terms in float64, far in any
    for dtype, weights in ((torch.float64, {}), (logits.dtype, {"order_weight": 0.0, "distance_weight": 0.0})):
        leaves = [(logits.to(dtype) * s).detach().requires_grad_() for s in (1.0, 0.5, -1.0)]
        exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
        got = sure_fast.noise_uncertainty_loss(*leaves, d, centers, levels, backend="cpu", **weights).total
        want = sure_fast.noise_uncertainty_loss(*exact, d, centers, levels, backend="reference", **weights).total
        compute = torch.float64 if dtype == torch.float64 else torch.float32
        torch.testing.assert_close(got.double(), want, **tolerance(compute))
        gradients = torch.autograd.grad(got * label.numel(), leaves)
        for gradient, wanted in zip(gradients, torch.autograd.grad(want * label.numel(), exact), strict=True):
            agree(gradient, wanted, dtype)


def calls():
    """One call of every op, by name; large enough for two threads."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 70, 90, generator=generator)
    noisy, image = torch.randn(6, 4, 70, 90, generator=generator), torch.randn(3, 1, 70, 90, generator=generator)
    label = (torch.arange(90) // 23).expand(3, 70, 90).contiguous()
    label[:, 20:40, 30:60] = 3
    d, u, g = sure_fast.boundary_distance(label), *torch.rand(2, 3, 1, 70, 90, generator=generator)
    noise = {"centers": torch.full((3, 2, 2), 30), "levels": torch.tensor([0.2, 0.7])}

    def patches():
        seeded = torch.Generator().manual_seed(1)
        return sure_fast.sample_hard_patches(u, g, label, d, num_classes=4, generator=seeded)[:2]

    return {
        "add_noise_patches": lambda: sure_fast.add_noise_patches(
            image, noise["centers"][:, :1], None, torch.ones(2, 7, 7)
        ),
        "boundary_distance": lambda: sure_fast.boundary_distance(label),
        "dense_noise_uncertainty_loss": lambda: sure_fast.dense_noise_uncertainty_loss(u, g, u * g, d, noise["levels"]),
        "dirichlet_uncertainty": lambda: sure_fast.dirichlet_uncertainty(logits),
        "evidential_loss": lambda: sure_fast.evidential_loss(logits, label)[:3],
        "gradient_magnitude": lambda: sure_fast.gradient_magnitude(image),
        "gradient_uncertainty_loss": lambda: sure_fast.gradient_uncertainty_loss(u, g, d),
        "noise_uncertainty_loss": lambda: sure_fast.noise_uncertainty_loss(
            logits, *noisy.chunk(2), d, noise["centers"], noise["levels"]
        ),
        "pair_concordance": lambda: sure_fast.pair_concordance(u.flatten(), g.flatten()),
        "sample_hard_patches": patches,
        "segmentation_stats": lambda: sure_fast.segmentation_stats(logits, label),
        "spearman": lambda: sure_fast.spearman(u.flatten(1), g.flatten(1)),
        "surface_distances": lambda: sure_fast.surface_distances(logits.argmax(1), label, 4),
        "uncertainty_supervision": lambda: sure_fast.uncertainty_supervision(
            logits, label, image, noisy_logits=noisy, **noise
        ),
    }


def tensors(result):
    return [result] if isinstance(result, torch.Tensor) else [t for t in result if t is not None]


def test_every_op_is_called():
    assert set(calls()) == set(sure_fast._backends.registered())


@pytest.mark.parametrize("op", sorted(sure_fast._backends.registered()))
def test_concurrent_calls_agree_with_serial_ones(op, threads):
    call = calls()[op]
    threads(2)
    want = tensors(call())
    threads(1)
    runs = [call()]
    threads(2)
    with ThreadPoolExecutor(4) as pool:
        runs += [f.result() for f in [pool.submit(call) for _ in range(12)]]
    for run in runs:
        for got, wanted in zip(tensors(run), want, strict=True):
            assert torch.equal(got.nan_to_num(-7.0), wanted.nan_to_num(-7.0))
