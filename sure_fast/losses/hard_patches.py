"""Noise patches at hard samples, the active selection of arXiv 2509.17098."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _backends, _checks
from ..ops.boundary_distance import boundary_distance, boundary_squares, fits_bytes
from ..ops.dirichlet_uncertainty import dirichlet_uncertainty
from ..ops.sample_hard_patches import sample_hard_patches
from ._step import answer
from .noise_uncertainty import NoisyImages, draw_levels, draw_noise_patches, normal_like

MINING_OPS = ("boundary_distance", "dirichlet_uncertainty", "sample_hard_patches")

# The noise of the forward that finds hard samples (arXiv 2509.17098): the whole image, N(0.5, 0.3²).
MINING_MEAN, MINING_STD = 0.5, 0.3


@dataclass(frozen=True)
class HardPatches:
    """Draws the patches of a step; the fields are the options of `UncertaintySupervisedLoss`."""

    patch_size: int | Sequence[int]
    num_patches: int
    noise: str
    noise_std: float
    options: Mapping[str, Any]
    """Of its terms."""
    backend: str | None

    def __post_init__(self) -> None:
        _checks.patch_size(self.patch_size)
        _checks.count("num_patches", self.num_patches)

    def draw(
        self,
        model: Callable[[Tensor], Tensor],
        logits: Tensor,
        label: Tensor,
        image: Tensor,
        *,
        mining: bool,
        generator: torch.Generator | None,
    ) -> tuple[NoisyImages, Tensor | None]:
        """Two copies of `image` with patches at hard samples, which one noisy forward finds, or without `mining` at
        random centers; and the `boundary_squares` of the label, as far as the terms need them, or None."""
        squares = None
        if mining:
            distance, squares = self._distance(label)
            clean, changed = self._answers_to_noise(model, logits, image, generator)
        else:
            clean, changed, distance = _no_hard_sample(label)
        size = fitting_patch(self.patch_size, image)
        levels = draw_levels(image.device, generator)
        patches = sample_hard_patches(
            clean,
            changed,
            label,
            distance,
            num_classes=logits.shape[1],
            patch_size=size,
            num_patches=self.num_patches,
            max_distance=float(self.options["noise_threshold"]),
            image=image,
            noise=draw_noise_patches(
                image, levels, patch_size=size, noise=self.noise, noise_std=self.noise_std, generator=generator
            ),
            generator=generator,
            backend=self.backend,
        )
        assert patches.images is not None
        return NoisyImages(patches.images, patches.centers, patches.valid, levels), squares

    def _distance(self, label: Tensor) -> tuple[Tensor, Tensor | None]:
        """To the boundary, NaN on ignored voxels; and the squares of the same."""
        near, ignored = float(self.options["noise_threshold"]), self.options["ignore_index"]
        reach = max(near, float(self.options["gradient_threshold"]))
        volume = label[:, None] if label.dim() == 4 else label
        chosen = _backends.choose("boundary_distance", self.backend, volume)
        if chosen != "reference" and fits_bytes(reach):
            squares, distance = boundary_squares(label, reach, ignored, chosen)
            return distance, squares
        distance = boundary_distance(volume, max_distance=near, ignore_index=ignored, backend=self.backend)
        if ignored is not None:
            distance = distance.masked_fill(_checks.equals(label, ignored), torch.nan)
        return distance, None

    def _answers_to_noise(
        self,
        model: Callable[[Tensor], Tensor],
        logits: Tensor,
        image: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """u of the image and u of the image under noise."""
        noise = normal_like(image, generator).mul_(MINING_STD).add_(MINING_MEAN)
        noisy = answer(model, noise.add_(image), logits)
        clean, changed = (
            dirichlet_uncertainty(z, evidence=self.options["evidence"], backend=self.backend) for z in (logits, noisy)
        )
        return clean, changed


def fitting_patch(patch_size: int | Sequence[int], image: Tensor) -> tuple[int, ...]:
    """The edges of the noise patches, which have to fit into the image."""
    size = _checks.patch_size(patch_size, image.dim() - 2)
    _checks.room_for(size, image.shape[2:])
    return size


def _no_hard_sample(label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maps of which no voxel is hard, so that `sample_hard_patches` fills all its slots with random centers."""
    nothing = torch.zeros(label.shape, dtype=torch.float32, device=label.device)
    return nothing, nothing + 1.0, nothing
