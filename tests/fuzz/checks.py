"""One drawn call of every op against its oracle; each raises AssertionError with what was expected and what came."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.stats
import torch

import sure_fast
from tests.fuzz import oracles
from tests.fuzz.draws import (
    EVIDENCE,
    FLOATS,
    agree,
    array,
    batch_of,
    labels,
    laid_out,
    one_of,
    size_of,
    spoiled,
    values,
)


def compute(dtype):
    """What an op computes in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def smooth(z, evidence):
    """Whether no logit is where the evidence has a kink."""
    return evidence == "softplus" or not (np.abs(np.abs(z) - (10.0 if evidence == "exp" else 0.0)) < 1e-3).any()


def directional(function, z, gradient, rng, what, wide=1e5):
    """A gradient of float64 inputs against the oracle's central difference along a random direction."""
    v, h = rng.normal(size=z.shape), 1e-5
    slope = (function(z + h * v) - function(z - h * v)) / (2 * h)
    agree((array(gradient) * v).sum(), slope, what=what, scale=max(abs(slope), 1e-2), wide=wide)


def check_dirichlet_uncertainty(rng, backend):
    shape = (batch_of(rng), int(rng.integers(2, 6)), *size_of(rng))
    dtype, kind = one_of(rng, FLOATS), one_of(rng, EVIDENCE)
    z = spoiled(rng, laid_out(rng, values(rng, shape, dtype, one_of(rng, (0.1, 3.0, 40.0)))))
    leaf = z.detach().requires_grad_()
    u = sure_fast.dirichlet_uncertainty(leaf, evidence=kind, backend=backend)
    want = oracles.uncertainty(array(z), kind)[:, None]
    agree(u, want, dtype, "u", scale=1.0)
    if dtype == torch.float64 and np.isfinite(want).all() and smooth(array(z), kind) and z.numel():
        (gradient,) = torch.autograd.grad(u.sum(), leaf)
        directional(lambda x: oracles.uncertainty(x, kind).sum(), array(z), gradient, rng, "gradient of u")


def check_evidential_loss(rng, backend):
    classes = int(rng.integers(2, 6))
    shape = (batch_of(rng), classes, *size_of(rng))
    dtype, evidence, kind = one_of(rng, FLOATS), one_of(rng, EVIDENCE), one_of(rng, ("digamma", "log", "mse"))
    z = laid_out(rng, values(rng, shape, dtype, one_of(rng, (0.1, 3.0, 30.0))))
    y, label, ignore = labels(rng, (shape[0], *shape[2:]), classes)
    weights = None if rng.random() < 0.5 else (rng.random(classes) + 0.1).tolist()
    leaf = z.detach().requires_grad_()
    options = {"kind": kind, "evidence": evidence, "ignore_index": ignore, "class_weights": weights}
    out = sure_fast.evidential_loss(leaf, label, backend=backend, **options)
    want = oracles.evidential_terms(array(z), y, kind, evidence, ignore, weights)
    for name, value in zip(("data", "kl", "dice"), want, strict=True):
        # the reference takes lgamma from PyTorch, whose terms cancel where the evidence is strong
        wide = 1e3 if backend == "reference" and dtype != torch.float64 else 1.0
        agree(getattr(out, name), value, compute(dtype), name, scale=max(abs(value), 1.0), wide=wide)
    if dtype == torch.float64 and smooth(array(z), evidence) and z.numel():
        (gradient,) = torch.autograd.grad(out.data + out.kl + out.dice, leaf)
        directional(
            lambda x: sum(oracles.evidential_terms(x, y, kind, evidence, ignore, weights)), array(z), gradient, rng,
            "gradient of the terms", wide=1e6,
        )  # fmt: skip


def check_gradient_magnitude(rng, backend):
    channels = one_of(rng, ("luma", "mean", "max"))
    number = one_of(rng, (1, 3)) if channels == "luma" else int(rng.integers(1, 7))
    shape, dtype = (batch_of(rng), number, *size_of(rng)), one_of(rng, FLOATS)
    x = laid_out(rng, values(rng, shape, dtype, 50.0) if rng.random() < 0.9 else torch.full(shape, 0.1, dtype=dtype))
    operator, spacing = one_of(rng, ("sobel", "central")), (rng.random(len(shape) - 2) + 0.3).tolist()
    got = sure_fast.gradient_magnitude(x, operator=operator, channels=channels, spacing=spacing, backend=backend)
    want = oracles.gradient_magnitude(array(x), operator, channels, spacing)
    agree(got, want, dtype, "g", scale=None)
    same = np.ptp(array(x), axis=tuple(range(2, x.dim()))) == 0 if all(shape) else np.zeros((0, 0), bool)
    for n in range(len(same)):
        if same[n].all():
            assert float(got[n].abs().max()) == 0.0, f"g: expected 0 on a constant image, got {got[n].abs().max()}"


def spacing_of(rng, dims):
    return (
        [1.0] * dims if rng.random() < 0.4 else one_of(rng, ([0.1, 0.3, 0.7], [3.0, 1.0, 1.0], [0.5, 0.5, 2.5]))[:dims]
    )


def check_boundary_distance(rng, backend):
    shape = (batch_of(rng), *size_of(rng, 12))
    y, label, ignore = labels(rng, shape, int(rng.integers(1, 4)))
    spacing = spacing_of(rng, len(shape) - 1)
    limit = None if rng.random() < 0.4 else one_of(rng, (0.0, 0.3, 1.0, 0.7 * 3, 4.0, 6.3, 20.0))
    if label.dim() == 4:
        label = label[:, None]
    got = sure_fast.boundary_distance(
        label, spacing=spacing, max_distance=limit, ignore_index=ignore, backend=backend
    ).reshape(shape)
    want = oracles.boundary_distance(y, spacing, ignore) if len(y) else np.zeros(shape)
    if limit is not None:
        want = np.where(want <= limit * (1 + 1e-6), want, np.inf)
        inside = array(got) <= limit * (1 + 1e-6)
        assert np.array_equal(inside, np.isfinite(want)), f"distance: expected {want}, got {array(got)}"
    agree(got, want, torch.float32, "distance")


def near_map(rng, shape):
    d = rng.integers(0, 40, shape) / 4.0
    return np.where(rng.random(shape) < 0.1, np.inf, d)


def check_gradient_uncertainty_loss(rng, backend):
    shape, dtype = (batch_of(rng), *size_of(rng)), one_of(rng, FLOATS)
    u, g = (laid_out(rng, values(rng, shape, dtype, 1.0)) for _ in range(2))
    d = torch.from_numpy(near_map(rng, shape)).to(one_of(rng, (torch.float32, torch.float64)))
    threshold = one_of(rng, (0.0, 1.0, 4.0))
    groups = None if rng.random() < 0.6 else rng.integers(0, 3, shape)
    u = spoiled(rng, u)
    leaf = u.detach().requires_grad_()
    label = None if groups is None else torch.from_numpy(groups)
    normalize = one_of(rng, (None, "band"))
    loss = sure_fast.gradient_uncertainty_loss(
        leaf, g, d, threshold=threshold, label=label, normalize=normalize, backend=backend
    )

    def value(x):
        return oracles.gradient_uncertainty(x, array(g), array(d), threshold, groups, normalize is not None)

    want = value(array(u))
    size = max(float(u.abs().nan_to_num(0.0).max()) * float(g.abs().max()), 1e-3) if u.numel() else 1.0
    if normalize is not None:
        size = 1.0
    agree(loss, want, compute(dtype), "L_gu", scale=size)
    if not u.numel():
        return
    (gradient,) = torch.autograd.grad(loss, leaf)
    if np.isnan(want):
        assert bool(gradient.isnan().any()), "gradient of L_gu: expected NaN beside a value that is NaN"
    elif dtype == torch.float64 and len(np.unique(array(u))) == u.numel():
        directional(value, array(u), gradient, rng, "gradient of L_gu", wide=1e6)


def check_dense_noise_uncertainty_loss(rng, backend):
    shape = (batch_of(rng), *size_of(rng))
    copies = one_of(rng, (1, 2))
    maps = [laid_out(rng, values(rng, shape, torch.float64, 1.0)) for _ in range(1 + copies)]
    d, threshold, margin = near_map(rng, shape), one_of(rng, (0.0, 1.0, 4.0)), one_of(rng, (0.0, 0.3))
    levels = rng.random(copies)
    leaves = [x.detach().requires_grad_() for x in maps]
    out = sure_fast.dense_noise_uncertainty_loss(
        *(*leaves, None)[:3],
        torch.from_numpy(d),
        laid_out(rng, torch.from_numpy(levels)),
        threshold=threshold,
        margin=margin,
        backend=backend,
    )

    def terms(*u):  # one copy counts for both
        return oracles.dense_noise_terms((*u, u[-1])[:3], d, (*levels, levels[-1])[:2], threshold, margin)

    for name, value in zip(out._fields, terms(*map(array, maps)), strict=True):
        agree(getattr(out, name), value, torch.float64, name, scale=max(abs(value), 1.0))
    fixed, rises = [array(x) for x in maps], [levels[0], levels[-1], levels[-1] - levels[0]]
    apart = [
        np.abs(np.sign(rise) * (fixed[i] - fixed[j]) + margin * abs(rise))
        for (i, j), rise in list(zip(((0, 1), (0, 2), (1, 2)), rises, strict=True))[: 2 * copies - 1]
    ]
    if maps[0].numel() and min(x.min() for x in apart) > 1e-3:  # no voxel where the order term has its kink
        for k, gradient in enumerate(torch.autograd.grad(out.order + out.far, leaves)):

            def moved(x, k=k, fixed=fixed):
                order, _, far = terms(*fixed[:k], x, *fixed[k + 1 :])
                return order + far

            directional(moved, fixed[k], gradient, rng, f"gradient of the order and far terms in map {k}")


def answers_of(rng, shape, dtype):
    z = values(rng, (3, *shape), dtype, 2.0)
    return [laid_out(rng, x) for x in z]


def centers_of(rng, shape, number):
    """Voxels of images [N, *S]; those that do not exist are anywhere."""
    centers = np.stack([rng.integers(0, n, (shape[0], number)) for n in shape[1:]], -1)
    valid = rng.random((shape[0], number)) < 0.8
    centers = np.where(valid[..., None], centers, rng.integers(-(2**40), 2**40, centers.shape))
    return centers, valid


def check_noise_uncertainty_loss(rng, backend):
    size, classes = size_of(rng), int(rng.integers(2, 5))
    shape, dtype, evidence = (1 + int(rng.integers(2)), classes, *size), torch.float64, one_of(rng, EVIDENCE)
    z = answers_of(rng, shape, dtype)
    maps = (shape[0], *size)
    d, threshold = near_map(rng, maps), one_of(rng, (1.0, 4.0))
    centers, valid = centers_of(rng, maps, int(rng.integers(0, 8)))
    levels = np.sort(rng.random(2))
    leaves = [x.detach().requires_grad_() for x in z]
    out = sure_fast.noise_uncertainty_loss(
        *leaves, torch.from_numpy(d), torch.from_numpy(centers), laid_out(rng, torch.from_numpy(levels)),
        valid=torch.from_numpy(valid), threshold=threshold, evidence=evidence, backend=backend,
    )  # fmt: skip

    def terms(*logits):
        return oracles.noise_terms(
            [oracles.uncertainty(x, evidence) for x in logits], d, centers, valid, levels, threshold
        )

    for name, value in zip(("order", "distance", "far"), terms(*map(array, z)), strict=True):
        agree(getattr(out, name), value, dtype, name, scale=max(abs(value), 1.0))
    if all(smooth(array(x), evidence) for x in z) and z[0].numel():
        for k, gradient in enumerate(torch.autograd.grad(out.far, leaves)):
            fixed = [array(x) for x in z]
            directional(
                lambda x, k=k, fixed=fixed: terms(*fixed[:k], x, *fixed[k + 1 :])[2], fixed[k], gradient, rng,
                f"gradient of the far term in answer {k}",
            )  # fmt: skip


def check_uncertainty_supervision(rng, backend):
    size, classes = size_of(rng), int(rng.integers(2, 5))
    shape, evidence = (1 + int(rng.integers(2)), classes, *size), one_of(rng, EVIDENCE)
    dtype = torch.float64 if backend != "triton" else torch.float32
    z, *noisy = answers_of(rng, shape, dtype)
    y, label, ignore = labels(rng, (shape[0], *size), classes)
    # gradients that are equal on paper would be in an order by their rounding
    image = laid_out(rng, torch.from_numpy(rng.normal(size=(shape[0], 1, *size))).to(dtype))
    centers, valid = centers_of(rng, y.shape, int(rng.integers(0, 6)))
    levels = np.sort(rng.random(2))
    near, wide = one_of(rng, (0.0, 1.0, 2.0)), one_of(rng, (1.0, 4.0))
    out = sure_fast.uncertainty_supervision(
        z, label, image, noisy_logits=torch.cat(noisy), centers=torch.from_numpy(centers),
        levels=laid_out(rng, torch.from_numpy(levels)), valid=torch.from_numpy(valid), gradient_threshold=near,
        noise_threshold=wide, evidence=evidence, ignore_index=ignore, backend=backend,
    )  # fmt: skip
    want = dict(zip(("data", "kl", "dice"),
                    oracles.evidential_terms(array(z), y, "digamma", evidence, ignore, None), strict=True))  # fmt: skip
    d = oracles.boundary_distance(y, [1.0] * len(size), ignore)
    counts = oracles.counted(y, ignore)
    u = [oracles.uncertainty(array(x), evidence) for x in (z, *noisy)]
    g = oracles.gradient_magnitude(array(image), "sobel", "luma", [1.0] * len(size))[:, 0]
    want["gradient"] = oracles.gradient_uncertainty(u[0], g, np.where(counts, d, np.inf), near, None)
    known = np.where(counts, d, np.nan)
    want["order"], want["distance"], want["far"] = oracles.noise_terms(u, known, centers, valid, levels, wide)
    for name, value in want.items():
        agree(getattr(out, name), value, torch.float32, name, scale=max(abs(value), 1.0))


def rows_of(rng):
    shape, dtype = (int(rng.integers(1, 4)), int(rng.integers(0, 40))), one_of(rng, FLOATS)
    a, b = values(rng, shape, dtype), values(rng, shape, dtype)
    if rng.random() < 0.2 and a.numel():
        a.view(-1)[rng.integers(a.numel())] = one_of(rng, (np.inf, -np.inf))
    mask = torch.from_numpy(rng.random(shape) < 0.7) if rng.random() < 0.5 else None
    return laid_out(rng, a), laid_out(rng, b), mask


def check_pair_concordance(rng, backend):
    a, b, mask = rows_of(rng)
    tolerance = one_of(rng, (0.0, 0.5, 2.0))
    got = torch.stack(sure_fast.pair_concordance(a, b, mask=mask, tolerance=tolerance, backend=backend), -1)
    for k in range(len(a)):
        keep = slice(None) if mask is None else mask[k].numpy()
        want = oracles.pair_counts(array(a[k])[keep], array(b[k])[keep], tolerance)
        assert got[k].tolist() == want, f"counts: expected {want}, got {got[k].tolist()}"


def check_spearman(rng, backend):
    a, b, mask = rows_of(rng)
    got = sure_fast.spearman(a, b, mask=mask, backend=backend)
    for k in range(len(a)):
        keep = slice(None) if mask is None else mask[k].numpy()
        one, other = array(a[k])[keep], array(b[k])[keep]
        want = np.nan
        if len(one) > 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of constant rows
                want = scipy.stats.spearmanr(one, other).statistic
        agree(got[k], want, what="rho", scale=1.0)


def check_segmentation_stats(rng, backend):
    size, classes = size_of(rng), int(rng.integers(2, 5))
    shape, evidence = (batch_of(rng), classes, *size), one_of(rng, EVIDENCE)
    z = laid_out(rng, values(rng, shape, torch.float64, one_of(rng, (0.3, 3.0, 30.0))))
    y, label, ignore = labels(rng, (shape[0], *size), classes)
    bins, levels = one_of(rng, (1, 7, 10)), one_of(rng, (1, 10, 100))
    got = sure_fast.segmentation_stats(
        z, label, evidence=evidence, bins=bins, levels=levels, ignore_index=ignore, backend=backend
    )
    alpha = oracles.evidence(array(z), evidence) + 1.0
    p = alpha / alpha.sum(1, keepdims=True)
    want = oracles.statistics(p, oracles.uncertainty(array(z), evidence), y, ignore, bins, levels)
    # a probability beside an edge may be rounded to the other side by another order of summation
    edges = np.abs(p[..., None] * bins - np.round(p[..., None] * bins)) if p.size else np.ones(1)
    u = oracles.uncertainty(array(z), evidence)
    steps = np.abs(u * levels - np.round(u * levels)) if u.size else np.ones(1)
    sides = (edges < 1e-12) & (np.abs(p[..., None] * bins) > 0.5)
    sharp = not sides.any() and not (steps < 1e-12).any()
    for name, value in zip(("confusion", "number", "hits", "uncertainty", "errors"), want, strict=True):
        if name == "confusion" or sharp:
            assert np.array_equal(getattr(got, name).numpy(), value), (
                f"{name}: expected {value}, got {getattr(got, name)}"
            )


def check_surface_distances(rng, backend):
    shape, classes = (1 + int(rng.integers(2)), *size_of(rng)), int(rng.integers(2, 4))
    y, target, ignore = labels(rng, shape, classes)
    x, prediction, _ = labels(rng, shape, classes)
    x = np.where((x < 0) | (x >= classes), 0, x)
    prediction = torch.from_numpy(x).to(one_of(rng, (torch.uint8, torch.int32, torch.int64)))
    if len(shape) == 4:
        prediction, target = prediction[:, None], target[:, None]
    spacing, percentile, tolerance = spacing_of(rng, len(shape) - 1), one_of(rng, (0.0, 50.0, 95.0, 100.0)), 0.3
    got = sure_fast.surface_distances(
        prediction, target, classes, spacing=spacing, percentile=percentile, tolerance=tolerance, ignore_index=ignore,
        backend=backend,
    )  # fmt: skip
    counts = oracles.counted(y, ignore)
    for n in range(shape[0]):
        for c in range(1, classes):
            want = oracles.surface_distances(
                (x[n] == c) & counts[n], (y[n] == c) & counts[n], spacing, percentile, tolerance
            )
            values_of = [got.hausdorff, got.percentile, got.average, got.within]
            if want is not None:
                agree([float(v[n, c - 1]) for v in values_of], want, torch.float32, "distances")


def check_sample_hard_patches(rng, backend):
    shape, classes = (1 + int(rng.integers(2)), *size_of(rng, 14)), int(rng.integers(1, 4))
    u, noisy = (torch.from_numpy(rng.random(shape)).float() for _ in range(2))
    y = rng.integers(0, classes, shape)
    d, limit = near_map(rng, shape), one_of(rng, (0.5, 4.0))
    patch = tuple(int(one_of(rng, (1, 1, 3, 5))) for _ in shape[1:])
    patch = tuple(min(p, n - 1 + n % 2) for p, n in zip(patch, shape[1:], strict=True))
    number, seed = one_of(rng, (1, 3, 40)), int(rng.integers(2**31))
    number = min(number, int(np.prod(shape[1:])))
    got = sure_fast.sample_hard_patches(
        u[:, None], noisy[:, None], torch.from_numpy(y), torch.from_numpy(d)[:, None], num_classes=classes,
        patch_size=patch, num_patches=number, max_distance=limit, generator=torch.Generator().manual_seed(seed),
        backend=backend,
    )  # fmt: skip
    centers, valid = got.centers.numpy(), got.valid.numpy()
    margin, size = np.array(patch) // 2, np.array(shape[1:])
    hard = array(noisy) <= array(u)
    for n in range(shape[0]):
        drawn = centers[n][valid[n]]
        assert ((drawn >= margin) & (drawn < size - margin)).all(), f"centers: expected inside, got {drawn}"
        overlap = (np.abs(drawn[:, None] - drawn[None]) < np.array(patch)).all(-1)
        assert overlap.sum() == len(drawn), f"centers: expected none that overlap, got {drawn}"
        grid = np.stack(np.meshgrid(*map(np.arange, shape[1:]), indexing="ij"), -1).reshape(-1, len(size))
        fits = ((grid >= margin) & (grid < size - margin)).all(1)
        free = fits & ~(np.abs(grid[:, None] - drawn[None]) < np.array(patch)).all(-1).any(1)
        if not valid[n].all():
            assert not free.any(), f"centers: expected a slot for the free voxel {grid[free][0]}, got {valid[n]}"
        for c in range(classes):
            of_class = slice(c * number, (c + 1) * number)
            taken = [tuple(x) for x, there in zip(centers[n, of_class], valid[n, of_class], strict=True) if there]
            right = [bool(hard[n][at] and y[n][at] == c and (c or d[n][at] < limit)) for at in taken]
            first = right.index(False) if False in right else len(right)
            if first < number:  # no candidate of the class was left: the free hard ones are none
                candidates = hard[n].ravel() & (y[n].ravel() == c) & ((d[n].ravel() < limit) | (c > 0)) & free
                assert not candidates.any(), f"class {c}: expected its hard voxel {grid[candidates][0]} to be drawn"


def check_add_noise_patches(rng, backend):
    shape, dtype = (1 + int(rng.integers(2)), int(rng.integers(1, 3)), *size_of(rng)), one_of(rng, FLOATS)
    patch = tuple(1 if n < 3 else int(one_of(rng, (1, 3))) for n in shape[2:])
    cells = [list(range(p // 2, n - p // 2, p)) for p, n in zip(patch, shape[2:], strict=True)]
    grid = np.stack(np.meshgrid(*cells, indexing="ij"), -1).reshape(-1, len(cells))
    number = int(rng.integers(0, len(grid) + 1))
    centers = np.stack([grid[rng.permutation(len(grid))[:number]] for _ in range(shape[0])])
    valid = rng.random(centers.shape[:2]) < 0.8
    image = laid_out(rng, values(rng, shape, dtype))
    noise = values(rng, (int(rng.integers(0, 3)), *patch), dtype, 1.0)
    got = sure_fast.add_noise_patches(image, torch.from_numpy(centers), torch.from_numpy(valid), noise, backend=backend)
    want = oracles.noisy_copies(array(image), centers, valid, array(noise))
    agree(got, want, dtype, "images")
    if len(grid) and len(noise):
        refuses_outside(rng, image, noise, patch, centers if number else grid[:1][None].repeat(shape[0], 0), backend)


def refuses_outside(rng, image, noise, patch, centers, backend):
    """One of the centers reaches over an edge of the image."""
    size, margin = np.array(image.shape[2:]), np.array(patch) // 2
    axis = int(rng.integers(len(size)))
    centers = centers.copy()
    centers[0, 0, axis] = one_of(rng, (margin[axis] - 1, size[axis] - margin[axis], -(2**62), 2**62))
    with pytest.raises(ValueError, match=r"^centers: expected voxel indices inside"):
        sure_fast.add_noise_patches(image, torch.from_numpy(centers), None, noise, backend=backend)


CHECKS = {
    name.removeprefix("check_"): function for name, function in list(globals().items()) if name.startswith("check_")
}
