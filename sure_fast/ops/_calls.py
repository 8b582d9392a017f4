"""What calls of the compiled kernels need: whether the CUDA library can run, on what it runs, memory and layouts.

Tensors cross to `_cpu` and `_cuda` as they are: csrc/bindings/tensor.h reads pointer, dtype, sizes and strides, refuses
memory of another device, and every object of arguments keeps its tensors alive."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .. import _cpu

MOST_ELEMENTS = 2**32 - 1
"""Elements of a map that the kernels' 32-bit lists can tell apart."""

library: Any = None
missing: str | None = None
try:
    from .. import _cuda as library
except ImportError as error:
    missing = f"the CUDA library is missing: sure_fast was built without nvcc ({error})"

device_type = "cuda"
"""Whose memory the library takes; an emulation of it sets "cpu"."""


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
    """Why the library's kernels cannot run on a CUDA device, or None."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    return _not_built_for(torch.cuda.current_device() if index is None else index)


# torch.compiler.assume_constant_result does the same, and imports the compiler with it
architecture._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _not_built_for(index: int) -> str | None:
    driver, own = library.versions()
    if driver // 1000 < own // 1000:
        return (
            f"the driver of cuda:{index} knows CUDA up to {_version(driver)}, and the CUDA library was built by nvcc "
            f"{_version(own)}; update the driver, or build sure_fast with an nvcc {driver // 1000}"
        )
    major, minor = torch.cuda.get_device_capability(index)
    if runs_on((major, minor)):
        return None
    name = torch.cuda.get_device_name(index)
    return (
        f"cuda:{index} ({name}) has compute capability {major}.{minor}, and the CUDA library was built for "
        f"{built_for()}; build sure_fast again with SURE_FAST_CUDA_ARCHS={major}{minor}"
    )


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def runs_on(capability: tuple[int, int]) -> bool:
    """Whether the library has code for it: machine code runs on the later minor versions of its own major one, PTX on
    everything later."""
    own = 10 * capability[0] + capability[1]
    return own >= library.PTX or any(number // 10 == capability[0] and own >= number for number in library.SASS)


def built_for() -> str:
    """The compute capabilities that the library was built for."""
    *most, last = (f"{number // 10}.{number % 10}" for number in library.SASS)
    listed = f"{', '.join(most)} and {last}" if most else last
    return f"{listed} with PTX of {library.PTX // 10}.{library.PTX % 10}"


@functools.cache
def _multiprocessors(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count


@contextmanager
def stream(t: Tensor) -> Iterator[Any]:
    """The current stream of the tensor's device, which is the current device inside the block."""
    if not t.is_cuda:
        yield library.Stream(0, 2)
        return
    with torch.cuda.device(t.device):
        yield library.Stream(torch.cuda.current_stream().cuda_stream, _multiprocessors(torch.cuda.current_device()))


def workspace(size: int, like: Tensor | None = None) -> Tensor:
    """A kernel's scratch memory, `size` bytes on the CPU or the device of `like`."""
    return torch.empty(max(size, 1), dtype=torch.uint8, device=None if like is None else like.device)


def single_or_double(t: Tensor) -> Tensor:
    """The tensor in a dtype that the kernels of maps compute with: half precision as float32."""
    return t if t.dtype in (torch.float32, torch.float64) else t.to(torch.float32)


def one_stride(t: Tensor) -> Tensor:
    """[N, C, *S] as the kernels read it, [N, C, V]: a copy where *S does not step by one stride."""
    return t if _cpu.has_one_stride(t) else t.contiguous()


def empty_gradient(logits: Tensor) -> Tensor:
    """Uninitialised, [N, C, *S] that a kernel writes as [N, C, V]: with the strides of the logits where it could read
    them so. What a fake kernel promises is made of it too, since compiled code relies on the strides."""
    return torch.empty_like(logits.flatten(2)).unflatten(2, logits.shape[2:])
