"""Does the uncertainty follow the principles: UCC (rank correlation) and UR (share of pairs in the right order)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from .. import _checks
from ..ops.boundary_distance import boundary_distance
from ..ops.gradient_magnitude import gradient_magnitude
from ..ops.pair_concordance import pair_concordance
from ..ops.spearman import spearman
from ._inputs import Array, as_tensor, counted, maps, mask_of, rising_levels
from ._options import options
from .accumulator import CaseMetric

EXPECTED = ("negative", "positive")
PROTOCOLS = ("paper", "sure", "prius")
GRADIENT_THRESHOLD = 1.0
NOISE_THRESHOLD = 4.0
PRIUS_TOLERANCE = 1e-4


def _direction(name: str, value: object) -> str:
    return _checks.choice(name, value, EXPECTED)


def _protocol(name: str, value: object) -> str:
    return _checks.choice(name, value, PROTOCOLS)


def _step_or_none(name: str, value: float | None) -> float | None:
    return None if value is None else _checks.positive(name, value)


def gradient_and_distance(
    image: Array,
    label: Array,
    *,
    operator: str = "sobel",
    spacing: Sequence[float] | float | None = None,
    ignore_index: int | None = None,
) -> tuple[Tensor, Tensor]:
    r"""What uncertainty is held against: image gradient magnitude and distance to the label boundary.

    Args:
        image: [N, K, \*S]; of several channels other than three the mean, of three the luma. label: integer [N, \*S] or
            [N, 1, \*S]. operator: as of `gradient_magnitude`. spacing: voxel size per axis, for gradients per mm and
            distances in mm; None: voxels.
        ignore_index: voxels of this label are no boundary, and near none: their distance is +inf.

    Returns:
        Gradient and distance, both [N, 1, \*S], as metrics and losses take them; the distance is exact up to 4 (voxels
        or mm) and +inf beyond.

    Raises:
        TypeError, ValueError: as the two ops.
    """
    x = _checks.batched_image("image", as_tensor("image", image))
    y = _checks.label("label", as_tensor("label", label), x, "image")[:, None]
    channels = "luma" if x.shape[1] in (1, 3) else "mean"
    gradient = gradient_magnitude(x, operator=operator, channels=channels, spacing=spacing)
    volume = y if x.dim() == 5 else y[:, 0]
    distance = boundary_distance(volume, max_distance=NOISE_THRESHOLD, spacing=spacing, ignore_index=ignore_index)
    distance = distance.reshape(y.shape)
    return gradient, distance.masked_fill(~counted(y, ignore_index), torch.inf)


def compute_ucc(a: Array, b: Array, *, mask: Array | None = None) -> Tensor:
    r"""Uncertainty correlation coefficient: Spearman's correlation of two maps, per image.

    Math:
        Rank correlation with average ranks over the voxels of `mask`; UCC_g is that of (gradient, u), UCC_d that of
        (distance, u_noisy - u). Li et al., MICCAI 2025 (arXiv 2509.17098).

    Args:
        a, b: floating maps, [N, \*S] or [N, 1, \*S]. mask: bool, the same, the voxels that count; None: all.

    Returns:
        float64 [N] in [-1, 1]; NaN where fewer than two voxels count or one map is constant.

    Raises:
        TypeError, ValueError: maps that are not floating, or of different voxels.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_ucc
        >>> compute_ucc(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]]))
        tensor([-1.], dtype=torch.float64)
    """
    a, b = maps("a", a, b=b)
    return spearman(a.flatten(1), b.flatten(1), mask=None if mask is None else mask_of(mask, "a", a).flatten(1))


@options(expected=_direction, protocol=_protocol)
def compute_ur(
    a: Array, b: Array, *, expected: str = "negative", protocol: str = "paper", mask: Array | None = None
) -> Tensor:
    r"""Uncertainty ratio: the share of unordered voxel pairs that are ordered as a principle says, per image.

    Math:
        With s = (a_i - a_j)(b_i - b_j), a pair passes under `expected="negative"` when, by protocol,
        "paper": s <= 0, so ties pass; "sure": s < 0, or both are tied exactly; "prius": s < 0, or b equal, or a equal
        and |b_i - b_j| < 1e-4. "positive" turns the sign of s. All pairs are counted.

    Args:
        a, b: floating maps, [N, \*S] or [N, 1, \*S], b the uncertainty.
        expected: the direction of the principle, "negative" or "positive".
        protocol: how ties count.
        mask: bool, the same, the voxels that count; None: all.

    Returns:
        float64 [N] in [0, 1]; NaN where fewer than two voxels count or one map is constant.

    Raises:
        ValueError: an unknown `expected` or `protocol`; a, b and mask of different shapes.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_ur
        >>> compute_ur(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 2.0]]), protocol="sure")
        tensor([0.6667], dtype=torch.float64)
    """
    a, b = maps("a", a, b=b)
    mask = mask_of(mask, "a", a).flatten(1)
    a, b = a.flatten(1), b.flatten(1)
    spoiled = ((a.isnan() | b.isnan()) & mask).any(1)
    mask = mask & ~spoiled[:, None]
    counts = pair_concordance(a, b, mask=mask, tolerance=PRIUS_TOLERANCE if protocol == "prius" else 0.0)
    right = counts.discordant if expected == "negative" else counts.concordant
    if protocol == "paper":
        passed = right + counts.ties_a + counts.ties_b + counts.ties_both
    elif protocol == "sure":
        passed = right + counts.ties_both
    else:
        passed = right + counts.ties_b + counts.ties_both + counts.close
    n = mask.sum(1)
    total = n * (n - 1) // 2
    # Where every pair is tied in one map, nothing is ordered; this holds without pairs too.
    undefined = (counts.ties_a + counts.ties_both == total) | (counts.ties_b + counts.ties_both == total)
    return (passed.double() / total).masked_fill(undefined, torch.nan)


@options(step=_checks.positive)
def thin_by_gradient(gradient: Array, mask: Array | None, step: float = 0.04) -> Tensor:
    r"""Thins a mask to the voxels nearest in gradient to each point of a grid, once each.

    Math:
        For every point of a grid of `step` from min g to max g over the mask, the voxel of nearest g.

    Args:
        gradient: [N, \*S] or [N, 1, \*S]. mask: bool, the same, None: all. step: grid step in the unit of g, > 0.

    Returns:
        bool of the shape of `gradient`, a part of `mask`; all of it in an image whose gradient is not finite there.

    Raises:
        TypeError, ValueError: wrong types or shapes, a step that is no number > 0.
    """
    shape = as_tensor("gradient", gradient).shape
    (gradient,) = maps("gradient", gradient)
    mask = mask_of(mask, "gradient", gradient)
    thinned = torch.zeros_like(mask)
    for g, keep, out in zip(gradient.flatten(1).double(), mask.flatten(1), thinned.flatten(1), strict=True):
        voxels = keep.nonzero().squeeze(1)
        if not len(voxels):
            continue
        if not g[voxels].isfinite().all():
            out[voxels] = True  # no grid; the metrics then see the NaN
            continue
        ordered, order = g[voxels].sort(stable=True)
        grid = torch.arange(float(ordered[0]), float(ordered[-1]) + step, step, dtype=torch.float64, device=g.device)
        above = torch.searchsorted(ordered, grid).clamp(max=len(ordered) - 1)
        below = (above - 1).clamp(min=0)
        nearest = torch.where((grid - ordered[below]) <= (ordered[above] - grid), below, above)
        out[voxels[order[nearest.unique()]]] = True
    return thinned.reshape(shape)


def compute_ucc_noise(noisy: Sequence[Array], *, mask: Array | None = None) -> Tensor:
    r"""UCC_noise: does the uncertainty of a voxel rise with the noise, per image.

    Math:
        The mean over voxels of Spearman's correlation of u with the noise level, 0 where u is the same under all. With
        two levels it is the mean sign of :math:`u^2 - u^1`.

    Args:
        noisy: u under each noise level, [N, \*S] or [N, 1, \*S] each, the weakest first, at least two.
        mask: bool, the same, the voxels that count; None: all.

    Returns:
        float64 [N] in [-1, 1], wanted near 1; NaN where no voxel counts or one of them is NaN.

    Raises:
        ValueError: fewer than two levels, maps of different shapes.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_ucc_noise
        >>> compute_ucc_noise([torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0]])])
        tensor([0.], dtype=torch.float64)
    """
    levels, counts = _levels(noisy, mask)
    if len(levels) == 2:
        rises = (levels[1] - levels[0]).sign()
    else:
        by_voxel = torch.stack(levels, -1)
        rank = torch.arange(len(levels), dtype=torch.float64, device=by_voxel.device).expand(by_voxel.shape)
        constant = (by_voxel == by_voxel[..., :1]).all(-1)
        rises = spearman(rank, by_voxel).masked_fill(constant, 0.0)
    return _mean(rises, levels, counts)


@options(protocol=_protocol)
def compute_ur_noise(noisy: Sequence[Array], *, protocol: str = "paper", mask: Array | None = None) -> Tensor:
    r"""UR_noise: the share of voxels, and pairs of noise levels, whose uncertainty is larger under more noise.

    Math:
        The mean of :math:`[u^l > u^k]`, k < l, by the protocol "sure", of :math:`[u^l \ge u^k]` by the others.

    Args, Returns, Raises: as of `compute_ucc_noise`, in [0, 1]; protocol: how ties count, see `compute_ur`.
    """
    levels, counts = _levels(noisy, mask)
    rises = [b > a if protocol == "sure" else b >= a for a, b in combinations(levels, 2)]
    return _mean(torch.stack(rises).double().mean(0), levels, counts)


def _levels(noisy: Sequence[Array], mask: Array | None) -> tuple[list[Tensor], Tensor]:
    """The maps as float64 [N, n], and what counts."""
    if isinstance(noisy, (Tensor, np.ndarray)) or not isinstance(noisy, Sequence):
        raise TypeError(f"noisy: expected a list of maps, one a noise level, got {type(noisy).__name__}")
    if len(noisy) < 2:
        raise ValueError(f"noisy: expected the uncertainty under at least two levels, got {len(noisy)}")
    uncertainties = maps("noisy[0]", noisy[0], **{f"noisy[{k}]": u for k, u in enumerate(noisy) if k})
    flags = mask_of(mask, "noisy[0]", uncertainties[0])
    return [u.double().flatten(1) for u in uncertainties], flags.flatten(1)


def _mean(values: Tensor, levels: Sequence[Tensor], counts: Tensor) -> Tensor:
    number = counts.sum(1)
    spoiled = (torch.stack([u.isnan() for u in levels]).any(0) & counts).any(1) | (number == 0)
    return (values.where(counts, 0.0).sum(1) / number).masked_fill(spoiled, torch.nan)


@options(levels=rising_levels, protocol=_protocol, thin=_step_or_none)
def compute_uncertainty_metrics(
    uncertainty: Array,
    gradient: Array,
    distance: Array,
    noisy1: Array,
    noisy2: Array,
    *,
    levels: tuple[float, float] = (0.1, 0.9),
    protocol: str = "paper",
    thin: float | None = None,
) -> dict[str, Tensor]:
    r"""UCC and UR of all three principles, per image.

    Args:
        uncertainty: u of the clean image, [N, \*S] or [N, 1, \*S], as all maps.
        gradient: image gradient magnitude.
        distance: distance to the label boundary in voxels.
        noisy1, noisy2: u under the two noise levels.
        levels: the noise levels, the weaker first; the distance metrics use the stronger.
        protocol: how ties count in UR, see `compute_ur`.
        thin: grid step of `thin_by_gradient` for the gradient metrics; None: every boundary voxel.

    Returns:
        float64 [N] each: "ucc_g" (wanted near -1), "ucc_d" (near -1), "ucc_noise" (mean sign of u² - u¹, near +1) and
        "ur_g", "ur_d", "ur_noise" (near 1). NaN where undefined.

    Raises:
        TypeError, ValueError: maps that are not floating, or of different voxels; levels that do not rise, an unknown
            protocol, a step that is no number > 0.
    """
    u, gradient, distance, *noisy = maps(
        "uncertainty", uncertainty, gradient=gradient, distance=distance, noisy1=noisy1, noisy2=noisy2
    )
    boundary = distance <= _checks.reach("gradient threshold", GRADIENT_THRESHOLD)
    near = distance <= _checks.reach("noise threshold", NOISE_THRESHOLD)
    if thin is not None:
        boundary = thin_by_gradient(gradient, boundary, thin)
    change = noisy[1].double() - u.double()
    gradient, distance, u = gradient.double(), distance.double(), u.double()
    return {
        "ucc_g": compute_ucc(gradient, u, mask=boundary),
        "ucc_d": compute_ucc(distance, change, mask=near),
        "ucc_noise": compute_ucc_noise(noisy, mask=near),
        "ur_g": compute_ur(gradient, u, protocol=protocol, mask=boundary),
        "ur_d": compute_ur(distance, change, protocol=protocol, mask=near),
        "ur_noise": compute_ur_noise(noisy, protocol=protocol, mask=near),
    }


class UCCMetric(CaseMetric):
    """Accumulates `compute_ucc`."""

    function = staticmethod(compute_ucc)


class URMetric(CaseMetric):
    """Accumulates `compute_ur`."""

    function = staticmethod(compute_ur)


class UCCNoiseMetric(CaseMetric):
    """Accumulates `compute_ucc_noise`."""

    function = staticmethod(compute_ucc_noise)


class URNoiseMetric(CaseMetric):
    """Accumulates `compute_ur_noise`."""

    function = staticmethod(compute_ur_noise)


class UncertaintyMetrics(CaseMetric):
    """Accumulates `compute_uncertainty_metrics`: UCC and UR of all three principles."""

    function = staticmethod(compute_uncertainty_metrics)
