from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch._dynamo.testing

import sure_fast
from sure_fast.ops.gradient_magnitude import _op
from tests._golden import GOLDEN, load
from tests._tolerances import tolerance

SHAPES = [
    (2, 1, 33, 300),
    (1, 3, 40, 5, 70),
    (1, 1, 35, 20, 19),
    (1, 2, 1, 2, 300),
    (2, 1, 9, 1),
    (1, 1, 1, 1, 1),
    (1, 1, 2, 130, 129),
    (0, 1, 4, 4),
    (1, 1, 0, 4),
]


def random(shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("operator", ["sobel", "central"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_kernel_agrees_with_float64_reference(isa, shape, operator, dtype):
    image = random(shape, dtype)
    spacing = [1.0, 2.0, 0.7][: len(shape) - 2]
    for channels in ("mean", "max") if shape[1] == 2 else ("luma", "mean", "max"):
        options = {"operator": operator, "channels": channels, "spacing": spacing}
        got = sure_fast.gradient_magnitude(image, backend="cpu", **options)
        want = sure_fast.gradient_magnitude(image.double(), backend="reference", **options)
        assert got.dtype == dtype
        assert got.shape == (shape[0], 1, *shape[2:])
        torch.testing.assert_close(got.double(), want, **tolerance(dtype))


def test_many_channels():
    image = random((1, 5, 8, 9))
    for channels in ("mean", "max"):
        got = sure_fast.gradient_magnitude(image, channels=channels)
        want = sure_fast.gradient_magnitude(image.double(), channels=channels, backend="reference")
        torch.testing.assert_close(got.double(), want, **tolerance(torch.float32))


@pytest.mark.parametrize("operator", ["sobel", "central"])
def test_strides_change_nothing(operator):
    image = random((2, 3, 10, 20, 40))
    views = [
        image.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3),
        image.transpose(2, 4).contiguous().transpose(2, 4),
        torch.repeat_interleave(image, 2, -1)[..., ::2],
        torch.cat([image, image], 1)[:, 3:],
        image.flip(2).flip(2),
    ]
    for channels in ("luma", "mean", "max"):
        want = sure_fast.gradient_magnitude(image, operator=operator, channels=channels)
        for view in views:
            assert torch.equal(view, image)
            assert torch.equal(sure_fast.gradient_magnitude(view, operator=operator, channels=channels), want)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("operator", ["sobel", "central"])
@pytest.mark.parametrize("dims", [2, 3])
def test_unit_ramp_has_magnitude_one(dims, operator, backend):
    for axis in range(dims):
        shape = [1] * dims
        shape[axis] = 6
        ramp = torch.arange(6.0).reshape(1, 1, *shape).expand(1, 1, *[6] * dims)
        g = sure_fast.gradient_magnitude(ramp, operator=operator, backend=backend)
        torch.testing.assert_close(g.narrow(axis + 2, 1, 4), torch.ones([1, 1, *[6] * dims]).narrow(axis + 2, 1, 4))
        edge = 1.0 if operator == "central" else 0.5
        assert g.select(axis + 2, 0).unique().tolist() == pytest.approx([edge])
        halved = sure_fast.gradient_magnitude(ramp, operator=operator, spacing=2.0, backend=backend)
        torch.testing.assert_close(halved, g / 2)


@pytest.mark.parametrize("dims", [2, 3])
def test_central_is_numpy_gradient(dims):
    image, spacing = random((1, 1, 7, 8, 9)[: dims + 2], torch.float64), (0.5, 1.5, 3.0)[:dims]
    parts = np.gradient(image[0, 0].numpy(), *spacing)
    want = np.sqrt(sum(p**2 for p in parts))
    for backend in ("cpu", "reference"):
        got = sure_fast.gradient_magnitude(image, operator="central", spacing=spacing, backend=backend)
        np.testing.assert_allclose(got[0, 0].numpy(), want, rtol=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
def test_sobel_is_scipy_sobel_scaled(dims):
    image = random((1, 1, 7, 8, 9)[: dims + 2], torch.float64)
    scale = 2 * 4 ** (dims - 1)
    parts = [scipy.ndimage.sobel(image[0, 0].numpy(), axis, mode="nearest") / scale for axis in range(dims)]
    for backend in ("cpu", "reference"):
        got = sure_fast.gradient_magnitude(image, backend=backend)
        np.testing.assert_allclose(got[0, 0].numpy(), np.sqrt(sum(p**2 for p in parts)), rtol=1e-12)


def test_luma_and_max_by_hand():
    ramp = torch.arange(5.0).expand(1, 1, 5, 5)
    rgb = torch.cat([ramp, 2 * ramp, -3 * ramp], 1)
    for backend in ("cpu", "reference"):
        luma = sure_fast.gradient_magnitude(rgb, backend=backend)[0, 0, 2, 2]
        assert float(luma) == pytest.approx(abs(0.2989 + 2 * 0.587 - 3 * 0.114), rel=1e-6)
        assert float(sure_fast.gradient_magnitude(rgb, channels="max", backend=backend)[0, 0, 2, 2]) == 3.0
        assert float(sure_fast.gradient_magnitude(rgb, channels="mean", backend=backend)[0, 0, 2, 2]) < 1e-6


def test_blur_is_scipy_gaussian():
    image = random((1, 1, 12, 13, 14), torch.float64)
    for sigma in (0.5, 1.3):
        blurred = scipy.ndimage.gaussian_filter(image[0, 0].numpy(), sigma, mode="nearest", radius=math.ceil(4 * sigma))
        want = sure_fast.gradient_magnitude(torch.from_numpy(blurred)[None, None])
        for backend in ("cpu", "reference"):
            got = sure_fast.gradient_magnitude(image, blur_sigma=sigma, backend=backend)
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, backend):
    golden = load(name)
    got = sure_fast.gradient_magnitude(torch.from_numpy(golden["image"]), operator="central", backend=backend)
    np.testing.assert_allclose(got[:, 0].numpy() + 1e-8, golden["gradient_central"], rtol=2e-6, atol=1e-7)


def test_reference_gradcheck():
    for operator in ("sobel", "central"):
        for channels in ("luma", "max"):
            image = random((1, 3, 4, 3, 5), torch.float64).requires_grad_()
            assert torch.autograd.gradcheck(
                lambda x, o=operator, c=channels: sure_fast.gradient_magnitude(
                    x, operator=o, channels=c, blur_sigma=0.6, backend="reference"
                ),
                (image,),
            )


def test_reference_gradient_is_finite_where_flat():
    image = torch.zeros(1, 1, 4, 4, requires_grad=True)
    sure_fast.gradient_magnitude(image, backend="reference").sum().backward()
    assert image.grad.abs().max() == 0


def test_nan_spreads_to_its_stencil_only():
    image = random((1, 1, 7, 7, 7))
    image[0, 0, 3, 3, 3] = math.nan
    want = torch.zeros(7, 7, 7, dtype=torch.bool)
    want[2:5, 2:5, 2:5] = True
    for channels in ("luma", "max"):
        got = sure_fast.gradient_magnitude(image, channels=channels)[0, 0].isnan()
        want_here = want.clone()
        want_here[3, 3, 3] = bool(got[3, 3, 3])  # no tap of the three derivatives is the voxel itself
        assert torch.equal(got, want_here)
    several = torch.cat([image, random((1, 2, 7, 7, 7), seed=1)], 1)
    assert sure_fast.gradient_magnitude(several, channels="max")[0, 0, 2, 2, 2].isnan()


def test_same_bits_for_any_number_of_threads():
    image = random((2, 1, 40, 50, 60))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(sure_fast.gradient_magnitude(image))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_opcheck_and_compile():
    torch.library.opcheck(_op, (random((2, 3, 6, 7)), "sobel", [1.0, 1.0], "luma", "cpu"))
    torch.library.opcheck(_op, (random((1, 2, 3, 6, 7)), "central", [1.0, 2.0, 1.0], "max", "cpu"))
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda x: sure_fast.gradient_magnitude(x) + 1, fullgraph=True, backend=counter)
    for seed in range(3):
        image = random((1, 1, 8, 9), seed=seed)
        torch.testing.assert_close(compiled(image), sure_fast.gradient_magnitude(image) + 1)
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"image": 3}, TypeError, "image: expected a torch.Tensor, got int"),
        ({"image": torch.zeros(1, 1, 4, 4, dtype=torch.uint8)}, TypeError, "image: expected float32"),
        ({"image": torch.zeros(4, 4)}, ValueError, r"image: expected .* got shape \[4, 4\]"),
        ({"image": torch.zeros(1, 2, 4, 4)}, ValueError, 'channels: "luma" expects 1 or 3 channels, got 2'),
        ({"operator": "scharr"}, ValueError, "operator: expected one of 'sobel', 'central', got 'scharr'"),
        ({"channels": "sum"}, ValueError, "channels: expected one of"),
        ({"spacing": (1.0, 2.0, 3.0)}, ValueError, "spacing: expected one number > 0 or 2 of them"),
        ({"spacing": 0.0}, ValueError, "spacing: expected"),
        ({"blur_sigma": -1.0}, ValueError, "blur_sigma: expected a finite number >= 0, got -1.0"),
        ({"image": torch.zeros(1, 1, 4, 4, requires_grad=True)}, ValueError, "image: requires grad"),
    ],
)
def test_errors_name_the_argument(arguments, error, text):
    with pytest.raises(error, match=text) as caught:
        sure_fast.gradient_magnitude(**{"image": torch.zeros(1, 1, 4, 4), **arguments})
    assert "\n" not in str(caught.value)
    with torch.no_grad():
        sure_fast.gradient_magnitude(torch.zeros(1, 1, 4, 4, requires_grad=True))
