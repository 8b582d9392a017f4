"""What follows from the cases and the options: the grid, the patch, and the network that fits it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import DatasetInfo, Split
from ..data.augment import Augmentation
from ..data.nifti_header import memory_bytes
from ..data.normalize import window_of
from ..data.orientation import most_common
from ..data.resampling import target_size
from ..data.screening import MIXED_SPACING, Screening, spacing_ranges
from ..models import FEWEST_LEVELS, NETWORKS, Topology, plan_channels, plan_topology
from .checkpoint import ModelPlan
from .config import ConfigError, TrainConfig
from .prediction import has_dropout
from .sections import DataConfig

LARGEST_PATCH = {2: 256, 3: 96}
"""Voxels per axis of a patch that nobody asks for."""
PLANES = {"axial": "SI", "coronal": "AP", "sagittal": "LR"}
ABSOLUTE = ("ct",)
"""Names of channels whose grey values mean the same in every case."""


def preparation_of(config: TrainConfig, screening: Screening, split: Split, info: DatasetInfo) -> dict[str, Any]:
    """How images are brought to the network, from the training cases: keywords of `DatasetInfo`.

    Raises:
        ConfigError: slices of pictures, a spacing of another number of axes, and the like.
    """
    names = [case.name for case in split.train]
    orientation = orientation_of(screening, split)
    dims = len(screening.shapes[names[0]]) - 1
    axis = _slice_axis(config, screening, names, orientation, dims)
    return {
        "orientation": orientation,
        "spacing": _spacing(config, screening, names, orientation, dims, axis),
        "resize": _resize(config, dims, axis),
        "foreground_crop": config.data.foreground_crop,
        "windows": _windows(screening, names, info),
        "slice_axis": axis,
    }


def orientation_of(screening: Screening, split: Split) -> str | None:
    """That of the most training cases, of equals the one of the most cases; None where they are pictures."""
    every = [orientation for orientation in screening.orientations.values() if orientation]
    return most_common([screening.orientations[case.name] for case in split.train], every)


def _slice_axis(
    config: TrainConfig, screening: Screening, names: Sequence[str], orientation: str | None, dims: int
) -> int | None:
    """Axis of the slices in the common orientation; None: images are not cut."""
    wanted, chosen = config.data.dims, config.data.slice_axis
    if wanted == 3 and dims == 2:
        raise ConfigError("data.dims: expected 2 with images of two axes, got 3")
    if wanted != 2 or dims == 2:
        if chosen != "auto":
            raise ConfigError(f"data.slice_axis: expected with volumes only, got {chosen} with images of two axes")
        if config.data.empty_slices != DataConfig.empty_slices:
            raise ConfigError(
                f"data.empty_slices: expected with slices of volumes only (--dims 2), got {config.data.empty_slices}"
            )
        return None
    if chosen in "012":
        return int(chosen)
    codes = orientation or ""
    if chosen in PLANES:
        across = [axis for axis, code in enumerate(codes) if code in PLANES[chosen]]
        if not across:
            raise ConfigError(f"data.slice_axis: expected the number of an axis of voxels stored {codes}, got {chosen}")
        return across[0]
    spacing = _median_spacing(screening, names, orientation)
    axial = [axis for axis, code in enumerate(codes) if code in PLANES["axial"]]
    # Of equal sizes the axial one, then the last.
    return max(range(3), key=lambda axis: (round(spacing[axis], 3), axis in axial, axis))


def _median_spacing(screening: Screening, names: Sequence[str], orientation: str | None) -> list[float]:
    rows = [screening.oriented(name, orientation)[1] for name in names]
    return [statistics.median(values) for values in zip(*rows, strict=True)]


def _spacing(
    config: TrainConfig, screening: Screening, names: Sequence[str], orientation: str | None, dims: int,
    slice_axis: int | None,
) -> tuple[float, ...] | None:  # fmt: skip
    given = config.data.spacing
    median = _median_spacing(screening, names, orientation)
    if given == "none" or config.data.resize:
        return None
    if given == "auto":
        ranges = spacing_ranges(screening, list(screening.spacings), orientation)
        mixed = [high > low * MIXED_SPACING for axis, (low, high) in enumerate(ranges) if axis != slice_axis]
        return tuple(median) if any(mixed) else None
    if orientation is None:
        raise ConfigError(
            f"data.spacing: expected auto or none with pictures, which name no voxel size (data.resize sets theirs), "
            f"got {given}"
        )
    sizes = [float(given)] * dims if isinstance(given, (int, float)) else [float(size) for size in given]
    if slice_axis is not None and len(sizes) == 2:
        sizes.insert(slice_axis, median[slice_axis])
    if len(sizes) != dims:
        raise ConfigError(f"data.spacing: expected 1 or {dims} sizes for these images, got {given}")
    return tuple(sizes)


def _resize(config: TrainConfig, dims: int, slice_axis: int | None) -> tuple[int, ...] | None:
    wanted = dims - (slice_axis is not None)
    if config.data.resize and len(config.data.resize) != wanted:
        raise ConfigError(f"data.resize: expected {wanted} numbers for these images, got {config.data.resize}")
    return tuple(config.data.resize) or None


def _windows(screening: Screening, names: Sequence[str], info: DatasetInfo) -> tuple[Any, ...] | None:
    """Of channels called CT, from the foreground of the training cases."""
    absolute = [name.strip().lower() in ABSOLUTE for name in info.channel_names or ()]
    if not any(absolute):
        return None
    windows = []
    for channel, is_absolute in enumerate(absolute):
        values = np.concatenate([screening.facts[name].foreground[channel] for name in names])
        windows.append(window_of(values) if is_absolute and values.size else None)
    return tuple(windows)


def seen_by_network(
    screening: Screening, split: Split, info: DatasetInfo
) -> tuple[list[tuple[int, ...]], tuple[float, ...]]:
    """Shapes [*S] of the training images on the network's grid, of slices without their axis; and its voxel size."""
    axes = [axis for axis in range(len(next(iter(screening.spacings.values())))) if axis != info.slice_axis]
    shapes, spacings = [], []
    for case in split.train:
        shown = screening.shown(case.name, info.orientation)
        own = screening.oriented(case.name, info.orientation)[1]
        size = target_size(shown, own, info)
        shapes.append(tuple(size[axis] for axis in axes))
        spacings.append([own[axis] * shown[axis] / size[axis] for axis in axes])
    return shapes, tuple(statistics.median(values) for values in zip(*spacings, strict=True))


def plan_for(
    config: TrainConfig,
    shapes: Sequence[Sequence[int]],
    in_channels: int,
    info: DatasetInfo,
    spacing: Sequence[float] | None = None,
) -> ModelPlan:
    """Patch and network for images of these shapes and this voxel size.

    Raises:
        ConfigError: a patch of another number of axes, or that the network cannot have.
    """
    dims, network = len(shapes[0]), config.network
    topology = _topology(config, shapes, spacing)
    levels = len(topology.strides) + 1
    kind = NETWORKS.get(network.name)
    latent = config.method.record.latent
    wanted = kind is not None and kind.heads and network.deep_supervision is not False and not latent
    heads = min(2, levels - 2) if wanted else 0
    return ModelPlan(
        dims=dims,
        in_channels=in_channels,
        num_classes=info.num_classes,
        channels=list(network.channels) or plan_channels(levels, dims),
        strides=[list(step) for step in topology.strides],
        patch_size=list(topology.patch_size),
        class_names=dict(info.class_names),
        evidence=config.method.options.get("evidence", "exp"),
        dropout=network.dropout,
        norm=network.norm,
        network=network.name,
        kernels=[list(kernel) for kernel in topology.kernels],
        upsample=network.upsample,
        deep_supervision=max(heads, 0),
        parameters=dict(network.parameters),
        latent=latent,
        orientation=info.orientation,
        slice_axis=info.slice_axis,
        spacing=None if info.spacing is None else list(info.spacing),
        resize=None if info.resize is None else list(info.resize),
        foreground_crop=info.foreground_crop,
        windows=None if info.windows is None else [w and list(w) for w in info.windows],
    )


def _topology(config: TrainConfig, shapes: Sequence[Sequence[int]], spacing: Sequence[float] | None) -> Topology:
    """Strides, kernels and patch: the given one, or the largest that nine of ten images fill."""
    dims, given = len(shapes[0]), config.data.patch_size
    levels = len(config.network.channels) or None
    kind = NETWORKS.get(config.network.name)
    if given:
        _check_patch(given, shapes)
        sizes = list(given)
    else:
        lengths = [sorted(shape[axis] for shape in shapes) for axis in range(dims)]
        sizes = [min(LARGEST_PATCH[dims], each[len(each) // 10]) for each in lengths]
    if kind is not None and kind.multiple is not None:
        levels = levels or kind.most_levels
        unit = kind.multiple(levels)
        patch = tuple(max(size // unit, 1) * unit for size in sizes)
        if not given and max(patch) == unit:  # a coarsest level of one voxel is nothing to normalise
            patch = tuple(size * (2 if axis == int(np.argmax(sizes)) else 1) for axis, size in enumerate(patch))
        if given and patch != tuple(sizes):
            raise ConfigError(
                f"data.patch_size: expected multiples of {unit} for {config.network.name}, got {list(given)}"
            )
        return Topology(((2,) * dims,) * (levels - 1), ((3,) * dims,) * levels, patch)
    planned = plan_topology(sizes, levels, spacing, fixed=bool(given))
    if levels is None and len(planned.kernels) < FEWEST_LEVELS:
        planned = plan_topology(sizes, FEWEST_LEVELS, spacing, fixed=bool(given))
    return planned


def _check_patch(given: Sequence[int], shapes: Sequence[Sequence[int]]) -> None:
    dims = len(shapes[0])
    if len(given) != dims or min(given) < 1:
        raise ConfigError(f"data.patch_size: expected {dims} numbers >= 1 for these images, got {list(given)}")
    thin = [axis for axis in range(dims) if given[axis] == 1 and max(shape[axis] for shape in shapes) > 1]
    if dims == 3 and thin:
        plane = ",".join(str(size) for axis, size in enumerate(given) if axis != thin[0])
        raise ConfigError(
            f"data.patch_size: expected more than one voxel along each axis of volumes, got {list(given)}; a network "
            f"of their slices is trained with --dims 2 --patch-size {plane}"
        )


def check_noise_patch(config: TrainConfig, patch_size: Collection[int]) -> None:
    """ConfigError where the noise of L_nu does not fit the crops: no place could get it, and its terms would be 0."""
    method = config.method
    if "patch_size" not in method.options or not method.record.reads("patch_size", method.options):
        return
    size, crop = method.options["patch_size"], list(patch_size)
    given = [size] if isinstance(size, int) else list(size)
    if len(given) not in (1, len(crop)):
        raise ConfigError(f"method.patch_size: expected 1 or {len(crop)} numbers for crops of {crop}, got {given}")
    sizes = given * len(crop) if len(given) == 1 else given
    fitting = [min(size, length - 1 + length % 2) for size, length in zip(sizes, crop, strict=True)]
    if fitting != sizes:
        raise ConfigError(
            f"method.patch_size: expected noise that fits the crop of {','.join(map(str, crop))} voxels, got "
            f"{','.join(map(str, given))}; give --set method.patch_size={','.join(map(str, fitting))}"
        )


def check_class_weights(config: TrainConfig, class_names: Collection[int]) -> None:
    """ConfigError where a method's weights are not one for each class."""
    weights = config.method.options.get("class_weights")
    if weights is not None and len(weights) != len(class_names):
        raise ConfigError(f"method.class_weights: expected {len(class_names)} numbers, one a class, got {weights}")


def check_size(shapes: Sequence[Sequence[int]], spacing: Sequence[float]) -> None:
    """ConfigError where an image on the network's grid, float32 with its label, is beyond the machine's memory."""
    limit = memory_bytes()
    largest = max(shapes, key=math.prod)
    if limit is not None and 8 * math.prod(largest) > limit:
        size, voxel = (" x ".join(f"{x:g}" for x in numbers) for numbers in (largest, spacing))
        raise ConfigError(
            f"data.spacing, data.resize: expected images that this machine's {limit / 2**30:.1f} GiB of memory can "
            f"hold, got one of {size} voxels of {voxel} mm"
        )


def check_augmentation(config: TrainConfig, patch_size: Sequence[int]) -> None:
    """ConfigError where a transform cannot be made, or does not give back a crop."""
    try:
        augmentation = Augmentation(config.data.augment, patch_size)
        if isinstance(config.data.augment, str):
            return
        window = [size + 2 * margin for size, margin in zip(patch_size, augmentation.margin, strict=True)]
        augmentation(np.zeros((1, *window), np.float32), np.zeros(window, np.int64), 0)
    except Exception as error:  # whatever a transform of MONAI's raises on its first crop
        reason = " ".join(str(error).split()).removeprefix("augment: ")
        raise ConfigError(f"data.augment: {reason}") from None


def check_network(plan: ModelPlan) -> None:
    """One forward of a batch of two zeros, in the mode of training; counts the outputs of a network of the user's own.

    Raises:
        ConfigError: a network that cannot be built, or gives no logits for the patch.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        shape = (2, plan.in_channels, *plan.patch_size)
        try:
            model = plan.build().train()
            answer: Any = model(torch.zeros(shape))
        except Exception as error:  # of the user's network, or of MONAI's, which raise what they like
            reason = " ".join(str(error).split()) or type(error).__name__
            prefix = "" if reason.startswith(f"{plan.network}:") else f"{plan.network}: "
            raise ConfigError(
                f"network: expected a network for patches of {plan.patch_size}, got {prefix}{reason}"
            ) from None
    first = answer[0] if isinstance(answer, (list, tuple)) and answer else answer
    wanted = [2, plan.num_classes, *plan.patch_size]
    if not isinstance(first, Tensor) or list(first.shape) != wanted:
        got = list(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise ConfigError(f"network.name: expected {plan.network} to give logits {wanted}, got {got}")
    if plan.dropout and not has_dropout(model):
        raise ConfigError(
            f"network.dropout: expected 0 with {plan.network}, which has no layer of it, got {plan.dropout}; a network "
            "of your own makes them, from network.parameters"
        )
    if plan.network not in NETWORKS:
        plan.deep_supervision = len(answer) - 1 if isinstance(answer, (list, tuple)) else 0
