"""Plain PyTorch draw of hard-sample patch centers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .dirichlet_uncertainty import widen
from .gradient_uncertainty_loss import counter_uniform
from .labels import equals


def sample_hard_patches(
    uncertainty: Tensor,
    noisy_uncertainty: Tensor,
    label: Tensor,
    distance: Tensor,
    *,
    num_classes: int,
    patch_size: Sequence[int],
    num_patches: int = 3,
    max_distance: float = 4.0,
    seed: Tensor,
) -> tuple[Tensor, Tensor]:
    """Centers int64 [N, C·num_patches, D] and valid bool [N, C·num_patches]; docs/method.md, "Hard-sample patches".

    Every voxel gets a random key from the 0-dim int64 seed; the free candidate of the largest key is a uniform draw,
    and takes its neighbourhood out of what is free. The number of draws is fixed, so this always ends.
    """
    images, shape = label.shape[0], label.shape[1:]
    slots = num_classes * num_patches
    centers = torch.zeros((images, slots, len(shape)), dtype=torch.int64, device=label.device)
    valid = torch.zeros((images, slots), dtype=torch.bool, device=label.device)
    if label.numel() == 0:
        return centers, valid
    key = counter_uniform(images, label[0].numel(), seed.to(label.device), label.device)
    free = torch.ones(label.shape, dtype=torch.bool, device=label.device)
    axes = []
    for axis, (size, width) in enumerate(zip(shape, patch_size, strict=True)):
        view = [1] * label.dim()
        view[axis + 1] = size
        index = torch.arange(size, device=label.device).reshape(view)
        axes.append(index)
        free = free & (index >= width // 2) & (index < size - width // 2)
    hard = noisy_uncertainty <= uncertainty

    def draw(slot: int, candidates: Tensor) -> None:
        nonlocal free
        best, index = key.masked_fill(~(candidates & free).flatten(1), -1.0).max(1)
        drawn = (best >= 0) & ~valid[:, slot]
        overlaps = torch.ones_like(free)
        rest = index
        for axis in range(len(shape) - 1, -1, -1):
            at = rest % shape[axis]
            rest = rest // shape[axis]
            centers[:, slot, axis] = torch.where(drawn, at, centers[:, slot, axis])
            distance_along = (axes[axis] - at.reshape(-1, *[1] * len(shape))).abs()
            overlaps = overlaps & (distance_along < patch_size[axis])
        free = free & ~(overlaps & drawn.reshape(-1, *[1] * len(shape)))
        valid[:, slot] |= drawn

    for c in range(num_classes):
        candidates = hard & equals(label, c)
        if c == 0:
            candidates = candidates & (widen(distance) < max_distance)
        for k in range(num_patches):
            draw(c * num_patches + k, candidates)
    for slot in range(slots):
        draw(slot, torch.ones_like(free))
    return centers, valid
