"""Whether the Triton kernels can run. Triton itself is imported when the first of them does."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import re

import torch
from torch import Tensor

OLDEST = (3, 6)
OLDEST_DEVICE = (8, 0)
"""The compute capability that Triton compiles for at the least."""
MOST_IMAGES = 65535
"""The second axis of a grid."""
MOST_ELEMENTS = 2**40
MOST_IN_PLANE = 2**30
"""Voxels of a plane are numbered in int32."""
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Triton's own debugging mode, in which kernels run on CPU tensors; read when sure_fast is imported."""


def _missing() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed; pip install 'sure_fast[triton]'"
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:  # a build of another name; its version is not known
        return None
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST:
        return f"Triton {version} is installed, {OLDEST[0]}.{OLDEST[1]} or later is needed"
    return None


MISSING = _missing()
"""Why Triton cannot be used on this installation, or None."""


def why_not(name: str, t: Tensor, *, double: bool = False) -> str | None:
    """Why no Triton kernel can run on tensor `name` [N, ...], or None."""
    if t.device.type != "cuda" and not (t.device.type == "cpu" and INTERPRETED):
        return f"{name} is on {t.device}, not on a CUDA device"
    if MISSING is not None:
        return MISSING
    if t.dtype == torch.float64 and not double:
        return f"{name} is float64, and the Triton kernels compute in float32"
    if t.shape[0] > MOST_IMAGES:
        return f"{name} has {t.shape[0]} images, more than {MOST_IMAGES}"
    if t.numel() > MOST_ELEMENTS:
        return f"{name} has {t.numel()} elements, more than 2^40"
    return architecture(t.device.index) if t.is_cuda else None


def architecture(index: int | None) -> str | None:
    """Why Triton's kernels cannot run on a CUDA device, or None."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    return _too_old(torch.cuda.current_device() if index is None else index)


# torch.compiler.assume_constant_result does the same, and imports the compiler with it
architecture._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _too_old(index: int) -> str | None:
    own = torch.cuda.get_device_capability(index)
    if own >= OLDEST_DEVICE:
        return None
    least = f"{OLDEST_DEVICE[0]}.{OLDEST_DEVICE[1]}"
    return f"cuda:{index} has compute capability {own[0]}.{own[1]}, and Triton's kernels need {least}"
