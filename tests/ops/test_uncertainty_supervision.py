from __future__ import annotations

import math
import warnings

import pytest
import torch

import sure_fast
from sure_fast import _backends
from sure_fast.ops._supervision import SupervisionOptions
from sure_fast.ops.boundary_distance import boundary_squares
from sure_fast.ops.uncertainty_supervision import _op
from tests.ops.backends import Backend, assert_same_bits, on
from tests.ops.inputs import strided

REFERENCE = Backend("uncertainty_supervision", "reference")


def case(shape=(2, 30, 33), classes=3, channels=1, dtype=torch.float32, ignore=None, seed=0):
    """Blobs with voxels near and far from a boundary; centers near, far, and not valid."""
    generator = torch.Generator().manual_seed(seed)
    n, *size = shape
    label = torch.zeros(shape, dtype=torch.long)
    label[:, 2 : size[0] // 2, 1 : size[1] // 3] = 1
    label[0, size[0] // 4 : size[0] // 3] = classes - 1
    assert set(label.unique().tolist()) >= {0, 1}
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
    return z, label, image, noisy, noise


@pytest.fixture
def _no_sorting_kernel(monkeypatch):
    """As on a GPU where the package was built without nvcc, and nothing was warned of yet."""
    for name in ("cpu", "cuda"):
        monkeypatch.setitem(
            _backends._registry["gradient_uncertainty_loss"], name, lambda *_, **__: "nothing sorts here"
        )
    monkeypatch.setattr(_backends, "_warned", set())


def run(backend, z, label, image, noisy, noise, **options):
    """Terms, and the gradients of a weighted sum of them."""
    leaves = [backend.leaf(x) for x in (z, noisy)]
    out = backend(leaves[0], label, image, noisy_logits=leaves[1], **noise, **options)
    weights = torch.tensor([2.0, 0.5, 3.0, 20.0, 4.0, 1.5, 0.7, 0.6, 0.4, 1.1], dtype=torch.float64)
    total = (torch.stack(out).double() * weights).sum()
    return torch.stack(out).detach(), torch.autograd.grad(1024 * total, leaves)


def check(kernel, given, what="uncertainty_supervision.gradient", turned=False, **options):
    """`turned`: gradients may differ by pairs that change sides; of Triton's they may in any case."""
    z, label, image, noisy, noise = given
    terms, gradients = run(kernel, *given, **options)
    want, wanted = run(REFERENCE, z.double(), label, image.double(), noisy.double(), noise, **options)
    if z.dtype in (torch.float32, torch.float64):
        kernel.agree(terms, want, "uncertainty_supervision")
    else:  # g of a half-precision image is rounded to it, which turns pairs of nearly equal g around
        torch.testing.assert_close(terms.double(), want, rtol=0.01, atol=0.01)
    for got, exact, leaf in zip(gradients, wanted, (z, noisy), strict=True):
        assert got.dtype == leaf.dtype
        if got.dtype == torch.float32 and (turned or kernel.name == "triton"):
            assert_like_but_for_pairs(got, exact)
        else:
            kernel.agree(got, exact, what, scaled=True)
    return terms


def assert_like_but_for_pairs(got, exact):
    """A pair whose order of g or u is a rounding away changes sides, and two voxels' slopes with it."""
    away = (got.cpu().double() - exact).abs() / exact.abs().max()
    assert int((away > 1e-5).sum()) <= away.numel() // 500
    assert float(away.max()) < 1e-3


def test_class_weights(kernel):
    given = case(shape=(2, 20, 21) if kernel.interpreted else (2, 30, 33))
    plain = check(kernel, given, class_weights=None)
    weighted = check(kernel, given, class_weights=[0.1, 3.0, 0.5])
    assert (plain[:3] != weighted[:3]).all()
    assert torch.equal(plain[3:7], weighted[3:7])


@pytest.mark.parametrize("shape", [(2, 30, 33), (1, 14, 15, 16)], ids=str)
@pytest.mark.parametrize("ignore", [None, 255])
def test_kernel_agrees_with_the_reference(shape, ignore, variant):
    terms = check(variant, case(shape, ignore=ignore), turned=True, ignore_index=ignore)
    assert bool((terms[:7] > 0).all())  # every term is at work


@on("cpu")
@pytest.mark.parametrize("shape", [(2, 30, 33), (3, 70, 65), (1, 14, 20, 22), (5, 8, 9)], ids=str)
@pytest.mark.parametrize("ignore", [None, 255])
def test_every_dtype_agrees_with_the_reference(shape, ignore, kernel, dtype):
    terms = check(kernel, case(shape, dtype=dtype, ignore=ignore), ignore_index=ignore)
    if min(shape[1:]) > 13:
        assert bool((terms[:7] > 0).all())  # every term is at work


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "log", "evidence": "relu"},
        {"kind": "mse", "evidence": "exp", "operator": "central", "spacing": (2.0, 0.7)},
        {"operator": "central", "spacing": (2.0, 0.7)},
        {"blur_sigma": 0.8},
        {"per_class": True},
        {"class_weights": [0.1, 3.0, 0.5], "per_class": True, "channels": "max"},
        {"pairs": "sampled", "num_pairs": 3001, "seed": 5},
        {"pairs": "sampled", "num_pairs": 3001, "seed": 5, "channels": "luma"},
        {"pairs": "sampled", "num_pairs": 3001, "per_class": True},
        {"gradient_threshold": 2.5, "noise_threshold": 2.0, "channels": "mean"},
        {"gradient_threshold": 0.0, "noise_threshold": 9.0},
    ],
    ids=str,
)
def test_options(options, kernel):
    channels = 3 if "channels" in options else 1
    check(kernel, case((2, 20, 21), channels=channels, dtype=kernel.widest), **options)


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
    torch.testing.assert_close(tuple(out[:7]), want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("given", ["nothing", "image", "noise"])
def test_what_is_not_asked_for_is_zero(given, kernel):
    z, label, image, noisy, noise = case((2, 20, 21))
    everything = kernel(z, label, image, noisy_logits=noisy, **noise)
    z, noisy = z.requires_grad_(), noisy.requires_grad_()
    arguments = {"noisy_logits": noisy, **noise} if given == "noise" else {}
    out = kernel(z, label, image if given == "image" else None, **arguments)
    evidential = sure_fast.evidential_loss(*kernel.put((z, label)), backend=kernel.name)
    assert torch.equal(torch.stack(out[:3]), torch.stack(evidential[:3]).cpu())
    assert (out.gradient > 0) == (given == "image")
    assert (out.far > 0) == (out.order > 0) == (given == "noise")
    asked = {"nothing": slice(0, 3), "image": slice(0, 4), "noise": slice(4, 7)}[given]
    assert torch.equal(torch.stack(out[asked]), torch.stack(everything[asked]))
    sum(out).backward()
    assert bool((z.grad != 0).all())
    assert (noisy.grad is not None) == (given == "noise")


@pytest.mark.parametrize("shape", [(2, 40, 41), (9, 20, 21), (1, 20, 21, 22)], ids=str)
def test_same_bits_however_it_runs(shape, variant):
    arguments = case([min(size, 14) for size in shape] if variant.interpreted else shape, classes=4)
    assert_same_bits(run(variant, *arguments) for _ in variant.ways())


def test_strides_change_nothing(kernel):
    z, label, image, noisy, noise = case((1, 12, 13, 14))
    turned = [strided(x, "channels_last") for x in (z, image, noisy)]
    drawn = {name: strided(x, "every other voxel" if name == "levels" else "transposed") for name, x in noise.items()}
    assert_same_bits(
        [
            run(kernel, turned[0], label.mT.contiguous().mT, *turned[1:], drawn),
            run(kernel, z, label, image, noisy, noise),
        ]
    )


def test_no_boundary_and_empty(kernel):
    z, label, image, noisy, noise = case((2, 20, 21))
    out = kernel(z, label * 0, image, noisy_logits=noisy, **noise)
    assert out.gradient == out.order == out.distance == 0
    mean = sum(float(sure_fast.dirichlet_uncertainty(x).mean()) for x in (z, noisy, noisy))
    assert out.far.item() == pytest.approx(mean, rel=1e-5)
    empty = kernel(z[:0], label[:0], image[:0], noisy_logits=noisy[:0], **{
        "centers": noise["centers"][:0], "levels": noise["levels"]})  # fmt: skip
    assert [float(v) for v in empty] == [0] * 10


def test_nan_stays_nan(kernel):
    z, label, image, noisy, noise = case((2, 20, 21))
    boundary = sure_fast.boundary_distance(label)[0].eq(0).nonzero()[0]
    spoiled = z.clone()
    spoiled[0, :, boundary[0], boundary[1]] = math.nan
    out = kernel(spoiled, label, image, noisy_logits=noisy, **noise)
    assert out.data.isnan()
    assert out.gradient.isnan()
    assert kernel(z, label, image, noisy_logits=noisy * math.nan, **noise).far.isnan()


@on("triton")
def test_half_precision_and_large_thresholds_in_triton(kernel):
    given = case((2, 20, 21), dtype=torch.bfloat16)
    check(kernel, given)
    z, label, image, *_ = case((2, 20, 21))
    large, want = (run(z, label, image, gradient_threshold=16.0) for run in (kernel, REFERENCE))
    torch.testing.assert_close(large, want, rtol=0.01, atol=0.01)


@on("triton")
@pytest.mark.usefixtures("_no_sorting_kernel")
def test_without_a_sorting_kernel_the_rest_stays_in_triton(kernel):
    given = case((2, 20, 21))
    with pytest.warns(UserWarning, match="gradient_uncertainty_loss runs its plain PyTorch reference .*nothing sorts"):
        check(kernel, given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # told once
        check(kernel, given, per_class=True, normalize="band")
        check(kernel, given, pairs="sampled", num_pairs=3001, seed=5)


def test_operator_is_registered_properly():
    z, label, image, noisy, noise = case((2, 14, 15))
    weights = torch.ones(3, dtype=torch.float64)
    settings = (
        "digamma", "exp", None, weights, 1.0, 4.0, 0, None, False, torch.tensor(0), "sobel", [1.0, 1.0], "luma", "cpu",
    )  # fmt: skip
    z, noisy = z.requires_grad_(), noisy.requires_grad_()
    patches = (noise["centers"], noise["levels"], noise["valid"])
    squares, _ = boundary_squares(label, 4.0, None, "cpu")
    for arguments in (
        (z, label, image, noisy, *patches, None),
        (z, label, image, noisy, *patches, squares),
        (z, label, None, None, None, None, None, None),
    ):
        torch.library.opcheck(_op, (*arguments, *settings))


@pytest.mark.parametrize("ignore", [None, 1])
def test_squares_that_are_known_change_nothing(kernel, ignore):
    z, label, image, noisy, noise = case((2, 10, 14, 15))
    found = []
    for known in (False, True):
        leaves = [kernel.leaf(t.float()) for t in (z, noisy)]
        squares = boundary_squares(kernel.put(label), 4.0, ignore, kernel.name)[0] if known else None
        settings = SupervisionOptions(
            "digamma", "exp", ignore, None, 1.0, 4.0, 0, None, False, torch.tensor(0), "sobel", [1.0] * 3, "luma"
        )
        patches = (noise["centers"], noise["levels"], noise["valid"])
        out = _op(leaves[0], kernel.put(label), kernel.put(image.float()), leaves[1], *kernel.put(patches), squares,
                  *settings, kernel.name)  # fmt: skip
        assert (out[3].numel() == 0) == known
        found.append((*out[:3], *torch.autograd.grad(sum(t.sum() for t in out[:3]), leaves)))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_the_whole_loss_compiles(kernel):
    z, label, image, noisy, noise = kernel.put(case((2, 14, 15)))
    loss = sure_fast.UncertaintySupervisedLoss(num_epochs=10, start_epoch=0)
    patches = sure_fast.NoisyImages(torch.cat([image, image]), *(noise[k] for k in ("centers", "valid", "levels")))

    def step(z, noisy):
        return loss(z, label, image, epoch=5, noise=patches, noisy_logits=noisy).total

    results = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        leaves = [x.clone().requires_grad_() for x in (z, noisy)]
        with sure_fast.use_backend(kernel.requested):
            total = function(*leaves)
        results.append((total.detach(), torch.autograd.grad(total, leaves)))
    if kernel.name == "cpu":
        assert_same_bits(results)
    else:
        torch.testing.assert_close(*results)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"image": torch.zeros(2, 1, 30, 34)}, ValueError, r"image: expected \[N, K, \*S\] to match logits"),
        ({"image": torch.zeros(2, 2, 30, 33)}, ValueError, 'channels: "luma" expects 1 or 3 channels, got 2'),
        ({"noisy_logits": torch.zeros(2, 3, 30, 33)}, ValueError, r"noisy_logits: expected \[4, 3, 30, 33\]"),
        ({"levels": None}, ValueError, "levels: expected those of the noise with noisy_logits, got None"),
        ({"centers": None}, ValueError, "valid: expected centers with it, got None"),
        ({"margin": 0.1}, ValueError, "margin: expected only with noise over whole images, got centers of patches"),
        ({"detach": True}, ValueError, "detach: expected only with noise over whole images"),
        ({"with_distance": False}, ValueError, "with_distance: expected only with noise over whole images"),
        ({"noisy_segmentation": True}, ValueError, "noisy_segmentation: expected only with noise over whole images"),
        ({"label": torch.full((2, 30, 33), 3)}, ValueError, r"label: expected labels in \[0, 3\), got 3"),
        ({"noise_threshold": math.nan}, ValueError, "noise_threshold: expected a finite number >= 0, got nan"),
        ({"kind": "l2"}, ValueError, "kind: expected one of 'digamma'"),
    ],
)
def test_errors_name_the_argument(arguments, error, text, backend):
    z, label, image, noisy, noise = case()
    if "expected labels" in text and backend.device.type == "cuda":
        return  # nobody waits for the GPU to look at labels
    defaults = {"logits": z, "label": label, "image": image, "noisy_logits": noisy, **noise}
    with pytest.raises(error, match=text):
        backend(**{**defaults, **arguments})


@on("cpu")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(2, 70, 65), pytest.param((1, 14, 30, 32), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("ignore", [None, 255])
def test_large_thresholds_run_on_the_kernels_of_the_ops(shape, dtype, ignore, kernel):
    """Beyond what the byte map of distances holds."""
    thresholds = {"gradient_threshold": 1.0, "noise_threshold": 20.0}
    options = {"ignore_index": ignore, "what": "uncertainty_supervision.composed"}
    arguments = case(shape, dtype=dtype, ignore=ignore)
    choice = sure_fast.explain("uncertainty_supervision", *arguments[:2], **thresholds)
    assert [c.backend for c in choice if c.chosen] == ["cpu"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        terms = check(kernel, arguments, **options, **thresholds)
    assert bool((terms[:6] > 0).all())
    check(kernel, arguments, **options, gradient_threshold=17.0, noise_threshold=4.0)
    check(kernel, arguments, **options, pairs="sampled", num_pairs=3001, seed=5, **thresholds)
    check(kernel, arguments, **options, per_class=True, class_weights=[0.1, 3.0, 0.5], **thresholds)


def test_large_thresholds_compile_whole():
    z, label, image, noisy, noise = case((2, 24, 25))
    z, noisy = z.requires_grad_(), noisy.requires_grad_()

    def step(z, noisy):
        out = sure_fast.uncertainty_supervision(z, label, image, noisy_logits=noisy, **noise, noise_threshold=20.0)
        return sum(out)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    got, want = (torch.autograd.grad(f(z, noisy), (z, noisy)) for f in (compiled, step))
    torch.testing.assert_close(got, want)


@on("cpu")
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
def test_noisy_logits_of_another_dtype(dtypes, kernel):
    """A forward within autocast and another outside: the wider counts, and each gets a gradient in its own."""
    z, label, image, noisy, noise = case()
    z, noisy = (x.to(dtype) for x, dtype in zip((z, noisy), dtypes, strict=True))
    wide = torch.promote_types(*dtypes)
    terms, gradients = run(kernel, z, label, image, noisy, noise)
    want, wanted = run(kernel, z.to(wide), label, image, noisy.to(wide), noise)
    assert torch.equal(terms, want)
    for got, exact, leaf in zip(gradients, wanted, (z, noisy), strict=True):
        assert got.dtype == leaf.dtype
        assert torch.equal(got, exact.to(leaf.dtype))
    plain = sure_fast.noise_uncertainty_loss(
        z, *noisy.chunk(2), sure_fast.boundary_distance(label), noise["centers"], noise["levels"], valid=noise["valid"]
    )
    torch.testing.assert_close(torch.stack(plain[1:]).to(terms), terms[4:7], rtol=1e-5, atol=1e-7)


@on("cpu")
def test_gradient_of_noisy_logits_that_are_expanded_over_the_classes(kernel):
    """Of memory with the batch last, one channel for all, no half of which has one stride through its voxels."""
    torch.manual_seed(0)
    n, classes, shape = 2, 3, (8, 8)
    noisy = torch.randn(1, *shape, 2 * n).permute(3, 0, 1, 2).expand(2 * n, classes, *shape)
    label = torch.zeros(n, *shape, dtype=torch.long)
    label[:, 4:] = 1
    logits, centers = torch.randn(n, classes, *shape), torch.tensor([[[3, 3]], [[4, 4]]])

    def gradient(of):
        leaf = of.detach().requires_grad_()
        out = kernel(
            logits, label, noisy_logits=leaf, centers=centers, levels=torch.tensor([0.2, 0.9]), noise_threshold=1.0
        )
        return torch.autograd.grad(out.far + out.order + out.distance, leaf)[0]

    wanted = gradient(noisy.contiguous())
    assert wanted.abs().max() > 0
    for _ in range(3):
        assert torch.equal(gradient(noisy), wanted)
