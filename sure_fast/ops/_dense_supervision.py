"""The terms of `uncertainty_supervision` where the noise is over whole images: each logits tensor is read once, for its
evidential terms and its u, and its gradient is written once, with what the order of u adds to it."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks
from ._calls import single_or_double
from ._supervision import DenseAnswers, SupervisionOptions
from ._terms import evidential_terms
from .boundary_distance import boundary_distance
from .dense_noise_uncertainty_loss import kernel_terms
from .dirichlet_uncertainty import dirichlet_uncertainty
from .evidential_loss import _op as _evidential
from .gradient_magnitude import gradient_magnitude
from .gradient_uncertainty_loss import backend_beside_triton, pair_losses


def dense_supervision(
    logits: Tensor, label: Tensor, image: Tensor | None, noise: DenseAnswers, options: SupervisionOptions, *,
    backend: str,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """(data, kl, dice, gradient, order, distance, far, noisy data, noisy kl, noisy dice), on "cpu" or "triton", None of
    what was not asked for."""
    classes, weights = logits.shape[1], options.class_weights

    def read(z: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Sums and u."""
        settings = (options.kind, options.evidence, options.ignore_index, weights, False, False, True, backend)
        sums, _, _, u = _evidential(z, label, *settings)
        return sums, u

    sums, u = read(logits, label)
    terms = evidential_terms(sums, classes, weights, backend)[:3]
    noisy: tuple[Tensor | None, ...] = (None, None, None)
    if noise.segmentation:
        copied = noise.of(label)
        rows, maps = zip(*(read(z, copied) for z in noise.copies), strict=True)
        of_copies = torch.cat(rows) if len(rows) > 1 else rows[0]
        noisy = evidential_terms(of_copies, classes, weights, backend)[:3]
    else:
        # rounded to half precision u would tie what the kernels tell apart
        maps = tuple(
            dirichlet_uncertainty(single_or_double(z), evidence=options.evidence, backend=backend) for z in noise.copies
        )
    # not u[:, 0], whose gradient would be written into zeros
    u, first, *others = (t.squeeze(1) for t in (u, *maps))
    second = others[0] if others else None
    reach = max(options.gradient_threshold, options.noise_threshold)
    distance = boundary_distance(
        label[:, None] if label.dim() == 4 else label, max_distance=reach, ignore_index=options.ignore_index,
        backend=backend,
    )  # fmt: skip
    if options.ignore_index is not None:  # neither near nor far
        distance = distance.masked_fill(_checks.equals(label, options.ignore_index), torch.nan)
    gradient = None
    if image is not None:
        g = gradient_magnitude(
            image, operator=options.operator, spacing=options.spacing, channels=options.channels, backend=backend
        )
        gradient = pair_losses(
            u, g[:, 0], distance, threshold=_checks.reach("gradient_threshold", options.gradient_threshold),
            normalize=options.normalize is not None, label=label if options.per_class else None,
            num_pairs=options.num_pairs, seed=options.seed,
            backend="cpu" if backend == "cpu" else backend_beside_triton(u),
        )  # fmt: skip
    ordered = kernel_terms(
        noise.of(u), first, second, noise.of(distance), noise.levels, margin=noise.margin, detach=noise.detach,
        threshold=_checks.reach("noise_threshold", options.noise_threshold), normalize=options.normalize,
        with_distance=noise.with_distance, backend=backend,
    )  # fmt: skip
    return (*terms, gradient, *ordered, *noisy)
