"""Segmentation networks: MONAI's by name, or a function of the user's own; and the strides that fit a patch."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn

NORMS = ("instance", "batch", "group")
UPSAMPLING = ("interpolate", "transposed")
FIRST_CHANNELS, MOST_CHANNELS = 16, {2: 512, 3: 320}
"""Feature channels of the finest level, doubled at each coarser one up to the most of 2D and 3D."""
FEWEST_LEVELS, MOST_LEVELS = 3, 6
"""Of a network whose channels are not given; MONAI's DynUNet has no fewer."""
_SMALLEST = 4  # voxels an axis keeps after all strides
_ANISOTROPIC = 2.0  # ratio of spacings from which on an axis waits for the finer ones
_GROUPS = 8


class Topology(NamedTuple):
    """How a U-Net goes down: one entry per downsampling, one kernel per level, and the patch they fit."""

    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    patch_size: tuple[int, ...]


def plan_topology(
    sizes: Sequence[int], levels: int | None = None, spacing: Sequence[float] | None = None, *, fixed: bool = False
) -> Topology:
    """Strides, kernels and patch of a U-Net for images of a size, after nnU-Net's rule (Isensee et al., 2021).

    An axis is halved while at least 4 voxels are left and its spacing is less than twice the finest of the axes that
    can still be halved; a kernel is 1 wide along an axis until, going down, its spacing is less than twice the finest.

    Args:
        sizes: voxels per axis. levels: of the network; None: as many as there are downsamplings, at most 6.
        spacing: of the voxels; None: equal.
        fixed: the sizes are the patch, of which an odd axis is not halved; else the patch is at most `sizes`, and what
            the strides divide.

    Example:
        >>> plan_topology((32, 47, 29)).patch_size
        (32, 40, 28)
        >>> plan_topology((64, 64, 8), spacing=(1.5, 1.5, 10.0)).strides
        ((2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 1))
    """
    sizes, at = [int(size) for size in sizes], list(spacing or [1.0] * len(sizes))
    left, factors = list(sizes), [1] * len(sizes)
    strides: list[tuple[int, ...]] = []
    kernels = [_kernel(at, (1,) * len(sizes))]
    while len(strides) + 1 < (MOST_LEVELS if levels is None else levels):
        able = [size // 2 >= _SMALLEST and not (fixed and size % 2) for size in left]
        finest = min((s for s, can in zip(at, able, strict=True) if can), default=math.inf)
        step = tuple(2 if can and s < _ANISOTROPIC * finest else 1 for s, can in zip(at, able, strict=True))
        if levels is None and max(step) == 1:
            break
        left = [size // s for size, s in zip(left, step, strict=True)]
        at = [spacing * s for spacing, s in zip(at, step, strict=True)]
        factors = [factor * s for factor, s in zip(factors, step, strict=True)]
        strides.append(step)
        kernels.append(_kernel(at, kernels[-1]))
    return Topology(tuple(strides), tuple(kernels), tuple(n * f for n, f in zip(left, factors, strict=True)))


def _kernel(spacing: Sequence[float], above: Sequence[int]) -> tuple[int, ...]:
    """Of a level, whose kernels are at least as wide as those of the one above."""
    fine = [s < _ANISOTROPIC * min(spacing) for s in spacing]
    return tuple(3 if is_fine or wide == 3 else 1 for is_fine, wide in zip(fine, above, strict=True))


def plan_strides(patch_size: Sequence[int], levels: int) -> tuple[tuple[int, ...], ...]:
    """Strides of the `levels` - 1 downsamplings for a patch: 2 along an axis while at least 4 voxels are left, else 1.

    Example:
        >>> from sure_fast.models import plan_strides
        >>> plan_strides((64, 64, 8), 3)
        ((2, 2, 2), (2, 2, 1))
    """
    return plan_topology(patch_size, levels, fixed=True).strides


def plan_channels(levels: int, dims: int) -> list[int]:
    """Feature channels per level."""
    return [min(FIRST_CHANNELS * 2**k, MOST_CHANNELS[dims]) for k in range(levels)]


@dataclass
class Description:
    """All that a network follows from.

    Args:
        network: one of `NETWORKS`, or `package.module:function`.
        dims: 2 or 3 spatial axes.
        in_channels, num_classes: channels of the image and of the logits.
        patch_size: voxels per axis of the images it is trained on.
        channels: feature channels per level.
        strides: one per downsampling and axis. kernels: one per level and axis; empty: 3 everywhere.
        dropout: probability.
        norm: one of `NORMS`; None: the network's own. Instance normalisation takes a shift of the whole image's grey
            values out, so neither labels nor uncertainty answer to one.
        upsample: "interpolate": linear interpolation behind a 1-wide convolution in the place of every transposed
            convolution, whose strides leave a grid in logits and uncertainty (Odena et al., Distill 2016);
            "transposed": as MONAI builds it.
        deep_supervision: outputs of coarser levels that it gives in training, beside the finest.
        parameters: further keywords of MONAI's class, or of the function.
        latent: numbers of the latent variable of a probabilistic U-Net around the network; 0: none.
    """

    network: str
    dims: int
    in_channels: int
    num_classes: int
    patch_size: Sequence[int]
    channels: Sequence[int]
    strides: Sequence[Sequence[int]]
    kernels: Sequence[Sequence[int]] = ()
    dropout: float = 0.0
    norm: str | None = None
    upsample: str = "interpolate"
    deep_supervision: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    latent: int = 0

    @property
    def io(self) -> dict[str, int]:
        return {"spatial_dims": self.dims, "in_channels": self.in_channels, "out_channels": self.num_classes}

    def norm_of(self, own: str, channels: Sequence[int], **options: Any) -> tuple[str, dict[str, Any]]:
        """MONAI's name and options of the normalisation; groups divide all these numbers of channels."""
        norm = self.norm or own
        return norm, {"num_groups": math.gcd(_GROUPS, *channels)} if norm == "group" else options


def _unet(of: Description) -> nn.Module:
    from monai.networks.nets import UNet

    # Its finest level normalises as many channels as there are classes.
    norm = of.norm_of("instance", [*of.channels, of.num_classes])
    return UNet(**{**of.io, "channels": tuple(of.channels), "strides": [tuple(s) for s in of.strides],
                   "num_res_units": 2, "norm": norm, "dropout": of.dropout, **of.parameters})  # fmt: skip


def _dynunet(of: Description) -> nn.Module:
    import torch
    from monai.networks.blocks import dynunet_block
    from monai.networks.nets import DynUNet

    class DeepDynUNet(DynUNet):
        """Gives the list of its outputs, the finest first, where MONAI stacks them."""

        def forward(self, x: Tensor) -> Any:
            out = super().forward(x)
            return list(out.unbind(1)) if self.training and self.deep_supervision else out

    levels = len(of.channels)
    if levels < FEWEST_LEVELS:
        raise ValueError(f"expected at least {FEWEST_LEVELS} levels of channels, got {list(of.channels)}")
    strides = [(1,) * of.dims, *(tuple(step) for step in of.strides)]
    kernels = [tuple(kernel) for kernel in of.kernels] or [(3,) * of.dims] * levels
    norm = of.norm_of("instance", of.channels, affine=True)
    given = {**of.io, "kernel_size": kernels, "strides": strides, "upsample_kernel_size": strides[1:],
             "filters": list(of.channels), "norm_name": norm, "dropout": of.dropout or None,
             "deep_supervision": of.deep_supervision > 0, "deep_supr_num": max(of.deep_supervision, 1)}  # fmt: skip
    model = DeepDynUNet(**{**given, **of.parameters})
    for block in model.modules():
        if isinstance(block, dynunet_block.UnetOutBlock):  # of features, not of logits
            for layer in block.modules():
                if isinstance(layer, torch.nn.Dropout):
                    layer.p = 0.0
    return model


def _segresnet(of: Description) -> nn.Module:
    from monai.networks.nets import SegResNet

    levels, first = len(of.channels), of.channels[0]
    wanted = [first * 2**k for k in range(levels)]
    if list(of.channels) != wanted:
        raise ValueError(f"expected channels that double from level to level, such as {wanted}, got {of.channels}")
    norm = of.norm_of("group", [first])
    given = {**of.io, "init_filters": first, "blocks_down": (1, *[2] * (levels - 1)), "blocks_up": (1,) * (levels - 1),
             "norm": norm, "dropout_prob": of.dropout or None,
             "upsample_mode": "nontrainable" if of.upsample == "interpolate" else "deconv"}  # fmt: skip
    return SegResNet(**{**given, **of.parameters})


def _attentionunet(of: Description) -> nn.Module:
    from monai.networks.nets import AttentionUnet

    if of.norm not in (None, "batch"):
        raise ValueError(f"norm: expected batch, which is all that MONAI's has, got {of.norm}")
    return AttentionUnet(**{**of.io, "channels": tuple(of.channels), "strides": [tuple(s) for s in of.strides],
                            "dropout": of.dropout, **of.parameters})  # fmt: skip


def _unetr(of: Description) -> nn.Module:
    from monai.networks.nets import UNETR

    features = int(of.parameters.get("feature_size", 16))
    given = {**of.io, "img_size": tuple(of.patch_size), "norm_name": of.norm_of("instance", [features]),
             "dropout_rate": of.dropout}  # fmt: skip
    return UNETR(**{**given, **of.parameters})


def _swinunetr(of: Description) -> nn.Module:
    from monai.networks.nets import SwinUNETR

    features = int(of.parameters.get("feature_size", 24))
    given = {**of.io, "feature_size": features, "norm_name": of.norm_of("instance", [features]),
             "drop_rate": of.dropout}  # fmt: skip
    return SwinUNETR(**{**given, **of.parameters})


@dataclass(frozen=True)
class Kind:
    """A network of MONAI's."""

    build: Callable[[Description], nn.Module]
    multiple: Callable[[int], int] | None = None
    """What every length of its patch is a multiple of, by its levels; None: of the strides, which it takes."""
    levels: bool = True
    """Whether it takes channels per level."""
    heads: bool = False
    """Whether it has outputs of coarser levels."""
    most_levels: int = MOST_LEVELS
    """Where their number is not given."""


NETWORKS: dict[str, Kind] = {
    "unet": Kind(_unet),
    "dynunet": Kind(_dynunet, heads=True),
    "segresnet": Kind(_segresnet, multiple=lambda levels: 2 ** (levels - 1), most_levels=4),
    "unetr": Kind(_unetr, multiple=lambda _: 16, levels=False),
    "swinunetr": Kind(_swinunetr, multiple=lambda _: 32, levels=False),
    "attentionunet": Kind(_attentionunet),
}
"""By the name that `--network` gives; all but the user's own."""


def own_function(name: str) -> Callable[..., nn.Module]:
    """The function that `package.module:function` names.

    Raises:
        ValueError: no such name, or nothing there that can be called.
    """
    module, colon, function = name.partition(":")
    if not colon or not module or not function:
        raise ValueError(f"expected one of {', '.join(NETWORKS)}, or package.module:function, got {name!r}")
    try:
        made = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"expected a function that can be imported, got {name!r}: {error}") from None
    if not callable(made):
        raise ValueError(f"expected a function, got {name!r}, which is {type(made).__name__}")
    return made


def build(of: Description) -> nn.Module:
    """The network of a description, image [N, in_channels, *S] -> logits [N, num_classes, *S].

    A function of the user's own is called with `dims`, `in_channels`, `num_classes`, `patch_size` and the parameters.
    In training a network may give a list of logits, the finest first.

    Raises:
        ValueError: what cannot be built, in one line.
    """
    if of.latent:
        return _with_latent(of)
    try:
        if of.network not in NETWORKS:
            return own_function(of.network)(
                dims=of.dims, in_channels=of.in_channels, num_classes=of.num_classes, patch_size=tuple(of.patch_size),
                **of.parameters,
            )  # fmt: skip
        model = NETWORKS[of.network].build(of)
    except Exception as error:  # MONAI raises ValueError, TypeError, AssertionError, OptionalImportError, …
        reason = " ".join(str(error).split()) or type(error).__name__
        hint = "; pip install 'sure_fast[transformers]'" if isinstance(error, ImportError) else ""
        raise ValueError(f"{of.network}: {reason}{hint}") from None
    return _interpolating(model) if of.upsample == "interpolate" else model


def _with_latent(of: Description) -> nn.Module:
    """A probabilistic U-Net whose features are those of the network."""
    from .probabilistic import ProbabilisticUNet

    width = of.channels[0]
    features = build(replace(of, latent=0, num_classes=width, deep_supervision=0))
    return ProbabilisticUNet(
        features, of.dims, of.in_channels, of.num_classes, width=width, channels=of.channels, strides=of.strides,
        latent=of.latent,
    )  # fmt: skip


def _interpolating(model: nn.Module) -> nn.Module:
    """Linear interpolation behind a 1-wide convolution in the place of every transposed convolution."""
    from torch import nn

    for name, layer in list(model.named_children()):
        if not isinstance(layer, (nn.ConvTranspose2d, nn.ConvTranspose3d)):
            _interpolating(layer)
            continue
        flat = isinstance(layer, nn.ConvTranspose2d)
        convolution, mode = (nn.Conv2d, "bilinear") if flat else (nn.Conv3d, "trilinear")
        project = convolution(layer.in_channels, layer.out_channels, 1, bias=layer.bias is not None)
        stride = tuple(float(s) for s in layer.stride)
        setattr(model, name, nn.Sequential(project, nn.Upsample(scale_factor=stride, mode=mode)))
    return model


def build_model(
    dims: int,
    in_channels: int,
    num_classes: int,
    channels: Sequence[int] = (16, 32, 64),
    strides: Sequence[Sequence[int]] | None = None,
    dropout: float = 0.0,
    norm: str | None = None,
    network: str = "dynunet",
) -> nn.Module:
    """A network of `NETWORKS`, image [N, in_channels, *S] -> logits [N, num_classes, *S].

    Args:
        dims, in_channels, num_classes, channels, dropout, norm, network: as of `Description`.
        strides: one per downsampling and axis, as `plan_strides` gives; None: 2.

    Raises:
        ValueError: what cannot be built.

    Example:
        >>> import torch
        >>> from sure_fast.models import build_model
        >>> build_model(2, in_channels=1, num_classes=3)(torch.rand(1, 1, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """
    steps = [(2,) * dims] * (len(channels) - 1) if strides is None else strides
    patch = [32] * dims
    return build(Description(network, dims, in_channels, num_classes, patch, channels, steps, (), dropout, norm))
