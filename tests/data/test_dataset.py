"""Crops: shape, balance, edges, and the same ones whatever the workers."""

from __future__ import annotations

import data_files as files
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from sure_fast.data import Case, DataError, SegmentationDataset, discover, normalize
from sure_fast.data.dataset import CACHES


@pytest.fixture
def cases(tmp_path):
    return discover(files.msd(tmp_path, cases=5, image_shape=(16, 14, 8)))


def collected(dataset, workers=0, **options):
    loader = DataLoader(dataset, batch_size=2, num_workers=workers, **options)
    return [(batch["image"], batch["label"], batch["name"]) for batch in loader]


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
        assert a[2] == b[2]


def test_items(cases):
    dataset = SegmentationDataset(cases, (8, 6, 4))
    item = dataset[0]
    assert set(item) == {"image", "label", "name"}
    assert (item["image"].shape, item["image"].dtype) == ((1, 8, 6, 4), torch.float32)
    assert (item["label"].shape, item["label"].dtype) == ((8, 6, 4), torch.int64)
    assert sorted(dataset[i]["name"] for i in range(len(dataset))) == [c.name for c in cases]
    with pytest.raises(IndexError):
        dataset[5]


def test_a_crop_is_a_window_of_the_normalised_case(cases):
    dataset = SegmentationDataset(cases, (8, 6, 4))
    for i in range(5):
        item = dataset[i]
        number = [c.name for c in cases].index(item["name"])
        whole = normalize(files.volume((16, 14, 8), number)[None])[0]
        windows = np.lib.stride_tricks.sliding_window_view(whole, (8, 6, 4))
        places = np.argwhere((windows == item["image"][0].numpy()).all(axis=(3, 4, 5)))
        assert len(places) == 1
        a, b, c = places[0]
        np.testing.assert_array_equal(item["label"], files.label_of((16, 14, 8))[a : a + 8, b : b + 6, c : c + 4])


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("augment", ["nnunet", "mirror", "none"])
def test_workers_do_not_matter(cases, cache, augment, tmp_path):
    def run(workers):
        dataset = SegmentationDataset(
            cases,
            (8, 6, 4),
            samples_per_epoch=9,
            seed=4,
            augment=augment,
            cache=cache,
            cache_folder=tmp_path / "cache" if cache == "disk" else None,
        )
        dataset.set_epoch(2)
        return collected(dataset, workers)

    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 (global states must not matter)
    alone = run(0)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert_same(alone, run(2))


def test_epoch_reaches_persistent_workers(cases):
    dataset = SegmentationDataset(cases, (8, 6, 4), seed=4)
    loader = DataLoader(dataset, batch_size=2, num_workers=2, persistent_workers=True)
    for epoch in (0, 3, 1):
        dataset.set_epoch(epoch)
        seen = [(b["image"], b["label"], b["name"]) for b in loader]
        alone = SegmentationDataset(cases, (8, 6, 4), seed=4)
        alone.set_epoch(epoch)
        assert_same(seen, collected(alone))


def test_seed_epoch_and_index_matter(cases):
    dataset = SegmentationDataset(cases, (4, 4, 4), samples_per_epoch=40)
    first = [dataset[i]["image"] for i in range(40)]
    assert len({tuple(x.flatten().tolist()) for x in first}) > 30
    dataset.set_epoch(1)
    second = [dataset[i]["image"] for i in range(40)]
    other = SegmentationDataset(cases, (4, 4, 4), samples_per_epoch=40, seed=1)
    third = [other[i]["image"] for i in range(40)]
    assert sum(torch.equal(a, b) for a, b in zip(first, second, strict=True)) < 10
    assert sum(torch.equal(a, b) for a, b in zip(first, third, strict=True)) < 10


def test_classes_are_balanced(tmp_path):
    label = np.zeros((30, 30, 10), dtype=np.uint8)
    label[3, 4, 5] = 1  # one voxel in 9000
    label[20:25, 20:25] = 2
    image = files.save_volume(tmp_path / "i.nii.gz", files.volume((30, 30, 10)))
    mask = files.save_volume(tmp_path / "m.nii.gz", label)
    dataset = SegmentationDataset([Case("a", "a", image, mask)], 1, num_classes=4, samples_per_epoch=600)
    counts = torch.bincount(torch.cat([dataset[i]["label"].flatten() for i in range(600)]), minlength=4)
    assert counts[3] == 0  # absent from the case
    assert ((counts[:3] > 150) & (counts[:3] < 250)).all()


def test_centers_are_uniform_within_a_class(tmp_path):
    label = np.zeros((6, 5), dtype=np.uint8)
    label[1, 1:4] = 1
    label[4, 0] = 1
    image = files.save_picture(tmp_path / "i.png", np.arange(30, dtype=np.uint8).reshape(6, 5))
    mask = files.save_picture(tmp_path / "m.png", label)
    dataset = SegmentationDataset([Case("a", "a", image, mask)], 1, num_classes=2, samples_per_epoch=800)
    picked = [dataset[i] for i in range(800)]
    values = [round(float(p["image"]), 4) for p in picked if int(p["label"]) == 1]
    _, counts = np.unique(values, return_counts=True)
    assert len(counts) == 4
    assert counts.min() > 60


def test_smaller_images_repeat_their_edge(cases):
    dataset = SegmentationDataset(cases, (20, 14, 11))
    item = dataset[0]
    number = [c.name for c in cases].index(item["name"])
    padding = [(2, 2), (0, 0), (1, 2)]
    whole = normalize(files.volume((16, 14, 8), number)[None])[0]
    np.testing.assert_array_equal(item["image"][0], np.pad(whole, padding, mode="edge"))
    np.testing.assert_array_equal(item["label"], np.pad(files.label_of((16, 14, 8)), padding, mode="edge"))


def test_augment_flips_image_and_label_together(cases):
    whole = SegmentationDataset(cases, (16, 14, 8), samples_per_epoch=64)
    flipped = SegmentationDataset(cases, (16, 14, 8), samples_per_epoch=64, augment="mirror")
    seen = set()
    for i in range(64):
        a, b = whole[i], flipped[i]
        assert a["name"] == b["name"]
        options = [[d for d in range(3) if k >> d & 1] for k in range(8)]
        match = [k for k, axes in enumerate(options) if torch.equal(a["image"].flip([d + 1 for d in axes]), b["image"])]
        assert len(match) == 1
        assert torch.equal(a["label"].flip(options[match[0]]), b["label"])
        seen.add(match[0])
    assert seen == set(range(8))


def test_the_cache_cannot_be_written_through_an_item(cases):
    dataset = SegmentationDataset(cases, (16, 14, 8))
    before = dataset[0]["image"].clone()
    dataset[0]["image"].zero_()
    assert torch.equal(dataset[0]["image"], before)


def test_two_dimensional_colour(tmp_path):
    found = discover(files.fundus(tmp_path), label_map={0: 2, 128: 1, 255: 0})
    dataset = SegmentationDataset(found, (16, 32), augment="mirror")
    assert dataset.num_channels == 3
    item = dataset[1]
    assert (item["image"].shape, item["label"].shape) == ((3, 16, 32), (16, 32))


def test_ignored_voxels_are_no_center(tmp_path):
    label = np.full((8, 8), 2, dtype=np.uint8)
    label[2, 3], label[5, 5] = 0, 1
    root = tmp_path / "images"
    image = files.save_picture(root / "i.png", np.zeros((8, 8), dtype=np.uint8))
    mask = files.save_picture(tmp_path / "m.png", label)
    from sure_fast.data import DatasetInfo

    info = DatasetInfo("folders", {0: "a", 1: "b"}, 1, ignore_index=2)
    dataset = SegmentationDataset([Case("i", "i", image, mask, info=info)], 1, samples_per_epoch=50)
    assert {int(dataset[i]["label"]) for i in range(50)} == {0, 1}


def test_progress_sees_every_case(cases):
    seen = []

    def progress(indices):
        for index in indices:
            seen.append(index)
            yield index

    SegmentationDataset(cases, 4, progress=progress)
    assert seen == [0, 1, 2, 3, 4]


def test_bad_arguments(cases, tmp_path):
    def refused(match, *args, **kwargs):
        with pytest.raises(DataError, match=match):
            SegmentationDataset(*args, **kwargs)

    refused("cases: expected at least one", [], 4)
    refused("patch_size: expected 1 or 3 numbers", cases, (4, 4))
    refused("patch_size: expected a whole number >= 1, got 0", cases, (4, 0, 4))
    refused("seed: expected", cases, 4, seed=-1)
    refused("samples_per_epoch: expected", cases, 4, samples_per_epoch=0)
    refused("num_classes: expected", [Case("a", "a", cases[0].image, cases[0].label)], 4)
    refused(r"labelsTr/case_00\.nii\.gz: expected class numbers in \[0, 2\), got 2", cases, 4, num_classes=2)
    refused("expected a case with a label", [Case("a", "a", cases[0].image)], 4, num_classes=3)
    flat = files.save_volume(tmp_path / "flat.nii.gz", files.volume((9, 9)))
    flat_label = files.save_volume(tmp_path / "flat_label.nii.gz", np.zeros((9, 9), np.uint8))
    refused(r"flat\.nii\.gz: expected 1 channels and 3 axes", [*cases, Case("f", "f", flat, flat_label)], 4)
    with pytest.raises(DataError, match="epoch: expected"):
        SegmentationDataset(cases, 4).set_epoch(-1)
