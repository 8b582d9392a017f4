"""Headers are taken as ITK takes them, contradictions are noted, and what is written overlays what was read."""

from __future__ import annotations

import itertools
import re

import data_files as files
import nibabel
import numpy as np
import pytest

from sure_fast.data import Case, DataError, load_case, read_image, read_label, save_nifti
from sure_fast.data.geometry import geometry_of
from sure_fast.data.screening import screen, told

PIXDIM = (1.5, 2.0, 5.0)


def rotation(degrees, axis=2):
    turn = np.radians(degrees)
    matrix = np.eye(3)
    i, j = (k for k in range(3) if k != axis)
    matrix[i, i] = matrix[j, j] = np.cos(turn)
    matrix[i, j], matrix[j, i] = -np.sin(turn), np.sin(turn)
    return matrix


def affine(matrix, origin=(10.0, 20.0, 30.0)):
    whole = np.eye(4)
    whole[:3, :3], whole[:3, 3] = matrix, origin
    return whole


RIGHT = affine(np.diag([-1.5, -2.0, 5.0]))
SHEARED = affine([[-1.5, 0, 1.0], [0, -2.0, 0], [0, 0, 5.0]])
TURNED = affine(rotation(20) @ np.diag(PIXDIM), (1.0, 2.0, 3.0))
LEFT = affine(np.diag([1.5, -2.0, 5.0]))
ONES = affine(np.diag([-1.0, -1.0, 1.0]))


def header_file(path, qform=None, sform=None, codes=(0, 0), pixdim=PIXDIM, units=2, shape=(6, 5, 4), qfac=None):
    """A file whose header says exactly this, be it contradictory."""
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    if qform is not None:
        header.set_qform(qform, code=1)
    if sform is not None:
        header.set_sform(sform, code=1)
    header["qform_code"], header["sform_code"] = codes
    header["pixdim"][1 : 1 + len(pixdim)] = pixdim
    if qfac is not None:
        header["pixdim"][0] = qfac
    header["xyzt_units"], header["vox_offset"], header["magic"] = units, 352, b"n+1"
    voxels = np.arange(np.prod(shape), dtype="<i2")
    path.write_bytes(header.binaryblock + bytes(4) + voxels.tobytes())
    return path


def of(path):
    return geometry_of(nibabel.Nifti1Header(path.read_bytes()[:348], check=False))


HEADERS = {
    "both agree": {"qform": RIGHT, "sform": RIGHT, "codes": (1, 1)},
    "sform only": {"sform": RIGHT, "codes": (0, 1)},
    "sform only, aligned": {"sform": TURNED, "codes": (0, 2)},
    "qform only": {"qform": RIGHT, "codes": (1, 0)},
    "qform only, negative qfac": {"qform": LEFT, "codes": (1, 0)},
    "qform only, qfac 0": {"qform": RIGHT, "codes": (1, 0), "qfac": 0},
    "sform of scale 1, qform right": {"qform": RIGHT, "sform": ONES, "codes": (1, 1)},
    "sform of scale 1, qform without code": {"qform": RIGHT, "sform": ONES, "codes": (0, 1)},
    "pixdim of scale 1": {"sform": RIGHT, "codes": (0, 1), "pixdim": (1, 1, 1)},
    "sform 1 % off": {"qform": RIGHT, "sform": affine(np.diag([-1.515, -2.02, 5.05])), "codes": (1, 1)},
    "neither": {},
    "neither, in microns": {"units": 3},
    "left-handed": {
        "qform": affine(np.diag([1.5, -2.0, 5.0])),
        "sform": affine(np.diag([1.5, -2, 5])),
        "codes": (1, 1),
    },
    "oblique": {"qform": TURNED, "sform": TURNED, "codes": (1, 1)},
    "permuted": {"sform": affine([[0, 0, 5], [1.5, 0, 0], [0, 2, 0]]), "codes": (0, 1)},
    "sform sheared": {"qform": RIGHT, "sform": SHEARED, "codes": (1, 1)},
    "sform of zeros": {"qform": RIGHT, "sform": affine(np.zeros((3, 3))), "codes": (1, 1)},
    "two axes": {"sform": affine(np.diag([-1.5, -2.0, 1.0])), "codes": (0, 1), "shape": (6, 5), "pixdim": (1.5, 2)},
    "two axes, qform": {"qform": affine(np.diag([-1.5, -2, 1])), "codes": (1, 0), "shape": (6, 5), "pixdim": (1.5, 2)},
    "pixdim 0": {"qform": RIGHT, "codes": (1, 0), "pixdim": (0, 0, 0)},
    "pixdim 0 beside an sform": {"sform": RIGHT, "codes": (0, 1), "pixdim": (0, 2, 5)},
    "pixdim negative": {"qform": RIGHT, "codes": (1, 0), "pixdim": (-1.5, 2, 5)},
    "pixdim negative beside an sform": {"sform": RIGHT, "codes": (0, 1), "pixdim": (-1.5, 2, 5)},
    "microns": {"qform": RIGHT, "sform": RIGHT, "codes": (1, 1), "units": 3},
    "metres": {"qform": RIGHT, "sform": RIGHT, "codes": (1, 1), "units": 1},
    "units unknown": {"qform": RIGHT, "sform": RIGHT, "codes": (1, 1), "units": 0},
    **{
        f"other directions, codes {codes}": {"qform": RIGHT, "sform": TURNED, "codes": codes}
        for codes in itertools.product((0, 1, 2), (0, 1, 2, 4))
    },
}


@pytest.mark.parametrize("kind", HEADERS)
def test_itk_takes_the_same(tmp_path, kind):
    itk = pytest.importorskip("SimpleITK")
    itk.ProcessObject.SetGlobalWarningDisplay(False)
    path = header_file(tmp_path / "a.nii", **HEADERS[kind])
    image = itk.ReadImage(str(path))
    axes = image.GetDimension()
    to_ras = np.diag([-1.0, -1.0, 1.0])[:axes, :axes]
    directions = to_ras @ np.array(image.GetDirection()).reshape(axes, axes)
    found = of(path).affine
    np.testing.assert_allclose(found[:axes, :axes], directions * image.GetSpacing(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[:axes, 3], to_ras @ image.GetOrigin(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(read_image(path)[1].spacing_mm, image.GetSpacing(), rtol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in HEADERS if "pixdim negative" not in kind])
def test_what_is_written_overlays_what_was_read(tmp_path, kind):
    itk = pytest.importorskip("SimpleITK")
    itk.ProcessObject.SetGlobalWarningDisplay(False)
    path = header_file(tmp_path / "a.nii", **HEADERS[kind])
    sample = load_case(Case("a", "a", path))
    out = save_nifti(tmp_path / "out.nii.gz", sample.image[0], sample.stored_affine, form_code=sample.form_code)
    theirs, ours = itk.ReadImage(str(path)), itk.ReadImage(str(out))
    for get in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(ours, get)(), getattr(theirs, get)(), rtol=1e-5, atol=1e-5)
    written = nibabel.load(out)
    notes = of_header(written.header).notes
    assert all("no orientation" in note for note in notes)
    assert len(notes) == (sample.form_code == 0)
    np.testing.assert_allclose(written.header.get_zooms(), sample.spacing_mm, rtol=1e-5)
    if sample.form_code:
        np.testing.assert_allclose(written.affine, sample.stored_affine, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(written.get_qform(), written.get_sform(), rtol=1e-5, atol=1e-5)
        assert int(written.header["qform_code"]) == int(written.header["sform_code"]) == sample.form_code
    assert written.header.get_xyzt_units()[0] == "mm"


def of_header(header):
    return geometry_of(nibabel.Nifti1Header(header.binaryblock, check=False))


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        ("sform of scale 1, qform right", "sform and pixdim disagree, voxels of 1 x 1 x 1 against 1.5 x 2 x 5; pixdim"),
        ("pixdim of scale 1", "sform and pixdim disagree, voxels of 1.5 x 2 x 5 against 1 x 1 x 1"),
        ("other directions, codes (1, 1)", "sform and qform disagree, by 160.0 degrees .*; the sform is taken"),
        ("other directions, codes (1, 2)", "the qform is taken, as in ITK"),
        ("neither", "no orientation in the header"),
        ("microns", "header in microns, converted to mm"),
        ("metres", "header in metres"),
        ("pixdim 0", "no voxel size in pixdim, 0 x 0 x 0"),
        ("pixdim negative", "negative voxel size in pixdim"),
        ("both agree", None),
        ("oblique", None),
        ("qform only, negative qfac", None),
        ("units unknown", None),
    ],
)
def test_contradictions_are_noted(tmp_path, capfd, kind, note):
    path = header_file(tmp_path / "a.nii", **HEADERS[kind])
    capfd.readouterr()
    found = [fault.reason for fault in screen([Case("a", "a", path)]).notes if "oblique" not in fault.reason]
    assert len(found) == (note is not None), found
    assert note is None or re.search(rf"a\.nii: .*{note}", found[0])
    assert all("\n" not in line for line in found)
    assert capfd.readouterr().err == ""  # where nibabel would say it once more at every reading


def test_one_line_for_a_kind_of_note(tmp_path):
    cases = []
    for k in range(3):
        path = header_file(tmp_path / f"c{k}.nii", RIGHT, ONES, (1, 1), (1.5 + k, 2, 5))
        cases.append(Case(f"c{k}", f"c{k}", path))
    (line,) = told(screen(cases).notes)
    assert line.startswith(f"{tmp_path}/c0.nii: sform and pixdim disagree, voxels of 1 x 1 x 1 against 1.5 x 2 x 5")
    assert line.endswith("(and 2 more cases, in split.json)")


def test_a_quaternion_longer_than_one_and_numbers_that_are_none(tmp_path):
    path = header_file(tmp_path / "a.nii", affine(np.diag([-1.5, 2.0, -5.0])), codes=(1, 0))
    data = bytearray(path.read_bytes())
    data[256:268] = np.array([1e-4, 1.0, 0.0], "<f4").tobytes()
    path.write_bytes(data)
    assert np.isfinite(of(path).affine).all()
    data[280:284] = np.array([np.nan], "<f4").tobytes()
    data[254:256] = np.array([1], "<i2").tobytes()
    path.write_bytes(data)
    assert of(path).code == 1
    np.testing.assert_allclose(of(path).affine[:3, :3], np.diag([-1.5, 2.0, -5.0]), atol=1e-2)


def test_an_sform_that_is_no_rotation_is_kept_with_its_shear(tmp_path):
    path = header_file(tmp_path / "a.nii", sform=SHEARED, codes=(0, 1))
    assert load_case(Case("a", "a", path)).image.shape == (1, 6, 5, 4)
    label = header_file(tmp_path / "l.nii", sform=SHEARED, codes=(0, 1))
    with pytest.raises(DataError, match="sheared by"):
        load_case(Case("a", "a", path, label))


def test_vectors_and_scaled_labels(tmp_path):
    vectors = np.random.default_rng(0).random((6, 5, 4, 1, 2)).astype(np.float32)
    image, grid = read_image(files.save_volume(tmp_path / "v.nii.gz", vectors))
    assert (image.shape, grid.shape) == ((2, 6, 5, 4), (6, 5, 4))
    np.testing.assert_array_equal(image[1], vectors[..., 0, 1])
    label = nibabel.Nifti1Image(np.array([[[0, 2, 4]]], np.int8), np.eye(4))
    label.header.set_slope_inter(0.5, 0)
    nibabel.save(label, tmp_path / "l.nii")
    assert read_label(tmp_path / "l.nii")[0].ravel().tolist() == [0, 1, 2]
    for value in (1e19, -1e19, float(2**60)):
        files.save_volume(tmp_path / "big.nii", np.array([[[0.0, value]]]))
        with pytest.raises(DataError, match=r"big\.nii: expected class numbers in a label, got a value of size"):
            read_label(tmp_path / "big.nii")
    colours = np.zeros((3, 3, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(DataError, match="expected integer or floating voxels"):
        read_image(files.save_volume(tmp_path / "rgb.nii", colours))
