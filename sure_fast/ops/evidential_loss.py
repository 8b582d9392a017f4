"""Evidential (Dirichlet) segmentation loss from the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _backends, _checks, _cpu
from .._distributed import summed
from ..reference.evidential_loss import evidential_loss as _reference
from . import _triton
from ._autograd import Parameters
from ._calls import empty_gradient, one_stride, single_or_double
from ._sums import kernel_layout, sums_layout
from ._terms import evidential_terms
from .dirichlet_uncertainty import EVIDENCE

KINDS = _cpu.KINDS
REDUCTIONS = ("mean", "none")


class EvidentialLossOutput(NamedTuple):
    """The terms, each a 0-dim tensor; with reduction "none" `data` and `kl` of every voxel."""

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
    """Sums as `SumsLayout.terms`, a row for all classes or for each region; the data and KL terms of every voxel, times
    the weight of its class; and u. Empty what is not wanted."""
    classes = 2 if regions else logits.shape[1]
    sums, data, kl, uncertainty = _empty(
        logits, target, kind, evidence, ignore_index, class_weights, regions, want_voxels, want_uncertainty, backend
    )
    if backend == "triton":
        from ..kernels import evidential_loss as kernels

        maps = {"data": data, "kl": kl} if want_voxels else {}
        if want_uncertainty:
            maps["uncertainty"] = uncertainty
        kernels.forward(logits, target, kind, evidence, ignore_index, class_weights, regions, sums, **maps)
        return sums, data, kl, uncertainty
    args, _ = evidential_args(logits, target, kind, evidence, ignore_index, class_weights, regions)
    sums = sums.new_empty((len(sums), _cpu.evidential_sums_size(classes)))
    maps_or_none = (data, kl) if want_voxels else (None, None)
    _cpu.evidential_loss_forward(args, sums, uncertainty if want_uncertainty else None, *maps_or_none)
    layout = kernel_layout(classes)
    if sums[:, layout.wrong_labels].sum() > 0:
        _checks.labels_in_range("target", target, classes, ignore_index)
    return sums[:, layout.terms].clone(), data, kl, uncertainty


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
    rows, classes = (channels, 2) if regions else (1, channels)
    return (
        logits.new_empty((rows, sums_layout(classes).terms.stop), dtype=torch.float64),
        logits.new_empty(voxels, dtype=compute),
        logits.new_empty(voxels, dtype=compute),
        logits.new_empty(maps if want_uncertainty else (0,), dtype=compute),
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
            grad_sums, logits, target, kind, evidence, ignore_index, class_weights, regions,
            uncertainty=grad_uncertainty, data=grad_data, kl=grad_kl,
        )  # fmt: skip
    args, logits = evidential_args(logits, target, kind, evidence, ignore_index, class_weights, regions)
    gradient = empty_gradient(logits)
    classes = 2 if regions else logits.shape[1]
    coefficients = torch.zeros((len(grad_sums), _cpu.evidential_sums_size(classes)), dtype=torch.float64)
    coefficients[:, sums_layout(classes).terms] = grad_sums
    slope_u, slope_data, slope_kl = (
        None if slope is None else single_or_double(slope).contiguous()
        for slope in (grad_uncertainty, grad_data, grad_kl)
    )
    _cpu.evidential_loss_backward(args, coefficients, slope_u, 1.0, slope_data, slope_kl, gradient)
    return gradient


@_op_backward.register_fake
def _(grad_sums: Tensor, grad_data: object, grad_kl: object, grad_uncertainty: object, logits: Tensor, *_: object):
    return empty_gradient(logits)


_parameters = Parameters(_op)


def _setup_context(ctx, inputs, output) -> None:
    of = _parameters.named(inputs)
    ctx.save_for_backward(of.logits, of.target, of.class_weights)
    ctx.kind, ctx.evidence, ctx.ignore_index, ctx.regions = of.kind, of.evidence, of.ignore_index, of.regions
    ctx.backend, ctx.shape = of.backend, output[0].shape
    ctx.set_materialize_grads(False)  # zeros for each map that was not asked for


def _backward(ctx, grad_sums: Tensor | None, *grad_maps: Tensor | None):
    logits, target, class_weights = ctx.saved_tensors
    # of an empty output, which was not asked for, the gradient is empty too
    grad_data, grad_kl, grad_uncertainty = (g if g is not None and g.numel() else None for g in grad_maps)
    if grad_data is None and grad_kl is not None:  # the kernels read both or neither
        grad_data = torch.zeros_like(grad_kl)
    elif grad_kl is None and grad_data is not None:
        grad_kl = torch.zeros_like(grad_data)
    gradient = _op_backward(
        logits.new_zeros(ctx.shape, dtype=torch.float64) if grad_sums is None else grad_sums,
        grad_data,
        grad_kl,
        grad_uncertainty,
        logits,
        target,
        ctx.kind,
        ctx.evidence,
        ctx.ignore_index,
        class_weights,
        ctx.regions,
        ctx.backend,
    )
    return _parameters.gradients(logits=gradient)


_op.register_autograd(_backward, setup_context=_setup_context)


def check_options(
    *,
    kind: str = "digamma",
    evidence: str = "exp",
    ignore_index: int | None = None,
    class_weights: Sequence[float] | Tensor | None = None,
    regions: bool = False,
    reduction: str = "mean",
) -> None:
    """What can be told of the options of `evidential_loss` without its tensors."""
    _checks.choice("kind", kind, KINDS)
    _checks.choice("evidence", evidence, EVIDENCE)
    _checks.index("ignore_index", ignore_index)
    _checks.weights("class_weights", class_weights)
    _checks.flag("regions", regions)
    _checks.choice("reduction", reduction, REDUCTIONS)


def checked_weights(
    name: str, weights: Sequence[float] | Tensor | None, number: int, device: torch.device
) -> Tensor | None:
    """Weights >= 0 of classes or regions, one of them > 0, as float64 on the device, without waiting for it."""
    given = _checks.weights(name, weights, number)
    if given is None:
        return None
    return _checks.onto(name, torch.as_tensor(given, dtype=torch.float64).contiguous(), device)


def _region_target(target: object, logits: Tensor) -> Tensor:
    t = _checks.whole("target", target)
    if t.shape != logits.shape:
        raise ValueError(
            f"target: expected one 0 or 1 per region and voxel, {_checks.shape_text(logits.shape)}, "
            f"got {_checks.shape_text(t.shape)}"
        )
    _checks.same_device("target", t, "logits", logits)
    return t


def _inputs(logits: Tensor, target: Tensor, regions: bool) -> tuple[Tensor, Tensor]:
    """Checked logits and target."""
    if regions:
        logits = _checks.batched_image("logits", logits)
        return logits, _region_target(target, logits)
    logits = _checks.logits("logits", logits)
    return logits, _checks.label("target", target, logits)


def _by_region(term: Tensor, weights: Tensor) -> Tensor:
    """The term of every voxel [N, R, *S] times the weight of its region."""
    return term * weights.to(term).reshape(-1, *[1] * (term.dim() - 2))


def terms_dtype(logits: Tensor) -> torch.dtype:
    """Of the terms that `evidential_loss` returns."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def float64_terms(
    logits: Tensor,
    target: Tensor,
    *,
    kind: str = "digamma",
    evidence: str = "exp",
    ignore_index: int | None = None,
    class_weights: Sequence[float] | Tensor | None = None,
    regions: bool = False,
    reduction: str = "mean",
    return_uncertainty: bool = False,
    backend: str | None = None,
) -> EvidentialLossOutput:
    """`evidential_loss` for a loss that weighs its terms first: they are not rounded from float64 yet, nor is u of
    half-precision logits from float32."""
    check_options(kind=kind, evidence=evidence, ignore_index=ignore_index, regions=regions, reduction=reduction)
    _checks.flag("return_uncertainty", return_uncertainty)
    logits, target = _inputs(logits, target, regions)
    weights = checked_weights("class_weights", class_weights, logits.shape[1], logits.device)
    chosen = _backends.choose("evidential_loss", backend, logits, target, regions=regions)
    if chosen != "cpu":  # whose kernel looks itself
        _checks.labels_in_range("target", target, 2 if regions else logits.shape[1], ignore_index)
    if chosen == "reference":
        data, kl, dice, data_map, kl_map, uncertainty = _reference(
            logits, target, kind=kind, evidence=evidence, ignore_index=ignore_index, class_weights=weights,
            regions=regions, return_uncertainty=return_uncertainty, add_up=summed,
        )  # fmt: skip
    else:
        sums, data_map, kl_map, uncertainty = _op(
            logits, target, kind, evidence, ignore_index, None if regions else weights, regions, reduction == "none",
            return_uncertainty, chosen,
        )  # fmt: skip
        classes = 2 if regions else logits.shape[1]
        data, kl, dice, _ = evidential_terms(sums, classes, weights, chosen, regions=regions)
        if reduction == "none" and regions and weights is not None:
            data_map, kl_map = _by_region(data_map, weights), _by_region(kl_map, weights)
    if reduction == "none":
        data, kl = data_map, kl_map
    return EvidentialLossOutput(data, kl, dice, uncertainty if return_uncertainty else None)


def evidential_loss(
    logits: Tensor,
    target: Tensor,
    *,
    kind: str = "digamma",
    evidence: str = "exp",
    ignore_index: int | None = None,
    class_weights: Sequence[float] | Tensor | None = None,
    regions: bool = False,
    reduction: str = "mean",
    return_uncertainty: bool = False,
    backend: str | None = None,
) -> EvidentialLossOutput:
    r"""Terms of the evidential segmentation loss, data, KL and Dice, in one pass over the logits.

    Math:
        :math:`\alpha = e(z) + 1`, :math:`A = \sum_c \alpha_c`, :math:`p = \alpha / A`, y one-hot. Per voxel,

        - data: "digamma" :math:`\sum_c y_c (\psi(A) - \psi(\alpha_c))`; "log" :math:`\sum_c y_c (\ln A - \ln\alpha_c)`;
          "mse" :math:`\sum_c (y_c - p_c)^2 + \sum_c p_c (1 - p_c) / (A + 1)`;
        - KL: :math:`KL(Dir(\tilde\alpha) \| Dir(1))`, :math:`\tilde\alpha = y + (1 - y)\alpha`;

        and over the batch, per class with :math:`y' = y + 10^{-3}`, the Dice term :math:`mean_c (1 - TP / (TP + a FP +
        (1 - a) FN))`, :math:`a = clamp(FP / (FP + FN), 0.2, 0.8)` (differentiated). `EvidentialLoss` weighs the terms.

        Class weights w make of each mean over voxels :math:`\sum_i w_{y_i} t_i / \sum_i w_{y_i}` and of the one over
        classes :math:`\sum_c w_c t_c / \sum_c w_c`. Regions, which may overlap, are a Beta distribution each,
        :math:`\alpha = (e(-z) + 1, e(z) + 1)` of absence and presence: the terms above for two classes, their means
        over voxels and regions, Dice of the presence.

        Sensoy et al., NeurIPS 2018 (arXiv 1806.01768); Li et al., MICCAI 2025 (arXiv 2509.17098).

    Args:
        logits: [N, C, \*S] float32, float64, bfloat16 or float16, C >= 2 (C >= 1 regions), 2 or 3 spatial axes. Read in
            place when the spatial axes step by one stride (contiguous, channels_last, a slice of channels), else from a
            copy.
        target: [N, \*S] or [N, 1, \*S] integer labels in [0, C) or `ignore_index`; of regions [N, C, \*S] 0, 1 or
            `ignore_index`, integer or bool.
        kind: data term, "digamma", "log" or "mse".
        evidence: e(z), "softplus", "relu" or "exp" (of z clamped to [-10, 10]).
        ignore_index: voxels of this label count in no term.
        class_weights: C numbers >= 0, of the classes or of the regions.
        regions: the channels of `logits` are regions instead of classes.
        reduction: "mean", or "none" for the (weighted) data and KL terms of every voxel, 0 where it does not count.
        return_uncertainty: also returns u = C / A of every voxel, from the same pass; of regions 2 / A.

    Returns:
        EvidentialLossOutput(data, kl, dice, uncertainty): terms 0-dim, float64 for float64 logits, else float32; with
        reduction "none" data and kl [N, \*S], of regions [N, C, \*S]; uncertainty [N, 1, \*S], of regions [N, C, \*S],
        in the logits' dtype, or None.

    Raises:
        TypeError: `logits` not floating or `target` not integer.
        ValueError: shapes that do not match; a label outside [0, C) (on a CPU tensor); an unknown option; weights of
            another number, negative, all 0, or that require a gradient.

    Grad:
        `logits`, in their dtype. Not twice differentiable on the cpu and triton backends.

    Notes:
        Half precision is computed in float32, sums in float64 in a fixed order: the same input gives the same bits for
        any number of threads. Nothing of the logits' size is kept for the backward but the logits. No voxel that
        counts: every term is 0. NaN in a logit gives NaN, as does +inf without "exp", and a label outside [0, C) on a
        CUDA tensor.

    Example:
        >>> import sure_fast, torch
        >>> logits = torch.zeros(1, 3, 8, 8, 8, requires_grad=True)
        >>> terms = sure_fast.evidential_loss(logits, torch.zeros(1, 8, 8, 8, dtype=torch.long))
        >>> (terms.data + terms.dice).backward()
        >>> logits.grad.shape
        torch.Size([1, 3, 8, 8, 8])
    """
    terms = float64_terms(
        logits, target, kind=kind, evidence=evidence, ignore_index=ignore_index, class_weights=class_weights,
        regions=regions, reduction=reduction, return_uncertainty=return_uncertainty, backend=backend,
    )  # fmt: skip
    dtype = terms_dtype(logits)
    u = None if terms.uncertainty is None else terms.uncertainty.to(logits.dtype)
    return EvidentialLossOutput(terms.data.to(dtype), terms.kl.to(dtype), terms.dice.to(dtype), u)
