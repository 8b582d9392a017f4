"""Spearman's rank correlation."""

from __future__ import annotations

from torch import Tensor

from .. import _backends
from ..reference.spearman import spearman as _reference
from .pair_concordance import rows

_backends.register("spearman")


def spearman(a: Tensor, b: Tensor, *, mask: Tensor | None = None, backend: str | None = None) -> Tensor:
    r"""Rank correlation with average ranks for ties.

    Math:
        Pearson's correlation of the ranks, tied elements sharing the mean of their ranks; as `scipy.stats.spearmanr`.

    Args:
        a, b: [..., n] floating, one sample a row.
        mask: bool [..., n], the elements that count; None: all.

    Returns:
        float64 [...], in [-1, 1]; NaN where undefined: fewer than two elements, a constant, or a NaN among them.

    Raises:
        TypeError, ValueError: wrong types or shapes.

    Grad:
        None.

    Notes:
        Deterministic, O(n log n), ranks and sums in float64.

    Example:
        >>> import sure_fast, torch
        >>> sure_fast.spearman(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0]))
        tensor(0.5000, dtype=torch.float64)
    """
    a, b, mask, shape = rows(a, b, mask)
    _backends.choose("spearman", backend, a)
    return _reference(a, b, mask=mask).reshape(shape)
