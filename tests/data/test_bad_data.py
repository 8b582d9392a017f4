"""A folder with every kind of bad file: each told by name in one line, and left out where that is asked for."""

from __future__ import annotations

import gzip
import json
import re
import tracemalloc

import data_files as files
import nibabel
import numpy as np
import pytest

from sure_fast.data import DataError, Fault, discover, nifti_header, read_image
from sure_fast.data.screening import screen


def header_bomb(path, *, dims=(3, 20000, 20000, 20000), offset=352.0, zeros=0):
    header = bytearray(nibabel.Nifti1Header().binaryblock)
    header[40:56] = np.array([*dims, 1, 1, 1, 1][:8], dtype="<i2").tobytes()
    header[70:74] = np.array([16, 32], dtype="<i2").tobytes()  # float32
    header[108:112] = np.array([offset], dtype="<f4").tobytes()
    header[344:348] = b"n+1\0"
    path.write_bytes(gzip.compress(bytes(header) + bytes(4 + zeros)))
    return path


def turned(degrees, shear=0.0):
    turn = np.radians(degrees)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[0, 2] = shear
    return affine


BAD = {
    "case_01": (r"case_01\.nii\.gz: expected a readable NIfTI file", "truncated"),
    "case_02": (r"case_02\.nii\.gz: expected the affine of .* mm off", "mask off by a voxel"),
    "case_03": (r"case_03\.nii\.gz: expected finite intensities, got NaN", "NaN"),
    "case_04": (r"case_04\.nii\.gz: expected axes at right angles, .* sheared by", "sheared affine"),
    "case_05": (r"case_05\.nii\.gz: .* cannot hold the 32000000000352 that its header announces", "header bomb"),
    "passwd": (r"dataset\.json: expected files inside .*, got '\.\./\.\./passwd'", "outside the folder"),
    "gone": (r"gone\.nii\.gz: expected this file, named by .*dataset\.json, got nothing there", "missing"),
}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "data"
    files.msd(root, cases=8)
    image, label = (
        (lambda k: root / f"imagesTr/case_{k:02d}.nii.gz"),
        (lambda k: root / f"labelsTr/case_{k:02d}.nii.gz"),
    )
    image(1).write_bytes(image(1).read_bytes()[:-40])
    shifted = files.AFFINE.copy()
    shifted[0, 3] += 1.5
    files.save_volume(label(2), files.label_of(), shifted)
    spoiled = files.volume()
    spoiled[1, 2, 3] = np.nan
    files.save_volume(image(3), spoiled)
    for path, array in ((image(4), files.volume()), (label(4), files.label_of())):
        files.save_volume(path, array, turned(0.0, shear=0.7))
    header_bomb(image(5))
    for path, array in ((image(6), files.volume()), (label(6), files.label_of())):
        files.save_volume(path, array, turned(12.0))
    content = json.loads((root / "dataset.json").read_text())
    content["training"] += [
        {"image": "../../passwd", "label": "./labelsTr/case_00.nii.gz"},
        {"image": "./imagesTr/gone.nii.gz", "label": "./labelsTr/case_00.nii.gz"},
    ]
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def test_every_fault_is_told_and_the_rest_kept(folder):
    faults: list[Fault] = []
    cases = discover(folder, faults=faults)
    found = screen(cases)
    told = dict([*faults, *found.faults])
    assert set(told) == set(BAD)
    for name, (message, _) in BAD.items():
        assert re.search(message, told[name]), told[name]
        assert "\n" not in told[name]
    assert sorted(found.shapes) == ["case_00", "case_06", "case_07"]
    assert found.shapes["case_00"] == (1, 12, 10, 6)
    ((name, note),) = found.notes
    assert name == "case_06"
    assert re.search(r"case_06\.nii\.gz: oblique affine, 12\.0 degrees off the axes of the scanner", note)


def test_without_a_list_the_first_fault_is_an_error(folder):
    with pytest.raises(DataError, match=BAD["passwd"][0]):
        discover(folder)


def test_nothing_but_faults(tmp_path):
    files.msd(tmp_path, cases=1)
    (tmp_path / "imagesTr/case_00.nii.gz").unlink()
    with pytest.raises(DataError, match=r"case_00\.nii\.gz: expected this file, .* \(and no sound case beside"):
        discover(tmp_path, faults=[])


def test_faults_of_the_other_layouts(tmp_path):
    root = files.nnunet(tmp_path / "v2")
    (root / "imagesTr/case_01_0001.nii.gz").unlink()
    (root / "labelsTr/case_02.nii.gz").unlink()
    faults: list[Fault] = []
    assert [case.name for case in discover(root, faults=faults)] == ["case_00"]
    assert [fault.case for fault in faults] == ["case_01_0000", "case_02_0000"]
    root = files.fundus(tmp_path / "fundus", cases=4)
    (root / "masks/g0001.bmp").write_bytes(b"cut")
    (root / "masks/g0002.bmp").unlink()
    (root / "images/g0003.jpg").unlink()
    faults = []
    names = ["cup", "disc", "background"]
    cases = discover(root, label_map={0: 2, 128: 1, 255: 0}, class_names=names, faults=faults)
    assert [fault.case for fault in faults] == ["g0003", "g0002"]
    assert [fault.case for fault in screen(cases).faults] == ["g0001"]
    faults = []
    for k in (0, 1):
        files.save_picture(root / f"masks/g{k:04d}.bmp", np.eye(20, 24, dtype=np.uint8))
    (root / "masks/g0001.bmp").write_bytes(b"cut")
    cases = discover(root, faults=faults)  # reads every mask for its classes
    assert [case.name for case in cases] == ["g0000"]
    assert {fault.case for fault in faults} == {"g0001", "g0002", "g0003"}
    acdc = files.acdc(tmp_path / "acdc")
    (acdc / "patient002/patient002_frame12_gt.nii.gz").unlink()
    faults = []
    assert len(discover(acdc, faults=faults)) == 5
    assert [fault.case for fault in faults] == ["patient002_frame12"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "cannot hold the 32000000000352 that its header announces"),
        ({"offset": 3e9, "dims": (3, 4, 4, 4)}, "a header that puts them at 3e\\+09"),
        ({"offset": -8.0, "dims": (3, 4, 4, 4)}, "a header that puts them at -8"),
        ({"dims": (3, 300, 300, 300), "zeros": 108_000_000}, None),
    ],
)
def test_a_header_is_no_reason_to_unpack_or_allocate(tmp_path, options, message, monkeypatch):
    path = header_bomb(tmp_path / "bomb.nii.gz", **options)
    if message is None:  # 108 MB that the file does hold, on a machine with less
        monkeypatch.setattr(nifti_header, "memory_bytes", lambda: 2**26)
        message = r"volume that this machine's 0\.1 GiB of memory can hold, got a header that announces 0\.1"
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"bomb\.nii\.gz: expected a .*{message}"):
            read_image(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_headers_that_are_sound(tmp_path):
    second = nibabel.Nifti2Image(np.ones((3, 4, 5), dtype=np.float32), np.eye(4))
    nibabel.save(second, tmp_path / "two.nii.gz")
    assert read_image(tmp_path / "two.nii.gz")[0].shape == (1, 3, 4, 5)
    nibabel.save(second, tmp_path / "two.nii")
    data = (tmp_path / "two.nii").read_bytes()
    (tmp_path / "two.nii").write_bytes(data[:-1])
    with pytest.raises(DataError, match=r"two\.nii: expected a readable NIfTI file, got 783 bytes, which cannot hold"):
        read_image(tmp_path / "two.nii")
    empty = np.zeros((128, 128, 128), dtype=np.uint8)  # compresses about as well as anything can
    assert read_image(files.save_volume(tmp_path / "empty.nii.gz", empty))[0].shape == (1, 128, 128, 128)
    assert nifti_header.memory_bytes() is None or nifti_header.memory_bytes() > 2**28
