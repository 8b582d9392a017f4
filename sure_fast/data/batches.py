"""Which cases of an epoch go into which batch of which rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler, default_collate

from sure_fast.data.dataset import SegmentationDataset
from sure_fast.data.errors import DataError


class RankBatches(Sampler[list[int]]):
    """Batches of consecutive indices, each cut into one share a rank.

    Step s takes the indices s·B … (s+1)·B - 1 with B = batch_size · world_size, rank r the r-th `batch_size` of them.
    The last step takes what is left, cut as evenly as whole cases can be, so a rank's share of it may be empty. Every
    rank takes the same number of steps, and over the ranks every index comes once.

    Args:
        length: of the dataset. batch_size: of one rank. rank, world_size: 0 <= rank < world_size.

    Example:
        >>> [list(RankBatches(7, 2, rank, 2)) for rank in range(2)]
        [[[0, 1], [4, 5]], [[2, 3], [6]]]
    """

    def __init__(self, length: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1 or not 0 <= rank < world_size:
            raise DataError(
                "batch_size, rank, world_size: expected batch_size >= 1 and 0 <= rank < world_size, "
                f"got {batch_size}, {rank}, {world_size}"
            )
        self.length, self.batch_size, self.rank, self.world_size = length, batch_size, rank, world_size

    def __len__(self) -> int:
        return -(-self.length // (self.batch_size * self.world_size))

    def step_size(self, step: int) -> int:
        """Cases of all ranks in a step."""
        whole = self.batch_size * self.world_size
        return min(whole, self.length - step * whole)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(len(self)):
            start, size = step * self.batch_size * self.world_size, self.step_size(step)
            each, more = divmod(size, self.world_size)
            first = start + self.rank * each + min(self.rank, more)
            yield list(range(first, first + each + (self.rank < more)))


class Collate:
    """Stacks items of a dataset; no item gives tensors of length 0. Labels become bytes where these hold them."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.channels, self.patch_size = dataset.num_channels, tuple(dataset.patch_size)
        labels = {dataset.num_classes - 1, 0 if dataset.ignore_index is None else dataset.ignore_index}
        self.label_dtype = torch.uint8 if min(labels) >= 0 and max(labels) <= 255 else torch.int64

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        if items:
            batch = default_collate(list(items))
            return {**batch, "label": batch["label"].to(self.label_dtype)}
        return {
            "image": torch.empty(0, self.channels, *self.patch_size),
            "label": torch.empty(0, *self.patch_size, dtype=self.label_dtype),
            "name": [],
        }
