"""Image gradient magnitude."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _backends, _checks, _cpu
from ..reference.gradient_magnitude import gradient_magnitude as _reference
from . import _triton
from ._calls import single_or_double

OPERATORS = ("sobel", "central")
CHANNELS = ("luma", "mean", "max")
LUMA = (0.2989, 0.587, 0.114)


def _cpu_supports(image: Tensor, *_: object, **__: object) -> str | None:
    return None if image.device.type == "cpu" else f"the image is on {image.device}, not on the CPU"


def _triton_supports(image: Tensor, *_: object, channels: str = "luma", **__: object) -> str | None:
    if image.shape[-1] * image.shape[-2] > _triton.MOST_IN_PLANE:
        return f"a plane of the image has {image.shape[-1] * image.shape[-2]} voxels, more than 2^30"
    if channels == "max" and image.shape[0] * image.shape[1] > _triton.MOST_IMAGES:
        return f"there are {image.shape[0] * image.shape[1]} channels in all, more than {_triton.MOST_IMAGES}"
    return _triton.why_not("the image", image)


_backends.register("gradient_magnitude", cpu=_cpu_supports, triton=_triton_supports)


def channel_weights(channels: str, count: int) -> tuple[float, ...] | None:
    """Weights of the combined image; None for "max", which combines the magnitudes."""
    if channels == "max":
        return None
    if channels == "mean":
        return (1.0 / count,) * count
    return LUMA if count == 3 else (1.0,)


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian of width sigma (voxels), cut at 4 sigma, borders replicated; computed in float32 or wider."""
    x = single_or_double(image)
    radius = max(1, math.ceil(4 * sigma))
    taps = [math.exp(-0.5 * (k / sigma) * (k / sigma)) for k in range(-radius, radius + 1)]
    total = sum(taps)
    for axis in range(2, x.dim()):
        size = x.shape[axis]
        if size == 0:
            return image
        index = torch.arange(-radius, size + radius, device=x.device).clamp(0, size - 1)
        padded = x.index_select(axis, index)
        x = sum(tap / total * padded.narrow(axis, k, size) for k, tap in enumerate(taps))  # type: ignore[assignment]
    return x.to(image.dtype)


def gradient_args(image: Tensor, operator: str, spacing: Sequence[float], channels: str) -> _cpu.GradientArgs:
    weights = channel_weights(channels, image.shape[1]) or ()
    return _cpu.GradientArgs(
        image,
        scale=tuple(1.0 / s for s in spacing),
        weight=tuple(weights),
        max_channels=channels == "max",
        central=operator == "central",
        threads=torch.get_num_threads(),
    )


@torch.library.custom_op("sure_fast::gradient_magnitude", mutates_args=())
def _op(image: Tensor, operator: str, spacing: Sequence[float], channels: str, backend: str) -> Tensor:
    out = _empty(image)
    if out.numel() == 0:
        return out
    if backend == "triton":
        from ..kernels import gradient_magnitude as kernels

        weights = channel_weights(channels, image.shape[1])
        kernels.forward(image, operator == "sobel", [1.0 / s for s in spacing], weights, out)
        return out
    _cpu.gradient_magnitude_forward(gradient_args(image, operator, spacing, channels), out)
    return out


@_op.register_fake
def _empty(image: Tensor, *_: object) -> Tensor:
    return image.new_empty((image.shape[0], 1, *image.shape[2:]))


def check_options(
    *,
    operator: str = "sobel",
    spacing: Sequence[float] | float | None = None,
    channels: str = "luma",
    blur_sigma: float = 0.0,
    image: Tensor | None = None,
) -> None:
    """What can be told of the options without the image; with it, whether they fit it."""
    _checks.choice("operator", operator, OPERATORS)
    _checks.choice("channels", channels, CHANNELS)
    _checks.spacing(spacing, None if image is None else image.dim() - 2)
    _checks.positive("blur_sigma", blur_sigma, zero=True)
    if image is not None and channels == "luma" and image.shape[1] not in (1, 3):
        raise ValueError(f'channels: "luma" expects 1 or 3 channels, got {image.shape[1]}; use "mean" or "max"')


def gradient_magnitude(
    image: Tensor,
    *,
    operator: str = "sobel",
    spacing: Sequence[float] | float | None = None,
    channels: str = "luma",
    blur_sigma: float = 0.0,
    backend: str | None = None,
) -> Tensor:
    r"""Magnitude of the image gradient, 1 on a unit ramp in 2D and 3D.

    Math:
        :math:`g = \sqrt{\sum_a (D_a \prod_{b \ne a} S_b\, x / s_a)^2}` over the spatial axes a with spacing s.
        "sobel": D = [-1 0 1]/2, S = [1 2 1]/4, borders replicate. "central": S = 1 and D = central differences,
        one-sided at the borders, as `numpy.gradient`. It is g of the gradient-uncertainty loss in arXiv 2509.17098,
        whose code uses "central" and adds 1e-8.

    Args:
        image: [N, K, \*S] float32, float64, bfloat16 or float16, 2 or 3 spatial axes, any strides.
        operator: "sobel" or "central".
        spacing: voxel size (mm) per spatial axis; derivatives are divided by it. None: voxels.
        channels: how K channels become one map: "luma" (K = 3: 0.2989, 0.587, 0.114; K = 1: the channel), "mean" of the
            channels, or "max" over the channels' magnitudes.
        blur_sigma: standard deviation (voxels) of a Gaussian applied before; 0: none. The blur runs in plain PyTorch.

    Returns:
        [N, 1, \*S], the dtype of `image`, in intensity per voxel or per mm.

    Raises:
        TypeError: `image` is not floating.
        ValueError: wrong shape or option; an image that requires a gradient on a backend that has none.

    Grad:
        None on the cpu and triton backends: an image that requires grad (with gradients enabled) is refused.
        `backend="reference"` differentiates `image`; where the magnitude is 0 its gradient is taken as 0.

    Notes:
        Half precision is computed in float32. Deterministic. An axis of one voxel has derivative 0. Empty input gives
        empty output; NaN spreads to the voxels whose stencil touches it, and an infinite voxel gives inf there, or NaN
        where it is taken from another, in the kernels also from itself along H or W of one voxel.

    Example:
        >>> import sure_fast, torch
        >>> ramp = torch.arange(5.0).expand(1, 1, 5, 5)
        >>> sure_fast.gradient_magnitude(ramp)[0, 0, 2, 1:4]
        tensor([1., 1., 1.])
    """
    image = _checks.batched_image("image", image)
    check_options(operator=operator, spacing=spacing, channels=channels, blur_sigma=blur_sigma, image=image)
    steps = _checks.spacing(spacing, image.dim() - 2)
    chosen = _backends.choose("gradient_magnitude", backend, image, channels=channels)
    if chosen == "reference":
        return _reference(image, operator=operator, spacing=steps, channels=channels, blur_sigma=blur_sigma)
    if torch.is_grad_enabled() and image.requires_grad:
        raise ValueError(
            "image: requires grad, but the kernel has no gradient with respect to the image; "
            'pass image.detach(), or backend="reference" to differentiate it'
        )
    if blur_sigma > 0:
        image = gaussian_blur(image, blur_sigma)
    return _op(image, operator, steps or [1.0] * (image.dim() - 2), channels, chosen)
