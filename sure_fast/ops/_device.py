"""The CUDA library: whether it can run, and on what its kernels run."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

MOST_ELEMENTS = 2**32 - 1
"""Elements of a map that the kernels' 32-bit lists can tell apart."""

OLDEST = (8, 0)
"""The compute capability that the kernels are built for at the least."""

library: Any = None
missing: str | None = None
try:
    from .. import _cuda as library
except ImportError as error:
    missing = f"the CUDA library is missing: sure_fast was built without nvcc ({error})"

device_type = "cuda"
"""What the library's pointers point to; an emulation of it sets "cpu"."""


def supports(name: str, t: Tensor, most: int = MOST_ELEMENTS) -> str | None:
    """Why the kernels cannot run on argument `name`, or None."""
    if t.device.type != device_type:
        return f"the {name} is on {t.device}, not on a CUDA device"
    if missing is not None:
        return missing
    if t.numel() > most:
        return f"the {name} has {t.numel()} elements, more than {most}"
    return architecture(t.device.index) if t.is_cuda else None


def architecture(index: int | None) -> str | None:
    """Why the kernels cannot run on a CUDA device, or None."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    return _architecture_of(torch.cuda.current_device() if index is None else index)


# torch.compiler.assume_constant_result does the same, and imports the compiler with it
architecture._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _architecture_of(index: int) -> str | None:
    found = torch.cuda.get_device_capability(index)
    if found >= OLDEST:
        return None
    return f"the device has compute capability {found[0]}.{found[1]}, and the kernels need {OLDEST[0]}.{OLDEST[1]}"


@functools.cache
def _multiprocessors(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count


@contextmanager
def queue(t: Tensor) -> Iterator[Any]:
    """The current stream of the tensor's device, which is the current device inside the block."""
    if not t.is_cuda:
        yield library.Queue(0, 2)
        return
    with torch.cuda.device(t.device):
        yield library.Queue(torch.cuda.current_stream().cuda_stream, _multiprocessors(torch.cuda.current_device()))


def address(t: Tensor) -> int:
    """For the library's kernels, which would crash on memory of another device."""
    if t.device.type != device_type:
        raise ValueError(f"expected a tensor on a CUDA device for its kernels, got one on {t.device}")
    return t.data_ptr()


def workspace(size: int, like: Tensor) -> Tensor:
    """A kernel's scratch memory, `size` bytes on the device of `like`."""
    return torch.empty(max(size, 1), dtype=torch.uint8, device=like.device)
