"""Uncertainty of a Dirichlet evidential output."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .. import _backends, _checks, _cpu
from ..reference.dirichlet_uncertainty import dirichlet_uncertainty as _reference
from . import _triton
from ._autograd import Parameters
from ._calls import empty_gradient, one_stride

EVIDENCE = _cpu.EVIDENCE
EXP_CLAMP = _cpu.EXP_CLAMP
LINEAR_FROM = 50.0
"""softplus(z) is z from here on: exactly so in float64, which PyTorch's own threshold of 20 is not."""


def evidence_of(logits: Tensor, evidence: str = "exp") -> Tensor:
    """e(z) in PyTorch: softplus(z), max(z, 0), or exp(clamp(z, -10, 10))."""
    if evidence == "softplus":
        return functional.softplus(logits, threshold=LINEAR_FROM)
    if evidence == "relu":
        return functional.relu(logits)
    return logits.clamp(-EXP_CLAMP, EXP_CLAMP).exp()


def _cpu_supports(logits: Tensor, *_: object, **__: object) -> str | None:
    return None if logits.device.type == "cpu" else f"logits are on {logits.device}, not on the CPU"


def _triton_supports(logits: Tensor, *_: object, **__: object) -> str | None:
    return _triton.why_not("logits", logits)


_backends.register("dirichlet_uncertainty", cpu=_cpu_supports, triton=_triton_supports)


@torch.library.custom_op("sure_fast::dirichlet_uncertainty", mutates_args=())
def _op(logits: Tensor, evidence: str, backend: str) -> Tensor:
    out = _empty(logits, evidence, backend)
    if backend == "triton":
        from ..kernels import dirichlet_uncertainty as kernels

        kernels.forward(logits, evidence, out)
        return out
    _cpu.dirichlet_uncertainty_forward(one_stride(logits), evidence, torch.get_num_threads(), out)
    return out


@_op.register_fake
def _empty(logits: Tensor, evidence: str, backend: str) -> Tensor:
    return logits.new_empty((logits.shape[0], 1, *logits.shape[2:]))


@torch.library.custom_op("sure_fast::dirichlet_uncertainty_backward", mutates_args=())
def _op_backward(grad: Tensor, logits: Tensor, evidence: str, backend: str) -> Tensor:
    if backend == "triton":
        from ..kernels import dirichlet_uncertainty as kernels

        return kernels.backward(grad, logits, evidence)
    logits = one_stride(logits)
    gradient = empty_gradient(logits)
    _cpu.dirichlet_uncertainty_backward(logits, evidence, torch.get_num_threads(), grad.contiguous(), gradient)
    return gradient


@_op_backward.register_fake
def _(grad: Tensor, logits: Tensor, evidence: str, backend: str) -> Tensor:
    return empty_gradient(logits)


_parameters = Parameters(_op)


def _setup_context(ctx, inputs, output) -> None:
    of = _parameters.named(inputs)
    ctx.save_for_backward(of.logits)
    ctx.evidence, ctx.backend = of.evidence, of.backend


def _backward(ctx, grad: Tensor):
    (logits,) = ctx.saved_tensors
    return _parameters.gradients(logits=_op_backward(grad, logits, ctx.evidence, ctx.backend))


_op.register_autograd(_backward, setup_context=_setup_context)


def dirichlet_uncertainty(logits: Tensor, *, evidence: str = "exp", backend: str | None = None) -> Tensor:
    r"""Vacuity of the Dirichlet distribution that the logits stand for, in (0, 1].

    Math:
        :math:`\alpha_c = e(z_c) + 1`, :math:`u = C / \sum_c \alpha_c` (Sensoy et al., NeurIPS 2018, arXiv 1806.01768;
        used as the supervised map in arXiv 2509.17098).

    Args:
        logits: [N, C, \*S] float32, float64, bfloat16 or float16, C >= 2, 2 or 3 spatial axes.
        evidence: e(z), "softplus", "relu" or "exp" (of z clamped to [-10, 10]).

    Returns:
        [N, 1, \*S], the dtype of `logits`; 1 where there is no evidence.

    Raises:
        TypeError: `logits` is not floating. ValueError: wrong shape, evidence or backend.

    Grad:
        `logits`.

    Notes:
        Half precision is computed in float32. Deterministic. A logit that is NaN or, but for "exp", +inf gives NaN.

    Example:
        >>> import sure_fast, torch
        >>> sure_fast.dirichlet_uncertainty(torch.zeros(1, 3, 1, 1), evidence="relu")
        tensor([[[[1.]]]])
    """
    logits = _checks.logits("logits", logits)
    _checks.choice("evidence", evidence, EVIDENCE)
    chosen = _backends.choose("dirichlet_uncertainty", backend, logits)
    if chosen == "reference":
        return _reference(logits, evidence=evidence)
    return _op(logits, evidence, chosen)
