"""Plain PyTorch image gradient magnitude."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .dirichlet_uncertainty import widen

LUMA = (0.2989, 0.587, 0.114)


def gradient_magnitude(
    image: Tensor,
    *,
    operator: str = "sobel",
    spacing: Sequence[float] | None = None,
    channels: str = "luma",
    blur_sigma: float = 0.0,
) -> Tensor:
    """sqrt(Σ_axes (D_axis S_others image / spacing)²); docs/method.md, "Image gradient magnitude"."""
    if blur_sigma > 0:
        image = gaussian_blur(image, blur_sigma)
    x = widen(image)
    weights = channel_weights(channels, x.shape[1])
    if weights is not None and x.shape[1] > 1:
        x = sum(w * x[:, k : k + 1] for k, w in enumerate(weights))  # type: ignore[assignment]
    squared = torch.zeros_like(x)
    for axis in range(2, x.dim()):
        if x.shape[axis] == 1:
            continue  # 0, of an infinite voxel too
        step = 1.0 if spacing is None else spacing[axis - 2]
        d = _difference(x, axis, operator) / step
        if operator == "sobel":
            for other in range(2, x.dim()):
                if other != axis:
                    before, after = _neighbours(d, other)
                    d = (before + 2 * d + after) / 4
        squared = squared + d * d
    # The square root has no derivative at 0: there the magnitude's gradient is taken as 0.
    magnitude = torch.where(squared == 0, 0.0, torch.where(squared == 0, 1.0, squared).sqrt())
    return magnitude.amax(1, keepdim=True).to(image.dtype)


def channel_weights(channels: str, count: int) -> tuple[float, ...] | None:
    """Weights of the combined image; None for "max", which combines the magnitudes."""
    if channels == "max":
        return None
    if channels == "mean":
        return (1.0 / count,) * count
    return LUMA if count == 3 else (1.0,)


def _neighbours(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The voxel before and after along an axis, replicated at the borders."""
    size = x.shape[axis]
    if size == 0:
        return x, x
    before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, size - 1)], axis)
    after = torch.cat([x.narrow(axis, 1, size - 1), x.narrow(axis, size - 1, 1)], axis)
    return before, after


def _difference(x: Tensor, axis: int, operator: str) -> Tensor:
    before, after = _neighbours(x, axis)
    d = (after - before) / 2
    if operator == "central" and x.shape[axis] > 1:
        last = x.shape[axis] - 1
        inner = d.narrow(axis, 1, last - 1)
        d = torch.cat([2 * d.narrow(axis, 0, 1), inner, 2 * d.narrow(axis, last, 1)], axis)
    return d


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian of width sigma (voxels), cut at 4 sigma, borders replicated."""
    x = widen(image)
    radius = max(1, math.ceil(4 * sigma))
    taps = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)]
    total = sum(taps)
    for axis in range(2, x.dim()):
        size = x.shape[axis]
        if size == 0:
            return image
        index = torch.arange(-radius, size + radius, device=x.device).clamp(0, size - 1)
        padded = x.index_select(axis, index)
        x = sum(tap / total * padded.narrow(axis, k, size) for k, tap in enumerate(taps))  # type: ignore[assignment]
    return x.to(image.dtype)
