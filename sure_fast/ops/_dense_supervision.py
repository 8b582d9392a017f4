"""The terms of `uncertainty_supervision` where the noise is over whole images: each logits tensor is read once, for its
evidential terms and its u, and its gradient is written once, with what the order of u adds to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _checks
from ._calls import single_or_double
from ._supervision import DenseAnswers, SupervisionOptions
from .boundary_distance import boundary_distance
from .dense_noise_uncertainty_loss import dense_noise_uncertainty_loss
from .dirichlet_uncertainty import dirichlet_uncertainty
from .evidential_loss import float64_terms
from .gradient_magnitude import gradient_magnitude
from .gradient_uncertainty_loss import backend_beside_triton, gradient_uncertainty_loss


def dense_supervision(
    logits: Tensor, label: Tensor, image: Tensor | None, noise: DenseAnswers, options: SupervisionOptions, *,
    backend: str,
) -> tuple[Tensor, ...]:  # fmt: skip
    """(data, kl, dice, gradient, order, distance, far, noisy data, noisy kl, noisy dice), on "cpu" or "triton"."""
    evidential: dict[str, Any] = {
        "kind": options.kind, "evidence": options.evidence, "ignore_index": options.ignore_index,
        "class_weights": options.class_weights, "return_uncertainty": True, "backend": backend,
    }  # fmt: skip
    data, kl, dice, u = float64_terms(logits, label, **evidential)
    assert u is not None
    if noise.segmentation:
        answers = [float64_terms(z, label, **evidential) for z in noise.copies]
        noisy = [torch.stack(terms).mean(0) for terms in list(zip(*answers, strict=True))[:3]]
        maps = [answer.uncertainty for answer in answers]
    else:
        noisy = [torch.zeros_like(data)] * 3
        # rounded to half precision u would tie what the kernels tell apart
        maps = [
            dirichlet_uncertainty(single_or_double(z), evidence=options.evidence, backend=backend) for z in noise.copies
        ]
    first, second = maps[0], maps[1] if len(maps) > 1 else None
    assert first is not None
    reach = max(options.gradient_threshold, options.noise_threshold)
    distance = boundary_distance(
        label[:, None] if label.dim() == 4 else label, max_distance=reach, ignore_index=options.ignore_index,
        backend=backend,
    )  # fmt: skip
    if options.ignore_index is not None:  # neither near nor far
        distance = distance.masked_fill(_checks.equals(label, options.ignore_index), torch.nan)
    gradient = torch.zeros_like(data)
    if image is not None:
        g = gradient_magnitude(
            image, operator=options.operator, spacing=options.spacing, channels=options.channels, backend=backend
        )
        gradient = gradient_uncertainty_loss(
            u, g, distance, threshold=options.gradient_threshold, pairs="sampled" if options.num_pairs else "exact",
            num_pairs=max(options.num_pairs, 1), label=label if options.per_class else None, seed=options.seed,
            normalize=options.normalize, backend="cpu" if backend == "cpu" else backend_beside_triton(u),
        )  # fmt: skip
    ordered = dense_noise_uncertainty_loss(
        u, first, second, distance, noise.levels, threshold=options.noise_threshold, margin=noise.margin,
        detach=noise.detach, normalize=options.normalize, with_distance=noise.with_distance, backend=backend,
    )  # fmt: skip
    return (data, kl, dice, gradient, *ordered, *noisy)
