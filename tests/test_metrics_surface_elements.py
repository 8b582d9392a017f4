"""Surfaces by their size, against the numbers that the tests of google-deepmind/surface-distance state."""

from __future__ import annotations

import math

import pytest
import torch

from sure_fast.metrics import compute_nsd, compute_surface_metrics
from sure_fast.metrics.surface_elements import element_distances, percentile_by_size, sizes_of_codes


def mask(shape, *voxels):
    out = torch.zeros(shape, dtype=torch.bool)
    for voxel in voxels:
        out[voxel] = True
    return out


def half(rows):
    out = torch.zeros((100, 100, 100), dtype=torch.bool)
    out[:rows] = True
    return out


# masks, spacing; averages from the target and back, Hausdorff, its percentile, shares within 1 mm, surface Dice
STATED = {
    "two pixels": (
        mask((128, 128), (50, 70)), mask((128, 128), (50, 72)), (2, 1),
        (1.5, 1.5, 2.0, 2.0, 0.5, 0.5, 0.5),
    ),
    "two voxels": (
        mask((128, 128, 128), (50, 60, 70)), mask((128, 128, 128), (50, 60, 72)), (3, 2, 1),
        (1.5, 1.5, 2.0, 2.0, 0.5, 0.5, 0.5),
    ),
    "two cubes": (half(50), half(51), (2, 1, 1), (0.322, 0.339, 2.0, 2.0, 0.842, 0.830, 0.836)),
    "no prediction": (
        mask((128, 128), (50, 60)), mask((128, 128)), (3, 2),
        (math.inf, math.nan, math.inf, math.inf, 0.0, math.nan, 0.0),
    ),
    "no prediction in 3D": (
        mask((128, 128, 128), (50, 60, 70)), mask((128, 128, 128)), (3, 2, 1),
        (math.inf, math.nan, math.inf, math.inf, 0.0, math.nan, 0.0),
    ),
    "no target": (
        mask((128, 128)), mask((128, 128), (50, 60)), (3, 2),
        (math.nan, math.inf, math.inf, math.inf, math.nan, 0.0, 0.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STATED)
def test_stated_numbers(name):
    target, prediction, spacing, want = STATED[name]
    d_t, size_t, d_p, size_p = element_distances(target, prediction, spacing)
    sides = [(d, size) for d, size in ((d_t, size_t), (d_p, size_p)) if len(d)]
    near = [size[d <= 1.0].sum() for d, size in ((d_t, size_t), (d_p, size_p))]
    got = (
        (d_t * size_t).sum() / size_t.sum(), (d_p * size_p).sum() / size_p.sum(),
        max(float(d[-1]) for d, _ in sides), max(float(percentile_by_size(d, size, 95.0)) for d, size in sides),
        near[0] / size_t.sum(), near[1] / size_p.sum(), sum(near) / (size_t.sum() + size_p.sum()),
    )  # fmt: skip
    for value, stated in zip(got, want, strict=True):
        assert float(value) == pytest.approx(stated, abs=5e-4, nan_ok=True)


def test_two_pixels_element_by_element():
    d, size, *_ = element_distances(mask((9, 9), (5, 3)), mask((9, 9), (5, 5)), (2.0, 1.0))
    assert d.tolist() == [1.0, 1.0, 2.0, 2.0]
    assert torch.allclose(size, torch.full((4,), math.sqrt(5) / 2, dtype=torch.float64))


def test_squares_shifted_by_a_pixel():
    target, prediction = torch.zeros(6, 6, dtype=torch.bool), torch.zeros(6, 6, dtype=torch.bool)
    target[1:3, 1:3] = prediction[1:4, 1:3] = True
    d_t, size_t, d_p, size_p = element_distances(target, prediction, (2.0, 1.0))
    diagonal = math.sqrt(5) / 2
    assert sorted(size_t.tolist()) == pytest.approx(sorted([diagonal] * 4 + [1.0] * 2 + [2.0] * 2))
    assert sorted(size_p.tolist()) == pytest.approx(sorted([diagonal] * 4 + [1.0] * 2 + [2.0] * 4))
    assert d_t.tolist() == [0.0] * 7 + [1.0]
    assert d_p.tolist() == [0.0] * 7 + [2.0] * 3


def test_sizes_of_elements():
    flat = sizes_of_codes((3.0, 2.0, 0.5))
    # four voxels on one side: a face, across the first, the second and the third axis
    assert flat[0b00001111] == pytest.approx(1.0)
    assert flat[0b00110011] == pytest.approx(1.5)
    assert flat[0b01010101] == pytest.approx(6.0)
    corner = 0.5 * math.sqrt((1.5 * 1.0) ** 2 + (1.0 * 0.25) ** 2 + (1.5 * 0.25) ** 2)
    assert flat[1] == pytest.approx(corner)
    assert torch.allclose(flat, flat.flip(0)), "a mask and its complement have one surface"
    ball = torch.stack(torch.meshgrid(*[torch.arange(41.0) - 20.0] * 3, indexing="ij")).square().sum(0) <= 15.0**2
    *_, size = element_distances(ball, ball, (1.0, 1.0, 1.0))
    assert float(size.sum()) == pytest.approx(4 * math.pi * 15.0**2, rel=0.1)  # in steps of half a voxel


def test_metrics_by_size():
    target, prediction = half(50)[None].long(), half(51)[None].long()
    got = compute_surface_metrics(prediction, target, 2, (2.0, 1.0, 1.0), weighting="surface")
    assert got.nsd.item() == pytest.approx(0.836, abs=5e-4)
    assert got.hd95_mm.item() == 2.0
    assert compute_nsd(prediction, target, 2, (2.0, 1.0, 1.0)).values.item() == pytest.approx(0.755, abs=5e-4)
    nothing = torch.zeros_like(target)
    one = compute_surface_metrics(nothing, target, 2, (2.0, 1.0, 1.0), weighting="surface")
    both = compute_surface_metrics(nothing, nothing, 2, (2.0, 1.0, 1.0), weighting="surface")
    assert (one.nsd.item(), one.hd95_mm.item()) == (0.0, pytest.approx(math.sqrt(200.0**2 + 2 * 100.0**2)))
    assert (both.nsd.item(), both.hd95_mm.item(), both.absent.item()) == (1.0, 0.0, True)


@pytest.mark.parametrize("shape", [(2, 12, 13), (2, 6, 7, 8)])
def test_classes_channels_and_ignored_voxels(shape):
    generator = torch.Generator().manual_seed(1)
    target, prediction = torch.randint(0, 4, (2, *shape), generator=generator)
    target[0, 2:4] = 255
    options = {"tolerance_mm": 1.2, "weighting": "surface", "ignore_index": 255}
    spacing = (1.5, 1.0, 0.8)[: len(shape) - 1]
    got = compute_surface_metrics(prediction, target, 4, spacing, **options)
    beside = compute_surface_metrics(prediction[:, None], target[:, None], 4, spacing, **options)
    assert all(torch.equal(a, b) for a, b in zip(got, beside, strict=True))
    counts = target[0] != 255
    d_p, size_p, d_t, size_t = element_distances((prediction[0] == 3) & counts, target[0] == 3, spacing)
    near = size_p[d_p <= 1.2].sum() + size_t[d_t <= 1.2].sum()
    assert got.nsd[0, 2].item() == pytest.approx(float(near / (size_p.sum() + size_t.sum())))
    whole = ((d_p * size_p).sum() + (d_t * size_t).sum()) / (size_p.sum() + size_t.sum())
    assert got.assd_mm[0, 2].item() == pytest.approx(float(whole))
