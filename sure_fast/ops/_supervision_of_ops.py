"""The terms of `uncertainty_supervision` as the composition of the ops it joins: for thresholds beyond its bytes, and
where no kernel sorts pairs beside Triton's."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks
from ._supervision import NoisyAnswers, SupervisionOptions
from .boundary_distance import boundary_distance
from .dirichlet_uncertainty import dirichlet_uncertainty
from .evidential_loss import evidential_loss
from .gradient_magnitude import gradient_magnitude
from .gradient_uncertainty_loss import backend_beside_triton, gradient_uncertainty_loss
from .noise_uncertainty_loss import noise_uncertainty_loss

HALF = (torch.bfloat16, torch.float16)


def supervision_of_ops(
    logits: Tensor,
    label: Tensor,
    image: Tensor | None,
    noise: NoisyAnswers | None,
    options: SupervisionOptions,
    *,
    backend: str,
) -> tuple[Tensor, ...]:
    """(data, kl, dice, gradient, order, distance, far), each op on this backend, "cpu" or "triton"."""
    evidence, ignore_index = options.evidence, options.ignore_index
    *evidential, u = evidential_loss(
        logits, label, kind=options.kind, evidence=evidence, ignore_index=ignore_index,
        class_weights=options.class_weights, return_uncertainty=image is not None and logits.dtype not in HALF,
        backend=backend,
    )  # fmt: skip
    gradient = order = distance_term = far = torch.zeros((), dtype=torch.float32, device=logits.device)
    if image is not None or noise is not None:
        distance = boundary_distance(label[:, None] if label.dim() == 4 else label,
                                     ignore_index=ignore_index, backend=backend)  # fmt: skip
        if ignore_index is not None:  # neither near nor far
            distance = distance.masked_fill(_checks.equals(label, ignore_index), torch.nan)
    if image is not None:
        if u is None:  # rounded to half precision it would tie what the fused kernel tells apart
            u = dirichlet_uncertainty(logits.float(), evidence=evidence, backend=backend)
        gradient = gradient_uncertainty_loss(
            u,
            gradient_magnitude(
                image, operator=options.operator, spacing=options.spacing, channels=options.channels, backend=backend
            ),
            distance,
            threshold=options.gradient_threshold,
            pairs="sampled" if options.num_pairs else "exact",
            num_pairs=max(options.num_pairs, 1),
            label=label if options.per_class else None,
            seed=options.seed,
            normalize=options.normalize,
            backend="cpu" if backend == "cpu" else backend_beside_triton(u),
        )
    if noise is not None:
        noisy1, noisy2 = noise.logits.chunk(2)
        _, order, distance_term, far = noise_uncertainty_loss(
            logits, noisy1, noisy2, distance, noise.centers, noise.levels, valid=noise.valid, evidence=evidence,
            threshold=options.noise_threshold, backend=backend,
        )  # fmt: skip
    return (*evidential, gradient, order, distance_term, far)
