from __future__ import annotations

import math

import pytest
import torch

import sure_fast
from sure_fast.ops import _calls
from tests.ops.backends import Backend, assert_same_bits, on

REFERENCE = Backend("add_noise_patches", "reference")


def case(shape, dtype=torch.float32, size=3, seed=0):
    """Images, patches that lie on a grid, and noise of two copies."""
    generator = torch.Generator().manual_seed(seed)
    axes = [torch.arange(size // 2, length - size // 2, size) for length in shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    centers = grid.expand(shape[0], *grid.shape).contiguous()
    valid = torch.rand(centers.shape[:2], generator=generator) < 0.6
    noise = torch.randn((2, *[size] * (len(shape) - 2)), generator=generator).to(dtype)
    return torch.randn(shape, generator=generator).to(dtype), centers, valid, noise


def test_by_hand(backend):
    image = torch.zeros(1, 2, 4, 6)
    noise = torch.stack([torch.full((1, 3), 1.0), torch.tensor([[2.0, 3.0, 4.0]])])
    centers, valid = torch.tensor([[[0, 1], [3, 4], [2, 2]]]), torch.tensor([[True, True, False]])
    images = backend(image, centers, valid, noise)
    assert images.shape == (2, 2, 4, 6)
    want = torch.zeros(4, 6)
    want[0, :3], want[3, 3:] = noise[1, 0], noise[1, 0]
    assert torch.equal(images[1], want.expand(2, 4, 6))
    assert torch.equal(images[0], (want > 0).float().expand(2, 4, 6))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "slice"])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((3, 2, 20, 22), 3), ((3, 2, 20, 22), 5), ((2, 1, 9, 10, 11), 3), ((2, 1, 9, 10, 11), 5), ((1, 3, 3, 3), 3),
     ((0, 1, 6, 6), 3)], ids=str,
)  # fmt: skip
def test_kernel_is_the_reference(shape, size, layout, kernel, dtype):
    image, *others = case(shape, dtype, size)
    if layout == "channels_last":
        image = image.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "slice":
        image = torch.cat([image, image * math.nan], -1)[..., : shape[-1]]
    got = kernel(image, *others)
    assert got.dtype == dtype
    assert_same_bits([got, REFERENCE(image, *others)])


def test_same_bits_however_it_runs(variant):
    arguments = case((2, 2, 30, 31))
    assert_same_bits([REFERENCE(*arguments), *(variant(*arguments) for _ in variant.ways())])


def test_centers_and_noise_of_other_dtypes(backend):
    image, centers, _, noise = case((2, 1, 8, 9))
    want = backend(image, centers, torch.ones(centers.shape[:2], dtype=torch.bool), noise)
    for kind in (torch.int32, torch.uint8):
        assert torch.equal(backend(image, centers.to(kind), None, noise.double()), want)


def test_nan_stays_nan(backend):
    image, centers, valid, noise = case((1, 1, 9, 9))
    image[0, 0, 4, 4] = math.nan
    assert backend(image, centers, valid, noise).isnan().sum() == 2


@on("cuda")
def test_a_patch_over_an_edge_is_nan_there(kernel):
    """Where nobody waits to look at the centers; in an emulator the op looks, so the kernel is called by itself."""
    image, centers, valid, noise = (x.to(kernel.device) for x in case((2, 2, 8, 9)))
    for outside in (-(2**40), -1, 0, 7, 8, 2**40):
        centers[0, 0] = torch.tensor([4, outside])
        images = torch.empty((len(noise) * len(image), *image.shape[1:]), device=kernel.device)
        arguments = _calls.library.NoisePatchArgs(image, noise, centers, valid | True)
        with _calls.stream(image) as stream:
            _calls.library.add_noise_patches(arguments, stream, images)
        spoiled = images.isnan().flatten(1).any(1).cpu()
        assert spoiled.tolist() == [not 1 <= outside < 8, False] * len(noise)


def test_operator_is_registered_properly_and_compiles_whole(kernel):
    arguments = kernel.put(case((1, 2, 8, 9)))
    torch.library.opcheck(torch.ops.sure_fast.add_noise_patches.default, (*arguments, kernel.name))

    def step(*arguments):
        return sure_fast.add_noise_patches(*arguments, backend=kernel.requested)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*arguments), step(*arguments))


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
            backend(*wrong)
