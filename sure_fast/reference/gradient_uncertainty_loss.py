"""Plain PyTorch gradient-uncertainty loss."""

from __future__ import annotations

import torch
from torch import Tensor

from .dirichlet_uncertainty import widen
from .pairs import compact, partners


def gradient_uncertainty_loss(
    uncertainty: Tensor,
    gradient: Tensor,
    distance: Tensor,
    *,
    threshold: float = 1.0,
    pairs: str = "exact",
    num_pairs: int = 100_000,
    label: Tensor | None = None,
    seed: int | Tensor = 0,
    normalize: str | None = None,
) -> Tensor:
    """mean over images of Σ v⁺ / #{v > 0}, v = (g_i − g_j)(u_i − u_j), with `normalize` over σ_g σ_u; docs/method.md,
    "Gradient–uncertainty loss"."""
    near = (widen(distance) <= threshold).flatten(1)
    u_all = widen(uncertainty).flatten(1)
    out_dtype = u_all.dtype
    if near.numel() == 0:
        return u_all.sum()
    g_all = gradient.detach().flatten(1).to(torch.float64)
    groups = None if label is None else _numbered(label.flatten(1))
    mask, order, g = compact(near, g_all)
    u = u_all.gather(1, order).to(torch.float64).masked_fill(~mask, 0.0)
    g = g.masked_fill(~mask, 0.0)
    group = None if groups is None else groups.gather(1, order)
    size = mask.sum(1, keepdim=True).clamp(min=1)
    about_mean = g - g.sum(1, keepdim=True) / size  # sums cancel; the order is that of g itself
    if pairs == "exact":
        with torch.no_grad():
            compared = partners(g, u.detach(), mask, group, weight_of=about_mean)
            violations = compared.number.sum(1, keepdim=True).to(torch.float64) / 2
            # Σ v⁺ is linear in u over the violating pairs: this is its slope.
            slope = (about_mean * compared.number - compared.sum_g) / violations.clamp(min=1)
        per_image = (u * slope).sum(1)
    elif mask.shape[1] == 0:  # no voxel is within the threshold
        per_image = u.sum(1)
    else:
        first, second = sampled_pairs(mask, group, num_pairs, seed)
        v = (g.gather(1, first) - g.gather(1, second)) * (u.gather(1, first) - u.gather(1, second))
        violating = (v.detach() > 0) | v.detach().isnan()
        per_image = v.where(violating, 0.0).sum(1) / violating.sum(1).clamp(min=1)
    if normalize is not None:
        squared = _variance(about_mean, mask, size) * _variance(u, mask, size)
        varies = squared > 0
        per_image = (per_image / squared.where(varies, 1.0).sqrt()).where(varies, 0.0)
    spoiled = (~(u.isfinite() & g.isfinite()) & mask).any(1, keepdim=True) & mask
    factor = torch.zeros_like(u).masked_fill(spoiled, torch.nan)
    per_image = per_image + (u.where(spoiled, 0.0) * factor).sum(1)
    return per_image.mean().to(out_dtype)


def _numbered(label: Tensor) -> Tensor:
    """Labels [rows, n] as 0, 1, … in their order, row by row: any int64 is one, and what follows adds to them."""
    ordered, place = label.sort(dim=1)
    new = torch.zeros_like(place)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.zeros_like(place).scatter(1, place, new.cumsum(1))


def _variance(values: Tensor, mask: Tensor, size: Tensor) -> Tensor:
    """Of the masked elements of each row."""
    mean = values.where(mask, 0.0).sum(1, keepdim=True) / size
    return (values - mean).where(mask, 0.0).square().sum(1) / size[:, 0]


def sampled_pairs(mask: Tensor, group: Tensor | None, num_pairs: int, seed: int | Tensor) -> tuple[Tensor, Tensor]:
    """Pairs [rows, num_pairs] drawn uniformly among the ordered pairs of masked elements of one group.

    Draw k of row r is splitmix64(seed, r, k): no state, the same anywhere. A row without elements draws element 0.
    """
    rows, n = mask.shape
    group = torch.zeros_like(mask, dtype=torch.int64) if group is None else group
    last = torch.iinfo(torch.int64).max
    by_group = group.masked_fill(~mask, last).argsort(dim=1, stable=True)
    ordered = group.masked_fill(~mask, last).gather(1, by_group)
    index = torch.arange(n, device=mask.device).expand(rows, n)
    new = torch.ones_like(mask)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    start = index.where(new, 0).cummax(1).values
    ends = torch.ones_like(mask)
    ends[:, :-1] = new[:, 1:]
    stop = index.where(ends, n).flip(1).cummin(1).values.flip(1) + 1
    size = (stop - start).where(ordered != last, 0)
    # Element i stands for its `size` ordered pairs (i, start … stop − 1).
    until = size.cumsum(1)
    total = until[:, -1:]
    draw = (
        (counter_uniform(rows, num_pairs, seed, mask.device) * total)
        .to(torch.int64)
        .clamp(max=(total - 1).clamp(min=0))
    )
    first = torch.searchsorted(until, draw, right=True).clamp(max=n - 1)
    offset = draw - (until - size).gather(1, first)
    second = (start.gather(1, first) + offset).clamp(0, n - 1)
    return by_group.gather(1, first), by_group.gather(1, second)


def counter_uniform(rows: int, count: int, seed: int | Tensor, device: torch.device) -> Tensor:
    """Uniform float64 in [0, 1) of the counters (row, k): splitmix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    k = torch.arange(count, dtype=torch.int64, device=device)
    row = torch.arange(rows, dtype=torch.int64, device=device)
    start = _mix(_mix(torch.zeros_like(row) + seed) + row * _GOLDEN)
    return (_mix(start[:, None] + k * _GOLDEN) >> 11 & ((1 << 53) - 1)).to(torch.float64) * 2.0**-53


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)


def _mix(x: Tensor) -> Tensor:
    x = x + _GOLDEN
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> shift & ((1 << (64 - shift)) - 1))) * _signed(factor)
    return x ^ (x >> 31 & ((1 << 33) - 1))
