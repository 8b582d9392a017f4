"""What goes wrong with an image between scanner and network, at five severities: for robustness tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sure_fast.data.errors import DataError

NOISE_STD = 0.3
GHOSTS = 4


class Corruption(NamedTuple):
    """One way to spoil an image; severity k = 1 … 5 is `severities[k - 1]`."""

    title: str
    unit: str
    severities: tuple[float, ...]
    apply: Callable[[Tensor, float, Sequence[int]], Tensor]


def noise(image: Tensor, mean: float, seeds: Sequence[int]) -> Tensor:
    """Gaussian noise of this mean and of standard deviation 0.3 (arXiv 2509.17098)."""
    return image + (_field(image, seeds) * NOISE_STD + mean).to(image)


def deviating_noise(image: Tensor, std: float, seeds: Sequence[int]) -> Tensor:
    """Gaussian noise of mean 0 and this standard deviation (arXiv 2605.10984)."""
    return image + (_field(image, seeds) * std).to(image)


def _field(image: Tensor, seeds: Sequence[int]) -> Tensor:
    return torch.stack([torch.randn(image.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def blur(image: Tensor, sigma: float, seeds: Sequence[int]) -> Tensor:
    """Gaussian blur of `sigma` voxels: MONAI's GaussianSmooth."""
    from monai.transforms import GaussianSmooth

    return torch.stack([_plain(GaussianSmooth(sigma)(x)) for x in image])


def bias_field(image: Tensor, strength: float, seeds: Sequence[int]) -> Tensor:
    """Multiplied by exp of a cubic polynomial with coefficients in ±strength: MONAI's RandBiasField.

    The field multiplies the height above the darkest voxel: a normalised image has no zero of its own.
    """
    from monai.transforms import RandBiasField

    low = image.flatten(2).amin(2).reshape(*image.shape[:2], *[1] * (image.dim() - 2))
    field = RandBiasField(degree=3, coeff_range=(-strength, strength), prob=1.0)
    lifted = []
    for x, seed in zip(image - low, seeds, strict=True):
        field.set_random_state(seed % 2**32)
        lifted.append(_plain(field(x)))
    return torch.stack(lifted) + low


def ghosting(image: Tensor, intensity: float, seeds: Sequence[int]) -> Tensor:
    """Every fourth line of k-space but the central one weakened by `intensity`, along one of the two longest axes."""
    longest = sorted(range(1, image.dim() - 1), key=lambda axis: -image.shape[axis + 1])[:2]
    ghosted = []
    for x, seed in zip(image, seeds, strict=True):
        axis = longest[int(torch.randint(2, (), generator=torch.Generator().manual_seed(seed)))]
        n = x.shape[axis]
        line = torch.fft.fftfreq(n, 1 / n, device=x.device).round().long()
        weakened = (line % GHOSTS == 0) & (line != 0)
        shape = [n if k == axis else 1 for k in range(x.dim())]
        spectrum = torch.fft.fft(x.float(), dim=axis)
        ghosted.append(torch.fft.ifft(spectrum * (1.0 - intensity * weakened).reshape(shape), dim=axis).real.to(x))
    return torch.stack(ghosted)


def contrast(image: Tensor, gamma: float, seeds: Sequence[int]) -> Tensor:
    """The range of every image raised to the power `gamma`: MONAI's AdjustContrast."""
    from monai.transforms import AdjustContrast

    return torch.stack([_plain(AdjustContrast(gamma)(x)) for x in image])


def _plain(image: Any) -> Tensor:
    """MONAI's transforms return a MetaTensor."""
    return image.as_tensor() if hasattr(image, "as_tensor") else image


CORRUPTIONS: dict[str, Corruption] = {
    "noise": Corruption("noise", "mean, std 0.3", (0.1, 0.3, 0.5, 0.7, 0.9), noise),
    "noise_std": Corruption("noise by std", "std, mean 0", (0.1, 0.2, 0.3, 0.5, 1.0), deviating_noise),
    "blur": Corruption("blur", "σ in voxels", (0.5, 1.0, 1.5, 2.0, 3.0), blur),
    "bias_field": Corruption("bias field", "coefficients", (0.1, 0.2, 0.3, 0.4, 0.5), bias_field),
    "ghosting": Corruption("ghosting", "intensity", (0.4, 0.8, 1.2, 1.6, 2.0), ghosting),
    "contrast": Corruption("contrast", "gamma", (1.25, 1.5, 2.0, 2.5, 3.0), contrast),
}


def corrupt(image: Tensor, kind: str, severity: int, *, seeds: Sequence[int]) -> Tensor:
    r"""A batch spoiled in one way at one severity.

    Args:
        image: [N, K, \*S] floating, normalised.
        kind: "noise" (mean 0.1 … 0.9, standard deviation 0.3), "noise_std" (mean 0, standard deviation 0.1 … 1),
            "blur" (σ 0.5 … 3 voxels), "bias_field" (MONAI's polynomial, coefficients up to ±0.1 … 0.5), "ghosting"
            (k-space lines times 0.6 … -1) or "contrast" (gamma 1.25 … 3).
        severity: 1 … 5.
        seeds: one per image; an image's result depends on its own alone. The same seed gives the same noise, field
            and axis at every severity.

    Returns:
        The spoiled batch, of the image's shape, dtype and device.

    Raises:
        DataError: an unknown kind, a severity outside 1 … 5, another number of seeds than images, NaN or infinity.

    Example:
        >>> import torch
        >>> corrupt(torch.zeros(1, 1, 8, 8), "noise", 5, seeds=[0]).shape
        torch.Size([1, 1, 8, 8])
    """
    if kind not in CORRUPTIONS:
        raise DataError(f"kind: expected one of {', '.join(CORRUPTIONS)}, got {kind!r}")
    corruption = CORRUPTIONS[kind]
    if isinstance(severity, bool) or severity not in range(1, len(corruption.severities) + 1):
        raise DataError(f"severity: expected 1 to {len(corruption.severities)}, got {severity!r}")
    if image.dim() not in (4, 5) or not image.dtype.is_floating_point:
        raise DataError(f"image: expected floating [N, K, *S], 2D or 3D, got {image.dtype} {list(image.shape)}")
    if len(seeds) != len(image):
        raise DataError(f"seeds: expected one for each of the {len(image)} images, got {len(seeds)}")
    if not math.isfinite(float(image.detach().double().sum())):
        raise DataError("image: expected finite values, got NaN or infinity")
    return corruption.apply(image, corruption.severities[severity - 1], seeds).to(image.dtype)
