"""Distances between the surfaces of every class of two label maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _backends, _checks, _cpu
from ..reference.surface_distances import surface_distances as _reference
from . import _calls
from ._calls import workspace


class SurfaceDistances(NamedTuple):
    """Of every image and foreground class, float64 [N, C - 1]; NaN where a surface is missing."""

    hausdorff: Tensor
    """Largest distance from either surface to the other."""
    percentile: Tensor
    """The larger of the two directed percentiles; HD95 for 95."""
    average: Tensor
    """Mean over the surface voxels of both; ASSD."""
    within: Tensor
    """Share of the surface voxels of both that are within the tolerance of the other; NSD."""
    voxels: Tensor
    """int64 [N, C - 1, 2]: surface voxels of prediction and target."""


def _cpu_supports(prediction: Tensor, target: Tensor, *_: object, **__: object) -> str | None:
    return None if prediction.device.type == "cpu" else f"the labels are on {prediction.device}, not on the CPU"


VOXELS_AT_ONCE = 1 << 25
"""Voxels of the boxes of classes that the CUDA kernels measure together, which bounds their scratch memory."""


def _cuda_supports(prediction: Tensor, target: Tensor, *_: object, **__: object) -> str | None:
    return _calls.supports("prediction", prediction, most=2**31 - 1)


_backends.register("surface_distances", cpu=_cpu_supports, cuda=_cuda_supports)


# On a GPU it reads sizes from the device: torch.compile is to leave it out of CUDA graphs, where torch has the tag.
_UNSAFE = getattr(torch.Tag, "cudagraph_unsafe", None)
_TAGS: dict[str, Any] = {} if _UNSAFE is None else {"tags": (_UNSAFE,)}


@torch.library.custom_op("sure_fast::surface_distances", mutates_args=(), device_types=("cpu", "cuda"), **_TAGS)
def _op(
    prediction: Tensor,
    target: Tensor,
    num_classes: int,
    spacing: Sequence[float],
    percentile: float,
    tolerance: float,
    ignore_index: int | None,
    backend: str = "cpu",
) -> Tensor:
    """The reference's records."""
    records = target.new_zeros((len(target), num_classes, _cpu.SURFACE_RECORD), dtype=torch.float64)
    if target.numel():
        prediction, target = prediction.contiguous(), target.contiguous()
        common = (prediction, target, num_classes, ignore_index, tuple(spacing), percentile / 100, tolerance)
        if backend == "cuda":
            records[..., 2:] = torch.nan
            _run_cuda(_calls.library.SurfaceArgs(*common), prediction, target, num_classes, ignore_index, records)
            return records[:, 1:].clone()
        threads = torch.get_num_threads()
        args = _cpu.SurfaceArgs(*common, threads=threads)
        labels = torch.empty((2, *target.shape), dtype=torch.int16)
        boxes = torch.empty((threads, len(target), num_classes, _cpu.SURFACE_BOX), dtype=torch.int32)
        bad, largest = _cpu.surface_distances_boxes(args, labels, boxes)
        if bad:
            _checks.labels_in_range("prediction", prediction, num_classes)
            _checks.labels_in_range("target", target, num_classes, ignore_index)
        scratch = workspace(_cpu.surface_distances_workspace(args, largest))
        _cpu.surface_distances_forward(args, labels, boxes, largest, scratch, records)
    else:
        records[..., 2:] = torch.nan
    return records[:, 1:].clone()


def _run_cuda(
    args: Any, prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int | None, records: Tensor
) -> None:
    library = _calls.library
    labels = target.new_empty((2, *target.shape), dtype=torch.int16)
    boxes = target.new_empty((len(target), num_classes, _cpu.SURFACE_BOX), dtype=torch.int32)
    bad = target.new_empty(1, dtype=torch.int64)
    with _calls.stream(target) as stream:
        library.surface_boxes(args, stream, labels, boxes, bad)
        if int(bad):
            _checks.labels_in_range("prediction", prediction.cpu(), num_classes)
            _checks.labels_in_range("target", target.cpu(), num_classes, ignore_index)
        for tasks in _rounds(boxes.cpu().long()):
            number, voxels, rows = len(tasks) - 1, int(tasks[-1, 0]), int(tasks[-1, 1])
            tasks = tasks.to(target.device)
            lists = workspace(library.surface_list_workspace(args, stream, number, voxels), target)
            begins = target.new_empty(2 * number + 1, dtype=torch.int32)
            library.surface_list(args, stream, labels, tasks, number, voxels, lists, begins)
            listed = int(begins[-1]) % 2**32
            scratch = workspace(library.surface_measure_workspace(args, stream, number, voxels, listed), target)
            library.surface_measure(args, stream, tasks, number, voxels, rows, listed, lists, begins, scratch, records)


def _rounds(boxes: Tensor) -> Iterator[Tensor]:
    """Of boxes [N, C, 6]: rows of `SurfaceTask` of csrc/args/surface_distances.h, an empty one at the end."""
    first, size = boxes[..., 0::2], boxes[..., 1::2] - boxes[..., 0::2] + 1
    image, label = (size > 0).all(-1).nonzero().unbind(1)
    image, label = image[label > 0], label[label > 0]
    first, size = first[image, label], size[image, label]
    volume = size.prod(1)
    begin = 0
    while begin < len(volume):
        fit = int((volume[begin:].cumsum(0) <= VOXELS_AT_ONCE).sum())
        part = slice(begin, begin + max(fit, 1))
        tasks = torch.zeros((len(volume[part]) + 1, _cpu.SURFACE_TASK), dtype=torch.int64)
        tasks[1:, 0] = volume[part].cumsum(0)
        tasks[1:, 1] = size[part, :2].prod(1).cumsum(0)
        tasks[:-1, 2], tasks[:-1, 3] = image[part], label[part]
        tasks[:-1, 4:7], tasks[:-1, 7:] = first[part], size[part]
        yield tasks
        begin = part.stop


@_op.register_fake
def _(prediction: Tensor, target: Tensor, num_classes: int, *_: object) -> Tensor:
    return target.new_empty((target.shape[0], num_classes - 1, _cpu.SURFACE_RECORD), dtype=torch.float64)


def _planar(name: str, value: object) -> Tensor:
    """Labels as [N, *S]; [N, 1, H, W] as two-dimensional."""
    t = _checks.label(name, value)
    channel = isinstance(value, Tensor) and value.dim() == 4 and value.shape[1] == 1
    return t.squeeze(1) if channel else t


def surface_distances(
    prediction: Tensor,
    target: Tensor,
    num_classes: int,
    *,
    spacing: Sequence[float] | float | None = None,
    percentile: float = 95.0,
    tolerance: float = 1.0,
    ignore_index: int | None = None,
    backend: str | None = None,
) -> SurfaceDistances:
    r"""Hausdorff distance, its percentile, average distance and surface overlap of every class, in one call.

    Math:
        :math:`S_c` are the voxels of class c with a neighbour across a face that is not of the class; outside of the
        image nothing is. With P and T of prediction and target, s the spacing and
        :math:`d(i, S) = \min_{j \in S} |s \circ (i - j)|`: Hausdorff :math:`\max(\max_{i \in P} d(i, T),
        \max_{j \in T} d(j, P))`; its percentile takes the percentile (linear between order statistics) in place of each
        inner maximum; average :math:`(\sum_{i \in P} d(i, T) + \sum_{j \in T} d(j, P)) / (|P| + |T|)`; within: the
        share of :math:`P \cup T`, counted apart, with d <= tolerance. These are MONAI's HausdorffDistanceMetric,
        symmetric SurfaceDistanceMetric and SurfaceDiceMetric without subvoxels.

    Args:
        prediction, target: integer labels [N, \*S] or [N, 1, \*S], in [0, num_classes). [N, 1, H, W] is planar; a
            volume of one plane, all of whose voxels are at its surface, is [N, 1, 1, H, W].
        num_classes: C <= 65536, the background 0 included.
        spacing: voxel size per spatial axis (mm); None measures in voxels.
        percentile: in [0, 100].
        tolerance: of `within`, in the unit of the result; a distance larger by 1e-6 of it still counts.
        ignore_index: voxels of this label in `target` are background in both.

    Returns:
        SurfaceDistances(hausdorff, percentile, average, within, voxels) of classes 1 … C - 1, in voxels or mm.

    Raises:
        TypeError: a label map that is not integer.
        ValueError: shapes that differ, a label outside [0, C) (on a GPU not by the reference), a wrong option.

    Grad:
        None: labels are not differentiated.

    Notes:
        Deterministic. A surface is missing where the class is: `voxels` says in which map. An empty batch or axis has
        none. The work is in the box that holds the class in either map.

    Example:
        >>> import sure_fast, torch
        >>> target = torch.zeros(1, 8, 8, dtype=torch.long)
        >>> target[:, 2:5, 2:5] = 1
        >>> sure_fast.surface_distances(target.roll(1, 1), target, 2, spacing=(1.5, 1.0)).percentile
        tensor([[1.5000]], dtype=torch.float64)
    """
    target, prediction = _planar("target", target), _planar("prediction", prediction)
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction: expected the shape of target {_checks.shape_text(target.shape)}, "
            f"got {_checks.shape_text(prediction.shape)}"
        )
    _checks.same_device("prediction", prediction, "target", target)
    if not 2 <= _checks.count("num_classes", num_classes, least=0) <= _checks.LARGEST_TABLE:
        raise ValueError(
            f"num_classes: expected 2 to {_checks.LARGEST_TABLE}, the background included, got {num_classes}"
        )
    if not 0.0 <= _checks.finite("percentile", percentile) <= 100.0:
        raise ValueError(f"percentile: expected a number in [0, 100], got {percentile}")
    ignore_index = _checks.index("ignore_index", ignore_index)
    tolerance = _checks.positive("tolerance", tolerance, zero=True)
    steps = _checks.spacing(spacing, target.dim() - 1) or [1.0] * (target.dim() - 1)
    chosen = _backends.choose("surface_distances", backend, prediction, target)
    if chosen != "reference":
        records = _op(prediction, target, num_classes, steps, percentile, tolerance, ignore_index, chosen)
    else:
        _checks.labels_in_range("prediction", prediction, num_classes)
        _checks.labels_in_range("target", target, num_classes, ignore_index)
        records = _reference(
            prediction, target, num_classes,
            spacing=steps, percentile=percentile, tolerance=tolerance, ignore_index=ignore_index,
        )  # fmt: skip
    forth, back = records[..., 2:6], records[..., 6:10]
    number = records[..., :2].sum(-1)
    return SurfaceDistances(
        torch.maximum(forth[..., 0], back[..., 0]),
        torch.maximum(forth[..., 1], back[..., 1]),
        (forth[..., 2] + back[..., 2]) / number,
        (forth[..., 3] + back[..., 3]) / number,
        records[..., :2].to(torch.int64),
    )
