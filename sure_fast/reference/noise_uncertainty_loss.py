"""Plain PyTorch noise-uncertainty loss."""

from __future__ import annotations

import torch
from torch import Tensor

from .dirichlet_uncertainty import dirichlet_uncertainty, widen


def noise_uncertainty_loss(
    logits: Tensor,
    noisy1: Tensor,
    noisy2: Tensor,
    distance: Tensor,
    centers: Tensor,
    levels: Tensor,
    *,
    valid: Tensor,
    evidence: str = "exp",
    threshold: float = 4.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """(order, distance, far) terms of logits [N, C, *S], unweighted; docs/method.md, "Noise–uncertainty loss"."""
    u, u1, u2 = (dirichlet_uncertainty(widen(z), evidence=evidence)[:, 0] for z in (logits, noisy1, noisy2))
    return terms_of_maps(u, u1, u2, distance, centers, levels, valid=valid, threshold=threshold)


def terms_of_maps(
    u: Tensor,
    u1: Tensor,
    u2: Tensor,
    distance: Tensor,
    centers: Tensor,
    levels: Tensor,
    *,
    valid: Tensor,
    threshold: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same of u, u¹ and u² [N, *S]."""
    distance = widen(distance)
    flat = torch.zeros(centers.shape[:2], dtype=torch.int64, device=centers.device)
    for axis, size in enumerate(u.shape[1:]):
        flat = flat * size + centers[..., axis].where(valid, 0)
    if u.numel() == 0 or centers.shape[1] == 0:
        order = distance_term = (u1 + u2).sum() * 0.0
    else:
        at = [x.flatten(1).gather(1, flat) for x in (u.detach(), u1, u2)]
        d = distance.flatten(1).gather(1, flat)
        order = _order(at, (d <= threshold) & valid, levels.to(u.dtype))
        distance_term = _distance(at, d.to(u.dtype), valid, threshold)
    far_away = distance > threshold
    count = far_away.sum().clamp(min=1)
    zero = torch.zeros((), dtype=u.dtype, device=u.device)
    far = ((u + u1 + u2).where(far_away, zero)).sum() / count
    return order, distance_term, far


def _order(at: list[Tensor], near: Tensor, levels: Tensor) -> Tensor:
    """Σ over (u²−u¹)(μ₂−μ₁), (u¹−u)μ₁, (u²−u)μ₂ of the mean of −w over w < 0."""
    u, u1, u2 = at
    total = torch.zeros((), dtype=u.dtype, device=u.device)
    for w in ((u2 - u1) * (levels[1] - levels[0]), (u1 - u) * levels[0], (u2 - u) * levels[1]):
        wrong = near & ~(w.detach() >= 0)  # a NaN is kept
        total = total - w.where(wrong, torch.zeros_like(w)).sum() / wrong.sum().clamp(min=1)
    return total


def _distance(at: list[Tensor], d: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """Mean over images of the mean of v > 0, v = (d_i − d_j)(Δu_i − Δu_j), summed over the two levels."""
    u = at[0]
    near = d <= threshold
    # Beyond a truncated distance map there is no difference of distances.
    known = valid & d.isfinite()
    d = d.where(known, torch.zeros_like(d))
    pair = known[:, :, None] & known[:, None, :]
    pair = pair & torch.ones_like(pair[0]).triu(1)
    total = torch.zeros((), dtype=u.dtype, device=u.device)
    for noisy in at[1:]:
        change = (noisy - u).where(near, torch.zeros_like(u))
        v = (d[:, :, None] - d[:, None, :]) * (change[:, :, None] - change[:, None, :])
        wrong = pair & ~(v.detach() <= 0)
        mean = v.where(wrong, torch.zeros_like(v)).sum((1, 2)) / wrong.sum((1, 2)).clamp(min=1)
        total = total + mean.mean()
    return total
