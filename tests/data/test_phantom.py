"""The phantom: all classes, edges of varying contrast, the same from the same seed, written whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sure_fast.data import DataError, discover, load_case, phantom


@pytest.fixture(scope="module")
def volumes():
    return [phantom.generate((0, i)) for i in range(4)]


def contour_contrast(volume, inner, outer):
    """Signal just inside minus just outside, by 30° sectors around the left ventricle, on the middle slices.

    In units of the range between blood and lung.
    """
    image = volume.image.astype(float)
    span = np.percentile(image, 99) - np.percentile(image, 1)
    result = []
    for k in range(5, 10):
        label = volume.label[:, :, k]
        center = np.argwhere(label == 3).mean(axis=0)
        x, y = np.indices(label.shape)
        sector = ((np.arctan2(y - center[1], x - center[0]) + np.pi) // (np.pi / 6)).astype(int) % 12
        near = np.zeros_like(label, dtype=bool)
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            near |= np.isin(np.roll(label, step, axis), inner)
        for s in range(12):
            a = image[:, :, k][(sector == s) & np.isin(label, inner)]
            b = image[:, :, k][(sector == s) & np.isin(label, outer) & near]
            if a.size >= 5 and b.size >= 3:
                result.append((np.median(a) - b.mean()) / span)
    return np.array(result)


def test_types(volumes):
    for v in volumes:
        assert (v.image.shape, v.image.dtype) == ((64, 64, 16), np.int16)
        assert (v.label.shape, v.label.dtype) == ((64, 64, 16), np.uint8)
        assert v.spacing_mm == (1.5, 1.5, 5.0)
        assert v.image.min() >= 0
        assert v.image.max() > 200


def test_every_class_in_a_plausible_amount(volumes):
    for v in volumes:
        share = np.bincount(v.label.ravel(), minlength=4) / v.label.size
        assert share.size == 4
        assert (share[1:] > 0.02).all()
        assert 0.6 < share[0] < 0.95
        assert (np.bincount(v.label[:, :, 8].ravel(), minlength=4) > 20).all()


def test_anatomy(volumes):
    """In its slices the left ventricle touches muscle only; no structure reaches the image border."""
    for v in volumes:
        for k in range(v.label.shape[2]):
            label = v.label[:, :, k]
            blood = label == 3
            around = np.zeros_like(blood)
            for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
                around |= np.roll(blood, step, axis)
            assert set(np.unique(label[around & ~blood])) <= {2}
        assert (v.label[[0, -1]] == 0).all()
        assert (v.label[:, [0, -1]] == 0).all()


def test_tissues_are_ordered(volumes):
    for v in volumes:
        middle = np.s_[:, :, 5:10]
        blood, muscle = (np.median(v.image[middle][v.label[middle] == c]) for c in (3, 2))
        assert blood > 1.5 * muscle


def test_contrast_varies_along_the_contour(volumes):
    for v in volumes:
        endo = contour_contrast(v, [3], [2])
        assert endo.size > 40
        assert np.percentile(endo, 90) - np.percentile(endo, 10) > 0.1
        epi = contour_contrast(v, [2, 3], [0])
        assert np.percentile(epi, 90) - np.percentile(epi, 10) > 0.25


def test_noise_and_partial_volume(volumes):
    for v in volumes:
        # Noise: neighbouring voxels differ in the smooth blood pool.
        inside = v.label == 3
        pair = inside[1:] & inside[:-1]
        step = np.diff(v.image.astype(float), axis=0)[pair]
        assert step.std() > 0.01 * np.percentile(v.image, 99)
        # Partial volume: values between blood and muscle occur at their border.
        blood, muscle = (np.median(v.image[v.label == c]) for c in (3, 2))
        between = (v.image > muscle + 0.35 * (blood - muscle)) & (v.image < muscle + 0.65 * (blood - muscle))
        assert (between & (v.label >= 2)).sum() > 200


def test_repeatable():
    a, b, c = (phantom.generate(s, (24, 20, 8)) for s in (5, 5, 6))
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(a.label, b.label)
    assert (a.image != c.image).mean() > 0.5
    assert (a.label != c.label).any()


@pytest.mark.parametrize("shape", [(8, 8, 8), (32, 48, 8), (96, 64, 10)])
def test_other_shapes(shape):
    v = phantom.generate(1, shape)
    assert v.image.shape == v.label.shape == shape
    assert set(np.unique(v.label)) == {0, 1, 2, 3}


def test_write(tmp_path):
    root = phantom.write(tmp_path / "a" / "set", num_cases=3, seed=2, shape=(24, 24, 8))
    assert sorted(p.name for p in root.iterdir()) == ["dataset.json", "imagesTr", "labelsTr"]
    assert [p.name for p in root.parent.iterdir()] == ["set"]
    cases = discover(root)
    assert len(cases) == 3
    assert cases.info.class_names == phantom.CLASS_NAMES
    for i, case in enumerate(cases):
        sample = load_case(case)
        expected = phantom.generate((2, i), (24, 24, 8))
        np.testing.assert_array_equal(sample.image[0].numpy(), expected.image)
        assert torch.equal(sample.label, torch.from_numpy(expected.label.astype(np.int64)))
        np.testing.assert_allclose(sample.spacing_mm, (1.5, 1.5, 5.0))
        assert sample.orientation == "LPS"


def test_write_again(tmp_path):
    arguments = {"num_cases": 2, "seed": 2, "shape": (8, 8, 8)}
    root = phantom.write(tmp_path / "set", **arguments)
    before = (root / "dataset.json").stat().st_mtime_ns
    phantom.write(root, **arguments)
    assert (root / "dataset.json").stat().st_mtime_ns == before
    with pytest.raises(DataError, match="set: expected no folder, an empty one, or phantoms made with"):
        phantom.write(root, **(arguments | {"seed": 3}))
    (tmp_path / "empty").mkdir()
    phantom.write(tmp_path / "empty", **arguments)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("keep me")
    with pytest.raises(DataError, match="other files"):
        phantom.write(tmp_path / "other", **arguments)
    assert (tmp_path / "other" / "thesis.txt").read_text() == "keep me"


def test_nothing_half_written(tmp_path):
    def breaks(indices):
        yield 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        phantom.write(tmp_path / "set", num_cases=2, shape=(8, 8, 8), progress=breaks)
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments(tmp_path):
    def refused(match, **arguments):
        with pytest.raises(DataError, match=match):
            phantom.write(tmp_path / "set", **arguments)

    refused("num_cases: expected a whole number >= 1, got 0", num_cases=0)
    refused("seed: expected", seed=-1)
    refused("shape: expected three whole numbers >= 8", shape=(64, 64))
    refused("shape: expected", shape=(64, 64, 4))
    refused("spacing_mm: expected three numbers from 1e-12 to 1e12", spacing_mm=(1.0, 0.0, 1.0))
    assert list(tmp_path.iterdir()) == []
