"""Argument checks shared by the ops: one line that names the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def shape_text(shape: Sequence[int]) -> str:
    return "[" + ", ".join(str(int(n)) for n in shape) + "]"


def tensor(name: str, value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    # MONAI's MetaTensor: the kernels need none of its metadata
    return _plain(value) if hasattr(value, "as_tensor") else value


def _plain(value: Tensor) -> Tensor:
    """The same memory as a torch.Tensor; written so that torch.compile can trace it, unlike MetaTensor's as_tensor."""
    with torch._C.DisableTorchFunctionSubclass():
        return value.view_as(value)


def floating(name: str, value: object) -> Tensor:
    t = tensor(name, value)
    if t.dtype not in FLOATS:
        raise TypeError(f"{name}: expected float32, float64, bfloat16 or float16, got {t.dtype}")
    return t


def integer(name: str, value: object) -> Tensor:
    t = tensor(name, value)
    if t.dtype not in INTEGERS:
        raise TypeError(f"{name}: expected an integer tensor (uint8, int8, int16, int32 or int64), got {t.dtype}")
    return t


def batched_image(name: str, value: object) -> Tensor:
    """[N, K, *S] with 2 or 3 spatial axes, floating."""
    t = floating(name, value)
    if t.dim() not in (4, 5):
        raise ValueError(f"{name}: expected [N, K, H, W] or [N, K, D, H, W], got shape {shape_text(t.shape)}")
    if t.shape[1] < 1:
        raise ValueError(f"{name}: expected at least one channel, got shape {shape_text(t.shape)}")
    return t


def logits(name: str, value: object) -> Tensor:
    """[N, C, *S] with C >= 2."""
    t = batched_image(name, value)
    if t.shape[1] < 2:
        raise ValueError(f"{name}: expected [N, C, *S] with at least 2 classes, got shape {shape_text(t.shape)}")
    return t


def label(name: str, value: object, like: Tensor | None = None, like_name: str = "logits") -> Tensor:
    """Integer [N, *S] or [N, 1, *S]; returned as [N, *S], held against `like` [N, C, *S] when given."""
    t = integer(name, value)
    if like is not None:
        wanted = (like.shape[0], *like.shape[2:])
        if tuple(t.shape) == (wanted[0], 1, *wanted[1:]):
            t = t.squeeze(1)
        if tuple(t.shape) != wanted:
            raise ValueError(
                f"{name}: expected {shape_text(wanted)} or [N, 1, *S] to match {like_name} "
                f"{shape_text(like.shape)}, got {shape_text(t.shape)}"
            )
        same_device(name, t, like_name, like)
        return t
    if t.dim() == 5 and t.shape[1] == 1:
        t = t.squeeze(1)
    if t.dim() not in (3, 4):
        raise ValueError(
            f"{name}: expected [N, H, W], [N, D, H, W] or [N, 1, D, H, W], got shape {shape_text(t.shape)}"
        )
    return t


def labels_in_range(name: str, value: Tensor, num_classes: int, ignore_index: int | None = None) -> None:
    """Every label in [0, num_classes) or ignore_index. Looks at the values: for CPU tensors outside of compilation."""
    if value.numel() == 0 or value.device.type != "cpu" or torch.compiler.is_compiling():
        return
    bad = (value < 0) | (value >= num_classes)
    if ignore_index is not None:
        bad &= value != ignore_index
    if bool(bad.any()):
        label_error(name, num_classes, ignore_index, int(value[bad][0]))


def label_error(name: str, num_classes: int, ignore_index: int | None, found: int | str) -> None:
    allowed = f"[0, {num_classes})" + ("" if ignore_index is None else f" or ignore_index={ignore_index}")
    raise ValueError(f"{name}: expected labels in {allowed}, got {found}")


def maps(name: str, value: object, like: Tensor | None = None, like_name: str = "uncertainty") -> Tensor:
    """A floating map [N, 1, *S] or [N, *S], returned as [N, *S]; held against `like` [N, *S] when given.

    [N, 1, H, W] is taken as two-dimensional; a volume [N, D, H, W] with D = 1 must be given with its channel axis
    or beside a `like` that settles it.
    """
    t = floating(name, value)
    if like is not None:
        if t.dim() == like.dim() + 1 and t.shape[1] == 1:
            t = t.squeeze(1)
        if t.shape != like.shape:
            raise ValueError(
                f"{name}: expected the shape of {like_name} {shape_text(like.shape)}, got {shape_text(t.shape)}"
            )
        same_device(name, t, like_name, like)
        return t
    if t.dim() in (4, 5) and t.shape[1] == 1:
        t = t.squeeze(1)
    if t.dim() not in (3, 4):
        raise ValueError(f"{name}: expected [N, *S] or [N, 1, *S] with 2 or 3 spatial axes, got {shape_text(t.shape)}")
    return t


def patches(centers: object, levels: object, valid: object, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Patch centers int64 [N, P, D] inside `like` [N, *S], noise levels [2], and which centers exist, bool [N, P]."""
    places = integer("centers", centers)
    dims = like.dim() - 1
    if places.dim() != 3 or places.shape[0] != len(like) or places.shape[2] != dims:
        raise ValueError(f"centers: expected [N={len(like)}, P, {dims}], got shape {shape_text(places.shape)}")
    if valid is None:
        exist = torch.ones(places.shape[:2], dtype=torch.bool, device=places.device)
    else:
        exist = tensor("valid", valid)
        if exist.dtype != torch.bool or exist.shape != places.shape[:2]:
            raise ValueError(
                f"valid: expected bool {shape_text(places.shape[:2])}, got {exist.dtype} {shape_text(exist.shape)}"
            )
    two = floating("levels", levels)
    if two.shape != (2,):
        raise ValueError(f"levels: expected shape [2], got {shape_text(two.shape)}")
    if places.device.type == "cpu" and not torch.compiler.is_compiling():
        outside = ((places < 0) | (places >= torch.tensor(like.shape[1:]))).any(-1) & exist
        if bool(outside.any()):
            raise ValueError(
                f"centers: expected voxel indices inside {shape_text(like.shape[1:])}, "
                f"got {places[outside][0].tolist()}"
            )
    return places.long(), two, exist


def same_device(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if value.device != other.device:
        raise ValueError(f"{name}: expected the device of {other_name} ({other.device}), got {value.device}")


def choice(name: str, value: object, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {value!r}")
    return str(value)


def positive(name: str, value: float, *, zero: bool = False) -> float:
    """A finite number > 0, or >= 0 with `zero`."""
    number = float(value)
    if not (number >= 0.0 if zero else number > 0.0) or number == float("inf"):
        raise ValueError(f"{name}: expected a finite number {'>= 0' if zero else '> 0'}, got {value!r}")
    return number


def spacing(value: Sequence[float] | float | None, dims: int) -> list[float] | None:
    """Voxel size per spatial axis, or None for voxels."""
    if value is None:
        return None
    values = [float(value)] * dims if isinstance(value, (int, float)) else [float(v) for v in value]
    if len(values) != dims or not all(0.0 < v < float("inf") for v in values):
        raise ValueError(f"spacing: expected one number > 0 or {dims} of them, got {value!r}")
    return values
