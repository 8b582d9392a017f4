"""Plain PyTorch Dirichlet evidence and uncertainty."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

EXP_EVIDENCE_CLAMP = 10.0
LINEAR_FROM = 50.0
"""softplus(z) is z from here on: exactly so in float64, which PyTorch's own threshold of 20 is not."""


def evidence(logits: Tensor, kind: str = "exp") -> Tensor:
    """e(z): softplus(z), max(z, 0), or exp(clamp(z, -10, 10))."""
    if kind == "softplus":
        return functional.softplus(logits, threshold=LINEAR_FROM)
    if kind == "relu":
        return functional.relu(logits)
    clamped = logits.clamp(-EXP_EVIDENCE_CLAMP, EXP_EVIDENCE_CLAMP)
    return clamped.where(~logits.isnan(), logits).exp()  # whose gradient is NaN too


def widen(x: Tensor) -> Tensor:
    """Half precision is computed in float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def dirichlet_uncertainty(logits: Tensor, *, evidence: str = "exp", regions: bool = False) -> Tensor:
    """u = C / Σ_c (e(z_c) + 1), of regions 2 / (e(z) + e(-z) + 2); docs/method.md, "Evidence"."""
    if regions:
        z = widen(logits)
        total, number = _evidence(z, evidence) + _evidence(-z, evidence) + 2.0, 2.0
    else:
        total, number = (_evidence(widen(logits), evidence) + 1.0).sum(1, keepdim=True), float(logits.shape[1])
    if evidence != "exp":  # an infinite evidence is no number
        largest = logits.detach().abs() if regions else logits.detach().amax(1, keepdim=True)
        total = total * torch.ones_like(total).masked_fill(largest == torch.inf, torch.nan)
    # of a number and a tensor PyTorch multiplies by the reciprocal, which rounds twice
    return (torch.full_like(total, number) / total).to(logits.dtype)


_evidence = evidence
