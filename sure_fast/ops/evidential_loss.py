"""Evidential (Dirichlet) segmentation loss from the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _backends, _checks, _cpu, _schedules
from ..reference.dirichlet_uncertainty import dirichlet_uncertainty as _uncertainty_reference
from ..reference.evidential_loss import evidential_loss as _reference
from ..reference.evidential_loss import terms_of_sums
from . import _triton
from ._calls import one_stride, single_or_double
from .dirichlet_uncertainty import EVIDENCE

KINDS = _cpu.KINDS
TOTALS = ("weighted", "annealed")
REDUCTIONS = ("mean", "none")
NUM_EPOCHS = 100
ANNEALING_EPOCHS = 20
"""Of the KL term; with `NUM_EPOCHS` the settings of arXiv 2509.17098's code."""


class EvidentialLossOutput(NamedTuple):
    """The loss and its terms, each a 0-dim tensor; with reduction "none" `total`, `data` and `kl` of every voxel."""

    total: Tensor
    data: Tensor
    """Mean data term over the voxels."""
    kl: Tensor
    """Mean KL term over the voxels, not annealed."""
    dice: Tensor
    """Dice term."""
    uncertainty: Tensor | None = None
    """u [N, 1, *S], of regions [N, R, *S], in the logits' dtype where it was asked for."""


def _cpu_supports(logits: Tensor, *_: object, **__: object) -> str | None:
    return None if logits.device.type == "cpu" else f"logits are on {logits.device}, not on the CPU"


def _triton_supports(logits: Tensor, *_: object, regions: bool = False, **__: object) -> str | None:
    if regions and logits.shape[0] * logits.shape[1] > _triton.MOST_IMAGES:
        return f"there are {logits.shape[0] * logits.shape[1]} regions in all, more than {_triton.MOST_IMAGES}"
    return _triton.why_not("logits", logits)


_backends.register("evidential_loss", cpu=_cpu_supports, triton=_triton_supports)


def evidential_args(
    logits: Tensor,
    target: Tensor,
    kind: str,
    evidence: str,
    ignore_index: int | None,
    class_weights: Tensor | None = None,
    regions: bool = False,
    squared: Tensor | None = None,
    far_above: int = 0,
) -> tuple[_cpu.EvidentialArgs, Tensor]:
    """The kernel's arguments, and the logits as they name them; weights are float64 and contiguous."""
    logits = one_stride(logits)
    args = _cpu.EvidentialArgs(
        logits,
        target.contiguous(),
        ignore=ignore_index,
        evidence=evidence,
        kind=kind,
        regions=regions,
        weights=class_weights,
        threads=torch.get_num_threads(),
        squared=squared,
        far_above=far_above,
    )
    return args, logits


@torch.library.custom_op("sure_fast::evidential_loss", mutates_args=())
def _op(
    logits: Tensor,
    target: Tensor,
    kind: str,
    evidence: str,
    ignore_index: int | None,
    class_weights: Tensor | None,
    regions: bool,
    want_voxels: bool,
    want_uncertainty: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The reference's sums and terms of every voxel, these empty unless wanted, and u, empty unless wanted."""
    classes = 2 if regions else logits.shape[1]
    sums, data, kl, uncertainty = _empty(
        logits, target, kind, evidence, ignore_index, class_weights, regions, want_voxels, want_uncertainty, backend
    )
    if backend == "triton":
        from ..kernels import evidential_loss as kernels

        maps = {"data": data, "kl": kl} if want_voxels else {}
        if want_uncertainty:
            maps["uncertainty"] = uncertainty
        sums = kernels.forward(
            logits, target, KINDS.index(kind), EVIDENCE.index(evidence), ignore_index,
            class_weights, regions, **maps,
        )  # fmt: skip
        return sums, data, kl, uncertainty
    args, _ = evidential_args(logits, target, kind, evidence, ignore_index, class_weights, regions)
    sums = sums.new_empty((len(sums), _cpu.evidential_sums_size(classes)))
    maps_or_none = (data, kl) if want_voxels else (None, None)
    _cpu.evidential_loss_forward(args, sums, uncertainty if want_uncertainty else None, *maps_or_none)
    if sums[:, -1].sum() > 0:
        _checks.labels_in_range("target", target, classes, ignore_index)
    return sums[:, : 2 + 3 * classes].clone(), data, kl, uncertainty


@_op.register_fake
def _empty(
    logits: Tensor,
    target: Tensor,
    kind: str,
    evidence: str,
    ignore_index: int | None,
    class_weights: Tensor | None,
    regions: bool,
    want_voxels: bool,
    want_uncertainty: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    channels = logits.shape[1]
    compute = torch.float64 if logits.dtype == torch.float64 else torch.float32
    voxels = target.shape if want_voxels else (0,)
    maps = (logits.shape[0], channels if regions else 1, *logits.shape[2:])
    return (
        logits.new_empty((channels, 8) if regions else (1, 2 + 3 * channels), dtype=torch.float64),
        logits.new_empty(voxels, dtype=compute),
        logits.new_empty(voxels, dtype=compute),
        logits.new_empty(maps if want_uncertainty else (0,)),
    )


@torch.library.custom_op("sure_fast::evidential_loss_backward", mutates_args=())
def _op_backward(
    grad_sums: Tensor,
    grad_data: Tensor | None,
    grad_kl: Tensor | None,
    grad_uncertainty: Tensor | None,
    logits: Tensor,
    target: Tensor,
    kind: str,
    evidence: str,
    ignore_index: int | None,
    class_weights: Tensor | None,
    regions: bool,
    backend: str,
) -> Tensor:
    if backend == "triton":
        from ..kernels import evidential_loss as kernels

        return kernels.backward(
            grad_sums, logits, target, KINDS.index(kind), EVIDENCE.index(evidence), ignore_index,
            class_weights, regions, uncertainty=grad_uncertainty, data=grad_data, kl=grad_kl,
        )  # fmt: skip
    args, logits = evidential_args(logits, target, kind, evidence, ignore_index, class_weights, regions)
    gradient = one_stride(torch.empty_like(logits))
    width = _cpu.evidential_sums_size(2 if regions else logits.shape[1])
    coefficients = torch.zeros((len(grad_sums), width), dtype=torch.float64)
    coefficients[:, : grad_sums.shape[1]] = grad_sums
    slope_u, slope_data, slope_kl = (
        None if slope is None else single_or_double(slope).contiguous()
        for slope in (grad_uncertainty, grad_data, grad_kl)
    )
    _cpu.evidential_loss_backward(args, coefficients, slope_u, 1.0, slope_data, slope_kl, gradient)
    return gradient


@_op_backward.register_fake
def _(grad_sums: Tensor, grad_data: object, grad_kl: object, grad_uncertainty: object, logits: Tensor, *_: object):
    return torch.empty_like(logits)


def _setup_context(ctx, inputs, output) -> None:
    logits, target, *ctx.options, class_weights, ctx.regions, ctx.want_voxels, ctx.want_uncertainty, ctx.backend = (
        inputs
    )
    ctx.save_for_backward(logits, target, class_weights)


def _backward(ctx, grad_sums: Tensor, grad_data: Tensor, grad_kl: Tensor, grad_uncertainty: Tensor):
    logits, target, class_weights = ctx.saved_tensors
    maps = (grad_data, grad_kl) if ctx.want_voxels else (None, None)
    slope = grad_uncertainty if ctx.want_uncertainty else None
    settings = (*ctx.options, class_weights, ctx.regions, ctx.backend)
    return (_op_backward(grad_sums, *maps, slope, logits, target, *settings), *[None] * 9)


_op.register_autograd(_backward, setup_context=_setup_context)


def check_options(
    *,
    kind: str = "digamma",
    total: str = "weighted",
    num_epochs: int = NUM_EPOCHS,
    annealing_epochs: int = ANNEALING_EPOCHS,
    evidence: str = "softplus",
    ignore_index: int | None = None,
    class_weights: Sequence[float] | Tensor | None = None,
    regions: bool = False,
    reduction: str = "mean",
    level_weights: Sequence[float] | None = None,
) -> None:
    """What can be told of the options of `evidential_loss` without its tensors."""
    _checks.choice("kind", kind, KINDS)
    _checks.choice("total", total, TOTALS)
    _schedules.check_lengths(num_epochs, annealing_epochs)
    _checks.choice("evidence", evidence, EVIDENCE)
    _checks.index("ignore_index", ignore_index)
    _checks.weights("class_weights", class_weights)
    _checks.flag("regions", regions)
    _checks.choice("reduction", reduction, REDUCTIONS)
    _checks.weights("level_weights", level_weights)


def total_of_terms(
    data: Tensor, kl: Tensor, dice: Tensor, total: str, epoch: float | None, num_epochs: int, annealing_epochs: int
) -> Tensor:
    """The terms weighted as `total` says; see `evidential_loss`."""
    annealing = _schedules.kl_weight(epoch, annealing_epochs)
    if total == "weighted":
        return 10.0 * data + annealing * kl + 10.0 * dice
    return data + annealing * kl + _schedules.annealed_dice_weight(epoch, num_epochs) * dice


def checked_weights(
    name: str, weights: Sequence[float] | Tensor | None, number: int, device: torch.device
) -> Tensor | None:
    """Weights >= 0 of classes or regions, one of them > 0, as float64 on the device, without waiting for it."""
    found = _checks.weights(name, weights, number)
    if found is None:
        return None
    return torch.as_tensor(found, dtype=torch.float64).contiguous().to(device, non_blocking=True)


def _region_target(target: object, logits: Tensor) -> Tensor:
    t = _checks.tensor("target", target)
    t = _checks.integer("target", t.to(torch.uint8) if t.dtype == torch.bool else t)
    if t.shape != logits.shape:
        raise ValueError(
            f"target: expected one 0 or 1 per region and voxel, {_checks.shape_text(logits.shape)}, "
            f"got {_checks.shape_text(t.shape)}"
        )
    _checks.same_device("target", t, "logits", logits)
    return t


def _at_size(target: Tensor, size: Sequence[int]) -> Tensor:
    """The labels nearest to the voxels of a coarser grid over the same image (its last axes)."""
    for axis, coarse in zip(range(target.dim() - len(size), target.dim()), size, strict=True):
        fine = target.shape[axis]
        if fine != coarse:
            place = (torch.arange(coarse, device=target.device) * 2 + 1) * fine // (2 * coarse)
            target = target.index_select(axis, place)
    return target


def _deep(
    levels: Sequence[Tensor], target: Tensor | Sequence[Tensor], level_weights: Sequence[float] | None, **options
) -> EvidentialLossOutput:
    """The weighted sum of the levels' losses."""
    levels = [_checks.tensor("logits", level) for level in levels]
    if not levels:
        raise ValueError("logits: expected at least one output, got an empty list")
    if options["reduction"] != "mean":
        raise ValueError(f'reduction: expected "mean" with a list of outputs, got {options["reduction"]!r}')
    if isinstance(target, Tensor):
        label = _checks.tensor("target", target)
        targets = [_at_size(label, level.shape[2:]) for level in levels]
    else:
        targets = list(target)
    halves = [0.5**k for k in range(len(levels))]
    given = _checks.weights("level_weights", level_weights)
    weights = [h / sum(halves) for h in halves] if given is None else [float(w) for w in given]
    if len(weights) != len(levels) or len(targets) != len(levels):
        raise ValueError(
            f"level_weights, target: expected one for each of the {len(levels)} outputs, "
            f"got {len(weights)} and {len(targets)}"
        )
    want_uncertainty = options.pop("return_uncertainty")
    parts = [
        evidential_loss(z, t, return_uncertainty=want_uncertainty and k == 0, **options)
        for k, (z, t) in enumerate(zip(levels, targets, strict=True))
    ]
    terms = torch.stack([w * torch.stack(part[:4]) for w, part in zip(weights, parts, strict=True)])
    total, data, kl, dice = terms.sum(0)
    return EvidentialLossOutput(total, data, kl, dice, parts[0].uncertainty)


def evidential_loss(
    logits: Tensor | Sequence[Tensor],
    target: Tensor | Sequence[Tensor],
    *,
    kind: str = "digamma",
    total: str = "weighted",
    epoch: float | None = None,
    num_epochs: int = NUM_EPOCHS,
    annealing_epochs: int = ANNEALING_EPOCHS,
    evidence: str = "softplus",
    ignore_index: int | None = None,
    class_weights: Sequence[float] | Tensor | None = None,
    regions: bool = False,
    reduction: str = "mean",
    level_weights: Sequence[float] | None = None,
    return_uncertainty: bool = False,
    backend: str | None = None,
) -> EvidentialLossOutput:
    r"""Evidential segmentation loss: data, KL and Dice terms in one pass over the logits.

    Math:
        :math:`\alpha = e(z) + 1`, :math:`A = \sum_c \alpha_c`, :math:`p = \alpha / A`, y one-hot. Per voxel,

        - data: "digamma" :math:`\sum_c y_c (\psi(A) - \psi(\alpha_c))`; "log" :math:`\sum_c y_c (\ln A - \ln\alpha_c)`;
          "mse" :math:`\sum_c (y_c - p_c)^2 + \sum_c p_c (1 - p_c) / (A + 1)`;
        - KL: :math:`KL(Dir(\tilde\alpha) \| Dir(1))`, :math:`\tilde\alpha = y + (1 - y)\alpha`;

        and over the batch, per class with :math:`y' = y + 10^{-3}`, the Dice term :math:`mean_c (1 - TP / (TP + a FP +
        (1 - a) FN))`, :math:`a = clamp(FP / (FP + FN), 0.2, 0.8)` (differentiated). With
        :math:`\lambda = \min(1, epoch / annealing\_epochs)`,

        - "weighted": 10 mean(data) + λ mean(KL) + 10 Dice
        - "annealed": mean(data) + λ mean(KL) + (1 - 0.01^(1 - min(1, epoch / num_epochs))) Dice

        Class weights w make of each mean over voxels :math:`\sum_i w_{y_i} t_i / \sum_i w_{y_i}` and of the one over
        classes :math:`\sum_c w_c t_c / \sum_c w_c`. Regions, which may overlap, are a Beta distribution each,
        :math:`\alpha = (e(-z) + 1, e(z) + 1)` of absence and presence: the terms above for two classes, their means
        over voxels and regions, Dice of the presence.

        Sensoy et al., NeurIPS 2018 (arXiv 1806.01768); Li et al., MICCAI 2025 (arXiv 2509.17098).

    Args:
        logits: [N, C, \*S] float32, float64, bfloat16 or float16, C >= 2 (C >= 1 regions), 2 or 3 spatial axes. Read in
            place when the spatial axes step by one stride (contiguous, channels_last, a slice of channels), else from a
            copy. Deep supervision: a list of outputs, the finest first, whose losses are summed with `level_weights`.
        target: [N, \*S] or [N, 1, \*S] integer labels in [0, C) or `ignore_index`; of regions [N, C, \*S] 0, 1 or
            `ignore_index`, integer or bool. For a list of outputs a list, or one target, of which each output takes the
            labels nearest to its voxels.
        kind: data term, "digamma", "log" or "mse".
        total: how the terms are weighted, "weighted" or "annealed".
        epoch: t >= 0, counted from 0; past the end of a schedule it holds its last value. None: at the end of both,
            λ = 1 and the Dice term of "annealed" without weight.
        num_epochs: T; used by "annealed".
        annealing_epochs: epochs until the KL term has its full weight; 0: from the start.
        evidence: e(z), "softplus", "relu" or "exp" (of z clamped to [-10, 10]).
        ignore_index: voxels of this label count in no term.
        class_weights: C numbers >= 0, of the classes or of the regions.
        regions: the channels of `logits` are regions instead of classes.
        reduction: "mean", or "none" for the (weighted) data and KL terms of every voxel, 0 where it does not count;
            their `total` adds the Dice term to each.
        level_weights: of a list of outputs; None: halving from one to the next, their sum 1.
        return_uncertainty: also returns u = C / A of every voxel, from the same pass; of regions 2 / A; of a list of
            outputs that of the first.

    Returns:
        EvidentialLossOutput(total, data, kl, dice, uncertainty): terms 0-dim, float64 for float64 logits, else
        float32; with reduction "none" total, data and kl [N, \*S], of regions [N, C, \*S]; uncertainty [N, 1, \*S], of
        regions [N, C, \*S], in the logits' dtype, or None.

    Raises:
        TypeError: `logits` not floating or `target` not integer.
        ValueError: shapes that do not match; a label outside [0, C) (on a CPU tensor); an unknown option; an epoch that
            is negative, NaN or infinite; weights of another number, negative, all 0, or that require a gradient.

    Grad:
        `logits`, in their dtype. Not twice differentiable on the cpu and triton backends.

    Notes:
        Half precision is computed in float32, sums in float64 in a fixed order: the same input gives the same bits for
        any number of threads. Nothing of the logits' size is kept for the backward but the logits. No voxel that
        counts: every term is 0. NaN or +inf in a logit gives NaN, as does a label outside [0, C) on a CUDA tensor.

    Example:
        >>> import sure_fast, torch
        >>> logits = torch.zeros(1, 3, 8, 8, 8, requires_grad=True)
        >>> loss = sure_fast.evidential_loss(logits, torch.zeros(1, 8, 8, 8, dtype=torch.long), epoch=5)
        >>> loss.total.backward()
        >>> logits.grad.shape
        torch.Size([1, 3, 8, 8, 8])
    """
    check_options(
        kind=kind, total=total, num_epochs=num_epochs, annealing_epochs=annealing_epochs, evidence=evidence,
        ignore_index=ignore_index, regions=regions, reduction=reduction,
    )  # fmt: skip
    _schedules.check_epoch(epoch)
    _checks.flag("return_uncertainty", return_uncertainty)
    if not isinstance(logits, Tensor) and isinstance(logits, Sequence):
        return _deep(
            logits, target, level_weights, kind=kind, evidence=evidence, ignore_index=ignore_index,
            class_weights=class_weights, regions=regions, reduction=reduction, return_uncertainty=return_uncertainty,
            backend=backend, total=total, epoch=epoch, num_epochs=num_epochs, annealing_epochs=annealing_epochs,
        )  # fmt: skip
    if level_weights is not None:
        raise ValueError("level_weights: expected a list of outputs in logits, got one tensor")
    if regions:
        logits = _checks.batched_image("logits", logits)
        target = _region_target(target, logits)
    else:
        logits = _checks.logits("logits", logits)
        target = _checks.label("target", target, logits)
    weights = checked_weights("class_weights", class_weights, logits.shape[1], logits.device)
    by_class = None if regions else weights
    chosen = _backends.choose("evidential_loss", backend, logits, target, regions=regions)
    if chosen != "cpu":  # whose kernel looks itself
        _checks.labels_in_range("target", target, 2 if regions else logits.shape[1], ignore_index)
    if chosen != "reference":
        sums, data_map, kl_map, uncertainty = _op(
            logits, target, kind, evidence, ignore_index, by_class, regions, reduction == "none", return_uncertainty,
            chosen,
        )  # fmt: skip
    else:
        sums, data_map, kl_map = _reference(
            logits, target, kind=kind, evidence=evidence, ignore_index=ignore_index, class_weights=by_class,
            regions=regions,
        )  # fmt: skip
        if return_uncertainty:
            uncertainty = _uncertainty_reference(logits, evidence=evidence, regions=regions)
    data, kl, dice = terms_of_sums(sums, weights, regions=regions)
    if reduction == "none":
        data, kl = data_map, kl_map
        if regions and weights is not None:
            of_region = weights.to(data).reshape(-1, *[1] * (data.dim() - 2))
            data, kl = data * of_region, kl * of_region
    loss = total_of_terms(data, kl, dice, total, epoch, num_epochs, annealing_epochs)
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    terms = (loss.to(dtype), data.to(dtype), kl.to(dtype), dice.to(dtype))
    return EvidentialLossOutput(*terms, uncertainty if return_uncertainty else None)
