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
from tests.ops.backends import assert_same_bits, on
from tests.ops.inputs import LAYOUTS, random, strided

SMALL = [
    (2, 1, 13, 70), (1, 3, 4, 5, 17), (1, 1, 19, 3, 5), (1, 2, 1, 2, 30), (2, 1, 9, 1), (1, 1, 1, 1, 1),
    (1, 1, 2, 13, 22), (0, 1, 4, 4), (1, 1, 0, 4),
]  # fmt: skip
LARGE = [
    (2, 1, 33, 300), (1, 3, 40, 5, 70), (1, 1, 35, 20, 19), (1, 2, 1, 2, 300), (1, 1, 2, 130, 129), (1, 1, 3, 17, 530),
]  # fmt: skip


def check(kernel, image, **options):
    got = kernel(image, **options)
    want = sure_fast.gradient_magnitude(image.double(), backend="reference", **options)
    assert got.dtype == image.dtype
    assert got.shape == (image.shape[0], 1, *image.shape[2:])
    kernel.agree(got, want)
    return got


def check_channels(kernel, shape, dtype, operator):
    image = random(shape, dtype)
    spacing = [1.0, 2.0, 0.7][: len(shape) - 2]
    for channels in ("mean", "max") if shape[1] == 2 else ("luma", "mean", "max"):
        check(kernel, image, operator=operator, channels=channels, spacing=spacing)


@pytest.mark.parametrize("shape", SMALL, ids=str)
@pytest.mark.parametrize("operator", ["sobel", "central"])
def test_kernel_agrees_with_the_reference(shape, operator, variant, dtype):
    check_channels(variant, shape, dtype, operator)


@on("cpu")
@pytest.mark.parametrize("shape", LARGE, ids=str)
@pytest.mark.parametrize("operator", ["sobel", "central"])
def test_kernel_agrees_with_the_reference_over_several_blocks(shape, operator, variant, dtype):
    check_channels(variant, shape, dtype, operator)


def test_many_channels(kernel, dtype):
    for channels in ("mean", "max"):
        check(kernel, random((1, 5, 8, 9)).to(dtype), channels=channels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_a_constant_image_has_no_gradient(channels, backend):
    for shape in ((1, channels, 9, 37), (1, channels, 3, 5, 18)):
        image = torch.rand(channels, generator=torch.Generator().manual_seed(0)).reshape(
            1, channels, *[1] * (len(shape) - 2)
        )
        assert backend(image.expand(shape), channels="mean").abs().max() == 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operator", ["sobel", "central"])
def test_strides_change_nothing(layout, operator, kernel):
    image = strided(random((2, 3, 3, 6, 7)), layout)
    assert not image.is_contiguous()
    for channels in ("luma", "max") if kernel.interpreted else ("luma", "mean", "max"):
        options = {"operator": operator, "channels": channels}
        assert torch.equal(check(kernel, image, **options), kernel(image.contiguous(), **options))


@on("cpu")
@pytest.mark.parametrize("operator", ["sobel", "central"])
def test_strides_change_nothing_over_several_blocks(operator, kernel):
    image = random((2, 3, 10, 20, 40))
    views = [
        strided(image, "channels_last"),
        image.transpose(2, 4).contiguous().transpose(2, 4),
        torch.repeat_interleave(image, 2, -1)[..., ::2],
        torch.cat([image, image], 1)[:, 3:],
        image.flip(2).flip(2),
    ]
    for channels in ("luma", "mean", "max"):
        want = kernel(image, operator=operator, channels=channels)
        for view in views:
            assert torch.equal(view, image)
            assert torch.equal(kernel(view, operator=operator, channels=channels), want)


@pytest.mark.parametrize("operator", ["sobel", "central"])
@pytest.mark.parametrize("dims", [2, 3])
def test_unit_ramp_has_magnitude_one(dims, operator, backend):
    for axis in range(dims):
        shape = [1] * dims
        shape[axis] = 6
        ramp = torch.arange(6.0).reshape(1, 1, *shape).expand(1, 1, *[6] * dims)
        g = backend(ramp, operator=operator)
        torch.testing.assert_close(g.narrow(axis + 2, 1, 4), torch.ones([1, 1, *[6] * dims]).narrow(axis + 2, 1, 4))
        edge = 1.0 if operator == "central" else 0.5
        assert g.select(axis + 2, 0).unique().tolist() == pytest.approx([edge])
        torch.testing.assert_close(backend(ramp, operator=operator, spacing=2.0), g / 2)


@pytest.mark.parametrize("dims", [2, 3])
def test_central_is_numpy_gradient(dims, backend):
    image, spacing = random((1, 1, 7, 8, 9)[: dims + 2]).to(backend.widest), (0.5, 1.5, 3.0)[:dims]
    parts = np.gradient(image[0, 0].double().numpy(), *spacing)
    want = torch.from_numpy(np.sqrt(sum(p**2 for p in parts)))
    backend.agree(backend(image, operator="central", spacing=spacing)[0, 0], want)


@pytest.mark.parametrize("dims", [2, 3])
def test_sobel_is_scipy_sobel_scaled(dims, backend):
    image = random((1, 1, 7, 8, 9)[: dims + 2]).to(backend.widest)
    scale = 2 * 4 ** (dims - 1)
    wide = image[0, 0].double().numpy()
    parts = [scipy.ndimage.sobel(wide, axis, mode="nearest") / scale for axis in range(dims)]
    backend.agree(backend(image)[0, 0], torch.from_numpy(np.sqrt(sum(p**2 for p in parts))))


def test_luma_and_max_by_hand(backend):
    ramp = torch.arange(5.0).expand(1, 1, 5, 5)
    rgb = torch.cat([ramp, 2 * ramp, -3 * ramp], 1)
    assert float(backend(rgb)[0, 0, 2, 2]) == pytest.approx(abs(0.2989 + 2 * 0.587 - 3 * 0.114), rel=1e-6)
    assert float(backend(rgb, channels="max")[0, 0, 2, 2]) == 3.0
    assert float(backend(rgb, channels="mean")[0, 0, 2, 2]) < 1e-6


def test_a_blur_far_narrower_than_a_voxel_is_none():
    image = torch.rand((1, 1, 6, 7), generator=torch.Generator().manual_seed(0))
    for sigma in (1e-170, 5e-324):
        got = sure_fast.gradient_magnitude(image, blur_sigma=sigma)
        torch.testing.assert_close(got, sure_fast.gradient_magnitude(image))


def test_blur_is_scipy_gaussian(backend):
    image = random((1, 1, 12, 13, 14)).to(backend.widest)
    for sigma in (0.5, 1.3):
        wide, radius = image[0, 0].double().numpy(), math.ceil(4 * sigma)
        blurred = scipy.ndimage.gaussian_filter(wide, sigma, mode="nearest", radius=radius)
        want = sure_fast.gradient_magnitude(torch.from_numpy(blurred)[None, None], backend="reference")
        backend.agree(backend(image, blur_sigma=sigma), want, "gradient_magnitude.blurred")


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, backend):
    golden = load(name)
    got = backend(torch.from_numpy(golden["image"]), operator="central")
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


def test_nan_spreads_to_its_stencil_only(backend):
    image = random((1, 1, 7, 7, 7))
    image[0, 0, 3, 3, 3] = math.nan
    want = torch.zeros(7, 7, 7, dtype=torch.bool)
    want[2:5, 2:5, 2:5] = True
    for channels in ("luma", "max"):
        got = backend(image, channels=channels)[0, 0].isnan()
        want_here = want.clone()
        want_here[3, 3, 3] = bool(got[3, 3, 3])  # no tap of the three derivatives is the voxel itself
        assert torch.equal(got, want_here)
    several = torch.cat([image, random((1, 2, 7, 7, 7), seed=1)], 1)
    assert backend(several, channels="max")[0, 0, 2, 2, 2].isnan()


def test_infinity_in_two_dimensions_stays_in_its_ring(backend):
    """There is no derivative along an axis that is not there, of infinity less infinity."""
    image = torch.zeros(1, 1, 7, 7)
    image[0, 0, 3, 3] = math.inf
    want = torch.zeros(7, 7)
    want[2:5, 2:5] = math.inf
    want[3, 3] = 0
    assert torch.equal(backend(image)[0, 0], want)
    assert torch.equal(backend(image[:, :, None])[0, 0, 0], want)  # a volume of one plane


def test_same_bits_however_it_runs(variant):
    image = random((2, 1, 40, 61) if variant.interpreted else (2, 1, 40, 50, 60))
    assert_same_bits(variant(image) for _ in variant.ways())


def test_operator_is_registered_properly_and_compiles_whole(kernel):
    for shape, *settings in (
        ((2, 3, 6, 7), "sobel", [1.0, 2.0], "luma"),
        ((1, 2, 3, 6, 7), "central", [1.0, 2.0, 1.0], "max"),
    ):
        torch.library.opcheck(_op, (kernel.put(random(shape)), *settings, kernel.name))

    def step(x):
        return sure_fast.gradient_magnitude(x, backend=kernel.requested) + 1

    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(step, fullgraph=True, backend=counter)
    for seed in range(3):
        image = kernel.put(random((1, 1, 8, 9), seed=seed))
        torch.testing.assert_close(compiled(image), step(image))
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
        ({"spacing": (1.0, 2.0, 3.0)}, ValueError, "spacing: expected one number from 1e-12 to 1e12 or 2 of them"),
        ({"spacing": 0.0}, ValueError, "spacing: expected"),
        ({"blur_sigma": -1.0}, ValueError, "blur_sigma: expected a finite number >= 0, got -1.0"),
    ],
)
def test_errors_name_the_argument(arguments, error, text, backend):
    with pytest.raises(error, match=text) as caught:
        backend(**{"image": torch.zeros(1, 1, 4, 4), **arguments})
    assert "\n" not in str(caught.value)


def test_no_kernel_differentiates_the_image(kernel):
    image = torch.zeros(1, 1, 4, 4, requires_grad=True)
    with pytest.raises(ValueError, match="image: requires grad"):
        kernel(image)
    with torch.no_grad():
        kernel(image)
