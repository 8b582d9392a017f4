"""Plain PyTorch supervision of one training step: the composition of the other references."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _checks
from .boundary_distance import boundary_distance
from .dirichlet_uncertainty import dirichlet_uncertainty, widen
from .evidential_loss import evidential_loss, terms_of_sums
from .gradient_magnitude import gradient_magnitude
from .gradient_uncertainty_loss import gradient_uncertainty_loss
from .noise_uncertainty_loss import noise_uncertainty_loss


def uncertainty_supervision(
    logits: Tensor,
    label: Tensor,
    image: Tensor | None,
    noisy_logits: Tensor | None,
    centers: Tensor | None,
    levels: Tensor | None,
    valid: Tensor | None,
    *,
    kind: str,
    evidence: str,
    ignore_index: int | None,
    class_weights: Tensor | None,
    gradient_threshold: float,
    noise_threshold: float,
    num_pairs: int,
    per_class: bool,
    seed: int | Tensor,
    operator: str,
    spacing: Sequence[float],
    channels: str,
) -> tuple[Tensor, ...]:
    """(data, kl, dice, gradient, order, distance, far); docs/method.md."""
    logits = widen(logits)
    found = evidential_loss(
        logits, label, kind=kind, evidence=evidence, ignore_index=ignore_index, class_weights=class_weights
    )
    gradient = order = apart = far = torch.zeros((), dtype=logits.dtype, device=logits.device)
    distance = boundary_distance(label, ignore_index=ignore_index)
    if ignore_index is not None:
        distance = distance.masked_fill(_checks.equals(label, ignore_index), torch.nan)
    u = dirichlet_uncertainty(logits, evidence=evidence)[:, 0]
    if image is not None:
        gradient = gradient_uncertainty_loss(
            u,
            gradient_magnitude(image, operator=operator, spacing=spacing, channels=channels)[:, 0],
            distance,
            threshold=gradient_threshold,
            pairs="sampled" if num_pairs else "exact",
            num_pairs=num_pairs,
            label=label if per_class else None,
            seed=seed,
        )
    if noisy_logits is not None and centers is not None and levels is not None and valid is not None:
        u1, u2 = dirichlet_uncertainty(widen(noisy_logits), evidence=evidence)[:, 0].chunk(2)
        order, apart, far = noise_uncertainty_loss(
            u, u1, u2, distance, centers, levels, valid=valid, threshold=noise_threshold
        )
    return (*terms_of_sums(found.sums, class_weights), gradient, order, apart, far)
