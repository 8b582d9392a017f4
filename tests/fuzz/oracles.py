"""What the ops mean, in float64 NumPy: written from the equations alone, one loop or one table of all pairs a sum.

Nothing here is shared with sure_fast or with its reference.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy.special import digamma, gammaln

EMPTY = (0.0, 0.0, 0.0)


def evidence(z, kind):
    z = z.astype(np.float64)
    if kind != "exp":
        z = np.where(z == np.inf, np.nan, z)
    if kind == "softplus":
        return np.logaddexp(0.0, z)
    if kind == "relu":
        return np.where(np.isnan(z), np.nan, np.maximum(z, 0.0))
    return np.exp(np.clip(z, -10.0, 10.0))


def uncertainty(z, kind):
    """[N, *S] of logits [N, C, *S]."""
    alpha = evidence(z, kind) + 1.0
    return alpha.shape[1] / alpha.sum(1)


def counted(label, ignore):
    return np.ones(label.shape, bool) if ignore is None else label.astype(object) != ignore


def evidential_terms(z, label, kind, evidence_kind, ignore, weights):
    """(data, KL, Dice) of logits [N, C, *S]."""
    classes = z.shape[1]
    alpha = np.moveaxis(evidence(z, evidence_kind) + 1.0, 1, -1)
    counts = counted(label, ignore)
    alpha, y = alpha[counts], label[counts].astype(np.int64)
    if len(y) == 0:
        return EMPTY
    hot = np.eye(classes)[y]
    total = alpha.sum(1, keepdims=True)
    p = alpha / total
    if kind == "digamma":
        data = (hot * (digamma(total) - digamma(alpha))).sum(1)
    elif kind == "log":
        data = (hot * (np.log(total) - np.log(alpha))).sum(1)
    else:
        data = ((hot - p) ** 2).sum(1) + (p * (1 - p)).sum(1) / (total[:, 0] + 1)
    other = hot + (1 - hot) * alpha
    whole = other.sum(1)
    kl = gammaln(whole) - gammaln(other).sum(1) - math.lgamma(classes)
    kl += ((other - 1) * (digamma(other) - digamma(whole)[:, None])).sum(1)
    of_class = np.ones(classes) if weights is None else np.asarray(weights, np.float64)
    of_voxel = of_class[y]
    if of_voxel.sum() == 0:
        return EMPTY
    soft = hot + 1e-3
    tp, fp, fn = (p * soft).sum(0), (p * (1 - soft)).sum(0), ((1 - p) * soft).sum(0)
    a = np.clip(fp / (fp + fn + 1e-5), 0.2, 0.8)
    dice = 1 - tp / (tp + a * fp + (1 - a) * fn + 1e-5)
    mean = of_voxel.sum()
    return (data * of_voxel).sum() / mean, (kl * of_voxel).sum() / mean, (dice * of_class).sum() / of_class.sum()


def gradient_magnitude(image, operator, channels, spacing):
    """[N, 1, *S]."""
    x = image.astype(np.float64)
    if channels == "luma":
        x = x if x.shape[1] == 1 else np.tensordot(x, [0.2989, 0.587, 0.114], (1, 0))[:, None]
    elif channels == "mean":
        x = x.mean(1, keepdims=True)
    squares = 0.0
    for axis in range(2, x.ndim):
        derivative = _derivative(x, axis, operator)
        if operator == "sobel":
            for other in range(2, x.ndim):
                if other != axis:
                    before, after = _neighbours(derivative, other)
                    derivative = (before + 2 * derivative + after) / 4
        squares = squares + (derivative / spacing[axis - 2]) ** 2
    return np.sqrt(squares).max(1, keepdims=True)


def _neighbours(x, axis):
    index = np.arange(x.shape[axis])
    return x.take(np.maximum(index - 1, 0), axis), x.take(np.minimum(index + 1, x.shape[axis] - 1), axis)


def _derivative(x, axis, operator):
    before, after = _neighbours(x, axis)
    if operator == "sobel" or x.shape[axis] == 1:
        return (after - before) / 2
    return np.gradient(x, axis=axis)


def boundary(label, ignore):
    """bool [*S] of the labels of one image: more than one label in the neighbourhood."""
    counts = counted(label, ignore)
    mask = np.zeros(label.shape, bool)
    for index in np.argwhere(counts):
        window = tuple(slice(max(i - 1, 0), i + 2) for i in index)
        mask[tuple(index)] = len(np.unique(label[window][counts[window]])) > 1
    return mask


def distance_to(mask, spacing):
    """[*S], to the nearest voxel of the mask; +inf where there is none."""
    grid = np.stack(
        np.meshgrid(*[np.arange(n) * s for n, s in zip(mask.shape, spacing, strict=True)], indexing="ij"), -1
    )
    points = grid[mask]
    if len(points) == 0:
        return np.full(mask.shape, np.inf)
    return np.sqrt(((grid[..., None, :] - points) ** 2).sum(-1)).min(-1)


def boundary_distance(label, spacing, ignore):
    return np.stack([distance_to(boundary(image, ignore), spacing) for image in label])


def pairs_above(a, b):
    """Mean of (a_i - a_j)(b_i - b_j) over the unordered pairs where it is positive, or 0; and the number of them.

    A pair that is tied in a or in b counts as none; what is not finite makes the mean NaN.
    """
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return np.nan, 0
    total, number = 0.0, 0
    for i, j in itertools.combinations(range(len(a)), 2):
        if a[i] != a[j] and b[i] != b[j] and (a[i] > a[j]) == (b[i] > b[j]):
            total, number = total + (a[i] - a[j]) * (b[i] - b[j]), number + 1
    return total / max(number, 1), number


def gradient_uncertainty(u, g, d, threshold, label, normalize=False):
    """L_gu of maps [N, *S]; `label`: only pairs of one label, or None; `normalize`: over the deviations."""
    values = []
    for n in range(len(u)):
        near = d[n] <= threshold
        a, b = g[n][near].astype(np.float64), u[n][near].astype(np.float64)
        scale = a.std() * b.std() if normalize and len(a) else 1.0
        if scale == 0:
            values.append(0.0)
            continue
        if label is None:
            values.append(pairs_above(a, b)[0] / scale)
            continue
        total, number = 0.0, 0
        for group in np.unique(label[n][near]):
            own = label[n][near] == group
            mean, pairs = pairs_above(a[own], b[own])
            total, number = total + mean * max(pairs, 1), number + pairs
        values.append(total / max(number, 1) / scale)
    return float(np.mean(values)) if values else 0.0


def dense_noise_terms(u, d, levels, threshold, margin):
    """(order, distance, far) of u of the clean image and of two noisy ones, each [N, *S]."""
    u, all_levels = [x.astype(np.float64) for x in u], [0.0, *levels]
    near, far = d <= threshold, d > threshold
    order = 0.0
    for i, j in ((0, 1), (0, 2), (1, 2)):
        rise = all_levels[j] - all_levels[i]
        missing = np.maximum(np.sign(rise) * (u[i] - u[j]) + margin * abs(rise), 0.0)[near]
        order += missing.mean() if missing.size else 0.0
    distances = [sum(pairs_above(d[n][near[n]], (x - u[0])[n][near[n]])[0] for x in u[1:]) for n in range(len(d))]
    total = (u[0] + u[1] + u[2])[far]
    return float(order), float(np.mean(distances)) if distances else 0.0, float(total.mean()) if total.size else 0.0


def noise_terms(u, d, centers, valid, levels, threshold):
    """(order, distance, far) of u of the clean image and of the two noisy ones, each [N, *S]."""
    order = [[], [], []]
    distances = []
    for n in range(len(u[0])):
        points = [tuple(c) for c, exists in zip(centers[n], valid[n], strict=True) if exists]
        at = [np.array([x[n][c] for c in points], np.float64) for x in u]
        near = np.array([d[n][c] <= threshold for c in points], bool)
        apart = np.array([d[n][c] for c in points], np.float64)
        pairs = ((at[2] - at[1]) * (levels[1] - levels[0]), (at[1] - at[0]) * levels[0], (at[2] - at[0]) * levels[1])
        for answers, w in zip(order, pairs, strict=True):
            answers.extend(-w[near & (w < 0)])
        known = np.isfinite(apart)
        distances.append(
            sum(pairs_above(apart[known], np.where(near, noisy - at[0], 0.0)[known])[0] for noisy in at[1:])
        )
    far = d > threshold
    total = (u[0] + u[1] + u[2])[far]
    return (
        sum(float(np.mean(answers)) if answers else 0.0 for answers in order),
        float(np.mean(distances)) if distances else 0.0,
        float(total.mean()) if total.size else 0.0,
    )


def pair_counts(a, b, tolerance):
    """(concordant, discordant, ties in a, in b, in both, close) of two rows."""
    counts = [0] * 6
    for i, j in itertools.combinations(range(len(a)), 2):
        one, other = int(a[i] > a[j]) - int(a[i] < a[j]), int(b[i] > b[j]) - int(b[i] < b[j])
        if one and other:
            counts[0 if one == other else 1] += 1
        else:
            counts[4 if not one and not other else 2 if not one else 3] += 1
        if not one and other:
            with np.errstate(over="ignore"):
                counts[5] += bool(abs(float(b[i]) - float(b[j])) < tolerance)
    return counts


def surface(mask):
    padded = np.pad(mask, 1)
    inside = mask.copy()
    core = tuple(slice(1, -1) for _ in mask.shape)
    for axis in range(mask.ndim):
        for shift in (1, -1):
            inside &= np.roll(padded, shift, axis)[core]
    return mask & ~inside


def surface_distances(prediction, target, spacing, percentile, tolerance):
    """(Hausdorff, percentile, average, within) of two masks, None where a surface is missing."""
    surfaces = surface(prediction), surface(target)
    if not surfaces[0].any() or not surfaces[1].any():
        return None
    ways = [distance_to(surfaces[1 - k], spacing)[surfaces[k]] for k in (0, 1)]
    every = np.concatenate(ways)
    return (
        every.max(), max(np.percentile(way, percentile) for way in ways), every.mean(),
        (every <= tolerance * (1 + 1e-6)).mean(),
    )  # fmt: skip


def statistics(p, u, label, ignore, bins, levels):
    """Confusion, and number, sum and hits by bin of each class and of the top label, of float64 p [N, C, *S]."""
    n, classes = p.shape[:2]
    confusion = np.zeros((n, classes, classes), np.int64)
    number, hits = np.zeros((2, n, classes + 1, bins), np.int64)
    by_level = np.zeros((n, levels), np.int64)
    errors = np.zeros((n, classes + 1, levels), np.int64)
    counts = counted(label, ignore)
    for index in np.argwhere(counts):
        i, at = index[0], tuple(index[1:])
        of = p[(i, slice(None), *at)]
        y, best = int(label[tuple(index)]), int(of.argmax())
        confusion[i, y, best] += 1
        level = min(k for k in range(levels) if u[tuple(index)] <= (k + 1) / levels or k == levels - 1)
        by_level[i, level] += 1
        for c in range(classes + 1):
            value = of[c] if c < classes else of[best]
            k = max(k for k in range(bins) if value >= k / bins or k == 0)
            number[i, c, k] += 1
            hits[i, c, k] += (y == c) if c < classes else y == best
            errors[i, c, level] += ((y == c) != (best == c)) if c < classes else y != best
    return confusion, number, hits, by_level, errors


def noisy_copies(image, centers, valid, noise):
    """[M N, K, *S] of an image [N, K, *S] and one patch [M, *patch] for each copy, in float64."""
    copies = []
    for patch in noise:
        copy = image.astype(np.float64).copy()
        for n, k in itertools.product(range(len(centers)), range(centers.shape[1])):
            if valid[n, k]:
                window = tuple(
                    slice(c - s // 2, c + s // 2 + 1) for c, s in zip(centers[n, k], patch.shape, strict=True)
                )
                copy[(n, slice(None), *window)] += patch.astype(np.float64)
        copies.append(copy)
    return np.concatenate(copies) if copies else image[:0].astype(np.float64)
