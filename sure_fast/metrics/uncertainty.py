"""Does the uncertainty follow the principles: UCC (rank correlation) and UR (share of pairs in the right order)."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks
from ..ops.pair_concordance import pair_concordance
from ..ops.spearman import spearman

EXPECTED = ("negative", "positive")
PROTOCOLS = ("paper", "sure", "prius")
GRADIENT_THRESHOLD = 1.0
NOISE_THRESHOLD = 4.0
PRIUS_TOLERANCE = 1e-4


def compute_ucc(a: Tensor, b: Tensor, *, mask: Tensor | None = None) -> Tensor:
    r"""Uncertainty correlation coefficient: Spearman's correlation of two maps, per image.

    Math:
        Rank correlation with average ranks over the voxels of `mask`; UCC_g is that of (gradient, u), UCC_d that of
        (distance, u_noisy - u). Li et al., MICCAI 2025 (arXiv 2509.17098).

    Args:
        a, b: [N, \*S] floating. mask: bool [N, \*S], the voxels that count; None: all.

    Returns:
        float64 [N] in [-1, 1]; NaN where fewer than two voxels count or one map is constant.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_ucc
        >>> compute_ucc(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]]))
        tensor([-1.], dtype=torch.float64)
    """
    return spearman(a.flatten(1), b.flatten(1), mask=None if mask is None else mask.flatten(1))


def compute_ur(
    a: Tensor, b: Tensor, *, expected: str = "negative", protocol: str = "paper", mask: Tensor | None = None
) -> Tensor:
    r"""Uncertainty ratio: the share of unordered voxel pairs that are ordered as a principle says, per image.

    Math:
        With s = (a_i - a_j)(b_i - b_j), a pair passes under `expected="negative"` when, by protocol,
        "paper": s <= 0, so ties pass; "sure": s < 0, or both are tied exactly; "prius": s < 0, or b equal, or a equal
        and |b_i - b_j| < 1e-4. "positive" turns the sign of s. All pairs are counted.

    Args:
        a, b: [N, \*S] floating, b the uncertainty.
        expected: the direction of the principle, "negative" or "positive".
        protocol: how ties count.
        mask: bool [N, \*S], the voxels that count; None: all.

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
    _checks.choice("expected", expected, EXPECTED)
    _checks.choice("protocol", protocol, PROTOCOLS)
    for name, value in (("b", b), ("mask", mask)):
        if value is not None and value.shape != a.shape:
            raise ValueError(
                f"{name}: expected the shape of a {_checks.shape_text(a.shape)}, got {_checks.shape_text(value.shape)}"
            )
    a, b = a.flatten(1), b.flatten(1)
    mask = torch.ones_like(a, dtype=torch.bool) if mask is None else mask.flatten(1)
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


def thin_by_gradient(gradient: Tensor, mask: Tensor, step: float = 0.04) -> Tensor:
    r"""Thins a mask to the voxels nearest in gradient to each point of a grid, once each.

    Math:
        For every point of a grid of `step` from min g to max g over the mask, the voxel of nearest g.

    Args:
        gradient: [N, \*S]. mask: bool [N, \*S]. step: grid step in the unit of g, > 0.

    Returns:
        bool [N, \*S], a part of `mask`; all of it in an image whose gradient is not finite there.
    """
    step = _checks.positive("step", step)
    thinned = torch.zeros_like(mask)
    for g, keep, out in zip(gradient.flatten(1).double(), mask.flatten(1), thinned.flatten(1), strict=True):
        places = keep.nonzero().squeeze(1)
        if not len(places):
            continue
        if not g[places].isfinite().all():
            out[places] = True  # no grid; the metrics then see the NaN
            continue
        ordered, order = g[places].sort(stable=True)
        grid = torch.arange(float(ordered[0]), float(ordered[-1]) + step, step, dtype=torch.float64, device=g.device)
        above = torch.searchsorted(ordered, grid).clamp(max=len(ordered) - 1)
        below = (above - 1).clamp(min=0)
        nearest = torch.where((grid - ordered[below]) <= (ordered[above] - grid), below, above)
        out[places[order[nearest.unique()]]] = True
    return thinned


def compute_uncertainty_metrics(
    uncertainty: Tensor,
    gradient: Tensor,
    distance: Tensor,
    noisy1: Tensor,
    noisy2: Tensor,
    *,
    levels: tuple[float, float] = (0.1, 0.9),
    protocol: str = "paper",
    thin: float | None = None,
) -> dict[str, Tensor]:
    r"""UCC and UR of all three principles, per image.

    Args:
        uncertainty: u of the clean image, [N, \*S].
        gradient: image gradient magnitude, [N, \*S].
        distance: distance to the label boundary in voxels, [N, \*S].
        noisy1, noisy2: u under the two noise levels, [N, \*S].
        levels: the noise levels, the weaker first; the distance metrics use the stronger.
        protocol: how ties count in UR, see `compute_ur`.
        thin: grid step of `thin_by_gradient` for the gradient metrics; None: every boundary voxel.

    Returns:
        float64 [N] each: "ucc_g" (wanted near -1), "ucc_d" (near -1), "ucc_noise" (mean sign of u² - u¹, near +1) and
        "ur_g", "ur_d", "ur_noise" (near 1). NaN where undefined.

    Raises:
        ValueError: levels that do not rise, an unknown protocol.
    """
    if not levels[0] < levels[1]:
        raise ValueError(f"levels: expected the weaker noise level first, got {levels}")
    boundary = distance <= GRADIENT_THRESHOLD
    if thin is not None:
        boundary = thin_by_gradient(gradient, boundary, thin)
    near = distance <= NOISE_THRESHOLD
    change = noisy2.double() - uncertainty.double()
    difference = (noisy2.double() - noisy1.double()).flatten(1)
    counted = near.flatten(1)
    share = {"paper": difference >= 0, "sure": difference > 0, "prius": difference >= 0}
    _checks.choice("protocol", protocol, PROTOCOLS)
    number = counted.sum(1)
    spoiled = (difference.isnan() & counted).any(1) | (number == 0)

    def mean(values: Tensor) -> Tensor:
        return ((values.double() * counted).sum(1) / number).masked_fill(spoiled, torch.nan)

    options = {"expected": "negative", "protocol": protocol}
    return {
        "ucc_g": compute_ucc(gradient.double(), uncertainty.double(), mask=boundary),
        "ucc_d": compute_ucc(distance.double(), change, mask=near),
        "ucc_noise": mean(difference.nan_to_num().sign()),
        "ur_g": compute_ur(gradient.double(), uncertainty.double(), mask=boundary, **options),
        "ur_d": compute_ur(distance.double(), change, mask=near, **options),
        "ur_noise": mean(share[protocol]),
    }
