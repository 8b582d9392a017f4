"""Plain PyTorch supervision of one training step: the composition of the other references."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .boundary_distance import SLACK, boundary_distance
from .dirichlet_uncertainty import dirichlet_uncertainty, widen
from .evidential_loss import evidential_loss
from .gradient_magnitude import gradient_magnitude
from .gradient_uncertainty_loss import gradient_uncertainty_loss
from .labels import equals
from .noise_uncertainty_loss import terms_of_maps

if TYPE_CHECKING:
    from ..ops._supervision import NoisyAnswers, SupervisionOptions


def uncertainty_supervision(
    logits: Tensor,
    label: Tensor,
    image: Tensor | None,
    noise: NoisyAnswers | None,
    options: SupervisionOptions,
    *,
    add_up: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> tuple[Tensor, ...]:
    """(data, kl, dice, gradient, order, distance, far); docs/method.md."""
    logits = widen(logits)
    evidential = evidential_loss(
        logits, label, kind=options.kind, evidence=options.evidence, ignore_index=options.ignore_index,
        class_weights=options.class_weights, add_up=add_up,
    )  # fmt: skip
    gradient = order = distance_term = far = torch.zeros((), dtype=logits.dtype, device=logits.device)
    distance = boundary_distance(label, ignore_index=options.ignore_index)
    if options.ignore_index is not None:
        distance = distance.masked_fill(equals(label, options.ignore_index), torch.nan)
    u = dirichlet_uncertainty(logits, evidence=options.evidence)[:, 0]
    if image is not None:
        gradient = gradient_uncertainty_loss(
            u,
            gradient_magnitude(
                image, operator=options.operator, spacing=options.spacing, channels=options.channels
            )[:, 0],
            distance,
            threshold=options.gradient_threshold * SLACK,
            pairs="sampled" if options.num_pairs else "exact",
            num_pairs=options.num_pairs,
            label=label if options.per_class else None,
            seed=options.seed,
        )  # fmt: skip
    if noise is not None:
        u1, u2 = dirichlet_uncertainty(widen(noise.logits), evidence=options.evidence)[:, 0].chunk(2)
        order, distance_term, far = terms_of_maps(
            u, u1, u2, distance, noise.centers, noise.levels, valid=noise.valid,
            threshold=options.noise_threshold * SLACK,
        )  # fmt: skip
    return (*evidential[:3], gradient, order, distance_term, far)
