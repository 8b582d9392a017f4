"""Distance of every voxel to the label boundary."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .. import _backends, _checks, _cpu
from ..reference.boundary_distance import boundary_distance as _reference
from . import _triton
from ._calls import workspace


def _cpu_supports(label: Tensor, *_: object, **__: object) -> str | None:
    return None if label.device.type == "cpu" else f"the label is on {label.device}, not on the CPU"


def _triton_supports(label: Tensor, *_: object, **__: object) -> str | None:
    if label.shape[-1] * label.shape[-2] > _triton.MOST_IN_PLANE:
        return f"a plane of the label has {label.shape[-1] * label.shape[-2]} voxels, more than 2^30"
    if label.dim() == 4 and label.shape[1] > _triton.MOST_IMAGES:
        return f"the label has {label.shape[1]} planes, more than {_triton.MOST_IMAGES}"
    return _triton.why_not("the label", label)


_backends.register("boundary_distance", cpu=_cpu_supports, triton=_triton_supports)


def _run(
    kernel: Callable[[_cpu.BoundaryArgs, Tensor, Tensor], bool],
    label: Tensor,
    spacing: Sequence[float],
    limit: float,
    ignore_index: int | None,
    out: Tensor,
) -> None:
    """Writes `out` with labels compared as bytes or, where they do not fit, as int64."""
    label = label.contiguous()
    for wide in (False, True):
        args = _cpu.BoundaryArgs(
            label, step=tuple(spacing), limit=limit, ignore=ignore_index, wide=wide, threads=torch.get_num_threads()
        )
        scratch = workspace(_cpu.boundary_distance_workspace(args))
        if kernel(args, scratch, out):
            return


def fits_bytes(max_distance: float) -> bool:
    """`_cpu.squares_fit_bytes(max_distance, 1.0)`, which torch.compile does not trace."""
    return max_distance * _cpu.SLACK < _cpu.BYTE_REACH


def write_squares(
    label: Tensor,
    max_distance: float,
    ignore_index: int | None,
    backend: str,
    squares: Tensor,
    distances: Tensor | None = None,
) -> None:
    """Squared distances of label [N, *S] in voxels, uint8: BEYOND those farther than a max_distance that fits, IGNORED
    on ignored voxels; and the distances, float32, inf and NaN there. On the backend "cpu" or "triton"."""
    unit = [1.0] * (label.dim() - 1)
    if backend == "triton":
        from ..kernels import boundary_distance as kernels

        kernels.forward(label, unit, max_distance, ignore_index, squares, distances)
        return
    _run(_cpu.boundary_distance_squared, label, unit, max_distance, ignore_index, squares)
    if distances is not None:
        roots = torch.arange(256, dtype=torch.float32).sqrt_()
        roots[_cpu.BEYOND], roots[_cpu.IGNORED] = torch.inf, torch.nan
        torch.index_select(roots, 0, squares.flatten().int(), out=distances.view(-1))


@torch.library.custom_op("sure_fast::boundary_squares", mutates_args=())
def boundary_squares(
    label: Tensor, max_distance: float, ignore_index: int | None, backend: str
) -> tuple[Tensor, Tensor]:
    """What `write_squares` writes: squares, distances."""
    squares, distances = _empty_squares(label)
    if label.numel():
        write_squares(label, max_distance, ignore_index, backend, squares, distances)
    return squares, distances


@boundary_squares.register_fake
def _empty_squares(label: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return label.new_empty(label.shape, dtype=torch.uint8), label.new_empty(label.shape, dtype=torch.float32)


@torch.library.custom_op("sure_fast::boundary_distance", mutates_args=())
def _op(
    label: Tensor, spacing: Sequence[float], max_distance: float | None, ignore_index: int | None, backend: str
) -> Tensor:
    out = _empty(label)
    if out.numel() == 0:
        return out
    if backend == "triton":
        from ..kernels import boundary_distance as kernels

        kernels.forward(label, spacing, max_distance, ignore_index, out)
        return out
    limit = -1.0 if max_distance is None else max_distance
    _run(_cpu.boundary_distance_forward, label, spacing, limit, ignore_index, out)
    return out


@_op.register_fake
def _empty(label: Tensor, *_: object) -> Tensor:
    return label.new_empty(label.shape, dtype=torch.float32)


def boundary_distance(
    label: Tensor,
    *,
    spacing: Sequence[float] | float | None = None,
    max_distance: float | None = None,
    ignore_index: int | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Euclidean distance of every voxel to the nearest boundary voxel of its label map, 0 on the boundary.

    Math:
        A voxel is a boundary voxel when its full neighbourhood (3×3 or 3×3×3, clipped at the image border) holds more
        than one label: the union over the classes of "thick" boundaries. With :math:`B` the boundary voxels of one
        image and :math:`s` the spacing, :math:`d_i = \min_{j \in B} \sqrt{\sum_a s_a^2 (i_a - j_a)^2}`.
        This is the distance that weights the uncertainty supervision of Li et al., MICCAI 2025 (arXiv 2509.17098).

    Args:
        label: [N, \*S] or, in 3D, [N, 1, \*S], integer, 2 or 3 spatial axes. [N, 1, H, W] is read as a volume
            [N, D=1, H, W], whose distances are the same.
        spacing: voxel size per spatial axis (mm); None measures in voxels.
        max_distance: in the unit of the result. Exact up to it (a distance larger by 1e-6 of it still counts), +inf
            beyond; None: exact everywhere.
        ignore_index: voxels of this label are neither boundary nor part of a neighbourhood.

    Returns:
        [N, \*S] float32, in voxels or mm; +inf in an image without a boundary.

    Raises:
        TypeError: `label` is not an integer tensor.
        ValueError: a wrong shape, spacing, max_distance or backend; one map per class [N, C, H, W] (on the CPU).

    Grad:
        None: labels are not differentiated.

    Notes:
        Deterministic. An empty batch or axis gives an empty result. With `max_distance` below 16 voxels of equal
        spacing the work is in bytes, several times faster.

    Example:
        >>> import sure_fast, torch
        >>> label = torch.tensor([[[0, 0, 0, 1, 1]]])
        >>> sure_fast.boundary_distance(label)
        tensor([[[2., 1., 0., 0., 1.]]])
    """
    label = _checks.label("label", label)
    steps = _checks.spacing(spacing, label.dim() - 1)
    if max_distance is not None:
        max_distance = _checks.positive("max_distance", max_distance, zero=True)
    ignore_index = _checks.index("ignore_index", ignore_index)
    chosen = _backends.choose("boundary_distance", backend, label)
    if chosen != "reference":
        return _op(label, steps or [1.0] * (label.dim() - 1), max_distance, ignore_index, chosen)
    return _reference(label, spacing=steps, max_distance=max_distance, ignore_index=ignore_index)
