"""Plain PyTorch supervision of one training step: the composition of the other references."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from .boundary_distance import SLACK, boundary_distance
from .dense_noise_uncertainty_loss import dense_noise_uncertainty_loss
from .dirichlet_uncertainty import dirichlet_uncertainty, widen
from .evidential_loss import evidential_loss
from .gradient_magnitude import gradient_magnitude
from .gradient_uncertainty_loss import gradient_uncertainty_loss
from .labels import equals
from .noise_uncertainty_loss import terms_of_maps

if TYPE_CHECKING:
    from ..ops._supervision import DenseAnswers, NoisyAnswers, SupervisionOptions


def uncertainty_supervision(
    logits: Tensor,
    label: Tensor,
    image: Tensor | None,
    noise: NoisyAnswers | DenseAnswers | None,
    options: SupervisionOptions,
    *,
    add_up: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> tuple[Tensor, ...]:
    """(data, kl, dice, gradient, order, distance, far), and of noise over whole images those of the noisy copies,
    (data, kl, dice); docs/method.md."""
    logits = widen(logits)

    def evidential_terms(z: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return evidential_loss(
            z, labels, kind=options.kind, evidence=options.evidence, ignore_index=options.ignore_index,
            class_weights=options.class_weights, add_up=add_up,
        )[:3]  # fmt: skip

    evidential = evidential_terms(logits, label)
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
            normalize=options.normalize,
        )  # fmt: skip
    if noise is None:
        return (*evidential, gradient, order, distance_term, far)
    copies = widen(noise.logits).chunk(len(noise.levels))
    u1, *others = (dirichlet_uncertainty(z, evidence=options.evidence)[:, 0] for z in copies)
    u2 = others[0] if others else None
    threshold = options.noise_threshold * SLACK
    if hasattr(noise, "centers"):
        at = cast("NoisyAnswers", noise)
        assert u2 is not None
        terms = terms_of_maps(u, u1, u2, distance, at.centers, at.levels, valid=at.valid, threshold=threshold)
        return (*evidential, gradient, *terms)
    dense = cast("DenseAnswers", noise)
    terms = dense_noise_uncertainty_loss(
        dense.of(u), u1, u2, dense.of(distance), dense.levels, threshold=threshold, margin=dense.margin,
        detach=dense.detach, normalize=options.normalize, with_distance=dense.with_distance,
    )  # fmt: skip
    noisy = [torch.zeros_like(order)] * 3
    if dense.segmentation:
        of_copies = [evidential_terms(z, dense.of(label)) for z in copies]
        noisy = [torch.stack(terms).mean() for terms in zip(*of_copies, strict=True)]
    return (*evidential, gradient, *terms, *noisy)
