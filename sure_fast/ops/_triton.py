"""Whether the Triton kernels can run. Triton itself is imported when the first of them does."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re

import torch
from torch import Tensor

from . import _calls

OLDEST = (3, 6)
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
    return _calls.architecture(t.device.index) if t.is_cuda else None
