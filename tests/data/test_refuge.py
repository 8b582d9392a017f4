"""The layout of REFUGE, in phantoms of its folders, grey levels and kinds of file."""

from __future__ import annotations

import data_files as files
import numpy as np
import pytest

from sure_fast.data import DataError, assign, discover, load_case

NAMES = {"training": ["Glaucoma/g0001", "Glaucoma/g0002", "Non-Glaucoma/n0001"], "validation": ["V0001"],
         "test": ["T0001"]}  # fmt: skip


def photograph(seed, size=(40, 48)):
    """A disc with a cup on a fundus, and its mask of 0, 128 and 255."""
    y, x = np.mgrid[: size[0], : size[1]]
    radius = np.hypot(y - size[0] / 2, x - size[1] / 2 + seed)
    mask = np.where(radius < 6, 0, np.where(radius < 12, 128, 255)).astype(np.uint8)
    noise = np.random.default_rng(seed).integers(0, 30, (*size, 3))
    return (noise + (255 - mask)[..., None] // 2).astype(np.uint8), mask


def refuge(root, nested=False):
    def part(folder, masks):
        twice = (lambda name: f"{name}/{name}") if nested else (lambda name: name)
        return root / twice(folder), root / twice(masks) / "Disc_Cup_Masks"

    folders = {
        "training": part("Training400", "Annotation-Training400"),
        "validation": part("REFUGE-Validation400", "REFUGE-Validation400-GT"),
        "test": part("Test400", "REFUGE-Test-GT"),
    }
    for k, (of, name) in enumerate((of, name) for of, names in NAMES.items() for name in names):
        image, mask = photograph(k, (40, 48) if of == "training" else (36, 36))
        files.save_picture(folders[of][0] / f"{name}.jpg", image)
        files.save_picture(folders[of][1] / f"{name}.bmp", mask)
    (folders["training"][0] / "index.json").write_text("{}")
    files.save_picture(folders["training"][1].parent / "Disc_Cup_Fovea_Illustration" / "g0001.jpg", photograph(0)[0])
    return root


@pytest.mark.parametrize("nested", [False, True])
def test_parts_and_classes(tmp_path, nested):
    cases = discover(refuge(tmp_path / "set", nested))
    named = discover(refuge(tmp_path / "more" / "latest", nested).parent)  # holds "test", and is none
    assert [(case.name, case.part) for case in named] == [(case.name, case.part) for case in cases]
    assert cases.info.layout == "refuge"
    assert cases.info.class_names == {0: "background", 1: "optic disc rim", 2: "optic cup"}
    assert cases.info.num_channels == 3
    assert [(case.name, case.part) for case in cases] == [
        ("T0001", "test"), ("V0001", "val"), ("g0001", None), ("g0002", None), ("n0001", None)
    ]  # fmt: skip
    sample = load_case(cases[2])
    assert sample.image.shape == (3, 40, 48)
    assert sample.label.unique().tolist() == [0, 1, 2]
    assert sample.label[20, 24] == 2
    split, _ = assign(cases)
    assert [[case.name for case in part] for part in split] == [["g0001", "g0002", "n0001"], ["V0001"], ["T0001"]]
    assert [case.name for case in discover(tmp_path / "set", part="test")] == ["T0001"]


def test_parts_whose_masks_are_not_there(tmp_path):
    root = refuge(tmp_path / "set")
    mask = root / "REFUGE-Validation400-GT" / "Disc_Cup_Masks" / "V0001.bmp"
    mask.unlink()
    assert [case.name for case in discover(root)] == ["T0001", "g0001", "g0002", "n0001"]
    (root / "Training400" / "Glaucoma" / "g0002.jpg").unlink()
    with pytest.raises(DataError, match=r"g0002.bmp: expected the photograph g0002 of its part, got none"):
        discover(root)
    (root / "Annotation-Training400" / "Disc_Cup_Masks" / "Glaucoma" / "g0002.bmp").unlink()
    (root / "Annotation-Training400" / "Disc_Cup_Masks" / "Glaucoma" / "g0001.bmp").unlink()
    with pytest.raises(DataError, match=r"g0001.jpg: expected a label for it, got none"):
        discover(root)
