"""Inputs drawn from a seed: shapes from 1, every dtype, memory layouts, labels of any type, values at the edges."""

from __future__ import annotations

import math

import numpy as np
import torch

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LABELS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool, torch.float32)
EVIDENCE = ("softplus", "relu", "exp")
LAYOUTS = ("contiguous", "channels last", "every other", "slice", "transposed", "expanded")


def one_of(rng, choices):
    return choices[rng.integers(len(choices))]


def size_of(rng, most=9):
    """Two or three axes, some of one voxel."""
    dims = int(rng.integers(2, 4))
    return tuple(1 if rng.random() < 0.1 else int(rng.integers(2, most + 1 if dims == 2 else 6)) for _ in range(dims))


def batch_of(rng):
    return int(rng.integers(0, 4)) if rng.random() < 0.2 else 1 + int(rng.integers(2))


def values(rng, shape, dtype, scale=3.0):
    """Numbers of one dtype; sometimes rounded, so that many are equal."""
    x = rng.normal(size=shape) * scale
    if rng.random() < 0.3:
        x = np.round(x)
    return torch.from_numpy(np.asarray(x, np.float64)).to(dtype)


def laid_out(rng, t):
    """The same values in another memory layout."""
    layout = one_of(rng, LAYOUTS)
    if layout == "channels last" and t.dim() in (4, 5):
        return t.contiguous(memory_format=torch.channels_last if t.dim() == 4 else torch.channels_last_3d)
    if layout == "every other":
        return torch.stack([t, torch.full_like(t, 7)], -1)[..., 0]
    if layout == "slice" and t.dim() > 1:
        return torch.cat([torch.zeros_like(t[:, :1]), t], 1)[:, 1:]
    if layout == "transposed":
        return t.transpose(0, -1).contiguous().transpose(0, -1)
    return t


def labels(rng, shape, classes):
    """Labels [N, *S] in blocks, as int64; the tensor of a drawn type and `ignore_index` that an op is given."""
    fine = rng.integers(0, classes, shape)
    if rng.random() < 0.6 and all(shape):
        coarse = rng.integers(0, classes, (shape[0], *(-(-n // 3) for n in shape[1:])))
        fine = coarse
        for axis, n in enumerate(shape[1:], 1):
            fine = np.take(fine, np.arange(n) // 3, axis)
    dtype = one_of(rng, LABELS)
    if dtype == torch.bool:
        fine = fine % 2
    ignore = one_of(rng, (None, None, -1, 255, 0, classes - 1, classes, 300, -(2**40)))
    limits = {torch.bool: (0, 1), torch.float32: (-(2**24), 2**24)}
    low, high = limits.get(dtype) or (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    if ignore is not None and low <= ignore <= high and rng.random() < 0.7:
        fine = np.where(rng.random(shape) < 0.3, ignore, fine)
    tensor = torch.from_numpy(fine.astype(np.int64))
    return fine.astype(np.int64), laid_out(rng, tensor.to(dtype)), ignore


def array(t):
    return t.detach().double().cpu().numpy()


def agree(got, want, dtype=torch.float64, what="value", *, scale=None, wide=None):
    """Within what `dtype` can hold of numbers as large as `scale`; NaN and infinity at the same places."""
    got, want = (
        np.asarray(array(got) if isinstance(got, torch.Tensor) else got, np.float64),
        np.asarray(want, np.float64),
    )
    assert got.shape == want.shape, f"{what}: expected the shape {want.shape}, got {got.shape}"
    if not want.size:
        return
    assert np.array_equal(np.isnan(got), np.isnan(want)), f"{what}: expected NaN where it is {want}, got {got}"
    there = np.isfinite(want)
    rest = ~there & ~np.isnan(want)
    assert np.array_equal(got[rest], want[rest]), f"{what}: expected {want}, got {got}"
    if not there.any():
        return
    epsilon = {torch.float64: 1e-9, torch.float32: 4e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    size = np.abs(want[there]).max() if scale is None else scale
    bound = (wide or 1.0) * epsilon * max(float(size), 1e-3)
    worst = np.abs(got[there] - want[there]).max()
    assert worst <= bound, f"{what}: expected {want[there].ravel()[:8]}, got {got[there].ravel()[:8]}, {worst:.3g} off"


def spoiled(rng, t):
    """Sometimes with a number that is none."""
    if t.numel() and rng.random() < 0.1:
        t = t.clone()
        t[tuple(rng.integers(n) for n in t.shape)] = one_of(rng, (math.nan, math.inf, -math.inf))
    return t
