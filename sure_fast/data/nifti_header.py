"""What a NIfTI header announces, looked at before anything of that size is allocated or unpacked."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from sure_fast.data.errors import DataError

DEFLATE_RATIO = 1032
"""Most bytes that one byte of a gzip file can unpack to."""
LARGEST_OFFSET = 2**24
"""Bytes before the voxels: header and extensions, which are unpacked and read whole."""
WORKING_BYTES = 12
"""Per voxel beside the voxels as stored: as float32, and one channel as float64 while it is normalised."""
CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")


def check_announced_size(path: Path) -> bytes:
    """Refuses a header whose volume neither the file nor this machine can hold.

    Returns:
        The first bytes of the file, in which the header lies.

    Raises:
        DataError: in one line. What is no header at all is left to the reader.
    """
    size = path.stat().st_size
    compressed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path) if compressed else open(path, "rb") as file:
            start = file.read(540)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: expected a readable NIfTI file, got {type(error).__name__}: {error}") from None
    announced = _announced(start)
    if announced is None:
        return start
    offset, voxels, item = announced
    if not 0 <= offset <= LARGEST_OFFSET:
        raise DataError(
            f"{path}: expected a readable NIfTI file, whose voxels begin within its first {LARGEST_OFFSET} bytes, "
            f"got a header that puts them at {offset:g}"
        )
    total = int(offset) + voxels * item
    if total > size * (DEFLATE_RATIO if compressed else 1):
        raise DataError(
            f"{path}: expected a readable NIfTI file, got {size} bytes{' compressed' if compressed else ''}, "
            f"which cannot hold the {total} that its header announces"
        )
    limit = memory_bytes()
    while_read = total + voxels * WORKING_BYTES
    if limit is not None and while_read > limit:
        raise DataError(
            f"{path}: expected a volume that this machine's {limit / 2**30:.1f} GiB of memory can hold, got a header "
            f"that announces {total / 2**30:.1f} GiB, {while_read / 2**30:.1f} GiB while it is read"
        )
    return start


def _announced(start: bytes) -> tuple[float, int, int] | None:
    """Offset of the voxels, their number, and bytes of each; None where `start` is no header of NIfTI 1 or 2."""
    for order in "<>":
        length = int(np.frombuffer(start[:4], order + "i4")[0]) if len(start) >= 4 else 0
        if length == 348 and len(start) >= 348:
            dims = np.frombuffer(start[40:56], order + "i2")
            bits, offset = np.frombuffer(start[72:74], order + "i2"), np.frombuffer(start[108:112], order + "f4")
            break
        if length == 540 and len(start) >= 540:
            dims = np.frombuffer(start[16:80], order + "i8")
            bits, offset = np.frombuffer(start[14:16], order + "i2"), np.frombuffer(start[168:176], order + "i8")
            break
    else:
        return None
    axes = int(dims[0])
    if not 1 <= axes <= 7:
        return None
    sizes = [max(int(n), 0) for n in dims[1 : axes + 1]]
    return float(offset[0]), math.prod(sizes), max(int(bits[0]), 0) // 8


def memory_bytes() -> int | None:
    """Physical memory, or what the control group leaves of it; None where the system does not say."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        return min(total, int(CONTROL_GROUP.read_text()))
    except (OSError, ValueError):
        return total
