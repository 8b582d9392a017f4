"""Active selection of noise patches: voxels whose uncertainty does not answer to noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _backends, _checks
from ..reference.sample_hard_patches import sample_hard_patches as _reference

_backends.register("sample_hard_patches")


class HardPatches(NamedTuple):
    """Patch centers, class by class; a slot that found no room is not valid."""

    centers: Tensor
    """int64 [N, C·num_patches, D], voxel indices."""
    valid: Tensor
    """bool [N, C·num_patches]."""


def sample_hard_patches(
    uncertainty: Tensor,
    noisy_uncertainty: Tensor,
    label: Tensor,
    distance: Tensor,
    *,
    num_classes: int,
    patch_size: int | Sequence[int] = 3,
    num_patches: int = 3,
    max_distance: float = 4.0,
    generator: torch.Generator | None = None,
    backend: str | None = None,
) -> HardPatches:
    r"""Draws non-overlapping patch centers among the hard voxels of every class.

    Math:
        A voxel is hard when u_noisy - u <= 0. Per image and class, up to `num_patches` centers are drawn uniformly
        among its hard voxels; those of class 0 (background) need d < max_distance. Patches lie inside the image and do
        not overlap, over all classes of the image. Slots left open are filled with random places that do not
        overlap, of any label; when no room is left they stay invalid. Li et al., MICCAI 2025
        (arXiv 2509.17098), active selection.

    Args:
        uncertainty, noisy_uncertainty: u of the clean and of a noisy image, [N, 1, \*S] or [N, \*S], floating.
        label: [N, \*S] or [N, 1, \*S] integer.
        distance: distance to the label boundary, [N, \*S] or [N, 1, \*S].
        num_classes: C, background included.
        patch_size: odd edge length in voxels, one number or one per spatial axis.
        num_patches: patches per class.
        max_distance: limit of the background's centers, in the unit of `distance`.
        generator: makes the draw repeatable; None: torch's default generator of the device.

    Returns:
        HardPatches(centers int64 [N, C·num_patches, D], valid bool [N, C·num_patches]); slots of class c are
        c·num_patches … (c+1)·num_patches - 1; an invalid center is 0.

    Raises:
        TypeError, ValueError: wrong types, shapes or numbers.

    Grad:
        None.

    Notes:
        Always ends, after 2·C·num_patches draws. The same generator state gives the same patches.

    Example:
        >>> import sure_fast, torch
        >>> u, label = torch.rand(1, 1, 9, 9), torch.zeros(1, 9, 9, dtype=torch.long)
        >>> patches = sure_fast.sample_hard_patches(u, u, label, torch.zeros(1, 9, 9), num_classes=1)
        >>> patches.centers.shape, bool(patches.valid.all())
        (torch.Size([1, 3, 2]), True)
    """
    u = _checks.maps("uncertainty", uncertainty)
    noisy = _checks.maps("noisy_uncertainty", noisy_uncertainty, u)
    d = _checks.maps("distance", distance, u)
    label = _checks.label("label", label, u.unsqueeze(1), "uncertainty")
    dims = u.dim() - 1
    size = (patch_size,) * dims if isinstance(patch_size, int) else tuple(int(s) for s in patch_size)
    if len(size) != dims or any(s < 1 or s % 2 == 0 for s in size):
        raise ValueError(f"patch_size: expected one odd number >= 1 or {dims} of them, got {patch_size!r}")
    for name, value in (("num_classes", num_classes), ("num_patches", num_patches)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    max_distance = _checks.positive("max_distance", max_distance, zero=True)
    _backends.choose("sample_hard_patches", backend, u)
    return HardPatches(
        *_reference(
            u.detach(),
            noisy.detach(),
            label,
            d,
            num_classes=num_classes,
            patch_size=size,
            num_patches=num_patches,
            max_distance=max_distance,
            generator=generator,
        )
    )
