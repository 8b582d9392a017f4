"""The cache on the disk: the same crops, found by content, whole or not there, and read no further than the crop."""

from __future__ import annotations

import shutil
import subprocess
import sys

import data_files as files
import numpy as np
import pytest
import torch

from sure_fast.data import Case, DataError, SegmentationDataset, discover
from sure_fast.data.prepared import DiskCache, prepare


def test_same_crops_from_memory_disk_and_files(tmp_path):
    cases = discover(files.nnunet(tmp_path / "data"))
    datasets = [
        SegmentationDataset(cases, (8, 6, 9), samples_per_epoch=6, augment="mirror", cache=cache, cache_folder=folder)
        for cache, folder in (("memory", None), ("disk", tmp_path / "cache"), ("none", None))
    ]
    for index in range(6):
        items = [dataset[index] for dataset in datasets]
        for other in items[1:]:
            assert torch.equal(items[0]["image"], other["image"])
            assert torch.equal(items[0]["label"], other["label"])
            assert items[0]["name"] == other["name"]


def test_an_entry_is_found_by_the_content_of_its_files(tmp_path):
    cases = discover(files.msd(tmp_path / "data", cases=2))
    cache = DiskCache(tmp_path / "cache", 3)
    keys = [cache.store(case) for case in cases]
    assert len(set(keys)) == 2
    assert sorted(path.name for path in cache.folder.iterdir()) == sorted(keys)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    assert [cache.key(case) for case in discover(tmp_path / "copy")] == keys
    assert DiskCache(tmp_path / "cache", 4).key(cases[0]) != keys[0]
    files.save_volume(cases[0].image, files.volume(seed=9))
    assert cache.key(cases[0]) != keys[0]
    files.save_volume(cases[1].label, files.label_of(classes=2))
    assert cache.key(cases[1]) != keys[1]
    entry, want = cache.load(cache.store(cases[0])), prepare(cases[0], 3)
    for name, array in vars(want).items():
        np.testing.assert_array_equal(getattr(entry, name), array)
    assert isinstance(entry.image, np.memmap)
    assert isinstance(entry.label, np.memmap)
    assert len(list(cache.folder.iterdir())) == 3


def test_what_another_process_stored_is_taken(tmp_path):
    cases = discover(files.msd(tmp_path / "data", cases=2))
    cache = DiskCache(tmp_path / "cache", 3)
    keys = {case.name: cache.store(case) for case in cases}
    files.save_volume(cases[0].image, files.volume(seed=9))  # would get another key
    dataset = SegmentationDataset(cases, 4, cache="disk", cache_folder=cache, keys=keys)
    assert len(list(cache.folder.iterdir())) == 2
    shutil.rmtree(cache.folder / keys["case_01"])
    again = SegmentationDataset(cases, 4, cache="disk", cache_folder=cache, keys=keys)
    assert all(torch.equal(dataset[k]["image"], again[k]["image"]) for k in range(2))
    assert cache.has(keys["case_01"])


def test_damaged_entries_and_wrong_arguments(tmp_path):
    cases = discover(files.msd(tmp_path / "data", cases=1))
    cache = DiskCache(tmp_path / "cache", 3)
    image = cache.folder / cache.store(cases[0]) / "image.npy"
    image.write_bytes(image.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"cache/[0-9a-f]{64}: expected a whole entry .*; remove this folder"):
        SegmentationDataset(cases, 4, cache="disk", cache_folder=tmp_path / "cache")
    for options in ({"cache": "disk"}, {"cache_folder": tmp_path}, {"cache": "ram"}):
        with pytest.raises(DataError, match=r"^cache, cache_folder: expected"):
            SegmentationDataset(cases, 4, **options)
    (tmp_path / "file").write_text("")
    with pytest.raises((DataError, OSError)):
        SegmentationDataset(cases, 4, cache="disk", cache_folder=tmp_path / "file")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident set size from /proc")
def test_only_the_crop_of_a_large_volume_is_read(tmp_path):
    """64 MiB of image on the disk; a process that draws a crop of it does not hold them."""
    shape = (256, 256, 256)
    label = np.zeros(shape, dtype=np.uint8)
    label[100:110, 100:110, 100:110] = 1
    case = Case(
        "a",
        "a",
        files.save_volume(tmp_path / "i.nii", np.zeros(shape, dtype=np.uint8)),
        files.save_volume(tmp_path / "m.nii", label),
    )
    cache = DiskCache(tmp_path / "cache", 2)
    key = cache.store(case)
    program = f"""
import numpy as np
from pathlib import Path
from sure_fast.data import Case, SegmentationDataset
from sure_fast.data.prepared import DiskCache
def held():
    return int([r for r in open("/proc/self/status") if r.startswith("VmRSS")][0].split()[1]) / 1024
case = Case("a", "a", Path({str(case.image)!r}), Path({str(case.label)!r}))
before = held()
data = SegmentationDataset([case], 16, num_classes=2, samples_per_epoch=8, cache="disk",
                           cache_folder=DiskCache({str(cache.folder)!r}, 2), keys={{"a": {key!r}}})
for k in range(8):
    assert data[k]["image"].shape == (1, 16, 16, 16)
print(held() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 24
