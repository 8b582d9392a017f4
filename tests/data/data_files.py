"""Small data sets for the tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

AFFINE = np.array([[-1.5, 0, 0, 30], [0, -1.25, 0, 40], [0, 0, 5, -20], [0, 0, 0, 1]], dtype=np.float64)


def volume(shape=(12, 10, 6), seed=0):
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


def label_of(shape=(12, 10, 6), classes=3):
    label = np.zeros(shape, dtype=np.uint8)
    for c in range(1, classes):
        label[2 * c : 2 * c + 2, 3:7] = c
    return label


def save_volume(path: Path, array, affine=AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def save_picture(path: Path, array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def msd(root: Path, cases=4, image_shape=(12, 10, 6), **changes) -> Path:
    """Decathlon layout; `changes` replace keys of dataset.json."""
    pairs = []
    for i in range(cases):
        save_volume(root / "imagesTr" / f"case_{i:02d}.nii.gz", volume(image_shape, i))
        save_volume(root / "labelsTr" / f"case_{i:02d}.nii.gz", label_of(image_shape[:3]))
        pairs.append({"image": f"./imagesTr/case_{i:02d}.nii.gz", "label": f"./labelsTr/case_{i:02d}.nii.gz"})
    content = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "anterior", "2": "posterior"},
        "training": pairs,
        "test": [],
    } | changes
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def nnunet(root: Path, cases=3, channels=2, **changes) -> Path:
    """nnU-Net v2 layout, one file a channel."""
    for i in range(cases):
        for c in range(channels):
            save_volume(root / "imagesTr" / f"case_{i:02d}_{c:04d}.nii.gz", volume(seed=10 * i + c))
        save_volume(root / "labelsTr" / f"case_{i:02d}.nii.gz", label_of())
    content = {
        "channel_names": {str(c): f"channel {c}" for c in range(channels)},
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    } | changes
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def acdc(root: Path, patients=(1, 2, 3)) -> Path:
    for p in patients:
        folder = root / f"patient{p:03d}"
        for frame in (1, 12):
            save_volume(folder / f"patient{p:03d}_frame{frame:02d}.nii.gz", volume(seed=p + frame))
            save_volume(folder / f"patient{p:03d}_frame{frame:02d}_gt.nii.gz", label_of(classes=4))
        save_volume(folder / f"patient{p:03d}_4d.nii.gz", np.zeros((12, 10, 6, 2), dtype=np.float32))
        (folder / "Info.cfg").write_text("ED: 1\n")
    return root


def fundus(root: Path, cases=3, size=(20, 24), labels="masks") -> Path:
    """REFUGE: colour JPEG, BMP masks with grey levels 0 (cup), 128 (disc), 255 (background)."""
    for i in range(cases):
        rgb = np.random.default_rng(i).integers(0, 255, (*size, 3), dtype=np.uint8)
        mask = np.full(size, 255, dtype=np.uint8)
        mask[5:15, 5:15] = 128
        mask[8:12, 8:12] = 0
        save_picture(root / "images" / f"g{i:04d}.jpg", rgb)
        save_picture(root / labels / f"g{i:04d}.bmp", mask)
    return root
