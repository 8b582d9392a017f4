"""Active selection of noise patches: voxels whose uncertainty does not answer to noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _backends, _checks, _cpu
from ..reference.sample_hard_patches import sample_hard_patches as _reference
from . import _calls
from ._calls import single_or_double, workspace
from .add_noise_patches import add_noise_patches
from .noise_uncertainty_loss import NOISE_THRESHOLD


def _cpu_supports(uncertainty: Tensor, *_: object, **__: object) -> str | None:
    if uncertainty.device.type == "cpu":
        return None
    return f"the uncertainty is on {uncertainty.device}, not on the CPU"


PATCH_SIZE, NUM_PATCHES = 3, 3
"""Voxels of an edge, and patches of a class, of arXiv 2509.17098's code."""
MOST_CUDA_CLASSES = _cpu.MOST_CUDA_CLASSES
"""Classes that the bytes of the CUDA kernel can tell apart."""


def _cuda_supports(uncertainty: Tensor, *_: object, num_classes: int = 1, **__: object) -> str | None:
    if num_classes > MOST_CUDA_CLASSES:
        return f"there are {num_classes} classes, more than {MOST_CUDA_CLASSES}"
    return _calls.supports("uncertainty", uncertainty)


_backends.register("sample_hard_patches", cpu=_cpu_supports, cuda=_cuda_supports)


@torch.library.custom_op("sure_fast::sample_hard_patches", mutates_args=(), device_types=("cpu", "cuda"))
def _op(
    uncertainty: Tensor,
    noisy: Tensor,
    label: Tensor,
    distance: Tensor,
    seed: Tensor,
    patch_size: Sequence[int],
    num_classes: int,
    num_patches: int,
    max_distance: float,
    backend: str = "cpu",
) -> tuple[Tensor, Tensor]:
    centers, valid = _empty(uncertainty, noisy, label, distance, seed, patch_size, num_classes, num_patches)
    if label.numel() == 0:
        return centers.zero_(), valid.zero_()
    # both in a type that holds both, or what is hard would be rounded away
    wide = torch.promote_types(uncertainty.dtype, noisy.dtype)
    u, noisy = (single_or_double(x.to(wide)).contiguous() for x in (uncertainty, noisy))
    d, label = single_or_double(distance).contiguous(), label.contiguous()
    maps = (u, noisy, label, d, tuple(patch_size), num_classes, num_patches, max_distance)
    if backend == "cuda":
        library = _calls.library
        if u.is_cuda and not seed.is_cuda:
            # by a kernel, which a CUDA graph keeps, and not by a copy of memory that goes
            seed = torch.full_like(seed, int(seed), device=u.device)
        cuda_args = library.HardPatchArgs(*maps, seed=seed)
        with _calls.stream(u) as stream:
            scratch = workspace(library.sample_hard_patches_workspace(cuda_args, stream), u)
            library.sample_hard_patches_forward(cuda_args, stream, scratch, centers, valid)
        return centers, valid
    args = _cpu.HardPatchArgs(*maps, seed=seed.to("cpu"), threads=torch.get_num_threads())
    scratch = workspace(_cpu.sample_hard_patches_workspace(args))
    _cpu.sample_hard_patches_forward(args, scratch, centers, valid)
    return centers, valid


@_op.register_fake
def _empty(
    uncertainty: Tensor,
    noisy: Tensor,
    label: Tensor,
    distance: Tensor,
    seed: Tensor,
    patch_size: Sequence[int],
    num_classes: int,
    num_patches: int,
    max_distance: float = 0.0,
    backend: str = "cpu",
) -> tuple[Tensor, Tensor]:
    slots = (label.shape[0], num_classes * num_patches)
    centers = label.new_empty((*slots, label.dim() - 1), dtype=torch.int64)
    return centers, label.new_empty(slots, dtype=torch.bool)


class HardPatches(NamedTuple):
    """Patch centers, class by class; a slot that found no room is not valid."""

    centers: Tensor
    """int64 [N, C·num_patches, D], voxel indices."""
    valid: Tensor
    """bool [N, C·num_patches]."""
    images: Tensor | None = None
    """[M·N, K, *S] where an image was given: the first noisy copy of the batch, then the next."""


def sample_hard_patches(
    uncertainty: Tensor,
    noisy_uncertainty: Tensor,
    label: Tensor,
    distance: Tensor,
    *,
    num_classes: int,
    patch_size: int | Sequence[int] = PATCH_SIZE,
    num_patches: int = NUM_PATCHES,
    max_distance: float = NOISE_THRESHOLD,
    image: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    backend: str | None = None,
) -> HardPatches:
    r"""Draws non-overlapping patch centers among the hard voxels of every class.

    Math:
        A voxel is hard when u_noisy - u <= 0. Per image and class, up to `num_patches` centers are drawn uniformly
        among its hard voxels; those of class 0 (background) need d < max_distance. Patches lie inside the image and do
        not overlap, over all classes of the image. Slots left open are filled with random centers that do not
        overlap, of any label; when no room is left they stay invalid. Li et al., MICCAI 2025
        (arXiv 2509.17098), active selection.

    Args:
        uncertainty, noisy_uncertainty: u of the clean and of a noisy image, [N, 1, \*S] or [N, \*S], floating.
        label: [N, \*S] or [N, 1, \*S] integer.
        distance: distance to the label boundary, [N, \*S] or [N, 1, \*S].
        num_classes: C, background included.
        patch_size: odd edge length in voxels, one number or one per spatial axis.
        num_patches: patches per class, of all classes no more than 65536 or the voxels of the batch.
        max_distance: limit of the background's centers, in the unit of `distance`.
        image: [N, K, \*S] floating, of which noisy copies are written.
        noise: [M, \*patch_size], one patch for each copy, added at every valid center; needed with `image`.
        generator: makes the draw repeatable; None: torch's default generator of the device.

    Returns:
        HardPatches(centers int64 [N, C·num_patches, D], valid bool [N, C·num_patches], images [M·N, K, \*S] or None);
        slots of class c are c·num_patches … (c+1)·num_patches - 1; an invalid center is 0.

    Raises:
        TypeError, ValueError: wrong types, shapes or numbers.

    Grad:
        None.

    Notes:
        Always ends, after 2·C·num_patches draws. The same generator state gives the same patches on every backend.

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
    size = _checks.patch_size(patch_size, dims)
    _checks.table_size("num_classes", num_classes)
    _checks.count("num_patches", num_patches, most=max(u.numel(), _checks.LARGEST_TABLE) // num_classes + 1)
    _checks.generator(generator)
    max_distance = _checks.positive("max_distance", max_distance, zero=True)
    if (image is None) != (noise is None):
        raise ValueError("image, noise: expected both or neither, got one of them")
    if image is not None and noise is not None:
        image = _checks.batched_image("image", image)
        if image.shape[0] != len(u) or image.shape[2:] != u.shape[1:]:
            raise ValueError(
                f"image: expected [N, K, *S] to match uncertainty {_checks.shape_text(u.shape)}, "
                f"got {_checks.shape_text(image.shape)}"
            )
        _checks.same_device("image", image, "uncertainty", u)
        noise = _checks.floating("noise", noise)
        if tuple(noise.shape[1:]) != size:
            raise ValueError(f"noise: expected [M, *{list(size)}], got {_checks.shape_text(noise.shape)}")
    source = generator.device if generator is not None else u.device
    seed = torch.randint(2**62, (), generator=generator, device=source)
    chosen = _backends.choose("sample_hard_patches", backend, u, num_classes=num_classes)
    if chosen != "reference":
        centers, valid = _op(u, noisy, label, d, seed, list(size), num_classes, num_patches, max_distance, chosen)
    else:
        centers, valid = _reference(
            u.detach(), noisy.detach(), label, d, num_classes=num_classes, patch_size=size, num_patches=num_patches,
            max_distance=max_distance, seed=seed,
        )  # fmt: skip
    if image is None or noise is None:
        return HardPatches(centers, valid)
    return HardPatches(centers, valid, add_noise_patches(image, centers, valid, noise, backend=backend))
