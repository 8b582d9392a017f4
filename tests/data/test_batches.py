"""Shares of every batch: each case once, every rank as many steps, one rank as a plain loader."""

from __future__ import annotations

from itertools import chain

import data_files as files
import pytest
from torch.utils.data import DataLoader

from sure_fast.data import DataError, SegmentationDataset, discover
from sure_fast.data.batches import Collate, RankBatches


@pytest.mark.parametrize("length", range(1, 26))
@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (1, 3), (2, 2), (3, 4), (4, 1)])
def test_shares(length, batch_size, world_size):
    ranks = [list(RankBatches(length, batch_size, rank, world_size)) for rank in range(world_size)]
    sampler = RankBatches(length, batch_size, 0, world_size)
    assert {len(batches) for batches in ranks} == {len(sampler)}
    steps = [list(chain(*shares)) for shares in zip(*ranks, strict=True)]
    assert list(chain(*steps)) == list(range(length))
    assert [len(step) for step in steps] == [sampler.step_size(s) for s in range(len(sampler))]
    for shares in zip(*ranks, strict=True):
        sizes = [len(share) for share in shares]
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1
    whole = batch_size * world_size
    assert steps == list(RankBatches(length, whole))  # one process with the batch of all ranks


def test_wrong_numbers():
    for arguments in ((4, 0), (4, 2, 2, 2), (4, 2, -1, 2)):
        with pytest.raises(DataError, match="expected batch_size >= 1 and 0 <= rank < world_size, got"):
            RankBatches(*arguments)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_empty_share_is_an_empty_batch(tmp_path, workers):
    dataset = SegmentationDataset(discover(files.msd(tmp_path, cases=3)), (8, 6, 4))
    batches = RankBatches(len(dataset), 1, 1, 2)
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=Collate(dataset), num_workers=workers)
    first, second = list(loader)
    assert len(first["name"]) == 1
    assert (first["image"].shape, second["image"].shape) == ((1, 1, 8, 6, 4), (0, 1, 8, 6, 4))
    assert (second["label"].shape, second["label"].dtype) == ((0, 8, 6, 4), first["label"].dtype)
    assert second["name"] == []
