"""Copies of images with noise patches at given centers."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _backends, _checks, _cpu
from ..reference.add_noise_patches import add_noise_patches as _reference
from . import _calls


def _cpu_supports(image: Tensor, *_: object, **__: object) -> str | None:
    return None if image.device.type == "cpu" else f"the image is on {image.device}, not on the CPU"


def _cuda_supports(image: Tensor, *_: object, **__: object) -> str | None:
    return _calls.supports("image", image)


_backends.register("add_noise_patches", cpu=_cpu_supports, cuda=_cuda_supports)


@torch.library.custom_op("sure_fast::add_noise_patches", mutates_args=(), device_types=("cpu", "cuda"))
def _op(image: Tensor, centers: Tensor, valid: Tensor, noise: Tensor, backend: str = "cpu") -> Tensor:
    images = _empty(image, centers, valid, noise)
    if images.numel():
        _checks.inside_image(centers, valid, image.shape[2:], noise.shape[1:])
        image, noise, centers, valid = (t.contiguous() for t in (image, noise, centers, valid))
        if backend == "cuda":
            with _calls.stream(image) as stream:
                cuda_args = _calls.library.NoisePatchArgs(image, noise, centers, valid)
                _calls.library.add_noise_patches(cuda_args, stream, images)
        else:
            args = _cpu.NoisePatchArgs(image, noise, centers, valid, threads=torch.get_num_threads())
            _cpu.add_noise_patches(args, images)
    return images


@_op.register_fake
def _empty(image: Tensor, centers: Tensor, valid: Tensor, noise: Tensor, *_: object) -> Tensor:
    return image.new_empty((noise.shape[0] * image.shape[0], *image.shape[1:]))


def add_noise_patches(
    image: Tensor, centers: Tensor, valid: Tensor | None, noise: Tensor, *, backend: str | None = None
) -> Tensor:
    r"""Noisy copies of a batch, each with one patch of noise added at every valid center of its images.

    Math:
        Of copy m, :math:`x_m(c + o) = x(c + o) + n_m(o)` for every valid center c and the offsets o of a patch around
        it, elsewhere :math:`x_m = x`. Li et al., MICCAI 2025 (arXiv 2509.17098): all patches of a copy carry the same
        noise.

    Args:
        image: [N, K, \*S] float32, float64, bfloat16 or float16, 2 or 3 spatial axes.
        centers: integer [N, P, D] voxel indices; the valid patches lie inside the image and do not overlap, as those of
            `sample_hard_patches`.
        valid: bool [N, P], which patches exist; None: all.
        noise: [M, \*patch], floating, in the unit of the image, odd edges in voxels; `losses.draw_noisy_images` draws
            it from two levels.

    Returns:
        [M·N, K, \*S], the dtype of `image`: the first copy of the batch, then the next.

    Raises:
        TypeError, ValueError: wrong types or shapes; a valid patch that reaches out of the image (on the CPU); an image
            or noise that requires a gradient.

    Grad:
        None: an image or noise that requires a gradient is refused.

    Notes:
        On a GPU nobody waits to look at the centers: a patch that reaches over an edge becomes one of NaN at the edge.
        Deterministic, the same bits on every backend. The sum is rounded once, to the image's dtype.

    Example:
        >>> import sure_fast, torch
        >>> image, center = torch.zeros(1, 1, 3, 4), torch.tensor([[[1, 1]]])
        >>> sure_fast.add_noise_patches(image, center, None, torch.tensor([[[0.1, 0.2, 0.3]]]))[0, 0, 1]
        tensor([0.1000, 0.2000, 0.3000, 0.0000])
    """
    image = _checks.batched_image("image", image)
    _checks.constant("image", image)
    noise = _checks.floating("noise", noise).to(image.dtype)
    _checks.constant("noise", noise)
    image, noise = image.detach(), noise.detach()
    if noise.dim() != image.dim() - 1 or any(s % 2 == 0 for s in noise.shape[1:]):
        raise ValueError(
            f"noise: expected [M, *patch] with {image.dim() - 2} odd edges, got {_checks.shape_text(noise.shape)}"
        )
    _checks.same_device("noise", noise, "image", image)
    centers, valid = _checks.centers_and_valid(centers, valid, (image.shape[0], *image.shape[2:]), image)
    chosen = _backends.choose("add_noise_patches", backend, image)
    if chosen != "reference":
        return _op(image, centers, valid, noise, chosen)
    _checks.inside_image(centers, valid, image.shape[2:], noise.shape[1:])
    return _reference(image, centers, valid, noise)
