"""Plain PyTorch noise-uncertainty loss of whole images."""

from __future__ import annotations

import torch
from torch import Tensor

from .dirichlet_uncertainty import widen
from .gradient_uncertainty_loss import gradient_uncertainty_loss


def dense_noise_uncertainty_loss(
    uncertainty: Tensor,
    noisy1: Tensor,
    noisy2: Tensor | None,
    distance: Tensor,
    levels: Tensor,
    *,
    threshold: float = 4.0,
    margin: float = 0.0,
    detach: bool = False,
    normalize: str | None = None,
    with_distance: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """(order, distance, far) terms of maps [N, *S]; docs/method.md, "Noise supervision of whole images"."""
    maps = [widen(u) for u in (uncertainty, noisy1, noisy1 if noisy2 is None else noisy2)]
    distance = widen(distance)
    near, far = distance <= threshold, distance > threshold
    all_levels = torch.cat([levels.new_zeros(1), levels.expand(2)]).to(maps[0].dtype)
    zero = torch.zeros_like(maps[0])
    order = zero.sum()
    for i, j in ((0, 1), (0, 2), (1, 2)):
        rise = all_levels[j] - all_levels[i]
        below = maps[i].detach() if detach else maps[i]
        missing = rise.sign() * (below - maps[j]) + margin * rise.abs()
        counts = near & ~(missing.detach() <= 0)  # a NaN is kept
        order = order + missing.where(counts, zero).sum() / near.sum().clamp(min=1)
    if normalize is not None:
        mean_u = sum(maps, zero).where(near, zero).sum() / (3 * near.sum()).clamp(min=1)
        varies = mean_u > 0
        order = (order / mean_u.where(varies, 1.0)).where(varies | order.isnan(), 0.0)
    clean = maps[0].detach() if detach else maps[0]
    distance_term = zero.sum()
    for noisy in maps[1:] if with_distance else ():
        distance_term = distance_term + gradient_uncertainty_loss(
            noisy - clean, distance, distance, threshold=threshold, normalize=normalize
        )
    far_term = sum(maps, zero).where(far, zero).sum() / far.sum().clamp(min=1)
    return order, distance_term, far_term
