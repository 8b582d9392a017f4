"""The terms of `uncertainty_supervision` as the composition of the ops it joins, for thresholds beyond its byte map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _checks
from .boundary_distance import boundary_distance
from .dirichlet_uncertainty import dirichlet_uncertainty
from .evidential_loss import evidential_loss
from .gradient_magnitude import gradient_magnitude
from .gradient_uncertainty_loss import gradient_uncertainty_loss
from .noise_uncertainty_loss import noise_uncertainty_loss

HALF = (torch.bfloat16, torch.float16)


def supervision_of_ops(
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
    seed: Tensor,
    operator: str,
    spacing: Sequence[float],
    channels: str,
    backend: str,
) -> tuple[Tensor, ...]:
    """(data, kl, dice, gradient, order, distance, far), each op on this backend, "cpu" or "triton"."""
    _, *terms, u = evidential_loss(
        logits, label, kind=kind, evidence=evidence, ignore_index=ignore_index, class_weights=class_weights,
        return_uncertainty=image is not None and logits.dtype not in HALF, backend=backend,
    )  # fmt: skip
    gradient = order = apart = far = torch.zeros((), dtype=torch.float32, device=logits.device)
    if image is not None or noisy_logits is not None:
        distance = boundary_distance(label[:, None] if label.dim() == 4 else label,
                                     ignore_index=ignore_index, backend=backend)  # fmt: skip
        if ignore_index is not None:  # neither near nor far
            distance = distance.masked_fill(_checks.equals(label, ignore_index), torch.nan)
    if image is not None:
        if u is None:  # rounded to half precision it would tie what the fused kernel tells apart
            u = dirichlet_uncertainty(logits.float(), evidence=evidence, backend=backend)
        gradient = gradient_uncertainty_loss(
            u,
            gradient_magnitude(image, operator=operator, spacing=spacing, channels=channels, backend=backend),
            distance,
            threshold=gradient_threshold,
            pairs="sampled" if num_pairs else "exact",
            num_pairs=max(num_pairs, 1),
            label=label if per_class else None,
            seed=seed,
            backend="cuda" if logits.is_cuda else "cpu",  # as in the fused op: pairs are sorted, which Triton does not
        )
    if noisy_logits is not None and centers is not None and levels is not None:
        noisy1, noisy2 = noisy_logits.chunk(2)
        found = noise_uncertainty_loss(
            logits, noisy1, noisy2, distance, centers, levels, valid=valid, evidence=evidence,
            threshold=noise_threshold, backend=backend,
        )  # fmt: skip
        order, apart, far = found.order, found.distance, found.far
    return (*terms, gradient, order, apart, far)
