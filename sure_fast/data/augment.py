"""Augmentation of training crops by MONAI's dictionary transforms, seeded by the crop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sure_fast.data.errors import DataError

PRESETS = ("nnunet", "mirror", "none")
MARGIN = 0.25
"""Of the crop's length, on each side: what a rotated or scaled crop is cut from, so that its corners are image."""
_FREE_FORM = ("Affined", "Rotated", "Zoomd", "2DElasticd", "3DElasticd", "GridDistortiond")
"""Endings of the names of transforms that look beyond the crop."""
_FLAT = 3.0
"""Ratio of edges from which on a crop is turned and scaled in its plane alone, as nnU-Net does."""
_TURN_2D, _ELONGATED = math.pi, 1.5
_TURN_3D, _TURN_ELONGATED = math.radians(30.0), math.radians(15.0)


def nnunet(patch_size: Sequence[int]) -> list[dict[str, dict[str, Any]]]:
    """Transforms close to nnU-Net's (Isensee et al., Nature Methods 2021): its kinds, probabilities and ranges.

    Each is MONAI's, so that details differ: blur has one deviation an axis, contrast scales about the mean. There is
    no elastic deformation.
    """
    dims = len(patch_size)
    turn, stretch = [_TURN_3D] * 3, [(-0.3, 0.4)] * dims
    if dims == 2:
        elongated = max(patch_size) > _ELONGATED * min(patch_size)
        turn = [_TURN_ELONGATED if elongated else _TURN_2D]
    elif max(patch_size) > _FLAT * min(patch_size):
        flat = int(np.argmin(patch_size))
        turn = [math.pi if axis == flat else 0.0 for axis in range(3)]
        stretch[flat] = (0.0, 0.0)
    fine = "bilinear" if dims == 2 else "trilinear"
    blur = {f"sigma_{axis}": (0.5, 1.0) for axis in "xyz"[:dims]}
    return [
        {"RandAffined": {"prob": 0.2, "rotate_range": turn}},
        {"RandAffined": {"prob": 0.2, "scale_range": stretch}},
        *({"RandFlipd": {"prob": 0.5, "spatial_axis": axis}} for axis in range(dims)),
        {"RandGaussianNoised": {"prob": 0.1, "std": 0.3}},
        {"RandGaussianSmoothd": {"prob": 0.2, **blur}},
        {"RandScaleIntensityd": {"prob": 0.15, "factors": (-0.25, 0.25)}},
        {"RandScaleIntensityFixedMeand": {"prob": 0.15, "factors": (-0.25, 0.25), "preserve_range": True}},
        {"RandSimulateLowResolutiond": {"prob": 0.25, "zoom_range": (0.5, 1.0), "upsample_mode": fine}},
        {"RandAdjustContrastd": {"prob": 0.1, "gamma": (0.7, 1.5), "invert_image": True, "retain_stats": True}},
        {"RandAdjustContrastd": {"prob": 0.3, "gamma": (0.7, 1.5), "retain_stats": True}},
    ]


def described(augment: str | Sequence[Mapping[str, Any]], patch_size: Sequence[int]) -> list[Mapping[str, Any]]:
    """The list of transforms that a preset stands for."""
    if augment not in PRESETS if isinstance(augment, str) else not isinstance(augment, Sequence):
        raise DataError(f"augment: expected {', '.join(PRESETS)} or a list of transforms, got {augment!r}")
    if isinstance(augment, str):
        mirror = [{"RandFlipd": {"prob": 0.5, "spatial_axis": axis}} for axis in range(len(patch_size))]
        return {"nnunet": nnunet(patch_size), "mirror": mirror, "none": []}[augment]  # type: ignore[return-value]
    return list(augment)


class Augmentation:
    """MONAI's transforms, applied to an image and its label with what a seed draws.

    Args:
        augment: "nnunet", "mirror", "none", or a list of {NAME: {KEYWORD: VALUE}}, NAME one of MONAI's dictionary
            transforms, such as {"RandGaussianNoised": {"prob": 0.1, "std": 0.1}}. Those of MONAI's spatial module
            change image and label, the label to the nearest voxel, and see the edge repeated where they look beyond
            the window; the others change the image. No `keys` are given, and no `mode` of interpolation to the first.
        patch_size: crop in voxels, one number per axis.

    Raises:
        DataError: a transform that MONAI does not have, or keywords that it does not take.

    Example:
        >>> change = Augmentation("mirror", (4, 4))
        >>> image, label = change(np.ones((1, 4, 4), np.float32), np.ones((4, 4), np.int16), seed=3)
        >>> image.shape, label.dtype
        (torch.Size([1, 4, 4]), torch.int64)
    """

    def __init__(self, augment: str | Sequence[Mapping[str, Any]], patch_size: Sequence[int]) -> None:
        self.patch_size = tuple(patch_size)
        entries = [_entry(entry) for entry in described(augment, self.patch_size)]
        free = [name.endswith(_FREE_FORM) for name, _ in entries]
        transforms = [_transform(name, keywords) for name, keywords in entries]
        last = max((k for k, is_free in enumerate(free) if is_free), default=-1) + 1
        self.margin = tuple(math.ceil(MARGIN * size) if last else 0 for size in self.patch_size)
        """Voxels that the window it is given is larger than the crop, on each side."""
        self._whole, self._crop = transforms[:last], transforms[last:]

    def __bool__(self) -> bool:
        return bool(self._whole or self._crop)

    def __call__(self, image: np.ndarray, label: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
        """Image float32 [K, *patch_size] and label int64 [*patch_size], from a window that is larger by the margin."""
        data = {"image": torch.from_numpy(image), "label": torch.from_numpy(label[None])}
        generator = np.random.default_rng(seed)
        data = _applied(self._whole, data, generator)
        inner = [slice(m, m + size) for m, size in zip(self.margin, self.patch_size, strict=True)]
        window = (slice(None), *inner)
        data = {name: value[window] for name, value in data.items()}
        data = _applied(self._crop, data, generator)
        changed, classes = (torch.as_tensor(data[name]) for name in ("image", "label"))
        if changed.shape[1:] != self.patch_size or classes.shape[1:] != self.patch_size:
            raise DataError(
                f"augment: expected transforms that keep a crop of {list(self.patch_size)}, "
                f"got one of {list(changed.shape[1:])}"
            )
        plain = [value.as_subclass(Tensor).contiguous() for value in (changed, classes[0])]
        return plain[0].float(), plain[1].round().long() if plain[1].is_floating_point() else plain[1].long()


def _applied(transforms: Sequence[Any], data: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
    for transform in transforms:
        seed = int(generator.integers(2**32, dtype=np.uint64))
        if hasattr(transform, "set_random_state"):
            transform.set_random_state(seed=seed)
        data = transform(data)
    return data


def _entry(entry: Any) -> tuple[str, dict[str, Any]]:
    """Name and keywords of an entry, {NAME: {KEYWORD: VALUE}} or NAME alone."""
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and len(entry) == 1:
        ((name, keywords),) = entry.items()
        if isinstance(name, str) and (keywords is None or isinstance(keywords, Mapping)):
            return name, dict(keywords or {})
    raise DataError(f"augment: expected entries {{NAME: {{KEYWORD: VALUE}}}}, got {entry!r}")


def _transform(name: str, keywords: dict[str, Any]) -> Any:
    from monai import transforms

    kind = getattr(transforms, name, None)
    if not isinstance(kind, type) or not issubclass(kind, transforms.MapTransform):
        import difflib

        known = [n for n in dir(transforms) if n.endswith("d") and n[0].isupper()]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"augment: expected one of MONAI's dictionary transforms, got {name!r}{hint}")
    spatial = kind.__module__.startswith("monai.transforms.spatial") and "LowResolution" not in name
    own = {"keys", "mode"} if spatial else {"keys"}
    if own & keywords.keys():
        taken = " and ".join(sorted(own & keywords.keys()))
        raise DataError(f"augment: {name}: expected no {taken}, which follows from what is image and what is label")
    given: dict[str, Any] = {"keys": ("image", "label") if spatial else ("image",)}
    if spatial and name.endswith(_FREE_FORM):
        given |= {"mode": ("bilinear", "nearest"), "padding_mode": "edge" if name.endswith("Zoomd") else "border"}
    try:
        return kind(**{**given, **{key: _tuples(value) for key, value in keywords.items()}})
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"augment: {name}: {' '.join(str(error).split())}") from None


def _tuples(value: Any) -> Any:
    """Ranges, which a file has as lists, as tuples, which MONAI takes them for."""
    return tuple(_tuples(one) for one in value) if isinstance(value, (list, tuple)) else value
