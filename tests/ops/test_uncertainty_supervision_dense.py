"""`uncertainty_supervision` with noise over whole images: every backend against the reference."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from tests.ops.backends import Backend, assert_same_bits, on
from tests.ops.inputs import strided
from tests.ops.test_uncertainty_supervision import _no_sorting_kernel, assert_like_but_for_pairs, case

__all__ = ["_no_sorting_kernel"]
REFERENCE = Backend("uncertainty_supervision", "reference")
LEVELS = torch.tensor([0.2, 0.9])
WEIGHTS = torch.tensor([2.0, 0.5, 3.0, 2.0, 4.0, 1.5, 0.7, 0.6, 0.4, 1.1], dtype=torch.float64)


def run(backend, z, label, image, noisy, **options):
    """Terms, and the gradients of a weighted sum of them; of as many noisy answers as clean ones those of one copy."""
    leaves = [backend.leaf(x) for x in (z, noisy)]
    given = {"levels": LEVELS[: len(noisy) // len(z)], "noisy_segmentation": True, "normalize": "band", **options}
    out = backend(leaves[0], label, image, noisy_logits=leaves[1], **given)
    return torch.stack(out).detach(), torch.autograd.grad(1024 * (torch.stack(out).double() * WEIGHTS).sum(), leaves)


def check(kernel, given, **options):
    z, label, image, noisy, _ = given
    terms, gradients = run(kernel, z, label, image, noisy, **options)
    want, wanted = run(REFERENCE, z.double(), label, image.double(), noisy.double(), **options)
    single = z.dtype in (torch.float32, torch.float64)
    close = {"rtol": 1e-5, "atol": 1e-5} if single else {"rtol": 0.01, "atol": 0.01}  # g of a half-precision image
    torch.testing.assert_close(terms.double(), want, **close)
    for got, exact, leaf in zip(gradients, wanted, (z, noisy), strict=True):
        assert got.dtype == leaf.dtype
        if got.dtype == torch.float32:
            assert_like_but_for_pairs(got, exact)
        else:
            kernel.agree(got, exact, "uncertainty_supervision.gradient", scaled=True)
    return terms


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("shape", [(2, 20, 23), (1, 9, 10, 11)], ids=str)
@pytest.mark.parametrize("ignore", [None, 255])
def test_every_dtype_agrees_with_the_reference(copies, shape, ignore, kernel, dtype):
    z, label, image, noisy, patches = case(shape, dtype=dtype, ignore=ignore)
    terms = check(kernel, (z, label, image, noisy[: copies * shape[0]], patches), ignore_index=ignore)
    assert bool((terms > 0).all()) or min(shape[1:]) < 13  # every term is at work


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "log", "evidence": "relu", "margin": 0.1},
        {"kind": "mse", "evidence": "softplus", "operator": "central", "spacing": (2.0, 0.7), "detach": True},
        {"class_weights": [0.1, 3.0, 0.5], "per_class": True, "normalize": None},
        {"pairs": "sampled", "num_pairs": 3001, "seed": 5, "with_distance": False},
        {"gradient_threshold": 2.5, "noise_threshold": 2.0, "channels": "mean"},
        {"noise_threshold": 20.0, "blur_sigma": 0.8},
        {"noisy_segmentation": False},
    ],
    ids=str,
)
def test_options(options, kernel):
    channels = 3 if "channels" in options else 1
    given = case((2, 20, 21), channels=channels, dtype=kernel.widest)
    check(kernel, (*given[:3], given[3][:2], given[4]), **options)
    terms = check(kernel, given, **options)
    assert (terms[5] > 0) == options.get("with_distance", True)
    assert bool((terms[7:] > 0).all()) == options.get("noisy_segmentation", True)


def test_strides_and_threads_change_nothing(variant):
    z, label, image, noisy, _ = case((1, 12, 13, 14))
    turned = [strided(x, "channels_last") for x in (z, image, noisy)]
    plain = run(variant, z, label, image, noisy)
    assert_same_bits([plain, run(variant, turned[0], label.mT.contiguous().mT, *turned[1:])])
    assert_same_bits(run(variant, z, label, image, noisy) for _ in variant.ways())


def test_without_an_image_boundary_or_batch(kernel):
    z, label, image, noisy, _ = case((2, 12, 13))
    terms, _ = run(kernel, z, label, None, noisy)
    assert terms[3] == 0
    terms, _ = run(kernel, z, label * 0, image, noisy)
    assert terms[3] == terms[4] == terms[5] == 0  # no boundary: nothing is near
    mean = sum(float(sure_fast.dirichlet_uncertainty(x).mean()) for x in (z, *noisy.chunk(2)))
    assert terms[6].item() == pytest.approx(mean, rel=1e-5)
    empty = kernel(z[:0], label[:0], image[:0], noisy_logits=noisy[:0], levels=LEVELS, noisy_segmentation=True)
    assert [float(v) for v in empty] == [0] * 10
    empty = kernel(z[:0], label[:0], image[:0], noisy_logits=noisy[:0], levels=LEVELS[:1], noisy_segmentation=True)
    assert [float(v) for v in empty] == [0] * 10
    with pytest.raises(ValueError, match=r"noisy_logits: expected \[2, 3, 12, 13\], got \[4, 3, 12, 13\]"):
        kernel(z, label, image, noisy_logits=noisy, levels=LEVELS[:1])


@on("triton")
@pytest.mark.usefixtures("_no_sorting_kernel")
@pytest.mark.parametrize("copies", [1, 2])
def test_without_a_sorting_kernel_the_rest_stays_in_triton(copies, kernel):
    *given, noisy, patches = case((2, 20, 23))
    with pytest.warns(UserWarning, match="gradient_uncertainty_loss runs its plain PyTorch reference .*nothing sorts"):
        terms = check(kernel, (*given, noisy[: 2 * copies], patches))
    assert bool((terms > 0).all())


@on("cpu")
def test_halves_are_not_rounded_on_the_way(kernel):
    """u of half-precision logits stays float32: rounded to bfloat16 it would tie pairs, whose slopes would be lost."""
    z, label, image, noisy, _ = case((2, 30, 33), dtype=torch.bfloat16)
    got, _ = run(kernel, z, label, image, noisy)
    want, _ = run(kernel, z.float(), label, image, noisy.float())
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
