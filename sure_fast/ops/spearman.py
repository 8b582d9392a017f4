"""Spearman's rank correlation."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _backends, _cpu
from ..reference.spearman import spearman as _reference
from . import _calls
from ._calls import workspace
from .pair_concordance import row_pair_args, row_pairs_cpu_supports, row_pairs_cuda_supports, rows

_backends.register("spearman", cpu=row_pairs_cpu_supports, cuda=row_pairs_cuda_supports)


@torch.library.custom_op("sure_fast::spearman", mutates_args=(), device_types=("cpu", "cuda"))
def _op(a: Tensor, b: Tensor, mask: Tensor | None, backend: str = "cpu") -> Tensor:
    out = _empty(a)
    if a.numel() == 0:
        return out.fill_(torch.nan)
    a, b, mask = a.contiguous(), b.contiguous(), None if mask is None else mask.contiguous()
    if backend == "cuda":
        library, cuda_args = _calls.library, _calls.library.RowPairArgs(a, b, mask)
        with _calls.stream(a) as stream:
            scratch = workspace(library.spearman_workspace(cuda_args, stream), a)
            library.spearman_forward(cuda_args, stream, scratch, out)
        return out
    args = row_pair_args(a, b, mask)
    scratch = workspace(_cpu.spearman_workspace(args))
    _cpu.spearman_forward(args, scratch, out)
    return out


@_op.register_fake
def _empty(a: Tensor, *_: object) -> Tensor:
    return a.new_empty(a.shape[0], dtype=torch.float64)


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
        Deterministic, O(n log n); on the cpu and cuda backends sums are exact integers.

    Example:
        >>> import sure_fast, torch
        >>> sure_fast.spearman(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0]))
        tensor(0.5000, dtype=torch.float64)
    """
    a, b, mask, shape = rows(a, b, mask)
    chosen = _backends.choose("spearman", backend, a)
    if chosen != "reference":
        return _op(a, b, mask, chosen).reshape(shape)
    mask = torch.ones_like(a, dtype=torch.bool) if mask is None else mask
    return _reference(a.double(), b.double(), mask=mask).reshape(shape)
