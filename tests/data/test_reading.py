"""Grids are kept, channels go first, and each bad file is refused by name in one line."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import data_files as files
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

import sure_fast.data
from sure_fast.data import Case, DataError, DatasetInfo, load_case, read_image, read_label, save_nifti

INFO = DatasetInfo("folders", {0: "background", 1: "a", 2: "b"}, num_channels=1)


def case_of(tmp_path, image=None, label=None, image_affine=files.AFFINE, label_affine=files.AFFINE, info=INFO):
    i = files.save_volume(tmp_path / "i.nii.gz", files.volume() if image is None else image, image_affine)
    m = files.save_volume(tmp_path / "m.nii.gz", files.label_of() if label is None else label, label_affine)
    return Case("i", "i", i, m, info=info)


def refused(match, call, *args, **kwargs):
    with pytest.raises(DataError, match=match) as info:
        call(*args, **kwargs)
    assert "\n" not in str(info.value)


def test_oblique_affine_is_kept(tmp_path):
    turn = np.array([[0.9, -0.3, 0.1], [0.3, 0.9, 0.2], [-0.1, -0.2, 0.95]])
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(turn)[0] * [0.8, 1.2, 3.0]
    affine[:3, 3] = [-11, 7, 99]
    sample = load_case(case_of(tmp_path, image_affine=affine, label_affine=affine))
    np.testing.assert_allclose(sample.affine, affine, atol=1e-5)
    np.testing.assert_allclose(sample.spacing_mm, (0.8, 1.2, 3.0), rtol=1e-6)
    assert sample.orientation == "".join(nibabel.aff2axcodes(affine))


def test_save_and_read_back(tmp_path):
    sample = load_case(case_of(tmp_path))
    path = save_nifti(tmp_path / "deep" / "out.nii.gz", sample.label, sample.affine)
    label, grid = read_label(path)
    np.testing.assert_array_equal(label, sample.label.numpy())
    np.testing.assert_array_equal(grid.affine, sample.affine)
    assert nibabel.load(path).get_data_dtype() == np.uint8
    assert [p.name for p in path.parent.iterdir()] == ["out.nii.gz"]
    map_path = save_nifti(tmp_path / "u.nii", torch.rand(4, 5, dtype=torch.float64), spacing_mm=(2.0, 3.0))
    assert read_image(map_path)[1].spacing_mm == (2.0, 3.0)
    refused("path: expected a file ending in .nii.gz", save_nifti, tmp_path / "x.png", np.zeros((2, 2)))
    refused("array: expected integers of 32 bits", save_nifti, tmp_path / "x.nii", np.full((2, 2), 2**40))
    assert not (tmp_path / "x.nii").exists()


def test_scale_factor_and_big_endian(tmp_path):
    header = nibabel.Nifti1Header(endianness=">")
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4), header)
    image.header.set_slope_inter(0.5, 3)
    nibabel.save(image, tmp_path / "a.nii.gz")
    expected = np.asarray(nibabel.load(tmp_path / "a.nii.gz").dataobj)
    np.testing.assert_allclose(read_image(tmp_path / "a.nii.gz")[0][0], expected, rtol=1e-6)


def test_trailing_axes_of_one(tmp_path):
    path = files.save_volume(tmp_path / "a.nii.gz", files.volume()[..., None])
    assert read_image(path)[0].shape == (1, 12, 10, 6)
    path = files.save_volume(tmp_path / "l.nii.gz", files.label_of()[..., None])
    assert read_label(path)[0].shape == (12, 10, 6)
    assert read_image(files.save_volume(tmp_path / "flat.nii.gz", files.volume((7, 8))))[0].shape == (1, 7, 8)


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 3), ("P", 3), ("LA", 1), ("I;16", 1), ("1", 1)]
)
def test_picture_modes(tmp_path, mode, channels):
    base = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) * 5)
    picture = Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8)) if mode == "I;16" else base.convert(mode)
    picture.save(tmp_path / "p.png")
    image, grid = read_image(tmp_path / "p.png")
    assert image.shape == (channels, 6, 8)
    assert image.dtype == np.float32
    assert (grid.shape, grid.affine) == ((6, 8), None)


def test_palette_mask_reads_indices(tmp_path):
    mask = Image.new("P", (5, 5))
    mask.putdata([2 if i % 6 == 0 else 0 for i in range(25)])
    mask.putpalette([0, 0, 0, 9, 9, 9, 255, 0, 0])
    mask.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_label(tmp_path / "m.png")[0], np.eye(5) * 2)


def test_coloured_mask(tmp_path):
    grey = np.repeat(np.eye(5, dtype=np.uint8)[..., None], 3, axis=2)
    assert read_label(files.save_picture(tmp_path / "same.png", grey))[0].max() == 1
    grey[0, 0, 0] = 9
    refused(
        "other.png: expected a label with one channel", read_label, files.save_picture(tmp_path / "other.png", grey)
    )


def test_shape_mismatch(tmp_path):
    case = case_of(tmp_path, label=files.label_of((12, 10, 5)))
    refused(r"m\.nii\.gz: expected the shape \[12, 10, 6\] of .*i\.nii\.gz, got \[12, 10, 5\]", load_case, case)


def test_affine_mismatch(tmp_path):
    shifted = files.AFFINE.copy()
    shifted[0, 3] += 1.5
    refused(r"m\.nii\.gz: expected the affine of .*1\.5 mm off", load_case, case_of(tmp_path, label_affine=shifted))
    flipped = files.AFFINE.copy()
    flipped[0, 0] *= -1
    refused("expected the affine", load_case, case_of(tmp_path, label_affine=flipped))
    close = files.AFFINE.copy()
    close[0, 3] += 0.01  # the rounding of headers
    assert load_case(case_of(tmp_path, label_affine=close)).label is not None


def test_channels_on_different_grids(tmp_path):
    a = files.save_volume(tmp_path / "a_0000.nii.gz", files.volume())
    b = files.save_volume(tmp_path / "a_0001.nii.gz", files.volume((12, 10, 7)))
    refused(r"a_0001\.nii\.gz: expected the shape", load_case, Case("a", "a", a, None, (b,)))


def test_wrong_number_of_channels(tmp_path):
    refused(r"i\.nii\.gz: expected 1 channels, got 2", load_case, case_of(tmp_path, image=files.volume((12, 10, 6, 2))))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.98])
def test_truncated_nifti(tmp_path, suffix, keep):
    path = files.save_volume(tmp_path / f"i{suffix}", files.volume())
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    refused(r"i\.nii(\.gz)?: expected a readable NIfTI file", read_image, path)
    refused(r"i\.nii(\.gz)?: expected a readable NIfTI file", read_label, path)


def test_truncated_inside_gzip(tmp_path):
    path = files.save_volume(tmp_path / "i.nii.gz", files.volume())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:2000]))
    refused(r"i\.nii\.gz: expected a readable NIfTI file", read_image, path)


def test_unreadable_files(tmp_path):
    (tmp_path / "text.nii.gz").write_text("not a volume")
    refused(r"text\.nii\.gz: expected a readable NIfTI", read_image, tmp_path / "text.nii.gz")
    (tmp_path / "text.png").write_text("not a picture")
    refused(r"text\.png: expected a readable picture", read_image, tmp_path / "text.png")
    path = files.save_picture(tmp_path / "cut.png", np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:600])
    refused(r"cut\.png: expected a readable picture", read_image, path)
    refused(r"gone\.nii: expected a file, got nothing there", read_image, tmp_path / "gone.nii")
    (tmp_path / "a.dcm").write_text("x")
    refused(r"a\.dcm: expected NIfTI", read_image, tmp_path / "a.dcm")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path, value):
    image = files.volume()
    image[3, 4, 5] = value
    refused(r"i\.nii\.gz: expected finite intensities, .* in 1 of 720", load_case, case_of(tmp_path, image=image))
    refused(r"m\.nii\.gz: expected whole class numbers", load_case, case_of(tmp_path, label=image))


def test_beyond_float32(tmp_path):
    refused("expected finite", read_image, files.save_volume(tmp_path / "i.nii", np.full((3, 3, 3), 1e300)))


def test_label_values(tmp_path):
    label = files.label_of().astype(np.float32)
    assert load_case(case_of(tmp_path, label=label * 0.9999999)).label.max() == 2
    label[1, 1, 1] = 0.5
    refused(r"m\.nii\.gz: expected whole class numbers in a label, got 0\.5", load_case, case_of(tmp_path, label=label))
    label[1, 1, 1] = 3
    refused(r"m\.nii\.gz: expected class numbers in \[0, 3\), got 3", load_case, case_of(tmp_path, label=label))
    label[1, 1, 1] = -1
    refused(r"m\.nii\.gz: expected class numbers .* got -1", load_case, case_of(tmp_path, label=label))
    refused("expected class numbers >= 0, got -1", load_case, case_of(tmp_path, label=label, info=None))
    ignoring = DatasetInfo("folders", INFO.class_names, 1, ignore_index=-1)
    assert load_case(case_of(tmp_path, label=label, info=ignoring)).label.min() == -1
    refused("one channel", load_case, case_of(tmp_path, label=np.zeros((12, 10, 6, 2), dtype=np.uint8)))


def test_bad_voxels(tmp_path):
    complex_file = files.save_volume(tmp_path / "c.nii", np.zeros((3, 3, 3), dtype=np.complex64))
    refused("expected integer or floating voxels", read_image, complex_file)
    refused(
        "2 or 3 spatial axes", read_image, files.save_volume(tmp_path / "d.nii", np.zeros((2, 2, 2, 2, 2), np.float32))
    )
    path = files.save_volume(tmp_path / "e.nii", files.volume())
    for value, message in ((0.0, "expected a spacing from 1e-12"), (np.nan, "expected a finite affine")):
        data = bytearray(path.read_bytes())
        data[280:296] = np.array([value] * 4, dtype=np.float32).tobytes()  # srow_x of the header
        data[296:312] = data[312:328] = data[280:296]
        path.write_bytes(data)
        refused(message, read_image, path)


def test_normalized_on_request(tmp_path):
    image = load_case(case_of(tmp_path), normalized=True).image
    assert abs(float(image.mean())) < 1e-5
    assert abs(float(image.std(correction=0)) - 1) < 1e-4


def test_import_is_light():
    code = (
        "import sys, sure_fast.data; print([m for m in ('monai', 'nibabel', 'PIL', 'matplotlib') if m in sys.modules])"
    )
    root = Path(sure_fast.data.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
