"""Every term of a training step, of the kernels of its parts and the boundary bytes: logits to sums, u and the far
term; image to gradients; the pair loss of the boundary voxels; the noisy logits' far sums and centers. The backward is
one pass over the clean logits and one over the noisy ones. Kept between them: a byte and, for L_gu, a float a voxel.
Bytes per voxel: the label twice; C logits of each image read, and again with C gradients written; of L_gu the image,
and u, g and the distance written and read. Bound by the evidential arithmetic and sorting the boundary voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._cpu import squared_steps_within
from ..ops._sums import sums_layout
from . import evidential_loss, gradient_magnitude, noise_uncertainty_loss
from ._launch import writable


@dataclass
class Noise:
    """The noisy logits [2N, C, *S] and their patches."""

    logits: Tensor
    centers: Tensor
    levels: Tensor
    valid: Tensor
    threshold: float

    def far(self, squared: Tensor) -> dict[str, Any]:
        """Which voxels are far, for the evidential kernels."""
        return {"squared": squared, "far_above": squared_steps_within(self.threshold)}

    def arguments(self, clean: Tensor, evidence: str, squared: Tensor) -> noise_uncertainty_loss.Arguments:
        first, second = self.logits.chunk(2)
        return noise_uncertainty_loss.Arguments(
            (clean, first, second), self.centers, self.levels, self.valid, self.threshold, evidence, squared=squared,
            clean_far=False,
        )  # fmt: skip


@dataclass
class Edges:
    """The image [N, K, *S], how its gradient is taken, and what writes L_gu and its slopes of (u, g, squared)."""

    image: Tensor
    sobel: bool
    scale: Sequence[float]
    weights: Sequence[float] | None
    pair_loss: Callable[[Tensor, Tensor, Tensor], None]


Settings = tuple[str, str, int | None, Tensor | None]
"""kind, evidence, ignore_index, class weights."""


def forward(
    logits: Tensor,
    label: Tensor,
    edges: Edges | None,
    noise: Noise | None,
    settings: Settings,
    sums: Tensor,
    loss: Tensor,
    terms: Tensor,
    squared: Tensor,
    slopes: Tensor,
) -> None:
    """Writes the outputs of the op but `squared`, which is given."""
    evidence = settings[1]
    layout = sums_layout(logits.shape[1])
    far: dict[str, Any] = {} if noise is None else noise.far(squared)
    u = None if edges is None else torch.empty(label.shape, dtype=torch.float32, device=label.device)
    written = sums[layout.terms if noise is None else layout.clean]
    evidential_loss.forward(logits, label, *settings, False, written[None], uncertainty=u, **far)
    if edges is not None and u is not None:
        g = torch.empty_like(u)
        gradient_magnitude.forward(edges.image, edges.sobel, edges.scale, edges.weights, g[:, None])
        edges.pair_loss(u, g, squared)
    else:
        loss.zero_()
    if noise is not None:
        arguments = noise.arguments(logits, evidence, squared)
        noise_uncertainty_loss.forward(arguments, terms, sums[layout.noisy_far], slopes)
    else:
        sums[layout.clean_far :].zero_()
        terms.zero_()


def backward(
    grad_sums: Tensor,
    grad_loss: Tensor,
    grad_terms: Tensor,
    squared: Tensor,
    slope: Tensor,
    slopes: Tensor,
    logits: Tensor,
    label: Tensor,
    noise: Noise | None,
    settings: Settings,
) -> tuple[Tensor, Tensor]:
    """Gradients of the logits and of the noisy logits, empty without them."""
    supervised: dict[str, Any] = {} if slope.numel() == 0 else {"uncertainty": slope, "scale": grad_loss}
    far: dict[str, Any] = {} if noise is None else noise.far(squared)
    kind, evidence, ignore, weights = settings
    gradient = evidential_loss.backward(
        grad_sums[None], logits, label, kind, evidence, ignore, weights, False, **supervised, **far
    )
    if noise is None:
        return gradient, logits.new_empty(0)
    of_noisy, flat = writable(noise.logits)
    of_far = grad_sums[sums_layout(logits.shape[1]).of_noisy]
    arguments = noise.arguments(logits, evidence, squared)
    noise_uncertainty_loss.backward(arguments, of_far, grad_terms, slopes, [None, *flat.chunk(2)])
    return gradient, of_noisy
