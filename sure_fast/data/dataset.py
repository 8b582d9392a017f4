"""Random, class-balanced crops, repeatable with any number of workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sure_fast.data.cases import Case
from sure_fast.data.errors import DataError
from sure_fast.data.prepared import DiskCache, Prepared, prepare

CACHES = ("memory", "disk", "none")


class SegmentationDataset(Dataset[dict[str, Any]]):
    r"""Random crops of labelled cases.

    One epoch goes over all cases in an order drawn anew for each epoch (again and again when `samples_per_epoch` is
    larger), so it need not be shuffled by the loader. For a crop, a class is drawn among those present in the case,
    then a voxel of that class; the crop is centered there as far as it lies inside the image. An image smaller than the
    crop is extended on both sides by repeating its edge, in image and label alike: the continued label makes no
    boundary that is not in the data, and the continued image no gradient across the border.

    Everything random comes from (seed, epoch, index), never from a global state or the worker, so any number of
    workers gives the same crops.

    Args:
        cases: labelled, all with the same number of channels and of axes.
        patch_size: crop shape [*S], one number or one per axis.
        num_classes: C; None: what the cases' `info` says.
        samples_per_epoch: length; None: one crop a case.
        seed: integer >= 0.
        augment: also flip each axis with probability 1/2.
        cache: "memory": hold all cases, normalised; "disk": in `cache_folder`, memory-mapped, so that only the crop is
            read; "none": read a case anew for every crop. With the first two, cases are read here, so every fault shows
            before training begins.
        cache_folder: a folder, or a `DiskCache` that other processes fill too.
        keys: of the cases that `cache_folder` holds already, by name.
        progress: wraps the iteration over the cases while they are read, such as `tqdm.tqdm`.

    Returns:
        Items {"image": float32 [K, *patch_size], "label": int64 [*patch_size], "name": str}, per case normalised.

    Raises:
        DataError: no case, a case without label, of another number of axes or channels, or a bad argument.

    Notes:
        `set_epoch` reaches loaders with persistent workers too.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        patch_size: int | Sequence[int],
        *,
        num_classes: int | None = None,
        samples_per_epoch: int | None = None,
        seed: int = 0,
        augment: bool = False,
        cache: str = "memory",
        cache_folder: str | os.PathLike[str] | DiskCache | None = None,
        keys: Mapping[str, str] | None = None,
        progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
    ) -> None:
        self.cases = list(cases)
        if not self.cases:
            raise DataError("cases: expected at least one case, got none")
        for case in self.cases:
            if case.label is None:
                raise DataError(f"{case.image}: expected a case with a label to crop from, got none")
        info = self.cases[0].info
        if num_classes is None and info is None:
            raise DataError("num_classes: expected a number for cases without info, got None")
        self.num_classes = _whole("num_classes", info.num_classes if num_classes is None and info else num_classes, 2)
        self.ignore_index = None if info is None else info.ignore_index
        self.seed = _whole("seed", seed, 0)
        self.samples_per_epoch = _whole(
            "samples_per_epoch", len(self.cases) if samples_per_epoch is None else samples_per_epoch, 1
        )
        self.augment = bool(augment)
        # In shared memory: a persistent worker holds a copy of this object, made in some earlier epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        if cache not in CACHES or (cache == "disk") != (cache_folder is not None):
            wanted = "expected a folder with cache 'disk' only" if cache in CACHES else f"expected one of {CACHES}"
            raise DataError(f"cache, cache_folder: {wanted}, got {cache!r} and {cache_folder!r}")
        if cache_folder is None or isinstance(cache_folder, DiskCache):
            self._disk = cache_folder
        else:
            self._disk = DiskCache(cache_folder, self.num_classes)
        self._keys: dict[int, str] = {}
        known = keys or {}
        self._cached: dict[int, Prepared] = {}
        if self._disk is not None:
            indices = range(len(self.cases))
            for index in indices if progress is None else progress(indices):
                key = known.get(self.cases[index].name)
                self._keys[index] = key if key and self._disk.has(key) else self._disk.store(self.cases[index])
        first = self._load(0)
        self._channels, dims = first.image.shape[0], first.label.ndim
        sizes = [patch_size] * dims if isinstance(patch_size, (int, np.integer)) else list(patch_size)
        if len(sizes) != dims:
            raise DataError(f"patch_size: expected 1 or {dims} numbers for {self.cases[0].image}, got {patch_size!r}")
        self.patch_size = tuple(_whole("patch_size", size, 1) for size in sizes)
        if cache == "memory":
            indices = range(len(self.cases))
            for index in indices if progress is None else progress(indices):
                self._cached[index] = self._load(index) if index else first
        elif cache == "disk":
            for index in range(1, len(self.cases)):
                self._load(index)

    @property
    def num_channels(self) -> int:
        return self._channels

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; call it before iterating over the loader."""
        self._epoch.fill_(_whole("epoch", epoch, 0))

    def __len__(self) -> int:
        return self.samples_per_epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected a number in [0, {len(self)}), got {index}")
        turn, position = divmod(index, len(self.cases))
        epoch = self.epoch
        order = np.random.default_rng([self.seed, epoch, turn, 0]).permutation(len(self.cases))
        number = int(order[position])
        loaded = self._cached[number] if number in self._cached else self._load(number)
        generator = np.random.default_rng([self.seed, epoch, index, 1])
        image, label = self._crop(loaded, generator)
        return {"image": image, "label": label, "name": self.cases[number].name}

    def _load(self, number: int) -> Prepared:
        case = self.cases[number]
        loaded = self._disk.load(self._keys[number]) if self._disk else prepare(case, self.num_classes)
        channels, dims = loaded.image.shape[0], loaded.label.ndim
        # While the first case is read there is nothing yet to hold it against.
        if hasattr(self, "_channels") and (channels != self._channels or dims != len(self.patch_size)):
            raise DataError(
                f"{case.image}: expected {self._channels} channels and {len(self.patch_size)} axes as in "
                f"{self.cases[0].image}, got {channels} and {dims}"
            )
        return loaded

    def _crop(self, loaded: Prepared, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        center = self._center(loaded, generator)
        window, padding = [], []
        for at, patch, size in zip(center, self.patch_size, loaded.label.shape, strict=True):
            start = min(max(at - patch // 2, 0), max(size - patch, 0))
            window.append(slice(start, min(start + patch, size)))
            missing = max(patch - size, 0)
            padding.append((missing // 2, missing - missing // 2))
        region = (slice(None), *window)
        image, label = loaded.image[region], loaded.label[region[1:]]
        if any(before or after for before, after in padding):
            image = np.pad(image, [(0, 0), *padding], mode="edge")
            label = np.pad(label, padding, mode="edge")
        if self.augment:
            axes = tuple(axis for axis, flip in enumerate(generator.random(label.ndim) < 0.5) if flip)
            image, label = np.flip(image, tuple(axis + 1 for axis in axes)), np.flip(label, axes)
        # A copy in every case: a view would let the caller write into the cache.
        return torch.from_numpy(image.copy()), torch.from_numpy(label.astype(np.int64))

    def _center(self, loaded: Prepared, generator: np.random.Generator) -> tuple[int, ...]:
        """A voxel drawn uniformly from a class drawn uniformly from those present."""
        totals = loaded.counts.sum(axis=1)
        present = np.flatnonzero(totals)
        if present.size == 0:  # everything ignored
            return tuple(int(generator.integers(size)) for size in loaded.label.shape)
        chosen = int(present[generator.integers(present.size)])
        rank = int(generator.integers(totals[chosen]))
        # The counts per slab lead to the rank-th voxel without listing the class's voxels.
        before = np.cumsum(loaded.counts[chosen])
        slab = int(np.searchsorted(before, rank, side="right"))
        rank -= int(before[slab - 1]) if slab else 0
        inside = int(np.flatnonzero(loaded.label[slab] == chosen)[rank])
        rest = np.unravel_index(inside, loaded.label.shape[1:])
        return (slab, *(int(i) for i in rest))


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise DataError(f"{name}: expected a whole number >= {least}, got {value!r}")
    return int(value)
