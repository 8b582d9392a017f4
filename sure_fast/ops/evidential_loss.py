"""Evidential (Dirichlet) segmentation loss from the logits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _backends, _checks, _cpu
from ..reference.dirichlet_uncertainty import dirichlet_uncertainty as _uncertainty_reference
from ..reference.evidential_loss import evidential_loss as _reference
from ..reference.evidential_loss import terms_of_sums
from ._native import DTYPES, address, native_view, single_or_double
from .dirichlet_uncertainty import EVIDENCE

KINDS = ("digamma", "log", "mse")
TOTALS = ("weighted", "annealed")


class EvidentialLossOutput(NamedTuple):
    """The loss and its terms, each a 0-dim tensor."""

    total: Tensor
    data: Tensor
    """Mean data term over the voxels."""
    kl: Tensor
    """Mean KL term over the voxels, not annealed."""
    dice: Tensor
    """Dice term."""
    uncertainty: Tensor | None = None
    """u [N, 1, *S] in the logits' dtype where it was asked for."""


def _cpu_supports(logits: Tensor, *_: object, **__: object) -> str | None:
    return None if logits.device.type == "cpu" else f"logits are on {logits.device}, not on the CPU"


_backends.register("evidential_loss", cpu=_cpu_supports)


def evidential_args(
    logits: Tensor,
    target: Tensor,
    kind: str,
    evidence: str,
    ignore_index: int | None,
    squared: Tensor | None = None,
    far_above: int = 0,
) -> tuple[_cpu.EvidentialArgs, Tensor, Tensor]:
    """The kernel's arguments, and the tensors whose memory they name, which must outlive them."""
    logits, view = native_view(logits)
    target = target.contiguous()
    args = _cpu.EvidentialArgs(
        view,
        address(target),
        DTYPES[target.dtype],
        ignore_index,
        EVIDENCE.index(evidence),
        KINDS.index(kind),
        torch.get_num_threads(),
        0 if squared is None else address(squared),
        far_above,
    )
    return args, logits, target


@torch.library.custom_op("sure_fast::evidential_loss", mutates_args=(), device_types="cpu")
def _op(
    logits: Tensor, target: Tensor, kind: str, evidence: str, ignore_index: int | None, want_uncertainty: bool
) -> tuple[Tensor, Tensor]:
    """The sums over the voxels, float64 [2 + 3C], and the uncertainty [N, 1, *S], empty where it is not wanted."""
    args, _logits, _target = evidential_args(logits, target, kind, evidence, ignore_index)
    classes = logits.shape[1]
    sums = torch.empty(_cpu.evidential_sums_size(classes), dtype=torch.float64)
    _, uncertainty = _empty(logits, target, kind, evidence, ignore_index, want_uncertainty)
    _cpu.evidential_loss_forward(args, address(sums), address(uncertainty) if want_uncertainty else 0)
    if sums[-1] > 0:
        _checks.labels_in_range("target", target, classes, ignore_index)
    return sums[: 2 + 3 * classes].clone(), uncertainty


@_op.register_fake
def _empty(
    logits: Tensor, target: Tensor, kind: str, evidence: str, ignore_index: int | None, want_uncertainty: bool
) -> tuple[Tensor, Tensor]:
    shape = (logits.shape[0], 1, *logits.shape[2:]) if want_uncertainty else (0,)
    return logits.new_empty(2 + 3 * logits.shape[1], dtype=torch.float64), logits.new_empty(shape)


@torch.library.custom_op("sure_fast::evidential_loss_backward", mutates_args=(), device_types="cpu")
def _op_backward(
    grad_sums: Tensor,
    grad_uncertainty: Tensor | None,
    logits: Tensor,
    target: Tensor,
    kind: str,
    evidence: str,
    ignore_index: int | None,
) -> Tensor:
    args, _logits, _target = evidential_args(logits, target, kind, evidence, ignore_index)
    gradient, view = native_view(torch.empty_like(_logits))
    coefficients = torch.zeros(_cpu.evidential_sums_size(logits.shape[1]), dtype=torch.float64)
    coefficients[: len(grad_sums)] = grad_sums
    slope = None if grad_uncertainty is None else single_or_double(grad_uncertainty).contiguous()
    _cpu.evidential_loss_backward(args, address(coefficients), 0 if slope is None else address(slope), 1.0, view)
    return gradient


@_op_backward.register_fake
def _(grad_sums: Tensor, grad_uncertainty: Tensor | None, logits: Tensor, *_: object) -> Tensor:
    return torch.empty_like(logits)


def _setup_context(ctx, inputs, output) -> None:
    logits, target, ctx.kind, ctx.evidence, ctx.ignore_index, ctx.want_uncertainty = inputs
    ctx.save_for_backward(logits, target)


def _backward(ctx, grad_sums: Tensor, grad_uncertainty: Tensor):
    logits, target = ctx.saved_tensors
    slope = grad_uncertainty if ctx.want_uncertainty else None
    gradient = _op_backward(grad_sums, slope, logits, target, ctx.kind, ctx.evidence, ctx.ignore_index)
    return gradient, None, None, None, None, None


_op.register_autograd(_backward, setup_context=_setup_context)


def check_schedule(epoch: float, num_epochs: int, annealing_epochs: int) -> None:
    if num_epochs <= 0 or annealing_epochs < 0 or epoch < 0:
        raise ValueError(
            "epoch, num_epochs, annealing_epochs: expected epoch >= 0, num_epochs > 0 and annealing_epochs >= 0, "
            f"got {epoch}, {num_epochs}, {annealing_epochs}"
        )


def total_of_terms(
    data: Tensor, kl: Tensor, dice: Tensor, total: str, epoch: float, num_epochs: int, annealing_epochs: int
) -> Tensor:
    """The terms weighted as `total` says; see `evidential_loss`."""
    annealing = min(1.0, epoch / annealing_epochs) if annealing_epochs else 1.0
    if total == "weighted":
        return 10.0 * data + annealing * kl + 10.0 * dice
    return data + annealing * kl + (1.0 - 0.01 ** (1.0 - epoch / num_epochs)) * dice


def evidential_loss(
    logits: Tensor,
    target: Tensor,
    *,
    kind: str = "digamma",
    total: str = "weighted",
    epoch: float = 0,
    num_epochs: int = 100,
    annealing_epochs: int = 20,
    evidence: str = "softplus",
    ignore_index: int | None = None,
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
        - "annealed": mean(data) + λ mean(KL) + (1 - 0.01^(1 - epoch / num_epochs)) Dice

        Sensoy et al., NeurIPS 2018 (arXiv 1806.01768); Li et al., MICCAI 2025 (arXiv 2509.17098).

    Args:
        logits: [N, C, \*S] float32, float64, bfloat16 or float16, C >= 2, 2 or 3 spatial axes. Read in place when the
            spatial axes step by one stride (contiguous, channels_last, a slice of channels), else from a copy.
        target: [N, \*S] or [N, 1, \*S] integer labels in [0, C) or `ignore_index`.
        kind: data term, "digamma", "log" or "mse".
        total: how the terms are weighted, "weighted" or "annealed".
        epoch: t, counted from 0.
        num_epochs: T; used by "annealed".
        annealing_epochs: epochs until the KL term has its full weight; 0: from the start.
        evidence: e(z), "softplus", "relu" or "exp" (of z clamped to [-10, 10]).
        ignore_index: voxels of this label count in no term.
        return_uncertainty: also returns u = C / A of every voxel, from the same pass.

    Returns:
        EvidentialLossOutput(total, data, kl, dice, uncertainty): terms 0-dim, float64 for float64 logits, else
        float32; uncertainty [N, 1, \*S] in the logits' dtype, or None.

    Raises:
        TypeError: `logits` not floating or `target` not integer.
        ValueError: shapes that do not match; a label outside [0, C) (on a CPU tensor); an unknown option.

    Grad:
        `logits`, in their dtype. Not twice differentiable on the cpu backend.

    Notes:
        Half precision is computed in float32, sums in float64 in a fixed order: the same input gives the same bits for
        any number of threads. Nothing of the logits' size is kept for the backward but the logits. No voxel that
        counts: every term is 0. NaN or +inf in a logit gives NaN.

    Example:
        >>> import sure_fast, torch
        >>> logits = torch.zeros(1, 3, 8, 8, 8, requires_grad=True)
        >>> loss = sure_fast.evidential_loss(logits, torch.zeros(1, 8, 8, 8, dtype=torch.long), epoch=5)
        >>> loss.total.backward()
        >>> logits.grad.shape
        torch.Size([1, 3, 8, 8, 8])
    """
    logits = _checks.logits("logits", logits)
    target = _checks.label("target", target, logits)
    _checks.choice("kind", kind, KINDS)
    _checks.choice("total", total, TOTALS)
    _checks.choice("evidence", evidence, EVIDENCE)
    check_schedule(epoch, num_epochs, annealing_epochs)
    if _backends.choose("evidential_loss", backend, logits, target) == "cpu":
        sums, uncertainty = _op(logits, target, kind, evidence, ignore_index, return_uncertainty)
    else:
        _checks.labels_in_range("target", target, logits.shape[1], ignore_index)
        sums = _reference(logits, target, kind=kind, evidence=evidence, ignore_index=ignore_index)
        if return_uncertainty:
            uncertainty = _uncertainty_reference(logits, evidence=evidence)
    data, kl, dice = terms_of_sums(sums, logits.shape[1])
    loss = total_of_terms(data, kl, dice, total, epoch, num_epochs, annealing_epochs)
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    terms = (loss.to(dtype), data.to(dtype), kl.to(dtype), dice.to(dtype))
    return EvidentialLossOutput(*terms, uncertainty if return_uncertainty else None)
