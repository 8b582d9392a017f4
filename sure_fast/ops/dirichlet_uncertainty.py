"""Uncertainty of a Dirichlet evidential output."""

from __future__ import annotations

from torch import Tensor

from .. import _backends, _checks
from ..reference.dirichlet_uncertainty import dirichlet_uncertainty as _reference

EVIDENCE = ("softplus", "relu", "exp")

_backends.register("dirichlet_uncertainty")


def dirichlet_uncertainty(logits: Tensor, *, evidence: str = "softplus", backend: str | None = None) -> Tensor:
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
        Half precision is computed in float32. Deterministic.

    Example:
        >>> import sure_fast, torch
        >>> sure_fast.dirichlet_uncertainty(torch.zeros(1, 3, 1, 1), evidence="relu")
        tensor([[[[1.]]]])
    """
    logits = _checks.logits("logits", logits)
    _checks.choice("evidence", evidence, EVIDENCE)
    _backends.choose("dirichlet_uncertainty", backend, logits)
    return _reference(logits, evidence=evidence)
