"""Nothing in a listing is dropped in silence: it is a case, a fault, a note or a refusal that says what to do."""

from __future__ import annotations

import json
import unicodedata

import data_files as files
import numpy as np
import pytest

from sure_fast.data import DataError, Fault, discover, load_case, split_cases


def refused(match, root, **options):
    with pytest.raises(DataError, match=match) as info:
        discover(root, **options)
    assert "\n" not in str(info.value)


def change(root, **keys):
    path = root / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return root


def names(cases):
    return [case.name for case in cases]


def test_endings_in_capitals(tmp_path):
    root = files.nnunet(tmp_path / "a", channels=1)
    for folder, name in (("imagesTr", "case_01_0000"), ("labelsTr", "case_02")):
        (root / folder / f"{name}.nii.gz").rename(root / folder / f"{name}.NII.GZ")
    cases = discover(root)
    assert names(cases) == ["case_00", "case_01", "case_02"]
    assert [load_case(case).label.max() for case in cases] == [2, 2, 2]
    root = files.acdc(tmp_path / "b")
    for path in list(root.glob("patient002/*")):
        path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))
    assert len(discover(root)) == 6
    root = tmp_path / "c"
    for k, (image, mask) in enumerate((("PNG", "png"), ("JPG", "Png"), ("Bmp", "BMP"))):
        files.save_picture(root / f"images/c {k}.{image}", np.full((8, 9), 7, np.uint8))
        files.save_picture(root / f"masks/c {k}.{mask}", np.eye(8, 9, dtype=np.uint8))
    assert names(discover(root)) == ["c 0", "c 1", "c 2"]


def test_files_of_another_ending(tmp_path):
    root = files.nnunet(tmp_path, channels=1)
    image = root / "imagesTr/case_01_0000.nii.gz"
    files.save_volume(root / "imagesTr/case_01_0000.nii", files.volume())
    refused(r"case_01_0000\.nii: expected files ending in \.nii\.gz as .*dataset\.json says", root)
    image.unlink()
    refused(r"case_01_0000\.nii: expected files ending in \.nii\.gz", root)
    faults: list[Fault] = []
    assert names(discover(root, faults=faults)) == ["case_00", "case_02"]  # and numTraining is met by its fault
    assert [fault.case for fault in faults] == ["case_01_0000"]


def test_what_is_left_over(tmp_path):
    root = files.nnunet(tmp_path / "a", channels=1)
    (root / "imagesTr/case_02_0000.nii.gz").unlink()
    refused(r"labelsTr/case_02\.nii\.gz: expected the image case_02_0000\.nii\.gz in .*imagesTr, got nothing", root)
    faults: list[Fault] = []
    assert names(discover(root, faults=faults)) == ["case_00", "case_01"]
    assert [fault.case for fault in faults] == ["case_02"]
    (root / "labelsTr/case_02.nii.gz").unlink()
    refused("expected the 3 training cases of numTraining, got 2 in imagesTr", root)
    files.save_volume(root / "imagesTr/case_02_0000.nii.gz", files.volume())
    refused(r"case_02\.nii\.gz: expected this file", root)
    root = files.acdc(tmp_path / "b")
    (root / "patient002/patient002_frame12.nii.gz").unlink()
    refused(r"patient002_frame12_gt\.nii\.gz: expected the image patient002_frame12 beside it", root)
    for path in (root / "patient002").glob("*frame*"):
        path.unlink()
    refused(r"patient002: expected patient002_frameNN\.nii\.gz in it, got none", root)


def test_channels_with_a_gap(tmp_path):
    root = files.nnunet(tmp_path / "a")
    (root / "imagesTr/case_01_0001.nii.gz").rename(root / "imagesTr/case_01_0002.nii.gz")
    refused(r"case_01_0001\.nii\.gz: expected this file", root)
    root = tmp_path / "b"
    for c in (0, 2):
        files.save_volume(root / f"images/a_{c:04d}.nii.gz", files.volume(seed=c))
    files.save_volume(root / "labels/a.nii.gz", files.label_of())
    refused("expected the channels 0000 to 0002 of the case, got no 0001", root)


def test_two_folders_with_the_names_of_nnunet(tmp_path):
    for k in range(3):
        for c in range(2):
            files.save_volume(tmp_path / f"images/c{k}_{c:04d}.nii.gz", files.volume(seed=10 * k + c))
        files.save_volume(tmp_path / f"labels/c{k}.nii.gz", files.label_of())
    cases = discover(tmp_path)
    assert (names(cases), cases.info.num_channels) == (["c0", "c1", "c2"], 2)
    np.testing.assert_array_equal(load_case(cases[1]).image[1], files.volume(seed=11))


def test_numbers_that_count_cases_are_no_channels(tmp_path):
    for k in range(3):
        files.save_picture(tmp_path / f"images/frame_{k:04d}.png", np.full((8, 9), 7, np.uint8))
        files.save_picture(tmp_path / f"labels/frame_{k:04d}.png", np.eye(8, 9, dtype=np.uint8))
    cases = discover(tmp_path)
    assert (names(cases), cases.info.num_channels) == ([f"frame_{k:04d}" for k in range(3)], 1)


def coloured(root, channel_names, deep=3):
    for k in range(3):
        shape = (8, 9, 3) if deep == 3 else (8, 9)
        files.save_picture(root / f"imagesTr/c{k}_0000.png", np.full(shape, 7 + k, np.uint8))
        files.save_picture(root / f"labelsTr/c{k}.png", np.eye(8, 9, dtype=np.uint8))
    content = {"channel_names": channel_names, "labels": {"background": 0, "road": 1}, "file_ending": ".png"}
    (root / "dataset.json").write_text(json.dumps(content | {"numTraining": 3}))
    return root


def test_a_coloured_picture_is_three_channels(tmp_path):
    names_of = {"0": "R", "1": "G", "2": "B"}
    cases = discover(coloured(tmp_path / "a", names_of))
    assert cases.info.num_channels == 3
    assert load_case(cases[2]).image.unique().tolist() == [9.0]
    refused(r"c0_0001\.png: expected this file", coloured(tmp_path / "b", names_of, deep=1))
    cases = discover(coloured(tmp_path / "c", {"0": "RGB"}))
    with pytest.raises(DataError, match="expected 1 channels, got 3 in 1 file"):
        load_case(cases[0])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks(tmp_path, encoding):
    root = files.nnunet(tmp_path)
    path = root / "dataset.json"
    path.write_bytes(path.read_text().encode(encoding))
    assert len(discover(root)) == 3


def test_windows_separators(tmp_path):
    pairs = [{"image": f".\\imagesTr\\case_{k:02d}.nii.gz", "label": f"labelsTr\\case_{k:02d}.nii.gz"} for k in (0, 1)]
    root = files.msd(tmp_path, cases=2, training=pairs)
    assert names(discover(root)) == ["case_00", "case_01"]
    change(root, training=[{"image": "..\\..\\x.nii.gz", "label": "labelsTr\\case_00.nii.gz"}])
    refused("expected files inside", root)


def test_validation_list_of_monai(tmp_path):
    root = files.msd(tmp_path, cases=6)
    pairs = json.loads((root / "dataset.json").read_text())["training"]
    change(root, training=pairs[:4], validation=pairs[4:], numTraining=4)
    cases = discover(root)
    assert (len(cases), cases.notes) == (6, [])
    split = split_cases(cases, (0.7, 0.1, 0.2))
    assert names(split.val) == ["case_04", "case_05"]
    assert (len(split.train), len(split.test)) == (3, 1)
    change(root, validation=[*pairs[4:], pairs[0]])
    refused("expected one case named 'case_00'", root)
    change(root, validation={"image": "x"})
    refused('expected a list in "validation", got dict', root)
    listed = [{"image": [pair["image"], pair["image"]], "label": pair["label"]} for pair in pairs]
    change(root, training=listed, validation=[], modality={"0": "a", "1": "b"})
    assert load_case(discover(root)[0]).image.shape[0] == 2


def test_lists_that_disagree_with_num_training_are_noted(tmp_path):
    root = files.msd(tmp_path, cases=3, numTraining=5)
    (note,) = discover(root).notes
    assert "lists 3 training cases, and says numTraining 5; those of the list are used" in note.reason


def test_a_list_may_name_the_first_channel(tmp_path):
    pairs = [{"image": f"imagesTr/case_{k:02d}_0000.nii.gz", "label": f"labelsTr/case_{k:02d}.nii.gz"} for k in (0, 1)]
    root = files.nnunet(tmp_path, cases=2, training=pairs)
    cases = discover(root)
    assert names(cases) == ["case_00", "case_01"]
    assert [path.name for path in cases[1].channel_files] == ["case_01_0000.nii.gz", "case_01_0001.nii.gz"]


LABELS = {
    "a gap": (
        {"background": 0, "a": 1, "b": 4},
        r"got \[0, 1, 4\]; give label_map, such as --label-map=0:0,1:1,4:2; -1 is",
    ),
    "a region": (
        {"background": 0, "whole": [1, 2], "core": 1},
        r"the region \[1, 2\]; classes that overlap .*--label-map",
    ),
    "one name twice": ({"0": "background", "1": "x", "2": "x"}, "expected every label name once, got 'x' twice"),
    "half a number": ({"background": 0, "a": 1, "b": 2.5}, "expected a number for label 'b', a whole one, got 2.5"),
    "true": ({"background": 0, "a": True}, "expected a number for label 'a'"),
    "Ignore": ({"background": 0, "a": 1, "Ignore": 2}, "expected 'ignore' for what is not annotated, .* got 'Ignore'"),
    "a list": (["background", "a"], r"numbers with names, got \['background', 'a'\]"),
    "text": ("background", '"labels", numbers with names'),
    "from 1": ({"a": 1, "b": 2}, "without a gap, .* give label_map"),
    "negative": ({"background": 0, "a": -1}, "without a gap"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_are_no_classes(tmp_path, kind):
    labels, message = LABELS[kind]
    refused(message, files.nnunet(tmp_path, labels=labels))


def test_labels_that_are_classes(tmp_path):
    root = files.nnunet(tmp_path)
    for labels in ({"background": "0", "a": "1", "b": "2"}, {"0": "background", "1": "a", "2": "b"},
                   {"background": 0.0, "a": 1.0, "b": 2.0}, {"b": 2, "a": 1, "background": 0}):  # fmt: skip
        assert discover(change(root, labels=labels)).info.class_names == {0: "background", 1: "a", 2: "b"}
    path = root / "dataset.json"
    path.write_text(path.read_text().replace('"labels": {', '"labels": {"a": 5, '))
    refused("the key 'a' twice", root)


def test_a_label_map_closes_a_gap_and_keeps_the_names(tmp_path):
    root = files.nnunet(tmp_path, labels={"background": 0, "a": 1, "b": 2, "c": 4})
    label = files.label_of()
    label[0, 0, 0] = 4
    for k in range(3):
        files.save_volume(root / f"labelsTr/case_{k:02d}.nii.gz", label)
    cases = discover(root, label_map={0: 0, 1: 1, 2: 2, 4: 3})
    assert cases.info.class_names == {0: "background", 1: "a", 2: "b", 3: "c"}
    assert load_case(cases[0]).label[0, 0, 0] == 3
    cases = discover(root, label_map={0: 0, 1: 1, 2: 1, 4: 1})
    assert cases.info.class_names == {0: "background", 1: "a or b or c"}
    change(root, labels={"background": 0, "whole": [1, 2], "core": 1, "edge": 2, "x": 4})
    assert discover(root, label_map={0: 0, 1: 1, 2: 2, 4: 0}).info.class_names[1] == "core"


def test_a_label_map_leaves_out_what_is_not_annotated(tmp_path):
    label = np.zeros((12, 10, 6), np.int16)
    label[3:6], label[8:] = 1, -1
    for k in range(2):
        files.save_volume(tmp_path / f"images/c{k}.nii.gz", files.volume(seed=k))
        files.save_volume(tmp_path / f"labels/c{k}.nii.gz", label)
    with pytest.raises(DataError, match=r"such as --label-map=-1:-1,0:0,1:1; -1 is for what is not annotated$"):
        discover(tmp_path)
    cases = discover(tmp_path, label_map={-1: -1, 0: 0, 1: 1})
    assert (cases.info.num_classes, cases.info.ignore_index) == (2, 2)
    assert load_case(cases[0]).label.unique().tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"expected class numbers .* and -1 for what is not annotated, got \[-1, 0\]"):
        discover(tmp_path, label_map={-1: -1, 0: 0})


@pytest.mark.parametrize(("ignore", "index"), [(4, 4), (1, 2)])
def test_what_is_ignored_stays_ignored_under_a_label_map(tmp_path, ignore, index):
    others = [value for value in (0, 1, 2, 4) if value != ignore][:2]
    labels = {"background": others[0], "a": others[1], "ignore": ignore}
    root = files.nnunet(tmp_path, labels=labels)
    label = np.full((12, 10, 6), ignore, np.uint8)
    label[0], label[1] = others
    for k in range(3):
        files.save_volume(root / f"labelsTr/case_{k:02d}.nii.gz", label)
    cases = discover(root, label_map={others[0]: 0, others[1]: 1})
    assert (cases.info.num_classes, cases.info.ignore_index) == (2, index)
    assert load_case(cases[0]).label.unique().tolist() == [0, 1, index]


@pytest.mark.parametrize(("first", "second"), [("masks", "labels"), ("images", "imgs"), ("labels", "annotations")])
def test_two_folders_of_a_kind(tmp_path, first, second):
    root = files.fundus(tmp_path)
    for name in (first, second):
        if not (root / name).exists():
            (root / name).mkdir()
    refused(f"expected one folder of .*, got .*{second}/.*rename the one that is not meant|got {second}/ and", root)
    folders = {"images": "images", "labels": "masks"}
    assert len(discover(root, label_map={0: 2, 128: 1, 255: 0}, **folders)) == 3


def test_what_is_not_read_is_noted(tmp_path):
    root = files.fundus(tmp_path)
    (root / "images/scan.dcm").write_text("x")
    (root / "images/more").mkdir()
    (root / "images/Thumbs.db").write_text("x")
    (root / "images/.DS_Store").write_text("x")
    (note,) = discover(root, label_map={0: 2, 128: 1, 255: 0}).notes
    assert note.reason == f"{root}/images: more/, scan.dcm are not read"
    (root / "images/g0009.png").symlink_to(root / "gone.png")
    refused(r"g0009\.png: expected a file, got a link to nothing", root)


def test_links_and_letters(tmp_path):
    name = "Jürgen é 01"
    files.save_picture(tmp_path / "store/x.png", np.full((8, 9), 7, np.uint8))
    files.save_picture(
        tmp_path / "data/masks" / f"{unicodedata.normalize('NFC', name)}.png", np.eye(8, 9, dtype=np.uint8)
    )
    (tmp_path / "data/images").mkdir()
    (tmp_path / "data/images" / f"{unicodedata.normalize('NFD', name)}.png").symlink_to(tmp_path / "store/x.png")
    (case,) = discover(tmp_path / "data")
    assert load_case(case).image.max() == 7


def test_names_of_a_network(tmp_path):
    def masks(top):
        mask = np.zeros((8, 9), np.uint8)
        mask[2:4], mask[5:6] = 1, top
        files.save_picture(tmp_path / "images/a.png", np.full((8, 9), 7, np.uint8))
        files.save_picture(tmp_path / "masks/a.png", mask)
        return tmp_path

    like = {0: "background", 1: "vein", 2: "artery"}
    assert discover(masks(2), like=like).info.class_names == like
    assert discover(masks(1), like=like).info.class_names == like  # a class that no mask happens to hold
    assert discover(masks(3), like=like, label_map={0: 0, 1: 1, 3: 2}).info.class_names == like
    files.save_picture(tmp_path / "masks/a.png", np.eye(8, 9, dtype=np.uint8) * 255)
    assert discover(tmp_path, like={0: "no", 1: "yes"}).info.class_names == {0: "no", 1: "yes"}
    assert load_case(discover(tmp_path, like={0: "no", 1: "yes"})[0]).label.max() == 1
    assert discover(tmp_path, like=like).info.num_classes == 2  # not those of the network
    root = files.msd(tmp_path / "msd", cases=1)
    assert discover(root, like=like).info.class_names[1] == "anterior"


def test_frames_to_predict_on(tmp_path):
    from sure_fast.data.inputs import list_inputs

    for k in range(3):
        files.save_picture(tmp_path / f"frame_{k:04d}.png", np.full((8, 9), 7, np.uint8))
    assert names(list_inputs(tmp_path, 1)) == ["frame_0000", "frame_0001", "frame_0002"]
    assert names(list_inputs(tmp_path, 3)) == ["frame"]


def test_other_files_of_nnunet_are_noted(tmp_path):
    root = files.nnunet(tmp_path)
    (root / "imagesTr/sums.sha256").write_text("x")
    (root / "imagesTr/readme.txt").write_text("x")
    assert [note.reason for note in discover(root).notes] == [f"{root}/imagesTr: sums.sha256 is not read"]
