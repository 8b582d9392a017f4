"""Tensors as the raw pointers, sizes and strides that the compiled kernels take."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _cpu

DTYPES = {  # the order of `enum class DType` in csrc/math/storage.h
    torch.float32: 0,
    torch.float64: 1,
    torch.bfloat16: 2,
    torch.float16: 3,
    torch.uint8: 4,
    torch.int8: 5,
    torch.int16: 6,
    torch.int32: 7,
    torch.int64: 8,
}


def address(t: Tensor) -> int:
    """For the CPU's kernels, which would crash on memory of another device."""
    if t.device.type != "cpu":
        raise ValueError(f"expected a tensor on the CPU for its kernels, got one on {t.device}")
    return t.data_ptr()


def workspace(size: int) -> Tensor:
    """A kernel's scratch memory, `size` bytes."""
    return torch.empty(max(size, 1), dtype=torch.uint8)


def single_or_double(t: Tensor) -> Tensor:
    """The tensor in a dtype that the kernels of maps compute with: half precision as float32."""
    return t if t.dtype in (torch.float32, torch.float64) else t.to(torch.float32)


def native_view(t: Tensor) -> tuple[Tensor, _cpu.View]:
    """[N, C, *S] as the kernels read it, [N, C, V]; the tensor is copied where *S does not step by one stride."""
    stride = _voxel_stride(t)
    if stride is None:
        t = t.contiguous()
        stride = 1
    voxels = t[0, 0].numel() if t.shape[0] and t.shape[1] else 0
    sizes = (t.shape[0], t.shape[1], voxels)
    return t, _cpu.View(address(t), DTYPES[t.dtype], sizes, (t.stride(0), t.stride(1), stride))


def _voxel_stride(t: Tensor) -> int | None:
    """The stride of the flattened spatial axes, or None where they have no single one."""
    expected: int | None = None
    first = 1
    for size, stride in zip(reversed(t.shape[2:]), reversed(t.stride()[2:]), strict=True):
        if size == 1:
            continue
        if expected is None:
            first = expected = stride
        if stride != expected:
            return None
        expected *= size
    return first
