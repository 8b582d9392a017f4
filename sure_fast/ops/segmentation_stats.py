"""Counts and histograms of a segmentation, of which overlap, calibration and error-detection metrics are made."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _backends, _checks, _cpu
from ..reference.segmentation_stats import segmentation_stats as _reference
from . import _triton
from ._calls import one_stride
from .dirichlet_uncertainty import EVIDENCE


class SegmentationStats(NamedTuple):
    """Counts of every image, int64 but for `confidence`."""

    confusion: Tensor
    """[N, C, C]: voxels by label, then prediction."""
    number: Tensor
    """[N, C + 1, bins]: voxels by the predicted probability of each class, and of the top label."""
    confidence: Tensor
    """[N, C + 1, bins] float64: sum of these probabilities."""
    hits: Tensor
    """[N, C + 1, bins]: of these voxels, those of the class; in the last row, those predicted right."""
    uncertainty: Tensor
    """[N, levels]: voxels by u, bin k holding k/levels < u <= (k + 1)/levels."""
    errors: Tensor
    """[N, C + 1, levels]: of these, where label and prediction differ about each class, and where they differ."""


MOST_COUNTS = 2**22
"""Of a histogram over all classes, of which every chunk of the image has its own."""


def _cpu_supports(logits: Tensor, *_: object, **__: object) -> str | None:
    return None if logits.device.type == "cpu" else f"logits are on {logits.device}, not on the CPU"


def _triton_supports(logits: Tensor, *_: object, **__: object) -> str | None:
    if len(logits) and logits[0, 0].numel() >= 2**31:
        return f"an image has {logits[0, 0].numel()} voxels, 2^31 or more"
    return _triton.why_not("logits", logits)


_backends.register("segmentation_stats", cpu=_cpu_supports, triton=_triton_supports)


@torch.library.custom_op("sure_fast::segmentation_stats", mutates_args=())
def _op(
    logits: Tensor, target: Tensor, evidence: str, bins: int, levels: int, ignore_index: int | None, backend: str
) -> Tensor:
    if backend == "triton":
        from ..kernels import segmentation_stats as kernels

        return kernels.forward(logits, target, evidence, bins, levels, ignore_index)
    records = _empty(logits, target, evidence, bins, levels, ignore_index, backend)
    args = _cpu.StatsArgs(
        one_stride(logits), target.contiguous(), ignore=ignore_index, evidence=evidence, bins=bins, levels=levels,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    _cpu.segmentation_stats_forward(args, records)
    return records


@_op.register_fake
def _empty(
    logits: Tensor, target: Tensor, evidence: str, bins: int, levels: int, ignore_index: int | None, backend: str
) -> Tensor:
    classes = logits.shape[1]
    width = classes * classes + 3 * (classes + 1) * bins + (classes + 2) * levels + 1
    return logits.new_empty((logits.shape[0], width), dtype=torch.float64)


def segmentation_stats(
    logits: Tensor,
    target: Tensor,
    *,
    evidence: str = "exp",
    bins: int = 10,
    levels: int = 100,
    ignore_index: int | None = None,
    backend: str | None = None,
) -> SegmentationStats:
    r"""Confusion counts, calibration bins and uncertainty-error histograms of every image, in one pass over the logits.

    Math:
        :math:`\alpha = e(z) + 1`, :math:`p = \alpha / \sum_c \alpha_c`, :math:`u = C / \sum_c \alpha_c`, the prediction
        the class of the largest p, the first of equals. Probability bin k of a class holds k/bins <= p < (k + 1)/bins,
        the last also 1. Dice, IoU, expected calibration error (Guo et al., ICML 2017), the uncertainty-error overlap
        and risk-coverage curves follow from these numbers alone.

    Args:
        logits: [N, C, \*S] floating, C >= 2.
        target: [N, \*S] or [N, 1, \*S] integer labels in [0, C) or `ignore_index`.
        evidence: e(z), as of `dirichlet_uncertainty`.
        bins: of the probability.
        levels: of the uncertainty.
        ignore_index: voxels of this label are not counted.

    Returns:
        SegmentationStats(confusion, number, confidence, hits, uncertainty, errors).

    Raises:
        TypeError, ValueError: wrong types or shapes; a label outside [0, C) (on the CPU); fewer than one bin or level.

    Grad:
        None.

    Notes:
        Deterministic. A NaN probability is counted in the first bin, whose confidence becomes NaN. On a GPU nobody
        waits to look at the labels: a voxel whose label is out of range is not counted.

    Example:
        >>> import sure_fast, torch
        >>> logits = torch.tensor([[3.0, 0.0], [0.0, 3.0]]).reshape(1, 2, 1, 2)
        >>> sure_fast.segmentation_stats(logits, torch.tensor([[[0, 0]]])).confusion
        tensor([[[1, 1],
                 [0, 0]]])
    """
    logits = _checks.logits("logits", logits).detach()
    target = _checks.label("target", target, logits)
    _checks.choice("evidence", evidence, EVIDENCE)
    bins, levels = _checks.table_size("bins", bins), _checks.table_size("levels", levels)
    ignore_index = _checks.index("ignore_index", ignore_index)
    classes = logits.shape[1]
    for name, value in (("bins", bins), ("levels", levels)):
        if (classes + 1) * value > MOST_COUNTS:
            raise ValueError(
                f"{name}: expected at most {MOST_COUNTS // (classes + 1)} with {classes} classes, got {value}"
            )
    chosen = _backends.choose("segmentation_stats", backend, logits)
    if chosen != "reference":
        records = _op(logits, target, evidence, bins, levels, ignore_index, chosen)
        if (
            not logits.is_cuda
            and not torch.compiler.is_compiling()
            and records.numel()
            and float(records[:, -1].sum()) > 0
        ):
            _checks.labels_in_range("target", target, classes, ignore_index)
        row = (classes + 1) * bins
        parts = records.split([classes * classes, row, row, row, levels, (classes + 1) * levels, 1], 1)
        shapes = ((classes, classes), *[(classes + 1, bins)] * 3, (levels,), (classes + 1, levels))
        counts = tuple(part.reshape(-1, *shape) for part, shape in zip(parts[:-1], shapes, strict=True))
    else:
        _checks.labels_in_range("target", target, classes, ignore_index)
        counts = _reference(logits, target, evidence=evidence, bins=bins, levels=levels, ignore_index=ignore_index)
    return SegmentationStats(*(x if k == 2 else x.to(torch.int64) for k, x in enumerate(counts)))
