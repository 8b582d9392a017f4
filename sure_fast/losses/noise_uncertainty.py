"""Noise patches and the noise-uncertainty loss as a module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import _checks
from ..ops.noise_uncertainty_loss import NoiseUncertaintyLossOutput, noise_uncertainty_loss
from ..ops.sample_hard_patches import noisy_images

NOISE_LEVELS = ("mean", "std")


class NoisyImages(NamedTuple):
    """Two copies of a batch with noise patches, and what the loss needs to know of them."""

    images: Tensor
    """[2N, K, *S]: the first copy of the batch, then the second; one forward answers both."""
    centers: Tensor
    """int64 [N, P, D]."""
    valid: Tensor
    """bool [N, P]."""
    levels: Tensor
    """μ₁, μ₂, float32 [2]."""


def draw_levels(device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """μ₁, μ₂ ~ U(0, 1), one pair a batch."""
    source = generator.device if generator is not None else device
    return torch.rand(2, generator=generator, device=source).to(device)


def normal_like(image: Tensor, generator: torch.Generator | None, shape: Sequence[int] | None = None) -> Tensor:
    """Standard normal noise of the image's (or another) shape, drawn on the generator's device."""
    source = generator.device if generator is not None else image.device
    noise = torch.randn(tuple(shape or image.shape), generator=generator, device=source, dtype=torch.float32)
    return noise.to(image.device, image.dtype)


def draw_noise_patches(
    image: Tensor,
    levels: Tensor,
    *,
    patch_size: Sequence[int],
    noise: str = "mean",
    noise_std: float = 0.3,
    generator: torch.Generator | None = None,
) -> Tensor:
    """n_k, k = 1, 2: [2, *patch_size] in the dtype and on the device of the image.

    With noise "mean" n_k ~ N(μ_k, noise_std²), as in arXiv 2509.17098; with "std" the levels are standard deviations,
    n_k ~ N(0, μ_k²).
    """
    _checks.choice("noise", noise, NOISE_LEVELS)
    by_copy = levels.to(image.dtype).reshape(2, *[1] * len(patch_size))
    drawn = normal_like(image, generator, (2, *patch_size))
    return drawn * noise_std + by_copy if noise == "mean" else drawn * by_copy


def add_noise_patches(
    image: Tensor,
    centers: Tensor,
    valid: Tensor,
    levels: Tensor,
    *,
    patch_size: Sequence[int],
    noise: str = "mean",
    noise_std: float = 0.3,
    generator: torch.Generator | None = None,
) -> NoisyImages:
    """Adds one noise patch n_k, k = 1, 2, as `draw_noise_patches` draws it, at every valid center of image [N, K, *S].

    Within a copy all patches carry the same noise (arXiv 2509.17098). Patches must lie inside the image.
    """
    drawn = draw_noise_patches(
        image, levels, patch_size=patch_size, noise=noise, noise_std=noise_std, generator=generator
    )
    return NoisyImages(noisy_images(image, drawn, centers, valid), centers, valid, levels)


class NoiseUncertaintyLoss(nn.Module):
    """L_nu from the logits of a clean and two noisy images; see `sure_fast.noise_uncertainty_loss`.

    Args:
        evidence, threshold, order_weight, distance_weight, far_weight, backend: as of `noise_uncertainty_loss`.

    Example:
        >>> import sure_fast, torch
        >>> from sure_fast.losses import add_noise_patches
        >>> image, logits = torch.rand(1, 1, 8, 8), torch.randn(1, 3, 8, 8)
        >>> noise = add_noise_patches(
        ...     image, torch.tensor([[[3, 3]]]), torch.tensor([[True]]), torch.tensor([0.2, 0.8]), patch_size=(3, 3)
        ... )
        >>> sure_fast.NoiseUncertaintyLoss()(logits, logits, logits, torch.zeros(1, 8, 8), noise).total.shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        evidence: str = "softplus",
        threshold: float = 4.0,
        order_weight: float = 1.0,
        distance_weight: float = 1.0,
        far_weight: float = 1.0,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.evidence = evidence
        self.threshold = threshold
        self.order_weight = order_weight
        self.distance_weight = distance_weight
        self.far_weight = far_weight
        self.backend = backend

    def forward(
        self, logits: Tensor, noisy1: Tensor, noisy2: Tensor, distance: Tensor, noise: NoisyImages
    ) -> NoiseUncertaintyLossOutput:
        """L_nu of logits [N, C, *S] of the clean and the two noisy images of `noise`, with d [N, *S]."""
        return noise_uncertainty_loss(
            logits,
            noisy1,
            noisy2,
            distance,
            noise.centers,
            noise.levels,
            valid=noise.valid,
            evidence=self.evidence,
            threshold=self.threshold,
            order_weight=self.order_weight,
            distance_weight=self.distance_weight,
            far_weight=self.far_weight,
            backend=self.backend,
        )
