"""Plain PyTorch rank correlation."""

from __future__ import annotations

import torch
from torch import Tensor


def average_rank(values: Tensor, mask: Tensor) -> Tensor:
    """Ranks from 0 of the masked elements of each row, ties sharing their mean rank; float64."""
    n = values.shape[1]
    ordered, order = values.masked_fill(~mask, torch.inf).sort(1)
    # +inf may be a value too: the masked-out are told apart by their place, after a row's own elements.
    inside = mask.gather(1, order)
    by_inside = inside.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
    ordered, order = ordered.gather(1, by_inside), order.gather(1, by_inside)
    index = torch.arange(n, device=values.device).expand_as(values)
    size = mask.sum(1, keepdim=True)
    new = torch.ones_like(mask)
    new[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]) | (index[:, 1:] == size)
    start = index.where(new, 0).cummax(1).values
    ends = torch.ones_like(mask)
    ends[:, :-1] = new[:, 1:]
    stop = index.where(ends, n).flip(1).cummin(1).values.flip(1)
    rank = (start + stop).to(torch.float64) / 2
    return torch.empty_like(rank).scatter_(1, order, rank)


def spearman(a: Tensor, b: Tensor, *, mask: Tensor) -> Tensor:
    """Pearson's correlation of the average ranks of [rows, n] float64; NaN where undefined; float64 [rows]."""
    if a.shape[1] == 0:
        return torch.full((a.shape[0],), torch.nan, dtype=torch.float64, device=a.device)
    n = mask.sum(1, keepdim=True)
    centered = [(average_rank(x, mask) - (n - 1) / 2).masked_fill(~mask, 0.0) for x in (a, b)]
    product = (centered[0] * centered[1]).sum(1)
    scale = (centered[0].square().sum(1) * centered[1].square().sum(1)).sqrt()
    spoiled = ((a.isnan() | b.isnan()) & mask).any(1)
    return (product / scale).masked_fill(spoiled | (scale == 0), torch.nan).clamp(-1.0, 1.0)
