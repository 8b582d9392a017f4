"""Counts of concordant, discordant and tied pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _backends, _checks
from ..reference.pair_concordance import pair_concordance as _reference

_backends.register("pair_concordance")


class PairConcordance(NamedTuple):
    """Numbers of unordered pairs, int64; the five add up to n(n - 1)/2."""

    concordant: Tensor
    discordant: Tensor
    ties_a: Tensor
    """Tied in a, not in b."""
    ties_b: Tensor
    """Tied in b, not in a."""
    ties_both: Tensor


def rows(a: Tensor, b: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, torch.Size]:
    """Checked [..., n] arguments as float64 [rows, n], the mask as bool [rows, n], and the leading shape."""
    a, b = _checks.floating("a", a), _checks.floating("b", b)
    if a.dim() < 1:
        raise ValueError("a: expected [..., n], got a 0-dim tensor")
    if a.shape != b.shape:
        raise ValueError(f"b: expected the shape of a {_checks.shape_text(a.shape)}, got {_checks.shape_text(b.shape)}")
    _checks.same_device("b", b, "a", a)
    if mask is None:
        mask = torch.ones_like(a, dtype=torch.bool)
    elif _checks.tensor("mask", mask).dtype != torch.bool or mask.shape != a.shape:
        raise ValueError(
            f"mask: expected bool {_checks.shape_text(a.shape)}, got {mask.dtype} {_checks.shape_text(mask.shape)}"
        )
    shape = a.shape[:-1]
    n, count = a.shape[-1], shape.numel()
    a, b, mask = (x.detach().reshape(count, n) for x in (a, b, mask))
    return a.to(torch.float64), b.to(torch.float64), mask, shape


def pair_concordance(
    a: Tensor, b: Tensor, *, mask: Tensor | None = None, backend: str | None = None
) -> PairConcordance:
    r"""Counts every unordered pair of elements by how it is ordered in a and in b.

    Math:
        Concordant: (a_i - a_j)(b_i - b_j) > 0; discordant: < 0; the others are tied in a, in b or in both. Counted by
        sorting and merging (Knight, JASA 61, 1966), all n(n - 1)/2 pairs, without a matrix.

    Args:
        a, b: [..., n] floating, one ranking a row.
        mask: bool [..., n], the elements that count; None: all.

    Returns:
        PairConcordance(concordant, discordant, ties_a, ties_b, ties_both), int64 [...].

    Raises:
        TypeError, ValueError: wrong types or shapes; a NaN among the elements that count (on the CPU).

    Grad:
        None.

    Notes:
        Exact and deterministic, O(n log² n) time and O(n) memory a row. Fewer than two elements: all counts 0.

    Example:
        >>> import sure_fast, torch
        >>> out = sure_fast.pair_concordance(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0]))
        >>> out.concordant.item(), out.discordant.item()
        (2, 1)
    """
    a, b, mask, shape = rows(a, b, mask)
    if a.device.type == "cpu" and not torch.compiler.is_compiling():
        for name, values in (("a", a), ("b", b)):
            if bool((values.isnan() & mask).any()):
                raise ValueError(f"{name}: expected numbers, got NaN")
    _backends.choose("pair_concordance", backend, a)
    return PairConcordance(*(count.reshape(shape) for count in _reference(a, b, mask=mask)))
