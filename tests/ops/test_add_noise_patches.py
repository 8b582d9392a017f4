from __future__ import annotations

import math

import pytest
import torch

import sure_fast

BACKENDS = ("cpu", "reference")


def case(shape, dtype=torch.float32, size=3, seed=0):
    """Images, patches that lie on a grid, and noise of two copies."""
    generator = torch.Generator().manual_seed(seed)
    axes = [torch.arange(size // 2, length - size // 2, size) for length in shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    centers = grid.expand(shape[0], *grid.shape).contiguous()
    valid = torch.rand(centers.shape[:2], generator=generator) < 0.6
    noise = torch.randn((2, *[size] * (len(shape) - 2)), generator=generator).to(dtype)
    return torch.randn(shape, generator=generator).to(dtype), centers, valid, noise


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_by_hand(backend):
    image = torch.zeros(1, 2, 4, 6)
    noise = torch.stack([torch.full((1, 3), 1.0), torch.tensor([[2.0, 3.0, 4.0]])])
    centers, valid = torch.tensor([[[0, 1], [3, 4], [2, 2]]]), torch.tensor([[True, True, False]])
    images = sure_fast.add_noise_patches(image, centers, valid, noise, backend=backend)
    assert images.shape == (2, 2, 4, 6)
    want = torch.zeros(4, 6)
    want[0, :3], want[3, 3:] = noise[1, 0], noise[1, 0]
    assert torch.equal(images[1], want.expand(2, 4, 6))
    assert torch.equal(images[0], (want > 0).float().expand(2, 4, 6))


@pytest.mark.parametrize("shape", [(3, 2, 20, 22), (2, 1, 9, 10, 11), (1, 3, 3, 3), (0, 1, 6, 6)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "slice"])
def test_kernel_is_the_reference(shape, dtype, layout):
    image, centers, valid, noise = case(shape, dtype)
    if layout == "channels_last":
        image = image.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "slice":
        image = torch.cat([image, image * math.nan], -1)[..., : shape[-1]]
    got, want = (sure_fast.add_noise_patches(image, centers, valid, noise, backend=backend) for backend in BACKENDS)
    assert got.dtype == dtype
    assert torch.equal(got, want)
    again = sure_fast.add_noise_patches(image, centers, valid, noise)
    assert torch.equal(got, again)


def test_kernel_on_every_isa(isa):
    arguments = case((2, 2, 19, 21))
    got, want = (sure_fast.add_noise_patches(*arguments, backend=backend) for backend in BACKENDS)
    assert torch.equal(got, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_centers_and_noise_of_other_dtypes(backend):
    image, centers, _, noise = case((2, 1, 8, 9))
    want = sure_fast.add_noise_patches(image, centers, torch.ones(centers.shape[:2], dtype=torch.bool), noise)
    for kind in (torch.int32, torch.uint8):
        got = sure_fast.add_noise_patches(image, centers.to(kind), None, noise.double(), backend=backend)
        assert torch.equal(got, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays_nan(backend):
    image, centers, valid, noise = case((1, 1, 9, 9))
    image[0, 0, 4, 4] = math.nan
    noisy = sure_fast.add_noise_patches(image, centers, valid, noise, backend=backend)
    assert noisy.isnan().sum() == 2


def test_operator_and_compilation():
    arguments = case((1, 2, 8, 9))
    torch.library.opcheck(torch.ops.sure_fast.add_noise_patches.default, arguments)
    compiled = torch.compile(sure_fast.add_noise_patches, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*arguments), sure_fast.add_noise_patches(*arguments))


@pytest.mark.parametrize("backend", BACKENDS)
def test_errors_name_the_argument(backend):
    image, centers, valid, noise = case((1, 1, 8, 9))
    for wrong, text in (
        ((image, centers, valid, noise[:, :2]), r"^noise: expected \[M, \*patch\] with 2 odd edges"),
        ((image, centers, valid, noise[0]), r"^noise: expected \[M, \*patch\] with 2 odd edges"),
        ((image[0], centers, valid, noise), "^image: expected"),
        ((image, centers[..., :1], valid, noise), "^centers: expected"),
        ((image, centers, valid[:, :1], noise), "^valid: expected"),
        ((image, centers * 0, valid | True, noise), "^centers: expected voxel indices inside"),
        ((image.clone().requires_grad_(), centers, valid, noise), "^image: requires grad"),
        ((image, centers, valid, noise.clone().requires_grad_()), "^noise: requires grad"),
    ):
        with pytest.raises(ValueError, match=text):
            sure_fast.add_noise_patches(*wrong, backend=backend)
