"""Random, class-balanced crops, repeatable with any number of workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sure_fast.data.augment import Augmentation
from sure_fast.data.cases import Case
from sure_fast.data.errors import DataError
from sure_fast.data.prepared import DiskCache, Prepared, prepare

CACHES = ("memory", "disk", "none")
Item = tuple[int, int]
"""Number of a case, and of its slice; 0 where it is not cut."""
Progress = Callable[[Iterable[int]], Iterable[int]] | None


class SegmentationDataset(Dataset[dict[str, Any]]):
    r"""Random crops of labelled cases.

    One epoch goes over all cases in an order drawn anew for each epoch (again and again when `samples_per_epoch` is
    larger), so it need not be shuffled by the loader. For a crop, a class is drawn among those present in the case,
    then a voxel of that class; the crop is centered there as far as it lies inside the image. An image smaller than the
    crop is extended on both sides by repeating its edge, in image and label alike: the continued label makes no
    boundary that is not in the data, and the continued image no gradient across the border.

    Volumes whose `info` names a `slice_axis` give slices: an epoch goes over all that hold foreground and a share of
    the others, drawn anew for each epoch, and a crop is one of a slice.

    Everything random comes from (seed, epoch, index), never from a global state or the worker, so any number of
    workers gives the same crops.

    Args:
        cases: labelled, all with the same number of channels and of axes.
        patch_size: crop shape [*S], one number or one per axis; of slices of two.
        num_classes: C; None: what the cases' `info` says.
        samples_per_epoch: length; None: one crop a case, or a slice.
        seed: integer >= 0.
        augment: as of `sure_fast.data.augment.Augmentation`.
        foreground_share: probability that a crop is centered on a voxel of a class above 0, drawn as said; the others
            are centered on any voxel. None: every crop on a voxel of a class drawn, 0 among them.
        empty_slices: share of the slices without foreground in an epoch.
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
        augment: str | Sequence[Mapping[str, Any]] = "none",
        foreground_share: float | None = None,
        empty_slices: float = 1.0,
        cache: str = "memory",
        cache_folder: str | os.PathLike[str] | DiskCache | None = None,
        keys: Mapping[str, str] | None = None,
        progress: Progress = None,
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
        self.sliced = info is not None and info.slice_axis is not None
        for name, share in (("foreground_share", foreground_share), ("empty_slices", empty_slices)):
            if share is not None and not 0 <= share <= 1:
                raise DataError(f"{name}: expected a share in [0, 1], got {share!r}")
        self.foreground_share = foreground_share
        # In shared memory: a persistent worker holds a copy of this object, made in some earlier epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._cached: dict[int, Prepared] = {}
        self._open_cache(cache, cache_folder, keys or {}, progress)
        first = self._load(0)
        self._channels, dims = first.image.shape[0], first.label.ndim - self.sliced
        sizes = [patch_size] * dims if isinstance(patch_size, (int, np.integer)) else list(patch_size)
        if len(sizes) != dims:
            raise DataError(f"patch_size: expected 1 or {dims} numbers for {self.cases[0].image}, got {patch_size!r}")
        self.patch_size = tuple(_whole("patch_size", size, 1) for size in sizes)
        self._augmentation = Augmentation(augment, self.patch_size)
        self._items, self._empty = self._read(first, cache, None if cache == "disk" else progress)
        self._num_empty = round(empty_slices * len(self._empty))
        self._per_turn = len(self._items) + self._num_empty
        if not self._per_turn:
            raise DataError("empty_slices: expected a share above 0 where no slice holds foreground, got 0")
        self.samples_per_epoch = _whole(
            "samples_per_epoch", self._per_turn if samples_per_epoch is None else samples_per_epoch, 1
        )

    def _open_cache(
        self, cache: str, folder: str | os.PathLike[str] | DiskCache | None, keys: Mapping[str, str], progress: Progress
    ) -> None:
        """Fills the cache on the disk where there is one."""
        if cache not in CACHES or (cache == "disk") != (folder is not None):
            wanted = "expected a folder with cache 'disk' only" if cache in CACHES else f"expected one of {CACHES}"
            raise DataError(f"cache, cache_folder: {wanted}, got {cache!r} and {folder!r}")
        self._disk = folder if folder is None or isinstance(folder, DiskCache) else DiskCache(folder, self.num_classes)
        self._keys: dict[int, str] = {}
        if self._disk is not None:
            indices = range(len(self.cases))
            for index in indices if progress is None else progress(indices):
                key = keys.get(self.cases[index].name)
                self._keys[index] = key if key and self._disk.has(key) else self._disk.store(self.cases[index])

    def _read(self, first: Prepared, cache: str, progress: Progress) -> tuple[list[Item], list[Item]]:
        """Every case once, where it is kept or cut: what all epochs go over, and of which each takes a share."""
        if cache == "none" and not self.sliced:
            return [(number, 0) for number in range(len(self.cases))], []
        items: list[Item] = []
        empty: list[Item] = []
        indices = range(len(self.cases))
        for index in indices if progress is None else progress(indices):
            loaded = self._load(index) if index else first
            if cache == "memory":
                self._cached[index] = loaded
            if not self.sliced:
                items.append((index, 0))
                continue
            foreground = loaded.counts[1:].sum(axis=0) > 0
            for number, holds in enumerate(foreground):
                (items if holds else empty).append((index, number))
        return items, empty

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
        turn, position = divmod(index, self._per_turn)
        epoch = self.epoch
        order = np.random.default_rng([self.seed, epoch, turn, 0])
        items = self._items
        if self._num_empty:
            chosen = order.permutation(len(self._empty))[: self._num_empty]
            items = [*items, *(self._empty[k] for k in chosen)]
        number, at = items[int(order.permutation(self._per_turn)[position])]
        loaded = self._cached[number] if number in self._cached else self._load(number)
        if self.sliced:
            loaded = _slice(loaded, at)
        generator = np.random.default_rng([self.seed, epoch, index, 1])
        image, label = self._crop(loaded, generator)
        return {"image": image, "label": label, "name": self.cases[number].name}

    def _load(self, number: int) -> Prepared:
        case = self.cases[number]
        loaded = self._disk.load(self._keys[number]) if self._disk else prepare(case, self.num_classes)
        channels, dims = loaded.image.shape[0], loaded.label.ndim
        # While the first case is read there is nothing yet to hold it against.
        if hasattr(self, "_channels") and (channels != self._channels or dims != len(self.patch_size) + self.sliced):
            raise DataError(
                f"{case.image}: expected {self._channels} channels and {len(self.patch_size) + self.sliced} axes as in "
                f"{self.cases[0].image}, got {channels} and {dims}"
            )
        return loaded

    def _crop(self, loaded: Prepared, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        center = self._center(loaded, generator)
        window, padding = [], []
        margins = self._augmentation.margin
        for at, patch, size, margin in zip(center, self.patch_size, loaded.label.shape, margins, strict=True):
            start = min(max(at - patch // 2, 0), size - patch) if size > patch else -((patch - size) // 2)
            first, last = start - margin, start + patch + margin
            window.append(slice(max(first, 0), min(last, size)))
            padding.append((max(-first, 0), max(last - size, 0)))
        region = (slice(None), *window)
        image, label = loaded.image[region], loaded.label[region[1:]]
        if any(before or after for before, after in padding):
            image = np.pad(image, [(0, 0), *padding], mode="edge")
            label = np.pad(label, padding, mode="edge")
        # A copy in every case: a view would let the caller write into the cache.
        image, label = image.copy(), label.astype(np.int64)
        if self._augmentation:
            return self._augmentation(image, label, int(generator.integers(2**32)))
        return torch.from_numpy(image), torch.from_numpy(label)

    def _center(self, loaded: Prepared, generator: np.random.Generator) -> tuple[int, ...]:
        """A voxel drawn uniformly from a class drawn uniformly from those present, or from all voxels."""
        totals = loaded.counts.sum(axis=1)
        present = np.flatnonzero(totals)
        anywhere = False
        if self.foreground_share is not None:
            anywhere = bool(generator.random() >= self.foreground_share)
            present = present[present > 0]
        if anywhere or present.size == 0:  # nothing to choose from, or everything ignored
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


def _slice(loaded: Prepared, at: int) -> Prepared:
    label = loaded.label[at]
    counts = np.stack([(label == c).sum(axis=1) for c in range(len(loaded.counts))])
    return Prepared(loaded.image[:, at], label, counts)


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise DataError(f"{name}: expected a whole number >= {least}, got {value!r}")
    return int(value)
