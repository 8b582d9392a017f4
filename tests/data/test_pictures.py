"""Pictures come at their full depth and as they are shown; a file that holds more or other than is read is refused."""

from __future__ import annotations

import struct
import zlib

import data_files as files
import numpy as np
import pytest
from PIL import Image, ImageOps

from sure_fast.data import DataError, discover, load_case, read_image, read_label

RANDOM = np.random.default_rng(0)
DEEP = RANDOM.integers(0, 4096, (9, 7, 3)).astype(np.uint16)


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(path, rows, bits, color, width, extra=b""):
    """A PNG of any depth: `rows` are the bytes of its lines."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def deep_png(path, array):
    colors = {1: 0, 2: 4, 3: 2, 4: 6}
    rows = [row.astype(">u2").tobytes() for row in array]
    return png(path, rows, 16, colors[array.shape[2]], array.shape[1])


def refused(match, path, read=read_image):
    with pytest.raises(DataError, match=match) as info:
        read(path)
    assert "\n" not in str(info.value)
    assert path.name in str(info.value)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits(tmp_path, channels):
    array = RANDOM.integers(0, 65536, (9, 7, channels)).astype(np.uint16)
    if channels in (2, 4):
        refused("expected an opaque picture, got an alpha channel between", deep_png(tmp_path / "a.png", array))
        array[..., -1] = 65535
    image = read_image(deep_png(tmp_path / "b.png", array))[0]
    np.testing.assert_array_equal(image, np.moveaxis(array[..., : 1 if channels < 3 else 3], -1, 0))


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"compression": "zlib"}, {"rowsperstrip": 2},
                                     {"compression": "zlib", "predictor": True}])  # fmt: skip
def test_tiff_of_16_bits(tmp_path, options):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="rgb", **options)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0], np.moveaxis(DEEP, -1, 0))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"])
def test_grey_tiff_of_every_kind(tmp_path, dtype):
    tifffile = pytest.importorskip("tifffile")
    array = np.array([[0, 1, 2], [100, 120, 127]], dtype)
    if dtype[0] in "ui":
        array[0, 2], array[1, 2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    tifffile.imwrite(tmp_path / "a.tif", array)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0][0], array.astype(np.float32))
    np.testing.assert_array_equal(read_label(tmp_path / "a.tif")[0], array.astype(np.int64))


def test_tiff_that_holds_more_or_other(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.tif"
    for match, array, options in (
        ("expected one picture in the file, got 3 pages", np.zeros((3, 9, 7), np.uint8), {"photometric": "minisblack"}),
        ("in planes of their own", np.moveaxis(DEEP, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        ("got 2 of 8 bits", np.zeros((9, 7, 2), np.uint8), {"photometric": "minisblack", "planarconfig": "contig"}),
        ("0 is white", np.zeros((9, 7), np.uint16), {"photometric": "miniswhite"}),
        ("expected a", np.zeros((9, 7, 5), np.uint8), {"photometric": "minisblack", "planarconfig": "contig"}),
        ("expected a readable picture", np.zeros((9, 7)), {}),
    ):
        tifffile.imwrite(path, array, **options)
        refused(match, path)
    tifffile.imwrite(path, np.eye(9, 7, dtype=bool))  # written with 0 as white: Pillow shows the contrary
    refused("0 is white", path, read_label)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_exif_orientation(tmp_path, orientation, suffix):
    base = np.zeros((16, 24), np.uint8)
    base[:8, :8] = 200
    picture = Image.fromarray(base)
    exif = picture.getexif()
    exif[274] = orientation
    path = tmp_path / f"a.{suffix}"
    picture.save(path, exif=exif)
    with Image.open(path) as stored:
        shown = np.array(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(read_image(path)[0][0], shown)
    if suffix != "jpg":
        np.testing.assert_array_equal(read_label(path)[0], shown)


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_orientation_of_16_bits(tmp_path, orientation):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    shown = {3: DEEP[::-1, ::-1], 6: np.rot90(DEEP, -1)}[orientation]
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0], np.moveaxis(shown, -1, 0))


def test_turned_photograph_fits_its_mask(tmp_path):
    image = np.zeros((16, 24), np.uint8)
    image[2:6, 3:20] = 200
    picture = Image.fromarray(image)
    exif = picture.getexif()
    exif[274] = 6
    (tmp_path / "images").mkdir()
    picture.save(tmp_path / "images/a.jpg", exif=exif, quality=95)
    files.save_picture(tmp_path / "masks/a.png", np.rot90(image > 100, -1).astype(np.uint8))
    (case,) = discover(tmp_path)
    sample = load_case(case)
    np.testing.assert_array_equal(sample.image[0] > 100, sample.label == 1)


@pytest.mark.parametrize(("bits", "row", "values"), [(1, b"\xa0", [1, 0, 1, 0]), (2, b"\x1b", [0, 1, 2, 3]),
                                                     (4, b"\x01\x2f", [0, 1, 2, 15])])  # fmt: skip
def test_few_bits_are_read_as_stored(tmp_path, bits, row, values):
    path = png(tmp_path / "a.png", [row] * 3, bits, 0, 4)
    np.testing.assert_array_equal(read_label(path)[0], [values] * 3)
    np.testing.assert_array_equal(read_image(path)[0][0], [values] * 3)


def test_transparency(tmp_path):
    palette = chunk(b"PLTE", bytes(range(12))) + chunk(b"tRNS", b"\0")
    path = png(tmp_path / "p.png", [b"\x1b"] * 3, 2, 3, 4, palette)
    np.testing.assert_array_equal(read_label(path)[0], [[0, 1, 2, 3]] * 3)  # colours only what it numbers
    refused("alpha channel between 0 and 255 of 255; flatten it first", path)
    key = png(tmp_path / "k.png", [b"\0\1\2\3"] * 3, 8, 0, 4, chunk(b"tRNS", b"\0\2"))
    assert read_label(key)[0].max() == 3
    refused("alpha channel", key)
    unused = png(tmp_path / "u.png", [b"\0\1\2\3"] * 3, 8, 0, 4, chunk(b"tRNS", b"\0\x09"))
    assert read_image(unused)[0].max() == 3
    mask = np.zeros((4, 4, 4), np.uint8)
    for read in (read_image, read_label):
        refused("alpha channel between 0 and 0", files.save_picture(tmp_path / "a.png", mask), read)
    mask[..., 3] = 255
    assert read_label(files.save_picture(tmp_path / "b.png", mask))[0].shape == (4, 4)


def test_several_frames_and_other_modes(tmp_path):
    frames = [Image.new("L", (8, 6), k) for k in range(3)]
    for name, options in (("gif.png", {"format": "GIF"}), ("apng.png", {})):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        refused("expected one picture in the file, got 3 pages or frames", tmp_path / name)
    Image.new("CMYK", (8, 6)).save(tmp_path / "c.jpg")
    refused("expected a grey, palette or RGB picture, got mode CMYK", tmp_path / "c.jpg")
    Image.new("LAB", (8, 6)).save(tmp_path / "l.tif")
    refused("got mode LAB", tmp_path / "l.tif")


@pytest.mark.parametrize(("name", "options"), [("m.jpg", {}), ("m.png", {"format": "JPEG"}), ("m.JPEG", {}),
                                               ("m.tif", {"compression": "jpeg"})])  # fmt: skip
def test_lossy_labels(tmp_path, name, options):
    Image.new("L", (8, 6)).save(tmp_path / name, **options)
    refused("expected a label as PNG, BMP, TIFF or NIfTI, got lossy compression", tmp_path / name, read_label)
    assert read_image(tmp_path / name)[0].shape == (1, 6, 8)


def two_folders(root, masks):
    for k, mask in enumerate(masks):
        files.save_picture(root / "images" / f"c{k}.png", np.full(mask.shape, 9, np.uint8))
        files.save_picture(root / "masks" / f"c{k}.png", mask)
    return root


@pytest.mark.parametrize("top", [255, 128, 1])
def test_masks_of_two_values_are_binary(tmp_path, top):
    mask = (np.eye(8) * top).astype(np.uint8)
    cases = discover(two_folders(tmp_path, [mask * 0, mask]))
    assert cases.info.class_names == {0: "background", 1: "class 1"}
    np.testing.assert_array_equal(load_case(cases[1]).label, np.eye(8))


def soft(top, size=64):
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(y - size / 2, x - size / 2)
    return (np.clip((24 - distance) / 16, 0, 1) * top).round().astype(np.uint8)


@pytest.mark.parametrize("top", [255, 200, 60])
def test_soft_edges_are_no_classes(tmp_path, top):
    refused(rf"got \d+ grey values between 0 and {top}, .* threshold the masks", two_folders(tmp_path / "masked", [soft(top)]), discover)  # fmt: skip # noqa: E501


def test_many_classes_are_classes(tmp_path):
    mask = np.arange(64 * 64).reshape(64, 64) % 60
    assert discover(two_folders(tmp_path, [mask.astype(np.uint8)])).info.num_classes == 60


def test_values_that_need_a_map(tmp_path):
    mask = np.array([[0, 128], [255, 0]], np.uint8)
    refused("got the values 0, 128, 255; give label_map, such as --label-map=0:0,128:1,255:2",
            two_folders(tmp_path / "a", [mask]), lambda path: discover(path))  # fmt: skip
    cases = discover(tmp_path / "a", label_map={0: 0, 128: 1, 255: 2})
    assert load_case(cases[0]).label.tolist() == [[0, 1], [2, 0]]
    refused("got the values 1, 2; give label_map", two_folders(tmp_path / "b", [mask // 200 + 1]), discover)


def test_unit_of_pictures(tmp_path):
    assert discover(two_folders(tmp_path / "a", [np.eye(8, dtype=np.uint8)])).info.spacing_unit == "px"
    root = files.msd(tmp_path / "b", cases=2)
    assert discover(root).info.spacing_unit == "mm"
    files.save_picture(tmp_path / "a/images/x.png", np.eye(8, dtype=np.uint8))
    files.save_volume(tmp_path / "a/images/v.nii", files.volume())
    files.save_volume(tmp_path / "a/masks/v.nii", files.label_of(classes=2))
    files.save_picture(tmp_path / "a/masks/x.png", np.eye(8, dtype=np.uint8))
    refused("expected NIfTI or pictures, whose spacing is in mm or pixels, got both", tmp_path / "a", discover)


def test_interlaced_png_of_16_bits(tmp_path):
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [DEEP[y::down, x::right] for x, y, right, down in passes]
    data = b"".join(b"\0" + row.astype(">u2").tobytes() for part in parts if part.size for row in part)
    header = struct.pack(">IIBBBBB", DEEP.shape[1], DEEP.shape[0], 16, 2, 0, 0, 1)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], np.moveaxis(DEEP, -1, 0))
