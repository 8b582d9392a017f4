from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from tests.ops.backends import Backend, assert_same_bits, on

REFERENCE = Backend("sample_hard_patches", "reference")


def draw(backend, hard, label, distance=None, seed=0, dtype=torch.float32, **options):
    """With u = 0 a voxel is hard where u_noisy <= 0."""
    noisy = torch.where(hard, -0.1, 0.1).to(dtype)
    distance = torch.zeros(hard.shape) if distance is None else distance
    options = {"num_classes": 2, "patch_size": 3, **options}
    generator = torch.Generator().manual_seed(seed)
    return backend(torch.zeros(hard.shape, dtype=dtype), noisy, label, distance, generator=generator, **options)


def case(shape, share, classes=3, seed=0):
    """Which voxels are hard, labels and distances."""
    generator = torch.Generator().manual_seed(seed)
    hard = torch.rand(shape, generator=generator) < share
    return hard, torch.randint(0, classes, shape, generator=generator), torch.rand(shape, generator=generator) * 8


def check(kernel, *arguments, **options):
    """The reference draws the same."""
    got, want = (draw(backend, *arguments, **options)[:2] for backend in (kernel, REFERENCE))
    assert_same_bits([got, want])
    return got


@pytest.mark.parametrize(
    "shape", [(3, 20, 22), (2, 9, 10, 11), (2, 5, 40), (1, 2, 9), (1, 1, 1), (0, 4, 4), (2, 90, 100)], ids=str
)
@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_kernel_is_the_reference(shape, size, share, kernel):
    check(kernel, *case(shape, share), num_classes=3, patch_size=size, num_patches=4)


@pytest.mark.parametrize("integer", [torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_dtypes(integer, kernel, dtype):
    hard, label, distance = case((2, 30, 31), 0.5)
    check(kernel, hard, label.to(integer), distance, dtype=dtype, num_classes=3, num_patches=4)


def test_a_list_that_runs_out_is_followed_by_a_search(kernel):
    """Patches of 21 x 21 leave few of the listed voxels free, and not all of 60 are found room for."""
    _, valid = check(kernel, *case((1, 100, 120), 1.0, classes=2), patch_size=21, num_patches=30)
    assert 0 < int(valid.sum()) < 60


def test_many_classes(kernel):
    check(kernel, *case((1, 60, 60), 1.0, classes=254), num_classes=254, num_patches=1, patch_size=1)


@on("cuda")
def test_too_many_classes(kernel):
    with pytest.raises(ValueError, match="backend 'cuda' was requested, but there are 255 classes, more than 254"):
        draw(kernel, *case((1, 6, 6), 1.0, classes=255), num_classes=255)


def test_same_bits_however_it_runs(variant):
    given = case((2, 95, 100), 0.9)
    assert_same_bits(draw(variant, *given, num_classes=3, num_patches=4)[:2] for _ in variant.ways())


def check_rules(patches, shape, size):
    for centers, valid in zip(patches.centers, patches.valid, strict=True):
        kept = centers[valid]
        for axis, length in enumerate(shape):
            assert bool((kept[:, axis] >= size // 2).all())
            assert bool((kept[:, axis] < length - size // 2).all())
        for i in range(len(kept)):
            for j in range(i):
                assert (kept[i] - kept[j]).abs().max() >= size


@pytest.mark.parametrize("shape", [(3, 20, 22), (2, 9, 10, 11), (2, 5, 40)], ids=str)
@pytest.mark.parametrize("size", [1, 3, 5])
def test_rules(shape, size, backend):
    generator = torch.Generator().manual_seed(1)
    hard = torch.rand(shape, generator=generator) < 0.3
    label = torch.randint(0, 3, shape, generator=generator)
    distance = torch.rand(shape, generator=generator) * 8
    for seed in range(5):
        patches = draw(backend, hard, label, distance, seed, num_classes=3, patch_size=size, num_patches=2)
        assert patches.centers.shape == (shape[0], 6, len(shape) - 1)
        check_rules(patches, shape[1:], size)


def test_centers_are_hard_voxels_of_their_class(backend):
    generator = torch.Generator().manual_seed(2)
    hard = torch.rand((1, 60, 60), generator=generator) < 0.5
    label = (torch.arange(60) >= 30).long().expand(1, 60, 60)
    distance = torch.rand((1, 60, 60), generator=generator) * 8
    patches = draw(backend, hard, label, distance)
    assert bool(patches.valid.all())
    for slot, (y, x) in enumerate(patches.centers[0].tolist()):
        assert hard[0, y, x]
        assert label[0, y, x] == slot // 3
        if slot < 3:
            assert distance[0, y, x] < 4


def test_missing_ones_are_filled_anywhere(backend):
    label = torch.zeros(1, 30, 30, dtype=torch.long)
    patches = draw(backend, torch.zeros(1, 30, 30, dtype=torch.bool), label)
    assert bool(patches.valid.all())
    check_rules(patches, (30, 30), 3)
    far = draw(backend, torch.ones(1, 30, 30, dtype=torch.bool), label, torch.full((1, 30, 30), math.inf))
    assert bool(far.valid.all())


def test_no_room_left_ends_with_fewer(backend):
    hard = torch.ones(2, 4, 4, dtype=torch.bool)
    patches = draw(backend, hard, torch.zeros(2, 4, 4, dtype=torch.long))
    assert patches.valid.sum(1).tolist() == [1, 1]
    assert bool((patches.centers[~patches.valid] == 0).all())
    tiny = draw(backend, torch.ones(1, 2, 9, dtype=torch.bool), torch.zeros(1, 2, 9, dtype=torch.long))
    assert not tiny.valid.any()
    empty = draw(backend, torch.ones(0, 4, 4, dtype=torch.bool), torch.zeros(0, 4, 4, dtype=torch.long))
    assert empty.centers.shape == (0, 6, 2)


def test_uniform_over_hard_voxels(backend):
    # 12 hard voxels far enough from each other that the first draw of the class is a plain uniform draw.
    hard = torch.zeros(400, 12, 16, dtype=torch.bool)
    hard[:, 2:12:4, 2:16:4] = True
    label = torch.zeros(400, 12, 16, dtype=torch.long)
    patches = draw(backend, hard, label, seed=5, num_classes=1, num_patches=1)
    places = (patches.centers[:, 0, 0] * 16 + patches.centers[:, 0, 1]).numpy()
    _, counts = np.unique(places, return_counts=True)
    assert len(counts) == 12
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


def test_repeatable_from_the_generator(backend):
    hard = torch.ones(2, 20, 20, dtype=torch.bool)
    label = torch.zeros(2, 20, 20, dtype=torch.long)
    first, again, other = (draw(backend, hard, label, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.centers, again.centers)
    assert not torch.equal(first.centers, other.centers)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"patch_size": 4}, ValueError, "patch_size: expected one odd number >= 1 or 2 of them, got 4"),
        ({"patch_size": (3, 3, 3)}, ValueError, "patch_size: expected"),
        ({"num_classes": 0}, ValueError, "num_classes: expected at least 1, got 0"),
        ({"num_patches": 0}, ValueError, "num_patches: expected at least 1, got 0"),
        ({"max_distance": math.nan}, ValueError, "max_distance: expected"),
    ],
)
def test_errors_name_the_argument(options, error, text, backend):
    with pytest.raises(error, match=text):
        draw(backend, torch.ones(1, 5, 5, dtype=torch.bool), torch.zeros(1, 5, 5, dtype=torch.long), **options)
    with pytest.raises(ValueError, match="label: expected"):
        draw(backend, torch.ones(1, 5, 5, dtype=torch.bool), torch.zeros(1, 5, 6, dtype=torch.long))


@pytest.mark.parametrize("shape", [(3, 2, 20, 22), (2, 1, 9, 10, 11)], ids=str)
def test_noisy_images_are_the_references(shape, kernel, dtype):
    generator = torch.Generator().manual_seed(0)
    size = (3, 5, 3)[: len(shape) - 2]
    u = torch.rand((2, shape[0], *shape[2:]), generator=generator)
    label = torch.randint(0, 2, (shape[0], *shape[2:]), generator=generator)
    image = torch.randn(shape, generator=generator).to(dtype).transpose(0, 1).contiguous().transpose(0, 1)
    noise = torch.randn((2, *size), generator=generator).to(dtype)
    options = {"num_classes": 2, "patch_size": size, "image": image, "noise": noise}
    found = [
        backend(*u, label, torch.zeros(label.shape), **options, generator=torch.Generator().manual_seed(1))
        for backend in (kernel, REFERENCE)
    ]
    assert found[0].images.dtype == dtype
    assert bool(found[0].valid.any())
    assert_same_bits(found)
    changed = (found[0].images[: shape[0]] != image).sum((1, *range(2, len(shape))))
    assert bool((changed <= found[0].valid.sum(1) * math.prod(size) * shape[1]).all())
    assert bool((changed > 0).all())


def test_the_operator_is_registered_properly(kernel):
    u, label = kernel.put((torch.rand(1, 9, 9), torch.zeros(1, 9, 9, dtype=torch.long)))
    op = torch.ops.sure_fast.sample_hard_patches.default
    torch.library.opcheck(op, (u, u, label, u, torch.tensor(5), [3, 3], 2, 2, 4.0, kernel.name))


def test_errors_of_images_and_noise(backend):
    image, noise = torch.zeros(1, 1, 5, 5), torch.ones(2, 3, 3)
    u, label = torch.zeros(1, 5, 5), torch.zeros(1, 5, 5, dtype=torch.long)
    for options, text in (
        ({"image": image}, "^image, noise: expected both or neither"),
        ({"image": image[..., :4], "noise": noise}, "^image: expected"),
        ({"image": image, "noise": noise[:, :1]}, "^noise: expected"),
    ):
        with pytest.raises(ValueError, match=text):
            backend(u, u, label, u, num_classes=1, **options)
