"""Per-case intensity normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from sure_fast.data.errors import DataError

Array = TypeVar("Array", np.ndarray, torch.Tensor)


class Window(NamedTuple):
    """How a channel of absolute grey values, as those of CT are, is normalised in every case alike."""

    lower: float
    upper: float
    mean: float
    std: float


def window_of(values: np.ndarray, *, lower: float = 0.5, upper: float = 99.5) -> Window:
    """The window of foreground values of the training cases: their percentiles, mean and deviation (as nnU-Net's)."""
    low, high = np.percentile(values, (lower, upper))
    return Window(float(low), float(high), float(values.mean()), float(max(values.std(), 1e-8)))


def normalize(
    image: Array, *, lower: float = 0.5, upper: float = 99.5, windows: Sequence[Window | None] | None = None
) -> Array:
    r"""Clip each channel to its percentiles, then z-score it.

    Math:
        x' = clip(x, q_lower, q_upper); result = (x' − mean x') / std x'. The clipping keeps a handful of spikes (a real
        scan has a maximum of 1.7 million) from deciding the scale.

    Args:
        image: [K, *S] of any real dtype, finite.
        lower, upper: percentiles in [0, 100], lower < upper.
        windows: per channel, instead of its own percentiles, mean and deviation; None: its own.

    Returns:
        float32 [K, *S], of the type that came (tensor or array); each channel has mean 0 and standard deviation 1.

    Raises:
        DataError: percentiles out of order, or an image that holds NaN or infinity.

    Notes:
        Deterministic. A constant channel becomes 0. Where both percentiles coincide (a channel nearly all background)
        nothing is clipped.

    Example:
        >>> x = torch.arange(1000.0).reshape(1, 10, 100)
        >>> x[0, 0, 0] = 1.7e6
        >>> z = normalize(x)
        >>> bool(abs(z.mean()) < 1e-5), bool(abs(z.std(correction=0) - 1) < 1e-4), bool(z.max() < 2)
        (True, True, True)
    """
    if not 0 <= lower < upper <= 100:
        raise DataError(f"lower, upper: expected percentiles 0 <= lower < upper <= 100, got {lower!r} and {upper!r}")
    array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    out = np.empty(array.shape, dtype=np.float32)
    for channel, target, window in zip(array, out, windows or [None] * len(array), strict=True):
        values = channel.astype(np.float64)
        if not np.isfinite(values).all():
            raise DataError("image: expected finite values, got NaN or infinity")
        if values.size == 0:
            continue
        if window is not None:
            target[...] = (np.clip(values, window.lower, window.upper) - window.mean) / window.std
            continue
        low, high = np.percentile(values, (lower, upper))
        if high > low:
            np.clip(values, low, high, out=values)
        values -= values.mean()
        deviation = values.std()
        # A constant leaves rounding dust of the size of the mean's own; that is 0, not a signal.
        target[...] = values / deviation if deviation > 1e-12 * max(abs(low), abs(high), 1e-30) else 0.0
    return torch.from_numpy(out).to(image.device) if isinstance(image, torch.Tensor) else out
