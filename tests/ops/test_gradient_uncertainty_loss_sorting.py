"""The CUDA kernels that sort: sizes around the borders of tiles, digits and passes, ties, many rows, any label."""

from __future__ import annotations

import math

import pytest
import torch

from tests.ops.backends import assert_same_bits, on
from tests.ops.test_gradient_uncertainty_loss import check, run

VARIANTS = {"cuda": {"sorted": {"COMPARED": 0}}}
pytestmark = on("cuda")
LEAST, LARGEST = -(2**63), 2**63 - 1


def maps(shape, dtype=torch.float32, levels=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    u, g = torch.rand(2, shape[0], 1, shape[1], generator=generator).to(dtype)
    if levels:
        u, g = (u * levels).round() / levels, (g * levels).round() / levels
    return u, g


def check_every_way(variant, u, g, d, **options):
    """In every order of the emulator the same bits, which are those of the reference."""
    assert_same_bits([check(variant, u, g, d, **options), *(run(variant, u, g, d, **options) for _ in variant.ways())])


@pytest.mark.parametrize("n", [1023, 1024, 1025, 2047, 2049, 3071, 3073, 4097])
@pytest.mark.parametrize("levels", [None, 9])
def test_sizes_around_a_tile(n, levels, variant):
    u, g = maps((1, n), levels=levels)
    check_every_way(variant, u, g, torch.zeros_like(u))


@pytest.mark.parametrize("n", [65_536, 65_537])
def test_one_digit_and_two(n, variant):
    """Of 2^16 elements six bits lie above the tiles, of one more seven, in two digits."""
    for dtype in (torch.float32, torch.float64):
        u, g = maps((1, n), dtype, 3000)
        check(variant, u, g, torch.zeros_like(u))


@pytest.mark.slow
def test_two_digits_in_every_order(variant):
    u, g = maps((3, 50_001), levels=5000)
    check_every_way(variant, u, g, torch.zeros_like(u), label=(10 * u).to(torch.int64))


@pytest.mark.parametrize("near", [0, 1, 2, 1024, 1025, 2048, 5000])
def test_passes_that_a_thin_boundary_needs_not(near, variant):
    """The launches are those of 140 000 voxels, the digits those of the voxels that are near."""
    u, g = maps((2, 70_000), levels=300, seed=near)
    d = torch.full_like(u, 2.0)
    generator = torch.Generator().manual_seed(near)
    for row in range(2):
        d[row, 0, torch.randperm(d.shape[2], generator=generator)[: near * (row + 1) // 2]] = 1.0
    check_every_way(variant, u, g, d, label=(3 * u).to(torch.int64))


@pytest.mark.parametrize("equal", ["g", "u", "both", "zeros", "two values of g", "half of u"])
@pytest.mark.parametrize("rows", [1, 3])
def test_ties(equal, rows, variant):
    u, g = maps((rows, 2500), levels=200)
    if equal in ("g", "both"):
        g = torch.full_like(g, 0.25)
    if equal in ("u", "both"):
        u = torch.full_like(u, -3.0)
    if equal == "zeros":  # of both signs are equal
        u, g = (torch.where(x < 0.3, 0.0, torch.where(x < 0.6, -0.0, x - 0.5)) for x in (u, g))
    if equal == "two values of g":
        g = (g > 0.5).float()
    if equal == "half of u":
        u = u.where(u > 0.5, 0.5)
    check_every_way(variant, u, g, torch.zeros_like(u))


def test_orders_that_are_equal_or_opposite(variant):
    u = torch.arange(2100.0)[None, None]
    for g in (u, -u, u.flip(2), (u / 64).floor()):
        check_every_way(variant, u, g, torch.zeros_like(u))


@pytest.mark.parametrize(("rows", "n"), [(200, 7), pytest.param(2049, 2, marks=pytest.mark.slow), (5, 1024), (40, 129)])
def test_many_rows(rows, n, variant):
    u, g = maps((rows, n), levels=20)
    d = (torch.rand(rows, 1, n, generator=torch.Generator().manual_seed(1)) < 0.2).float() * 2
    d[rows // 2] = math.inf
    check_every_way(variant, u, g, d, label=(2 * g).to(torch.uint8))


def test_rows_that_are_no_numbers(variant):
    u, g = maps((6, 400), levels=50)
    want = run(variant, u[1::2], g[1::2], torch.zeros_like(u[1::2]))[1]
    u[0, 0, 5], u[2], u[4, 0, 3], g[4, 0, 2] = math.nan, math.nan, math.inf, -math.inf
    for options in ({}, {"label": torch.zeros(u.shape, dtype=torch.int64)}):
        got = [run(variant, u, g, torch.zeros_like(u), **options) for _ in variant.ways()]
        assert_same_bits(got)
        assert got[0][0].isnan()
        assert bool(got[0][1][::2].isnan().all())
        torch.testing.assert_close(got[0][1][1::2] * 2, want, rtol=1e-6, atol=0)  # of twice as many images


LABELS = {
    "extremes": [LEAST, LARGEST, 0, -1],
    "one": [LEAST],
    "two of the largest": [LARGEST, LARGEST - 1],
    "differ in the highest bit": [0, LEAST],
    "differ above 32 bits": [5, 5 + 2**32, 5 + 2**40, 5 - 2**33],
    "32 bits": [-(2**31), 2**31 - 1],
    "33 bits": [0, 2**32],
    "31 bits": [7, 7 + 2**31 - 1, 7 + 2**30],
    "12 bits": [0, 1, 2048, 4095],
}


@pytest.mark.parametrize("values", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize(("rows", "n"), [(1, 1500), (3, 500)], ids=str)
def test_any_label(values, rows, n, variant):
    u, g = maps((rows, n), levels=300)
    which = torch.randint(0, len(values), u.shape, generator=torch.Generator().manual_seed(2))
    label = torch.tensor(values)[which]
    for options in ({}, {"pairs": "sampled", "num_pairs": 400}):
        check_every_way(variant, u, g, torch.zeros_like(u), label=label, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["extremes", "32 bits", "12 bits"])
def test_any_label_of_many_rows(name, variant):
    """Of more rows than a digit has values."""
    u, g = maps((2100, 3), levels=300)
    which = torch.randint(0, len(LABELS[name]), u.shape, generator=torch.Generator().manual_seed(2))
    check_every_way(variant, u, g, torch.zeros_like(u), label=torch.tensor(LABELS[name])[which])


@pytest.mark.parametrize("integer", [torch.int16, torch.int32, torch.int64], ids=str)
def test_as_many_labels_as_there_are(integer, variant):
    u, g = maps((2, 1800), levels=300)
    info = torch.iinfo(integer)
    label = torch.linspace(info.min / 2, info.max / 2, 1200, dtype=torch.float64).to(integer)
    label = label[torch.randint(0, 1200, u.shape, generator=torch.Generator().manual_seed(2))]
    check_every_way(variant, u, g, torch.zeros_like(u), label=label)
