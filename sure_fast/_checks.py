"""Argument checks shared by the ops: one line that names the argument, what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _cpu

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
        hint = "; use .long() on labels"
        hint += ", .argmax(1) on one map per class" if t.dtype.is_floating_point else ""
        raise TypeError(f"{name}: expected an integer tensor (uint8, int8, int16, int32 or int64), got {t.dtype}{hint}")
    return t


def whole(name: str, value: object) -> Tensor:
    """Labels in an integer type: as they are, of booleans, or of whole numbers in a floating type, as MONAI loads them.

    What is no whole number becomes a label that no network has, which is refused or left out as such: on a GPU and in a
    compiled step nobody looks at the values.
    """
    t = tensor(name, value)
    if t.dtype == torch.bool:
        return t.to(torch.uint8)
    if t.dtype not in FLOATS:
        return integer(name, t)
    constant(name, t)
    exact = (t == t.round()) & (t.abs() < 2**31)
    if t.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(exact.all()):
        raise ValueError(
            f"{name}: expected whole numbers as labels, got {t[~exact][0].item():g}; "
            "use .argmax(1) on one map per class"
        )
    return t.where(exact, 0.0).to(torch.int64).masked_fill(~exact, NO_LABEL)


NO_LABEL = -(2**62)
"""In the place of a label that is no whole number."""


def equals(value: Tensor, number: int) -> Tensor:
    """value == number, for integers; PyTorch would wrap a number that the type cannot hold: uint8 255 == -1."""
    limits = torch.iinfo(value.dtype)
    if limits.min <= number <= limits.max:
        return value == number
    return torch.zeros_like(value, dtype=torch.bool)


def counted(value: Tensor, ignore_index: int | None) -> Tensor:
    """bool: the labels that are not ignored."""
    if ignore_index is None:
        return torch.ones_like(value, dtype=torch.bool)
    return ~equals(value, ignore_index)


def not_one_hot(name: str, value: Tensor) -> None:
    """[N, C, *S] of 0 and 1 with one 1 in every voxel would be read as a volume. A few lines settle most volumes.

    Looks at the values: outside of compilation, and for CPU tensors.
    """
    if value.dim() != 4 or value.shape[1] < 2 or value.numel() == 0:
        return
    if value.device.type != "cpu" or torch.compiler.is_compiling():
        return
    few = value[:1, :, :: max(1, value.shape[2] // 3), :: max(1, value.shape[3] // 3)]
    for part in (few, value):
        if not (bool(((part == 0) | (part == 1)).all()) and bool((part.sum(1) == 1).all())):
            return
    raise ValueError(
        f"{name}: expected labels [N, *S], got one map per class {shape_text(value.shape)}, one 1 in every voxel; "
        "use .argmax(1), or give a volume of such labels as [N, 1, D, H, W]"
    )


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
    if isinstance(value, (list, tuple)):
        raise TypeError(f"{name}: expected one output of the network, such as the first, got a {type(value).__name__}")
    t = batched_image(name, value)
    if t.shape[1] < 2:
        raise ValueError(f"{name}: expected [N, C, *S] with at least 2 classes, got shape {shape_text(t.shape)}")
    return t


def label(name: str, value: object, like: Tensor | None = None, like_name: str = "logits") -> Tensor:
    """[N, *S] or [N, 1, *S], as `whole` takes it; returned as [N, *S], held against `like` [N, C, *S] when given."""
    t = whole(name, value)
    if like is not None:
        wanted = (like.shape[0], *like.shape[2:])
        if tuple(t.shape) == (wanted[0], 1, *wanted[1:]):
            t = t.squeeze(1)
        if tuple(t.shape) != wanted:
            hint = "; use .argmax(1) on one map per class" if t.shape == like.shape else ""
            raise ValueError(
                f"{name}: expected {shape_text(wanted)} or [N, 1, *S] to match {like_name} "
                f"{shape_text(like.shape)}, got {shape_text(t.shape)}{hint}"
            )
        same_device(name, t, like_name, like)
        return t
    if t.dim() == 5 and t.shape[1] == 1:
        t = t.squeeze(1)
    elif t.dim() == 4:
        not_one_hot(name, t)
    if t.dim() not in (3, 4):
        raise ValueError(
            f"{name}: expected [N, H, W], [N, D, H, W] or [N, 1, D, H, W], got shape {shape_text(t.shape)}"
        )
    return t


def labels_in_range(name: str, value: Tensor, num_classes: int, ignore_index: int | None = None) -> None:
    """Every label in [0, num_classes) or ignore_index. Looks at the values: for CPU tensors outside of compilation."""
    if value.numel() == 0 or value.device.type != "cpu" or torch.compiler.is_compiling():
        return
    # a bound that the type cannot hold would be wrapped into it
    bad = value < 0
    if num_classes <= torch.iinfo(value.dtype).max:
        bad = bad | (value >= num_classes)
    bad = bad & counted(value, ignore_index)
    if bool(bad.any()):
        label_error(name, num_classes, ignore_index, int(value[bad][0]))


def label_error(name: str, num_classes: int, ignore_index: int | None, label: int | str) -> None:
    if label == NO_LABEL:
        raise ValueError(f"{name}: expected whole numbers as labels, got one that is none")
    allowed = f"[0, {num_classes})" + ("" if ignore_index is None else f" or ignore_index={ignore_index}")
    raise ValueError(f"{name}: expected labels in {allowed}, got {label}")


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
    """Patch centers int64 [N, P, D] for maps `like` [N, *S], noise levels [2], and which centers exist, bool [N, P]."""
    points, exist = centers_and_valid(centers, valid, like.shape, like)
    return points, onto("levels", noise_levels(levels), like.device), exist


def centers_and_valid(centers: object, valid: object, image: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Patch centers int64 [N, P, D] and which exist, bool [N, P], for images [N, *S] on the device of `like`.

    Whether they are inside is for `inside_image` to look at, where they are used: in a compiled step too.
    """
    points = integer("centers", centers)
    dims = len(image) - 1
    if points.dim() != 3 or points.shape[0] != image[0] or points.shape[2] != dims:
        raise ValueError(f"centers: expected [N={image[0]}, P, {dims}], got shape {shape_text(points.shape)}")
    same_device("centers", points, "the images", like)
    if valid is None:
        exist = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
    else:
        exist = tensor("valid", valid)
        if exist.dtype != torch.bool or exist.shape != points.shape[:2]:
            raise ValueError(
                f"valid: expected bool {shape_text(points.shape[:2])}, got {exist.dtype} {shape_text(exist.shape)}"
            )
        same_device("valid", exist, "the images", like)
    return points.long(), exist


def inside_image(centers: Tensor, valid: Tensor, image: Sequence[int], patch: Sequence[int] | None = None) -> None:
    """Of patches that exist: kernels index with them. Looks at the values of CPU tensors."""
    if centers.device.type != "cpu" or centers.numel() == 0 or torch.compiler.is_compiling():
        return
    margin = torch.tensor([0] * len(image) if patch is None else [edge // 2 for edge in patch])
    outside = ((centers < margin) | (centers >= torch.tensor(list(image)) - margin)).any(-1) & valid
    if bool(outside.any()):
        room = "" if patch is None else f" with room for a patch of {shape_text(patch)}"
        raise ValueError(
            f"centers: expected voxel indices inside {shape_text(image)}{room}, got {centers[outside][0].tolist()}"
        )


def noise_levels(value: object, copies: int = 2) -> Tensor:
    """One level a noisy copy, [copies]."""
    levels = floating("levels", value)
    if levels.shape != (copies,):
        raise ValueError(f"levels: expected shape [{copies}], got {shape_text(levels.shape)}")
    constant("levels", levels)
    seen = levels.device.type == "cpu" and not torch.compiler.is_compiling()
    if seen and not all(map(math.isfinite, levels.tolist())):
        raise ValueError(f"levels: expected finite numbers, got {levels.tolist()}")
    return levels


def has_tangent(value: object) -> bool:
    """Whether forward-mode differentiation goes through a tensor."""
    if forward_ad._current_level < 0 or not isinstance(value, Tensor):
        return False
    return forward_ad.unpack_dual(value).tangent is not None


def constant(name: str, value: Tensor) -> None:
    """What is not differentiated is refused where a derivative is wanted, rather than given none."""
    if has_tangent(value):
        raise ValueError(f"{name}: has a tangent, but nothing is differentiated in it; pass {name}.detach()")
    if value.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name}: requires grad, but the loss is not differentiated in it; pass {name}.detach()")


def same_device(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if value.device != other.device:
        raise ValueError(f"{name}: expected the device of {other_name} ({other.device}), got {value.device}")


def choice(name: str, value: object, allowed: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {_shown(value)}")
    return value


def _shown(value: object) -> str:
    """A value in an error, one line: of a tensor or an array its type and shape."""
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{type(value).__name__} {value.dtype} {shape_text(value.shape)}"
    return repr(value)


def real(name: str, value: object, wanted: str) -> None:
    """An int or float, NumPy's included; neither a flag nor a tensor, whose value would have to be waited for."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected {wanted}, got {_shown(value)}")


def positive(name: str, value: float, *, zero: bool = False, infinite: bool = False) -> float:
    """A finite number > 0, or >= 0 with `zero`; with `infinite` infinity too."""
    wanted = f"a {'' if infinite else 'finite '}number {'>= 0' if zero else '> 0'}"
    real(name, value, wanted)
    number = float(value)
    if not (number >= 0.0 if zero else number > 0.0) or (number == float("inf") and not infinite):
        raise ValueError(f"{name}: expected {wanted}, got {value!r}")
    return number


def reach(name: str, value: float) -> float:
    """A threshold of distances, so that one in float that was meant to be equal to it is within."""
    return positive(name, value, zero=True) * _cpu.SLACK


def finite(name: str, value: float) -> float:
    real(name, value, "a finite number")
    number = float(value)
    if not abs(number) < float("inf"):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return number


def count(name: str, value: int, *, least: int = 1, most: int = 2**53) -> int:
    """An integer from `least` to `most`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer >= {least}, got {_shown(value)}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    if value > most:
        raise ValueError(f"{name}: expected at most {most}, got {value}")
    return int(value)


LARGEST_TABLE = 65536
"""Of what an op or a metric makes a table: classes, bins, levels."""
table_size = partial(count, most=LARGEST_TABLE)


def index(name: str, value: int | None) -> int | None:
    """A label's number, or None."""
    if value is None:
        return None
    return seed(name, value, "an integer, or None")


def seed(name: str, value: int, wanted: str = "an integer") -> int:
    """An integer of 64 bits, of any sign."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected {wanted}, got {_shown(value)}")
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name}: expected an integer of 64 bits, got {value}")
    return int(value)


def flag(name: str, value: bool) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {_shown(value)}")
    return bool(value)


def generator(value: torch.Generator | None) -> None:
    if value is not None and not isinstance(value, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator or None, got {_shown(value)}")


def onto(name: str, t: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """On the device; nothing waits but for a copy to the CPU. A CUDA graph would read the host's memory at every
    replay, when it holds something else."""
    crosses = t.device.type == "cpu" and device.type == "cuda"
    if crosses and not torch.compiler.is_compiling() and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(f"{name}: expected it on {device} while a CUDA graph is captured, got it on the CPU")
    return t.to(device, dtype, non_blocking=device.type != "cpu")


def numbers(name: str, value: object, what: str) -> list[Any]:
    """A sequence of numbers as a list."""
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 1:
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name}: expected {what}, got {_shown(value)}")
    for entry in value:
        real(name, entry, what)
    return list(value)


def weights(name: str, value: Any, number: int | None = None) -> list[float] | Tensor | None:
    """Constants >= 0, one of them > 0, or None; `number` of them where it is known. Of tensors those on the CPU."""
    if value is None:
        return None
    what = f"{'' if number is None else f'{number} '}finite numbers >= 0, not all 0"
    if isinstance(value, Tensor):
        if value.requires_grad or has_tangent(value):
            raise ValueError(f"{name}: expected constants, got a tensor that requires a gradient")
        if value.dim() != 1 or (number is not None and len(value) != number):
            raise ValueError(f"{name}: expected {what}, got {_shown(value)}")
        if value.device.type == "cpu" and not torch.compiler.is_compiling():
            weights(name, value.tolist(), number)
        return value
    values = [float(w) for w in numbers(name, value, what)]
    if number not in (None, len(values)) or not all(0 <= w < float("inf") for w in values) or not sum(values) > 0:
        raise ValueError(f"{name}: expected {what}, got {values}")
    return values


def are_sizes(values: Iterable[float]) -> bool:
    """Whether kernels, which square distances in float32, can do with these sizes of a voxel; NaN is none."""
    return all(1e-12 <= value <= 1e12 for value in values)


def spacing(value: Sequence[float] | float | None, dims: int | None = None) -> list[float] | None:
    """Voxel size per spatial axis, or None for voxels; `dims` None: of an image whose axes are not known yet."""
    if value is None:
        return None
    what = f"one number from 1e-12 to 1e12 or {'2 or 3' if dims is None else dims} of them"
    if isinstance(value, (int, float, np.integer, np.floating)):
        real("spacing", value, what)
        values = [float(value)] * (dims or 2)
    else:
        values = [float(v) for v in numbers("spacing", value, what)]
    if len(values) not in ((2, 3) if dims is None else (dims,)) or not are_sizes(values):
        raise ValueError(f"spacing: expected {what}, got {value!r}")
    return values


def patch_size(value: int | Sequence[int], dims: int | None = None) -> tuple[int, ...]:
    """Odd edges of a patch in voxels, one per spatial axis; `dims` None: of an image whose axes are not known yet."""
    what = f"one odd number >= 1 or {'2 or 3' if dims is None else dims} of them"
    single = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    edges: list[Any] = [value] * (dims or 2) if single else numbers("patch_size", value, what)
    if any(not isinstance(edge, (int, np.integer)) for edge in edges):
        raise TypeError(f"patch_size: expected {what}, got {_shown(value)}")
    if len(edges) not in ((2, 3) if dims is None else (dims,)) or any(s < 1 or s % 2 == 0 for s in edges):
        raise ValueError(f"patch_size: expected {what}, got {value!r}")
    return tuple(int(edge) for edge in edges)


def room_for(size: Sequence[int], image: Sequence[int]) -> None:
    """A patch has to fit into the image."""
    if any(0 < n < edge for n, edge in zip(image, size, strict=True)):
        raise ValueError(
            f"patch_size: expected a patch that fits into the image {shape_text(image)}, got {shape_text(size)}; "
            "give one edge per axis, 1 along a short one"
        )
