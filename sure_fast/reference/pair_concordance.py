"""Plain PyTorch counts of concordant, discordant and tied pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from .pairs import compact, dense_rank, partners


def pair_concordance(
    a: Tensor, b: Tensor, *, mask: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(concordant, discordant, tied in a only, in b only, in both, close) of [rows, n] float64; int64 [rows]."""
    rows = a.shape[0]
    if a.numel() == 0:
        none = torch.zeros(rows, dtype=torch.int64, device=a.device)
        return none, none, none, none, none, none
    mask, _, a, b = compact(mask, a, b)
    rank_a, rank_b = dense_rank(a, mask), dense_rank(b, mask)
    concordant = partners(a, b, mask).number.sum(1) // 2
    n = mask.sum(1)
    tied_a, tied_b = _tied(rank_a, mask), _tied(rank_b, mask)
    both = _tied(rank_a * (a.shape[1] + 1) + rank_b, mask)
    discordant = n * (n - 1) // 2 - concordant - tied_a - tied_b + both
    return concordant, discordant, tied_a - both, tied_b - both, both, _close(a, b, mask, tolerance)


def _tied(rank: Tensor, mask: Tensor) -> Tensor:
    """Pairs of equal masked elements in a row: Σ_i (number of equal ones before i)."""
    ordered = rank.masked_fill(~mask, torch.iinfo(torch.int64).max).sort(1).values
    n = rank.shape[1]
    index = torch.arange(n, device=rank.device).expand_as(rank)
    new = torch.ones_like(mask)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    before = index - index.where(new, 0).cummax(1).values
    return before.where(index < mask.sum(1, keepdim=True), 0).sum(1)


def _close(a: Tensor, b: Tensor, mask: Tensor, tolerance: float) -> Tensor:
    """Pairs of equal a with 0 < |Δb| < tolerance, per row: within each run of equal a, sorted by b."""
    numbers = []
    for row_a, row_b, keep in zip(a, b, mask, strict=True):
        values, rank = row_b[keep].unique(return_inverse=True)
        group = row_a[keep].unique(return_inverse=True)[1]
        beyond = torch.searchsorted(values, values + tolerance)  # rank of the first value too far above
        # Integer keys: runs of equal a one after another, b's rank within, so that one search serves all runs exactly.
        stride = len(values) + 1
        key = (group * stride + rank).sort()[0]
        start, rank = key // stride * stride, key % stride
        close = torch.searchsorted(key, start + beyond[rank]) - torch.searchsorted(key, key, right=True)
        numbers.append(close.clamp(min=0).sum())  # inf + tolerance is no further than inf
    return torch.stack(numbers)
