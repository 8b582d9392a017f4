"""Noise patches and the noise-uncertainty loss as a module."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import _backends, _checks
from ..ops.add_noise_patches import add_noise_patches
from ..ops.dirichlet_uncertainty import EVIDENCE
from ..ops.noise_uncertainty_loss import (
    DISTANCE_WEIGHT,
    FAR_WEIGHT,
    NOISE_THRESHOLD,
    ORDER_WEIGHT,
    NoiseUncertaintyLossOutput,
    check_weights,
    noise_uncertainty_loss,
)
from ..ops.sample_hard_patches import PATCH_SIZE

NOISE_LEVELS = ("mean", "std")
NOISE_KINDS = (*NOISE_LEVELS, "both")
SUPPORTS = ("image", "patch")
LEVEL_MAX = 1.0
"""Of the noise over whole images, in units of the normalised image."""
COPIES = 1
"""Noisy copies of a batch."""
SHARE = 0.25
"""Of the images, that get noisy copies."""
NOISE_STD = 0.3
"""Of a noise patch in arXiv 2509.17098."""


class NoisyImages(NamedTuple):
    """Copies of a batch with noise, in patches or everywhere, and what the loss needs to know of them."""

    images: Tensor
    """[2M, K, *S]: the first copy of M images of the batch, then the second; one forward answers both. Of one copy
    [M, K, *S], of none [0, K, *S]."""
    centers: Tensor | None
    """Of the patches, int64 [N, P, D]; None: the noise is over the whole images."""
    valid: Tensor | None
    """bool [N, P], with centers."""
    levels: Tensor
    """Of the noise in the copies, float32 [2]; of one copy [1], of none [0]."""
    times: float = 1
    """What their L_nu is multiplied by."""
    which: Tensor | None = None
    """int64 [M]: the images of the batch that have copies; None: all N, in their order."""

    def beside(self, image: Tensor) -> Tensor:
        """The clean images and the copies, one batch for the network."""
        return torch.cat([image, self.images]) if len(self.levels) else image


def draw_levels(device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """μ₁, μ₂ ~ U(0, 1), one pair a batch."""
    if not isinstance(device, (torch.device, str)):
        raise TypeError(f"device: expected a torch.device, got {type(device).__name__}")
    _checks.generator(generator)
    source = generator.device if generator is not None else device
    return _checks.onto("generator", torch.rand(2, generator=generator, device=source), torch.device(device))


def normal_like(image: Tensor, generator: torch.Generator | None, shape: Sequence[int] | None = None) -> Tensor:
    """Standard normal noise of the image's (or another) shape, drawn on the generator's device."""
    source = generator.device if generator is not None else image.device
    # not torch.randn, which cannot be compiled for batches of any size where it is handed a generator, even None
    noise = torch.empty(tuple(shape or image.shape), device=source, dtype=torch.float32).normal_(generator=generator)
    return _checks.onto("generator", noise, image.device, image.dtype)


def draw_noise_patches(
    image: Tensor,
    levels: Tensor,
    *,
    patch_size: int | Sequence[int] = PATCH_SIZE,
    noise: str = "mean",
    noise_std: float = NOISE_STD,
    generator: torch.Generator | None = None,
) -> Tensor:
    """n_k, k = 1, 2: [2, *patch_size] in the dtype and on the device of the image.

    With noise "mean" n_k ~ N(μ_k, noise_std²), as in arXiv 2509.17098; with "std" the levels are standard deviations,
    n_k ~ N(0, μ_k²).
    """
    image = _checks.batched_image("image", image)
    size = _checks.patch_size(patch_size, image.dim() - 2)
    _checks.room_for(size, image.shape[2:])
    _checks.choice("noise", noise, NOISE_LEVELS)
    _checks.positive("noise_std", noise_std, zero=True)
    _checks.generator(generator)
    by_copy = _checks.noise_levels(levels).to(image).reshape(2, *[1] * len(size))
    drawn = normal_like(image, generator, (2, *size))
    return drawn * noise_std + by_copy if noise == "mean" else drawn * by_copy


def check_noise(*, support: str, noise: str, noise_std: float, level_max: float, noisy_copies: int) -> dict[str, Any]:
    """The options of `draw_image_noise`; the kind of noise has to go with the support."""
    _checks.choice("support", support, SUPPORTS)
    _checks.choice("noise", noise, NOISE_KINDS if support == "image" else NOISE_LEVELS)
    _checks.positive("noise_std", noise_std, zero=True)
    _checks.positive("level_max", level_max)
    if _checks.count("noisy_copies", noisy_copies) > 2:
        raise ValueError(f"noisy_copies: expected 1 or 2, got {noisy_copies}")
    return {"noise": noise, "noise_std": noise_std, "level_max": level_max, "noisy_copies": noisy_copies}


def check_share(share: float) -> tuple[int, int]:
    """As a fraction, of which whole numbers of images are made again and again, whatever was rounded."""
    if not 0.001 <= _checks.positive("noisy_share", share) <= 1:
        raise ValueError(f"noisy_share: expected a number from 0.001 to 1, got {share}")
    fraction = Fraction(float(share)).limit_denominator(1000)
    return fraction.numerator, fraction.denominator


def share_of(images: int, part: int, whole: int) -> int:
    """How many of so many images have copies, rounded up."""
    return -(-images * part // whole)


def draw_image_noise(
    image: Tensor,
    *,
    noise: str = "both",
    noise_std: float = NOISE_STD,
    level_max: float = LEVEL_MAX,
    noisy_copies: int = COPIES,
    number: int | None = None,
    generator: torch.Generator | None = None,
) -> NoisyImages:
    """A copy of image [N, K, *S], or two, under noise everywhere, of levels l₁ < l₂ drawn up to `level_max`.

    Both carry the same standard normal field n: with noise "mean" x + l + noise_std n, with "std" x + l n, and with
    "both" one of these, drawn anew at every call. With `number` M only so many of the images, drawn anew too, have
    copies.

    Raises:
        TypeError, ValueError: wrong types or options; an image that requires a gradient.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> noise = draw_image_noise(torch.zeros(1, 1, 8, 8), noisy_copies=2, generator=generator)
        >>> noise.images.shape, bool(noise.levels[0] < noise.levels[1])
        (torch.Size([2, 1, 8, 8]), True)
    """
    image = _checks.batched_image("image", image)
    _checks.constant("image", image)
    check_noise(support="image", noise=noise, noise_std=noise_std, level_max=level_max, noisy_copies=noisy_copies)
    which = None
    if number is not None and _checks.count("number", number, least=0, most=len(image)) != len(image):
        which = normal_like(image, generator, (len(image),)).topk(number).indices
        image = image[which]
    levels = draw_levels(image.device, generator)[:noisy_copies]
    levels = levels.sort().values if noisy_copies > 1 else levels
    levels = levels if level_max == 1.0 else levels * level_max
    if noise == "both":  # decided on the device: nothing waits for it
        by_mean = draw_levels(image.device, generator)[0] < 0.5
        shift, scale = levels * by_mean, torch.where(by_mean, noise_std, levels)
    elif noise == "mean":
        shift, scale = levels, torch.full_like(levels, noise_std)
    else:
        shift, scale = torch.zeros_like(levels), levels
    field = normal_like(image, generator)
    shift, scale = shift.to(image), scale.to(image)
    images = [image + (shift[k] + scale[k] * field) for k in range(noisy_copies)]
    return NoisyImages(torch.cat(images) if noisy_copies > 1 else images[0], None, None, levels, which=which)


def draw_noisy_images(
    image: Tensor,
    centers: Tensor,
    valid: Tensor | None,
    levels: Tensor,
    *,
    patch_size: int | Sequence[int] = PATCH_SIZE,
    noise: str = "mean",
    noise_std: float = NOISE_STD,
    generator: torch.Generator | None = None,
) -> NoisyImages:
    """Two copies of image [N, K, *S], one noise patch n_k of `draw_noise_patches` at every valid center of copy k.

    Within a copy all patches carry the same noise (arXiv 2509.17098).

    Args:
        centers: integer [N, P, D] voxel indices, of which the valid ones leave room for the patch.
        valid: bool [N, P], which patches exist; None: all. levels: μ₁, μ₂, [2].
        patch_size: odd edge in voxels, one number or one per axis.
        noise: what the levels are, "mean" or "std". noise_std: with "mean". generator: makes the draw repeatable.

    Raises:
        TypeError, ValueError: wrong types, shapes or options; a valid patch that reaches out of the image (on the CPU),
            or is larger than it; an image that requires a gradient, of which its copies would have none.
    """
    image = _checks.batched_image("image", image)
    size = _checks.patch_size(patch_size, image.dim() - 2)
    _checks.room_for(size, image.shape[2:])
    centers, valid = _checks.centers_and_valid(centers, valid, (image.shape[0], *image.shape[2:]), image)
    drawn = draw_noise_patches(image, levels, patch_size=size, noise=noise, noise_std=noise_std, generator=generator)
    return NoisyImages(add_noise_patches(image, centers, valid, drawn), centers, valid, levels)


class NoiseUncertaintyLoss(nn.Module):
    """L_nu from the logits of a clean and two noisy images; see `sure_fast.noise_uncertainty_loss`.

    Args:
        evidence, threshold, order_weight, distance_weight, far_weight, backend: as of `noise_uncertainty_loss`.

    Raises:
        TypeError, ValueError: a wrong option.

    Example:
        >>> import sure_fast, torch
        >>> from sure_fast.losses import draw_noisy_images
        >>> image, logits = torch.rand(1, 1, 8, 8), torch.randn(1, 3, 8, 8)
        >>> noise = draw_noisy_images(
        ...     image, torch.tensor([[[3, 3]]]), torch.tensor([[True]]), torch.tensor([0.2, 0.8]), patch_size=(3, 3)
        ... )
        >>> sure_fast.NoiseUncertaintyLoss()(logits, logits, logits, torch.zeros(1, 8, 8), noise).total.shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        evidence: str = "exp",
        threshold: float = NOISE_THRESHOLD,
        order_weight: float = ORDER_WEIGHT,
        distance_weight: float = DISTANCE_WEIGHT,
        far_weight: float = FAR_WEIGHT,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        _backends.check(backend, "noise_uncertainty_loss")
        self.evidence = _checks.choice("evidence", evidence, EVIDENCE)
        self.threshold = _checks.positive("threshold", threshold, zero=True)
        self.order_weight, self.distance_weight, self.far_weight = check_weights(
            order_weight, distance_weight, far_weight
        )
        self.backend = backend

    def forward(
        self, logits: Tensor, noisy1: Tensor, noisy2: Tensor, distance: Tensor, noise: NoisyImages
    ) -> NoiseUncertaintyLossOutput:
        """L_nu of logits [N, C, *S] of the clean and the two noisy images of `noise`, with d [N, *S] or [N, 1, *S]."""
        if not isinstance(noise, NoisyImages) or noise.centers is None:
            came = "no patches" if isinstance(noise, NoisyImages) else type(noise).__name__
            raise TypeError(f"noise: expected NoisyImages with patches, as of draw_noisy_images, got {came}")
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
