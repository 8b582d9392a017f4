"""The segmentation network: MONAI's U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

NORMS = ("instance", "batch")
_SMALLEST = 4  # voxels an axis keeps after all strides


def plan_strides(patch_size: Sequence[int], levels: int) -> tuple[tuple[int, ...], ...]:
    """Strides of the `levels` - 1 downsamplings for a patch: 2 along an axis while at least 4 voxels are left, else 1.

    Example:
        >>> from sure_fast.models import plan_strides
        >>> plan_strides((64, 64, 8), 3)
        ((2, 2, 2), (2, 2, 1))
    """
    sizes = list(patch_size)
    strides = []
    for _ in range(levels - 1):
        step = tuple(2 if size % 2 == 0 and size // 2 >= _SMALLEST else 1 for size in sizes)
        sizes = [size // s for size, s in zip(sizes, step, strict=True)]
        strides.append(step)
    return tuple(strides)


def divisor(strides: Sequence[Sequence[int]], axis: int) -> int:
    """What the length of an axis must be a multiple of."""
    product = 1
    for step in strides:
        product *= step[axis]
    return product


def build_model(
    dims: int,
    in_channels: int,
    num_classes: int,
    channels: Sequence[int] = (16, 32, 64),
    strides: Sequence[Sequence[int]] = ((2, 2, 2), (2, 2, 2)),
    dropout: float = 0.0,
    norm: str = "instance",
) -> nn.Module:
    """MONAI's residual U-Net, image [N, in_channels, *S] -> logits [N, num_classes, *S].

    Args:
        dims: 2 or 3 spatial axes.
        in_channels, num_classes: channels of the image and of the logits.
        channels: feature channels per level.
        strides: one per downsampling and axis, as `plan_strides` gives.
        dropout: probability, after every convolution.
        norm: "instance" or "batch" normalisation. Instance normalisation takes a shift of the whole image's grey values
            out, so neither labels nor uncertainty answer to one.
    """
    from monai.networks.nets import UNet

    return UNet(
        spatial_dims=dims,
        in_channels=in_channels,
        out_channels=num_classes,
        channels=tuple(channels),
        strides=[tuple(step) for step in strides],  # type: ignore[misc]
        num_res_units=2,
        norm=norm,
        dropout=dropout,
    )
