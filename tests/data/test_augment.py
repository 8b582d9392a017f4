from __future__ import annotations

import numpy as np
import pytest
import torch

from sure_fast.data import DataError
from sure_fast.data.augment import PRESETS, Augmentation, nnunet

PATCH = (16, 12, 8)


def window(augmentation, classes=3, seed=0):
    """A smooth image whose thresholds are the classes, with its label."""
    shape = [size + 2 * margin for size, margin in zip(augmentation.patch_size, augmentation.margin, strict=True)]
    places = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = np.sqrt(sum((place - 0.1 * k) ** 2 for k, place in enumerate(places, 1))).astype(np.float32)
    image = np.clip((1.2 - radius) * (classes - 0.01), 0, None)[None].astype(np.float32)
    return image, np.floor(image[0]).clip(0, classes - 1).astype(np.int64)


@pytest.mark.parametrize("patch", [PATCH, (24, 20)])
@pytest.mark.parametrize("augment", PRESETS)
def test_a_seed_draws_the_same_and_touches_no_global_state(augment, patch):
    first, second = Augmentation(augment, patch), Augmentation(augment, patch)
    image, label = window(first)
    torch.manual_seed(5)
    before = (torch.random.get_rng_state(), np.random.get_state()[1].tolist())  # noqa: NPY002
    rows = [change(image.copy(), label.copy(), seed) for change, seed in ((first, 3), (first, 4), (second, 3))]
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    for changed, classes in rows:
        assert type(changed) is torch.Tensor
        assert (changed.dtype, classes.dtype) == (torch.float32, torch.int64)
        assert (tuple(changed.shape), tuple(classes.shape)) == ((1, *patch), patch)
        assert changed.isfinite().all()
        assert set(classes.unique().tolist()) <= {0, 1, 2}
    assert all(torch.equal(a, b) for a, b in zip(rows[0], rows[2], strict=True))
    if augment == "nnunet":
        others = [first(image.copy(), label.copy(), seed)[0] for seed in range(8)]
        assert not all(torch.equal(others[0], other) for other in others)


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("RandAffined", {"prob": 1.0, "rotate_range": [0.5, 0.5, 0.5], "scale_range": [[-0.3, 0.4]] * 3}),
        ("RandFlipd", {"prob": 1.0, "spatial_axis": 1}),
        ("Rand3DElasticd", {"prob": 1.0, "sigma_range": [3, 4], "magnitude_range": [10, 20]}),
        ("RandZoomd", {"prob": 1.0, "min_zoom": 0.8, "max_zoom": 1.2}),
    ],
)
def test_image_and_label_move_together(name, keywords):
    change = Augmentation([{name: keywords}], PATCH)
    image, label = window(change)
    plain = Augmentation("none", PATCH)
    for seed in range(3):
        changed, classes = change(image.copy(), label.copy(), seed)
        expected = changed[0].floor().clamp(0, 2).long()
        assert (expected == classes).float().mean() > 0.8
        assert not torch.equal(classes, plain(*window(plain), seed)[1])


def test_the_margin_changes_no_crop_that_is_not_turned():
    turned = Augmentation([{"RandAffined": {"prob": 0.0, "rotate_range": 1.0}}], PATCH)
    assert turned.margin == (4, 3, 2)
    image, label = window(turned)
    changed, classes = turned(image.copy(), label.copy(), 0)
    inner = (slice(4, -4), slice(3, -3), slice(2, -2))
    assert torch.equal(changed[0], torch.from_numpy(image[0][inner]))
    assert torch.equal(classes, torch.from_numpy(label[inner]))
    assert Augmentation("mirror", PATCH).margin == (0, 0, 0)


def test_grey_values_change_without_the_label():
    for entry in nnunet(PATCH)[5:]:
        ((name, keywords),) = entry.items()
        change = Augmentation([{name: {**keywords, "prob": 1.0}}], PATCH)
        image, label = window(change)
        changed, classes = change(image.copy(), label.copy(), 1)
        assert torch.equal(classes, torch.from_numpy(label)), name
        assert not torch.equal(changed, torch.from_numpy(image)), name


def test_a_flat_crop_is_turned_in_its_plane():
    turn, stretch = (entry["RandAffined"] for entry in nnunet((64, 64, 8))[:2])
    assert turn["rotate_range"][:2] == [0.0, 0.0]
    assert turn["rotate_range"][2] > 3
    assert stretch["scale_range"][2] == (0.0, 0.0)
    change = Augmentation([{"RandAffined": {"prob": 1.0, "rotate_range": turn["rotate_range"]}}], (16, 16, 4))
    image = np.ones((1, 24, 24, 6), np.float32) * np.arange(6, dtype=np.float32)
    changed, _ = change(image, np.zeros((24, 24, 6), np.int64), 2)
    torch.testing.assert_close(changed, torch.from_numpy(image[:, 4:-4, 4:-4, 1:-1]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ("strong", "expected nnunet, mirror, none or a list of transforms, got 'strong'"),
        ([{"RandGausianNoised": {}}], "expected one of MONAI's dictionary transforms, got 'RandGausianNoised'; did you "
                                      "mean 'RandGaussianNoised'"),
        ([{"RandFlip": {}}], "expected one of MONAI's dictionary transforms, got 'RandFlip'"),
        ([{"RandFlipd": {"probability": 0.5}}], "RandFlipd: .*probability"),
        ([{"RandFlipd": {}, "RandZoomd": {}}], "expected entries {NAME: {KEYWORD: VALUE}}"),
        ([3], "expected entries"),
        (True, "expected nnunet, mirror, none or a list of transforms, got True"),
        ([{"RandFlipd": {"keys": ["image"]}}], "RandFlipd: expected no keys, which follows from"),
        ([{"RandAffined": {"prob": 1.0, "mode": "bilinear"}}], "RandAffined: expected no mode, which follows from"),
    ],
)  # fmt: skip
def test_what_is_no_transform(augment, message):
    with pytest.raises(DataError, match=f"augment: {message}"):
        Augmentation(augment, PATCH)


def test_a_crop_has_to_stay_one():
    change = Augmentation([{"Rotate90d": {"k": 1, "spatial_axes": [0, 1]}}], PATCH)
    with pytest.raises(DataError, match=r"keep a crop of \[16, 12, 8\], got one of \[12, 16, 8\]"):
        change(*window(change), 0)
