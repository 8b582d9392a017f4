from __future__ import annotations

import math
import warnings

import pytest
import torch

import sure_fast
from sure_fast.ops.uncertainty_supervision import _op
from tests._tolerances import tolerance

BACKENDS = ("cpu", "reference")


def case(shape=(2, 30, 33), classes=3, channels=1, dtype=torch.float32, ignore=None, seed=0):
    """Blobs with voxels near and far from a boundary; centers near, far, and not valid."""
    generator = torch.Generator().manual_seed(seed)
    n, *size = shape
    label = torch.zeros(shape, dtype=torch.long)
    label[:, 2 : size[0] // 2, 1 : size[1] // 3] = 1
    label[0, size[0] // 4 : size[0] // 3] = classes - 1
    if ignore is not None:
        label[torch.rand(shape, generator=generator) < 0.1] = ignore
    z = torch.randn((n, classes, *size), generator=generator, dtype=torch.float64).to(dtype)
    noisy = torch.randn((2 * n, classes, *size), generator=generator, dtype=torch.float64).to(dtype)
    image = torch.randn((n, channels, *size), generator=generator).to(dtype)
    noise = {
        "centers": torch.stack([torch.randint(0, s, (n, 7), generator=generator) for s in size], -1),
        "levels": torch.tensor([0.9, 0.2]),
        "valid": torch.rand((n, 7), generator=generator) < 0.8,
    }
    return z.requires_grad_(), label, image, noisy.requires_grad_(), noise


def run(z, label, image, noisy, noise, **options):
    """Terms, and the gradients of a weighted sum of them."""
    out = sure_fast.uncertainty_supervision(z, label, image, noisy_logits=noisy, **noise, **options)
    weights = torch.tensor([2.0, 0.5, 3.0, 20.0, 4.0, 1.5, 0.7], dtype=torch.float64)
    total = (torch.stack(out).double() * weights).sum()
    return torch.stack(out).detach(), torch.autograd.grad(1024 * total, (z, noisy))


def agree(case, dtype=torch.float32, what="uncertainty_supervision.gradient", **options):
    z, label, image, noisy, noise = case
    terms, gradients = run(*case, backend="cpu", **options)
    wide = (z.detach().double().requires_grad_(), label, image.double(), noisy.detach().double().requires_grad_())
    want, wanted = run(*wide, noise, backend="reference", **options)
    compute = dtype if dtype == torch.float64 else torch.float32
    # g of a half-precision image is rounded to it, which turns pairs of nearly equal g around
    terms_tolerance = (
        tolerance(compute, "uncertainty_supervision")
        if dtype in (torch.float32, torch.float64)
        else {"rtol": 0.01, "atol": 0.01}
    )
    torch.testing.assert_close(terms.double(), want, **terms_tolerance)
    for got, exact, leaf in zip(gradients, wanted, (z, noisy), strict=True):
        assert got.dtype == leaf.dtype
        scale = exact.abs().max()
        torch.testing.assert_close(got.double() / scale, exact / scale, **tolerance(dtype, what))
    return terms


def test_class_weights():
    plain = agree(case(), class_weights=None)
    weighted = agree(case(), class_weights=[0.1, 3.0, 0.5])
    assert (plain[:3] != weighted[:3]).all()
    assert torch.equal(plain[3:], weighted[3:])


@pytest.mark.parametrize("shape", [(2, 30, 33), (3, 70, 65), (1, 14, 20, 22), (5, 8, 9)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("ignore", [None, 255])
def test_kernel_agrees_with_the_reference(shape, dtype, ignore):
    terms = agree(case(shape, dtype=dtype, ignore=ignore), dtype, ignore_index=ignore)
    if min(shape[1:]) > 13:
        assert bool((terms > 0).all())  # every term is at work


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "log", "evidence": "relu"},
        {"kind": "mse", "evidence": "exp"},
        {"operator": "central", "spacing": (2.0, 0.7)},
        {"blur_sigma": 0.8},
        {"per_class": True},
        {"pairs": "sampled", "num_pairs": 3001, "seed": 5},
        {"pairs": "sampled", "num_pairs": 3001, "per_class": True},
        {"gradient_threshold": 2.5, "noise_threshold": 2.0},
        {"gradient_threshold": 0.0, "noise_threshold": 9.0},
    ],
    ids=str,
)
def test_options(options):
    agree(case(dtype=torch.float64), torch.float64, **options)


@pytest.mark.parametrize("channels", ["luma", "mean", "max"])
def test_image_channels(channels):
    agree(case(dtype=torch.float64, channels=3), torch.float64, channels=channels)


def test_composition_of_the_public_ops():
    z, label, image, noisy, noise = case((2, 20, 21, 22))
    out = sure_fast.uncertainty_supervision(z, label, image, noisy_logits=noisy, **noise)
    evidential = sure_fast.evidential_loss(z, label)
    u, g = sure_fast.dirichlet_uncertainty(z), sure_fast.gradient_magnitude(image)
    d = sure_fast.boundary_distance(label)
    nu = sure_fast.noise_uncertainty_loss(
        z, *noisy.chunk(2), d, noise["centers"], noise["levels"], valid=noise["valid"]
    )
    want = (*evidential[:3], sure_fast.gradient_uncertainty_loss(u, g, d), *nu[1:])
    torch.testing.assert_close(tuple(out), want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("given", ["nothing", "image", "noise"])
def test_what_is_not_asked_for_is_zero(given):
    z, label, image, noisy, noise = case()
    arguments = {"noisy_logits": noisy, **noise} if given == "noise" else {}
    out = sure_fast.uncertainty_supervision(z, label, image if given == "image" else None, **arguments)
    evidential = sure_fast.evidential_loss(z, label)
    assert torch.equal(torch.stack(out[:3]), torch.stack(evidential[:3]))
    assert (out.gradient > 0) == (given == "image")
    assert (out.far > 0) == (out.order > 0) == (given == "noise")
    sum(out).backward()
    assert bool((z.grad != 0).all())
    assert (noisy.grad is not None) == (given == "noise")


@pytest.mark.parametrize("shape", [(2, 40, 41), (9, 20, 21), (1, 20, 21, 22)], ids=str)
def test_bits_do_not_depend_on_threads(shape, isa, threads):
    arguments = case(shape, classes=4)
    want = run(*arguments)
    for count in (1, 2, 5):
        threads(count)
        got = run(*arguments)
        assert torch.equal(got[0], want[0])
        assert all(torch.equal(a, b) for a, b in zip(got[1], want[1], strict=True))


def test_strides():
    z, label, image, noisy, noise = case((2, 12, 13, 14))
    want = run(z, label, image, noisy, noise)

    def last(x):
        return x.detach().movedim(1, -1).contiguous().movedim(-1, 1)

    got = run(last(z).requires_grad_(), label.mT.contiguous().mT, last(image), last(noisy).requires_grad_(), noise)
    assert torch.equal(got[0], want[0])
    assert all(torch.equal(a, b) for a, b in zip(got[1], want[1], strict=True))


def test_no_boundary_and_empty():
    z, label, image, noisy, noise = case()
    out = sure_fast.uncertainty_supervision(z, label * 0, image, noisy_logits=noisy, **noise)
    assert out.gradient == out.order == out.distance == 0
    mean = sum(float(sure_fast.dirichlet_uncertainty(x.detach()).mean()) for x in (z, noisy, noisy))
    assert out.far.item() == pytest.approx(mean, rel=1e-5)
    empty = sure_fast.uncertainty_supervision(z[:0], label[:0], image[:0], noisy_logits=noisy[:0], **{
        "centers": noise["centers"][:0], "levels": noise["levels"]})  # fmt: skip
    assert [float(v.detach()) for v in empty] == [0] * 7


def test_nan_stays_nan():
    z, label, image, noisy, noise = case()
    boundary = sure_fast.boundary_distance(label)[0].eq(0).nonzero()[0]
    spoiled = z.detach().clone()
    spoiled[0, :, boundary[0], boundary[1]] = math.nan
    out = sure_fast.uncertainty_supervision(spoiled, label, image, noisy_logits=noisy, **noise)
    assert out.data.isnan()
    assert out.gradient.isnan()
    assert sure_fast.uncertainty_supervision(z, label, image, noisy_logits=noisy * math.nan, **noise).far.isnan()


def test_operator_is_registered_properly_and_compiles_whole():
    z, label, image, noisy, noise = case((2, 14, 15))
    settings = (
        "digamma",
        "softplus",
        None,
        torch.ones(3, dtype=torch.float64),
        1.0,
        4.0,
        0,
        False,
        torch.tensor(0),
        "sobel",
        [1.0, 1.0],
        "luma",
        "cpu",
    )
    patches = (noise["centers"], noise["levels"], noise["valid"])
    for arguments in ((z, label, image, noisy, *patches), (z, label, None, None, None, None, None)):
        torch.library.opcheck(_op, (*arguments, *settings))
    loss = sure_fast.UncertaintySupervisedLoss(num_epochs=10, start_epoch=0)
    noise = sure_fast.NoisyImages(image, *(noise[k] for k in ("centers", "valid", "levels")))

    def step(z, label, image, noisy):
        return loss(z, label, image, epoch=5, noise=noise, noisy_logits=noisy).total

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    got, want = (torch.autograd.grad(f(z, label, image, noisy), (z, noisy)) for f in (compiled, step))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"image": torch.zeros(2, 1, 30, 34)}, ValueError, r"image: expected \[N, K, \*S\] to match logits"),
        ({"image": torch.zeros(2, 2, 30, 33)}, ValueError, 'channels: "luma" expects 1 or 3 channels, got 2'),
        ({"noisy_logits": torch.zeros(2, 3, 30, 33)}, ValueError, r"noisy_logits: expected \[4, 3, 30, 33\]"),
        ({"centers": None}, ValueError, "centers, levels: expected both with noisy_logits, got None"),
        ({"label": torch.full((2, 30, 33), 3)}, ValueError, r"label: expected labels in \[0, 3\), got 3"),
        ({"noise_threshold": math.nan}, ValueError, "noise_threshold: expected a finite number >= 0, got nan"),
        ({"kind": "l2"}, ValueError, "kind: expected one of 'digamma'"),
    ],
)
def test_errors_name_the_argument(arguments, error, text):
    z, label, image, noisy, noise = case()
    defaults = {"logits": z, "label": label, "image": image, "noisy_logits": noisy, **noise}
    with pytest.raises(error, match=text):
        sure_fast.uncertainty_supervision(**{**defaults, **arguments})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(2, 70, 65), (1, 14, 30, 32)], ids=str)
@pytest.mark.parametrize("ignore", [None, 255])
def test_large_thresholds_run_on_the_kernels_of_the_ops(shape, dtype, ignore):
    """Beyond what the byte map of distances holds."""
    thresholds = {"gradient_threshold": 1.0, "noise_threshold": 20.0}
    options = {"ignore_index": ignore, "what": "uncertainty_supervision.composed"}
    arguments = case(shape, dtype=dtype, ignore=ignore)
    choice = sure_fast.explain("uncertainty_supervision", *arguments[:2], **thresholds)
    assert [c.backend for c in choice if c.chosen] == ["cpu"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        terms = agree(arguments, dtype, **options, **thresholds)
    assert bool((terms[:-1] > 0).all())
    agree(arguments, dtype, **options, gradient_threshold=17.0, noise_threshold=4.0)
    agree(arguments, dtype, **options, pairs="sampled", num_pairs=3001, seed=5, **thresholds)
    agree(arguments, dtype, **options, per_class=True, class_weights=[0.1, 3.0, 0.5], **thresholds)


def test_large_thresholds_compile_whole():
    z, label, image, noisy, noise = case((2, 24, 25))

    def step(z, noisy):
        out = sure_fast.uncertainty_supervision(z, label, image, noisy_logits=noisy, **noise, noise_threshold=20.0)
        return sum(out)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    got, want = (torch.autograd.grad(f(z, noisy), (z, noisy)) for f in (compiled, step))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    "dtypes",
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.float16, torch.bfloat16),
        (torch.float32, torch.float64),
    ],
    ids=str,
)
def test_noisy_logits_of_another_dtype(dtypes):
    """A forward within autocast and another outside: the wider counts, and each gets a gradient in its own."""
    z, label, image, noisy, noise = case()
    z, noisy = (x.detach().to(dtype).requires_grad_() for x, dtype in zip((z, noisy), dtypes, strict=True))
    wide = torch.promote_types(*dtypes)
    terms, gradients = run(z, label, image, noisy, noise)
    leaves = [x.detach().to(wide).requires_grad_() for x in (z, noisy)]
    want, wanted = run(leaves[0], label, image, leaves[1], noise)
    assert torch.equal(terms, want)
    for got, exact, leaf in zip(gradients, wanted, (z, noisy), strict=True):
        assert got.dtype == leaf.dtype
        assert torch.equal(got, exact.to(leaf.dtype))
    plain = sure_fast.noise_uncertainty_loss(
        z, *noisy.chunk(2), sure_fast.boundary_distance(label), noise["centers"], noise["levels"], valid=noise["valid"]
    )
    torch.testing.assert_close(torch.stack(plain[1:]).to(terms), terms[4:], rtol=1e-5, atol=1e-7)


def test_gradient_of_noisy_logits_that_are_expanded_over_the_classes():
    """Of memory with the batch last, one channel for all, no half of which has one stride through its voxels."""
    torch.manual_seed(0)
    n, classes, shape = 2, 3, (8, 8)
    noisy = torch.randn(1, *shape, 2 * n).permute(3, 0, 1, 2).expand(2 * n, classes, *shape)
    label = torch.zeros(n, *shape, dtype=torch.long)
    label[:, 4:] = 1
    logits, centers = torch.randn(n, classes, *shape), torch.tensor([[[3, 3]], [[4, 4]]])

    def gradient(of):
        leaf = of.detach().requires_grad_()
        out = sure_fast.uncertainty_supervision(
            logits, label, noisy_logits=leaf, centers=centers, levels=torch.tensor([0.2, 0.9]), noise_threshold=1.0
        )
        return torch.autograd.grad(out.far + out.order + out.distance, leaf)[0]

    wanted = gradient(noisy.contiguous())
    assert wanted.abs().max() > 0
    for _ in range(3):
        assert torch.equal(gradient(noisy), wanted)
