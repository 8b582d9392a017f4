"""Plain PyTorch counts of concordant, discordant and tied pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from .pairs import compact, dense_rank, partners


def pair_concordance(a: Tensor, b: Tensor, *, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(concordant, discordant, tied in a only, tied in b only, tied in both) of [rows, n] float64; int64 [rows]."""
    rows = a.shape[0]
    if a.numel() == 0:
        none = torch.zeros(rows, dtype=torch.int64, device=a.device)
        return none, none, none, none, none
    mask, _, a, b = compact(mask, a, b)
    rank_a, rank_b = dense_rank(a, mask), dense_rank(b, mask)
    concordant = partners(a, b, mask).number.sum(1) // 2
    n = mask.sum(1)
    tied_a, tied_b = _tied(rank_a, mask), _tied(rank_b, mask)
    both = _tied(rank_a * (a.shape[1] + 1) + rank_b, mask)
    discordant = n * (n - 1) // 2 - concordant - tied_a - tied_b + both
    return concordant, discordant, tied_a - both, tied_b - both, both


def _tied(rank: Tensor, mask: Tensor) -> Tensor:
    """Pairs of equal masked elements in a row: Σ_i (number of equal ones before i)."""
    ordered = rank.masked_fill(~mask, torch.iinfo(torch.int64).max).sort(1).values
    n = rank.shape[1]
    place = torch.arange(n, device=rank.device).expand_as(rank)
    new = torch.ones_like(mask)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    before = place - place.where(new, 0).cummax(1).values
    return before.where(place < mask.sum(1, keepdim=True), 0).sum(1)
