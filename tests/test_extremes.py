"""What ends wrong where nobody looks: the last numbers of a dtype, edges of bins, tables too large, odd arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sure_fast
from sure_fast import metrics

BACKENDS = ("cpu", "reference")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["digamma", "log", "mse"])
def test_evidence_that_the_dtype_just_holds(kind, backend):
    y = torch.zeros(1, 1, 1, dtype=torch.long)
    z = torch.tensor([1.8e38, 0, 0]).reshape(1, 3, 1, 1)
    options = {"kind": kind, "evidence": "softplus", "backend": backend}
    assert sure_fast.evidential_loss(z, y, **options).data.item() == pytest.approx(0.0, abs=1e-6)
    z = torch.tensor([3e38, 3e38, 0]).reshape(1, 3, 1, 1)
    out = sure_fast.evidential_loss(z, y, **options)
    assert out.data.isnan()
    assert out.dice.isnan()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("evidence", "levels"), [(4, 7), (12, 10), (12, 100), (27, 10), (27, 100)])
def test_u_that_is_an_edge_is_in_the_level_below(evidence, levels, backend):
    z, y = torch.tensor([float(evidence), 0, 0]).reshape(1, 3, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
    level = sure_fast.segmentation_stats(z, y, evidence="relu", levels=levels, backend=backend).uncertainty.argmax()
    assert int(level) == 3 * levels // (evidence + 3) - 1
    u = sure_fast.dirichlet_uncertainty(z, evidence="relu", backend=backend)
    assert u.item() == np.float32(3 / (evidence + 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precise_distance_is_compared_as_it_is(dtype):
    """And not with the threshold rounded to its dtype."""
    generator = torch.Generator().manual_seed(0)
    beyond = torch.tensor([1.0, 4.09375])[torch.randint(0, 2, (1, 9, 10), generator=generator)]
    z, noisy = (torch.randn((n, 2, 9, 10), generator=generator) for n in (1, 2))
    u, u1, u2 = (x[:, 0].sigmoid() for x in (z, *noisy.chunk(2)))
    centers, levels = torch.randint(0, 9, (1, 20, 2), generator=generator), torch.tensor([0.2, 0.7])

    def everything(backend, distance):
        options = {"threshold": 4.09, "backend": backend}
        label, same = torch.zeros(1, 9, 10, dtype=torch.int64), torch.Generator().manual_seed(1)
        yield from sure_fast.noise_uncertainty_loss(z, *noisy.chunk(2), distance, centers, levels, **options)
        yield from sure_fast.dense_noise_uncertainty_loss(u, u1, u2, distance, levels, **options)
        yield sure_fast.gradient_uncertainty_loss(u, u1, distance, **options)
        yield from sure_fast.sample_hard_patches(
            u, u, label, distance, num_classes=1, patch_size=1, max_distance=4.09, generator=same, backend=backend
        )

    for backend in BACKENDS:
        for found, want in zip(everything(backend, beyond.to(dtype)), everything("cpu", beyond), strict=True):
            torch.testing.assert_close(found, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_probabilities_at_the_edges_of_bins(dtype):
    for bins in (1, 7, 10, 100):
        for k in range(bins + 1):
            p = (torch.tensor(k, dtype=torch.float64) / bins).to(dtype)
            rest = (1.0 - p.double()).to(dtype)
            both = torch.stack([p, rest]).reshape(1, 2, 1, 1)
            if abs(float(both.double().sum()) - 1.0) > 1e-5:
                continue
            number = metrics.probability_stats(both, torch.zeros(1, 1, 1, dtype=torch.long), bins=bins).number[0, 0]
            wide = p.float() if dtype in (torch.bfloat16, torch.float16) else p
            edges = (torch.arange(bins, dtype=torch.float64) / bins).to(wide.dtype)
            assert int(number.argmax()) == int((edges <= wide).sum()) - 1


@pytest.mark.parametrize("spacing", [0.1, 0.3, 0.7, 1 / 3, 1e-3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_distance_at_the_threshold_is_within_it_everywhere(spacing, dtype):
    label = torch.zeros(1, 3, 24, dtype=torch.long)
    label[:, :, 12:] = 1
    for steps in range(1, 9):
        threshold = steps * spacing
        kept = sure_fast.boundary_distance(label, spacing=spacing, max_distance=threshold).isfinite()
        exact = sure_fast.boundary_distance(label, spacing=spacing).to(dtype)
        wide = (sure_fast.boundary_distance(label).double() * spacing).to(dtype)
        assert int(kept[0, 0].sum()) == 2 * (steps + 1)
        for distance in (exact, wide):
            # one voxel of the band has all the violations, which are as many as the others
            u, g = torch.zeros(1, 3, 24, dtype=torch.float64), torch.zeros(1, 3, 24, dtype=torch.float64)
            u[0, 0, 11 - steps], g[0, 0, 11 - steps] = 1.0, 1.0
            for backend in BACKENDS:
                loss = sure_fast.gradient_uncertainty_loss(u, g, distance, threshold=threshold, backend=backend)
                assert loss.item() == pytest.approx(1.0), (steps, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_order_beside_an_outlier(backend):
    u, g = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    g[0, 2, 2] = 1e19
    a, b = g.flatten(), u.flatten()
    product = (a[:, None] - a) * (b[:, None] - b)
    want = product[product > 0].sum() / (product > 0).sum()
    got = sure_fast.gradient_uncertainty_loss(u, g, torch.zeros(1, 6, 6), backend=backend)
    assert got.item() == pytest.approx(want.item(), rel=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sampled_pairs_beside_an_outlier(backend):
    """The pairs without the outlier keep their order and their value."""
    u, g = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    g[0, 2, 2], u[0, 2, 2] = 1e19, 0.0  # violates with none
    options = {"pairs": "sampled", "num_pairs": 2000, "seed": 3}
    got = sure_fast.gradient_uncertainty_loss(u, g, torch.zeros(1, 6, 6), backend=backend, **options)
    assert 0.0 < got.item() < 1.0


def test_hard_in_the_wider_of_two_dtypes():
    u = torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(0))
    noisy = u.double() + 1e-9  # no voxel is hard
    label, d = torch.ones(1, 9, 9, dtype=torch.long), torch.zeros(1, 9, 9)
    for backend in BACKENDS:
        one, other = (
            sure_fast.sample_hard_patches(
                clean, noisy, label, d, num_classes=2, generator=torch.Generator().manual_seed(3), backend=backend
            )
            for clean in (u, u.double())
        )
        assert torch.equal(one.centers, other.centers)


def test_tables_that_would_be_too_large():
    u, y = torch.rand(1, 9, 9), torch.zeros(1, 9, 9, dtype=torch.long)
    for call, name in (
        (lambda: sure_fast.sample_hard_patches(u, u, y, u, num_classes=1, num_patches=2**40), "num_patches"),
        (lambda: sure_fast.sample_hard_patches(u, u, y, u, num_classes=2**40), "num_classes"),
        (lambda: sure_fast.sample_hard_patches(u, u, y, u, num_classes=2**16, num_patches=2**16), "num_patches"),
        (lambda: sure_fast.segmentation_stats(torch.rand(1, 2, 9, 9), y, bins=2**40), "bins"),
        (lambda: sure_fast.segmentation_stats(torch.rand(1, 700, 9, 9), y, bins=2**16), "bins"),
        (lambda: sure_fast.segmentation_stats(torch.rand(1, 700, 9, 9), y, levels=2**16), "levels"),
        (lambda: sure_fast.surface_distances(y, y, 2**40), "num_classes"),
        (lambda: metrics.compute_dice(y, y, 2**40), "num_classes"),
        (lambda: metrics.summarize([1.0, 2.0], resamples=2**40), "resamples"),
    ):
        with pytest.raises(ValueError, match=rf"^{name}: expected .*, got \d+$"):
            call()
    assert metrics.compute_dice(y, y, 60_000).values.shape == (1, 59_999)


def test_summaries_of_numbers_of_any_size():
    for unit in (2.0**1000, 2.0**-1000, 1.0):
        got = metrics.summarize([unit, 3 * unit, math.nan, 2 * unit])
        one = metrics.summarize([1.0, 3.0, math.nan, 2.0])
        assert [x / unit for x in got[:4]] == list(one[:4])
    assert metrics.summarize([1.7e308, -1.7e308, 1e308]).mean == pytest.approx(1e308 / 3)
    with pytest.raises(ValueError, match=r"^values: expected numbers that a double holds"):
        metrics.summarize([10**400])


def test_arrays_of_other_byte_orders_and_widths():
    y = np.zeros((1, 5, 5), np.int64)
    y[0, 1:3, 1:4] = 1
    want = metrics.compute_dice(y, y, 2).values
    for kind in (">i4", ">i2", ">f4", ">f8", "<u2", ">u8"):
        assert torch.equal(metrics.compute_dice(y.astype(kind), y, 2).values, want)
    with pytest.raises(TypeError, match=r"^prediction: expected numbers of at most 64 bits, got"):
        metrics.compute_dice(y.astype(np.longdouble), y, 2)
    huge = y.astype(np.uint64)
    huge[0, 0, 0] = 2**64 - 1
    with pytest.raises(ValueError, match=r"^target: expected labels in \[0, 2\) or ignore_index=-1, got \d+$"):
        metrics.compute_dice(y, huge, 2, ignore_index=-1)


def test_tangents_of_what_is_constant():
    z, y = torch.randn(1, 3, 5, 6, dtype=torch.float64), torch.zeros(1, 5, 6, dtype=torch.long)
    x, d, centers = torch.rand(1, 1, 5, 6).double(), torch.zeros(1, 5, 6), torch.tensor([[[1, 1]]])
    for name, call, value in (
        ("class_weights", lambda w: sure_fast.evidential_loss(z, y, class_weights=w).data, torch.ones(3).double()),
        ("image", lambda x: sure_fast.add_noise_patches(x, centers, None, torch.ones(1, 1, 1).double()).sum(), x),
        ("image", lambda x: sure_fast.uncertainty_supervision(z, y, x).gradient, x),
        ("levels", lambda m: sure_fast.noise_uncertainty_loss(z, z, z, d, centers, m).total, torch.rand(2)),
    ):
        with pytest.raises(ValueError, match=rf"^{name}: "):
            torch.func.jvp(call, (value,), (torch.ones_like(value),))
