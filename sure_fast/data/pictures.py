"""Reading pictures through Pillow: at their full depth, the way up they are shown, and nothing else than they hold."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from sure_fast.data.errors import DataError

LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
LOSSY_COMPRESSIONS = ("jpeg", "tiff_jpeg", "webp")
ORIENTATION, BITS, SAMPLE_FORMAT, SAMPLES, PHOTOMETRIC, PLANES = 274, 258, 339, 277, 262, 284
"""Tags of EXIF and TIFF."""
MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N", "F", "P", "PA", "RGB", "RGBA", "YCbCr")
TURNS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""What brings a stored picture to the way it is shown, by its EXIF orientation."""
GREY_STEPS = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies the grey levels of a picture of 2 or 4 bits by."""


def read_picture(path: Path, label: bool) -> np.ndarray:
    """The pixels of a picture, as it is shown (EXIF orientation applied) and in the numbers it stores.

    Args:
        path: PNG, JPEG, BMP or TIFF.
        label: read class numbers: the indices of a palette rather than its colours, and no lossy compression.

    Returns:
        [H, W], or [H, W, 3] of a coloured picture: uint8, uint16, uint32, int8, int16, int32 or float32.

    Raises:
        DataError: unreadable; several pages or frames; transparent; a mode or depth that would be read as something
            else (CMYK, LAB, 16 bits in planes); a lossy label.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            refusal = _refusal(picture, label)
            if refusal is None:
                pixels = _pixels(path, picture, label)
                if isinstance(pixels, np.ndarray):
                    return np.ascontiguousarray(pixels)
                refusal = pixels
    # Pillow raises OSError, SyntaxError, ValueError and its own bomb error, depending on the decoder.
    except Exception as error:
        raise DataError(f"{path}: expected a readable picture, got {type(error).__name__}: {error}") from None
    raise DataError(f"{path}: {refusal}")


def stored_channels(path: Path) -> int | None:
    """Channels of a picture by its header, without alpha; None where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return 1 if picture.mode[0] in "1LIF" and picture.mode != "LAB" else 3
    except Exception:
        return None


def _refusal(picture: Any, label: bool) -> str | None:
    """Why what the file holds is not what would be read, by its header; None where it is."""
    frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        return f"expected one picture in the file, got {frames} pages or frames"
    if picture.mode not in MODES:
        return f"expected a grey, palette or RGB picture, got mode {picture.mode}; convert it first"
    compression = str(picture.info.get("compression", "")).lower()
    if label and (picture.format in LOSSY_FORMATS or compression in LOSSY_COMPRESSIONS):
        return (
            f"expected a label as PNG, BMP, TIFF or NIfTI, got lossy compression ({picture.format}), "
            "which changes class numbers; export the labels anew"
        )
    tags = getattr(picture, "tag_v2", {})
    if not tags:
        return None
    bits = tuple(tags.get(BITS, (1,)))
    samples = int(tags.get(SAMPLES, 1))
    if samples != len(picture.getbands()):
        return f"expected a TIFF of 1 or 3 channels, got {samples} of {bits[0]} bits"
    if max(bits) > 8 and samples > 1 and int(tags.get(PLANES, 1)) == 2:
        return f"expected the channels of a TIFF of {max(bits)} bits side by side, got them in planes of their own"
    if int(tags.get(PHOTOMETRIC, 1)) == 0 and (label or picture.mode not in ("1", "L")):
        return "expected a TIFF in which 0 is black, got one in which 0 is white"
    if len(bits) > 1 and (len(set(bits)) > 1 or max(bits) not in (8, 16)):
        return f"expected a coloured TIFF of 8 or 16 bits, got {', '.join(map(str, bits))}"
    return None


def _pixels(path: Path, picture: Any, label: bool) -> np.ndarray | str:
    """The array, without an alpha channel that says nothing; or why there is none."""
    tags = dict(getattr(picture, "tag_v2", {}))
    arguments = picture.tile[0][3]
    raw = str(arguments[0] if isinstance(arguments, tuple) else arguments)
    alpha = None
    if ";16" in raw and picture.mode in ("RGB", "RGBA"):
        array = _sixteen_bits(path, picture, raw)
        if array is None or ("transparency" in picture.info and not label):
            return f"expected an opaque picture that can be read at its full depth, got 16 bits stored as {raw}"
        if array.shape[2] in (2, 4):
            array, alpha = array[..., :-1], array[..., -1]
            array = array[..., 0] if array.shape[2] == 1 else array
        opaque = 65535
    else:
        picture.load()
        array, opaque = _eight_bits(picture, label), 255
        if picture.mode in ("RGBA", "LA", "PA"):
            alpha = np.array(picture.getchannel("A"))
        elif "transparency" in picture.info and not label:
            alpha = np.array(picture.convert("RGBA").getchannel("A"))
        if raw in GREY_STEPS:
            array = array // GREY_STEPS[raw]
        array = _as_shown(_as_stored(array, tags), picture)
    if alpha is not None and alpha.size and int(alpha.min()) < opaque:
        return (
            f"expected an opaque picture, got an alpha channel between {int(alpha.min())} and {int(alpha.max())} "
            f"of {opaque}; flatten it first"
        )
    return array


def _eight_bits(picture: Any, label: bool) -> np.ndarray:
    mode = picture.mode
    if mode == "P" and label:
        return np.array(picture)  # a label's palette only colours it; the class numbers are the indices
    if mode == "PA" and label:
        return np.array(picture.getchannel("P"))
    if mode in ("P", "PA", "RGBA", "YCbCr"):
        return np.array(picture.convert("RGB"))
    if mode == "LA":
        return np.array(picture.getchannel("L"))
    array = np.array(picture)
    return array.astype(np.uint8) if array.dtype == np.bool_ else array


def _as_stored(array: np.ndarray, tags: dict[int, Any]) -> np.ndarray:
    """Numbers that Pillow holds in a type of the same size, in that of the TIFF."""
    bits, kinds = tags.get(BITS), tags.get(SAMPLE_FORMAT, (1,))
    kind = int(kinds[0] if isinstance(kinds, tuple) else kinds)
    if bits is not None and array.dtype == np.int32 and tuple(bits) == (32,) and kind == 1:
        return array.view(np.uint32)
    if bits is not None and array.dtype == np.uint8 and set(bits) == {8} and kind == 2:
        return array.view(np.int8)
    return array.astype(array.dtype.newbyteorder("="))


def _sixteen_bits(path: Path, picture: Any, raw: str) -> np.ndarray | None:
    """uint16 [H, W, channels] of a picture that Pillow holds with the higher byte of every number only.

    The same bytes are decoded twice: as numbers of the byte order they have, which gives the higher bytes, and of the
    other order, which gives the lower ones.
    """
    if raw.startswith("LA;16"):
        # Grey and alpha are four bytes: those of an 8-bit RGBA picture.
        pairs = _decoded(path, "RGBA").astype(np.uint16)
        return pairs[..., 0::2] << 8 | pairs[..., 1::2]
    here = "L" if sys.byteorder == "little" else "B"
    name, order = raw.rsplit(";16", 1)
    if order not in ("B", "L", "N") or name not in ("RGB", "RGBA", "RGBX"):
        return None
    stored = here if order == "N" else order
    high = _decoded(path, raw)
    low = _decoded(path, f"{name};16{'B' if stored == 'L' else 'L'}")
    return high.astype(np.uint16) << 8 | low


def _decoded(path: Path, raw: str) -> np.ndarray:
    """The picture with its bytes taken as another kind of pixel."""
    from PIL import Image

    with Image.open(path) as picture:
        tiles = []
        for tile in picture.tile:
            name, extents, offset, arguments = tile
            other = (raw, *arguments[1:]) if isinstance(arguments, tuple) else raw
            # Pillow has had plain tuples and named ones here.
            named = getattr(tile, "_replace", None)
            tiles.append(named(args=other) if named else (name, extents, offset, other))
        picture.tile = tiles
        picture.load()
        return _as_shown(np.array(picture), picture)


def _as_shown(array: np.ndarray, picture: Any) -> np.ndarray:
    """Turned as EXIF says, where Pillow has not done so while it loaded the picture (it does for TIFF)."""
    turn = TURNS.get(int(picture.getexif().get(ORIENTATION, 1)))
    return turn(array) if turn else array
