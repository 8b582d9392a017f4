from __future__ import annotations

import data_files as files
import numpy as np
import pytest
import torch

from sure_fast.data import CaseList, DatasetInfo, SegmentationDataset, discover, load_case, normalize
from sure_fast.data.normalize import Window, window_of
from sure_fast.data.prepared import DiskCache, prepare
from sure_fast.data.resampling import OUTSIDE, around, box_of, inside, resample, resample_label, target_size

INFO = DatasetInfo("folders", {0: "a", 1: "b", 2: "c"}, 1)


def info(**prepared):
    return DatasetInfo("folders", INFO.class_names, 1, **prepared)


def test_sizes():
    assert target_size((10, 20, 5), (1.0, 1.0, 3.0), INFO) == (10, 20, 5)
    assert target_size((10, 20, 5), (1.0, 1.0, 3.0), info(spacing=(0.5, 2.0, 3.1))) == (20, 10, 5)
    assert target_size((10, 20, 5), (1.0, 1.0, 3.0), info(spacing=(2.0, 2.0, 1.0), slice_axis=2)) == (5, 10, 5)
    assert target_size((10, 20), (1.0, 1.0), info(resize=(8, 8))) == (8, 8)
    assert target_size((10, 20, 5), (1.0, 1.0, 3.0), info(resize=(8, 9), slice_axis=0)) == (10, 8, 9)
    assert target_size((1, 1, 1), (1.0, 1.0, 1.0), info(spacing=(9.0, 9.0, 9.0))) == (1, 1, 1)


def test_a_ramp_stays_a_ramp():
    ramp = torch.arange(8.0)[None, None, :, None, None].expand(1, 1, 8, 4, 3).contiguous()
    fine = resample(ramp, (16, 4, 3))
    # voxel k of the fine grid lies at (k + 1/2)/2 - 1/2 of the coarse one
    torch.testing.assert_close(fine[0, 0, 1:-1, 0, 0], (torch.arange(1, 15) + 0.5) / 2 - 0.5)
    assert resample(ramp, (8, 4, 3)) is ramp
    constant = torch.full((1, 2, 9, 7), 3.0)
    torch.testing.assert_close(resample(constant, (4, 11)), torch.full((1, 2, 4, 11), 3.0))


def test_a_label_is_what_most_of_a_voxel_is():
    label = torch.tensor([[0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 255, 255], [1, 1, 255, 255]])
    for dtype in (torch.int64, torch.int16):
        half = resample_label(label.to(dtype), (2, 2), 3, 255)
        assert half.tolist() == [[0, 2], [1, 255]]
        assert half.dtype == dtype
        assert resample_label(label.to(dtype), (8, 8), 3, 255)[::2, ::2].tolist() == label.tolist()


def test_boxes():
    image = torch.zeros(2, 6, 7, 8)
    assert box_of(image) is None
    image[0, 2, 3, 4] = 1
    image[1, 4, 3, 1] = -1
    box = box_of(image)
    assert box == ((2, 5), (3, 4), (1, 5))
    assert inside(box, image).shape == (2, 3, 1, 4)
    assert box_of(inside(box, image)) is None
    logits = torch.randn(1, 3, 3, 1, 4)
    whole = around(box, (6, 7, 8), logits)
    assert torch.equal(inside(box, whole), logits)
    assert whole[0, :, 0, 0, 0].tolist() == [OUTSIDE, -OUTSIDE, -OUTSIDE]


@pytest.mark.parametrize("codes", [None, "RAS", "SPL"])
def test_the_box_of_a_case_turns_with_it(tmp_path, codes):
    array = np.zeros((12, 10, 6), np.float32)
    array[2:9, 3:8, 1:5] = files.volume((7, 5, 4))
    label = np.zeros((12, 10, 6), np.uint8)
    label[3:6, 4:7, 2:4] = 1
    for folder, values in (("images", array), ("labels", label)):
        files.save_volume(tmp_path / folder / "c.nii", values)
    cases = discover(tmp_path).with_info(foreground_crop=True, orientation=codes)
    sample = load_case(cases[0], normalized=True)
    assert sample.box is not None
    plain = load_case(cases.with_info(foreground_crop=False)[0])
    assert box_of(plain.image) == sample.box
    shown = inside(sample.box, sample.image)
    torch.testing.assert_close(shown, normalize(inside(sample.box, plain.image)))
    prepared = prepare(cases[0], 2)
    assert prepared.image.shape == tuple(shown.shape)
    np.testing.assert_array_equal(prepared.label, inside(sample.box, plain.label))
    assert sample.place.box == sample.box


def test_cases_come_on_the_network_s_grid(tmp_path):
    cases = discover(files.msd(tmp_path / "set", 2))  # 1.5 x 1.25 x 5 mm
    fine = cases.with_info(orientation="LPS", spacing=(0.75, 1.25, 5.0))
    prepared = prepare(fine[0], 3)
    assert prepared.image.shape == (1, 24, 10, 6)
    assert prepared.label.shape == (24, 10, 6)
    assert prepared.counts.sum() == prepared.label.size
    assert set(np.unique(prepared.label)) == {0, 1, 2}
    sliced = prepare(fine.with_info(spacing=None, slice_axis=2)[0], 3)
    assert sliced.image.shape == (1, 6, 12, 10)
    caches = DiskCache(tmp_path / "cache", 3)
    keys = {caches.key(cases.with_info(**one)[0]) for one in (
        {}, {"spacing": (1.0, 1.0, 1.0)}, {"resize": (8, 8, 8)}, {"slice_axis": 2}, {"foreground_crop": True},
        {"windows": (Window(0.0, 1.0, 0.5, 1.0),)},
    )}  # fmt: skip
    assert len(keys) == 6


def test_absolute_grey_values():
    values = np.linspace(-1000, 1000, 2001)
    window = window_of(values)
    assert (window.lower, window.upper) == (-990.0, 990.0)
    image = torch.tensor([[-3000.0, window.mean, 3000.0], [1.0, 2.0, 3.0]])
    got = normalize(image, windows=(window, None))
    assert got[0].tolist() == pytest.approx([(-990 - window.mean) / window.std, 0.0, (990 - window.mean) / window.std])
    torch.testing.assert_close(got[1], normalize(image[1:])[0])


@pytest.fixture
def volumes(tmp_path):
    """Two cases of six slices, of which the last two are empty."""
    for k in range(2):
        label = files.label_of()
        label[..., 4:] = 0
        files.save_volume(tmp_path / "images" / f"c{k}.nii", files.volume(seed=k) + 100 * np.arange(6))
        files.save_volume(tmp_path / "labels" / f"c{k}.nii", label)
    cases = discover(tmp_path)
    return CaseList(cases, cases.info).with_info(slice_axis=2)


@pytest.mark.parametrize(("share", "number"), [(0.0, 8), (0.5, 10), (1.0, 12)])
@pytest.mark.parametrize("cache", ["memory", "none"])
def test_an_epoch_goes_over_the_slices(volumes, share, number, cache):
    dataset = SegmentationDataset(volumes, (12, 10), empty_slices=share, cache=cache)
    assert len(dataset) == number
    seen = []
    for epoch in range(4):
        dataset.set_epoch(epoch)
        items = [dataset[k] for k in range(number)]
        assert items[0]["image"].shape == (1, 12, 10)
        assert items[0]["label"].shape == (12, 10)
        means = [(item["name"], round(float(item["image"].mean()), 3)) for item in items]
        assert len(set(means)) == number  # every slice once
        assert sum(bool((item["label"] > 0).any()) for item in items) == 8
        seen.append(frozenset(means))
    assert (len(set(seen)) > 1) == (share == 0.5)  # other empty slices, where not all or none are taken


def test_slices_without_foreground_alone_are_refused(tmp_path):
    from sure_fast.data import DataError

    files.save_volume(tmp_path / "images" / "c.nii", files.volume())
    files.save_volume(tmp_path / "labels" / "c.nii", np.zeros((12, 10, 6), np.uint8))
    cases = discover(tmp_path, label_map={0: 0, 1: 1}).with_info(slice_axis=2)
    with pytest.raises(DataError, match="empty_slices: expected a share above 0 where no slice holds foreground"):
        SegmentationDataset(cases, (12, 10), empty_slices=0.0)


def test_a_share_of_the_crops_is_centered_in_the_foreground(tmp_path):
    cases = discover(files.msd(tmp_path / "set", 1, (40, 40, 20)))
    for share in (0.0, 1.0):
        dataset = SegmentationDataset(cases, (1, 1, 1), samples_per_epoch=60, foreground_share=share)
        labels = torch.stack([dataset[k]["label"].flatten()[0] for k in range(60)])
        assert (labels > 0).float().mean() == pytest.approx(share, abs=0.1)
