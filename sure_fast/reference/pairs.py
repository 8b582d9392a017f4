"""Pairs counted by sorting: what every voxel's partners below and above it sum to, in O(n log² n) and without n × n."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK = 32  # up to this width all pairs of a block are compared directly


class Partners(NamedTuple):
    """Per element, over the partners j with (g_i − g_j)(u_i − u_j) > 0: how many, and the sum of their g."""

    number: Tensor
    sum_g: Tensor


def compact(mask: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """The masked elements of each row moved to the front, cut at the longest row: [rows, n] mask, then the values."""
    longest = int(mask.sum(1).max()) if mask.numel() else 0
    order = torch.argsort(mask.logical_not().to(torch.uint8), dim=1, stable=True)[:, :longest]
    return (mask.gather(1, order), order, *(v.gather(1, order) for v in values))


def dense_rank(values: Tensor, mask: Tensor) -> Tensor:
    """Rank among the distinct masked values of a row, from 0, int64; the others get any rank."""
    filled = values.masked_fill(~mask, torch.inf)
    ordered, order = filled.sort(1)
    steps = torch.zeros_like(order)
    steps[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).to(torch.int64)
    return torch.empty_like(order).scatter_(1, order, steps.cumsum(1))


def partners(
    g: Tensor, u: Tensor, mask: Tensor, group: Tensor | None = None, weight_of: Tensor | None = None
) -> Partners:
    """Violating partners of every element of [rows, n] float64 arrays; `group`: only pairs of the same group;
    `weight_of`: what is summed in the place of g, such as g about its mean.

    Sorted by g, and by falling u within equal g, an earlier element of smaller u has smaller g: ties drop out. A
    bottom-up merge then asks, for the two halves of each block, how many of the one lie below the other in u.
    """
    rows, n = g.shape
    width = _BLOCK
    while width < n:
        width *= 2
    rank = dense_rank(u, mask)
    index_key = dense_rank(g, mask) * (n + 1) + (n - rank)
    if group is not None:
        # A higher group comes later and lies lower: no pair across groups counts.
        group = group.to(torch.int64)
        index_key = index_key + group * (n + 1) ** 2
        rank = rank - group * (n + 1)
    order = index_key.masked_fill(~mask, torch.iinfo(torch.int64).max).argsort(1)
    below_all = torch.iinfo(torch.int64).min
    key = torch.full((rows, width), below_all, dtype=torch.int64, device=g.device)
    key[:, :n] = rank.masked_fill(~mask, below_all).gather(1, order)
    weight = torch.zeros((rows, width), dtype=torch.float64, device=g.device)
    weight[:, :n] = (g if weight_of is None else weight_of).masked_fill(~mask, 0.0).gather(1, order)

    count, sum_g = _dense(key, weight)
    index = torch.arange(width, device=g.device).expand(rows, width)
    half = _BLOCK
    while half < width:
        blocks = key.reshape(rows, -1, 2, half)
        left, left_order = blocks[:, :, 0].sort(-1)
        right, right_order = blocks[:, :, 1].sort(-1)
        weights = weight.reshape(rows, -1, 2, half)
        left_sum = _prefix(weights[:, :, 0].gather(-1, left_order))
        right_sum = _prefix(weights[:, :, 1].gather(-1, right_order))
        smaller = torch.searchsorted(left, right)  # for each of the right: how many of the left lie below
        not_greater = torch.searchsorted(right, left, right=True)
        indices = index.reshape(rows, -1, 2, half)
        right_index = indices[:, :, 1].gather(-1, right_order).reshape(rows, -1)
        left_index = indices[:, :, 0].gather(-1, left_order).reshape(rows, -1)
        count.scatter_add_(1, right_index, smaller.reshape(rows, -1))
        sum_g.scatter_add_(1, right_index, left_sum.gather(-1, smaller).reshape(rows, -1))
        # The padding is below everything, so it is never among the greater ones.
        count.scatter_add_(1, left_index, (half - not_greater).reshape(rows, -1))
        above = right_sum[..., -1:] - right_sum.gather(-1, not_greater)
        sum_g.scatter_add_(1, left_index, above.reshape(rows, -1))
        half *= 2
    real = torch.zeros((rows, n), dtype=torch.int64, device=g.device)
    counts = real.scatter(1, order, count[:, :n]).masked_fill(~mask, 0)
    sums = real.to(torch.float64).scatter(1, order, sum_g[:, :n]).masked_fill(~mask, 0.0)
    return Partners(counts, sums)


def _prefix(values: Tensor) -> Tensor:
    """Sums of the first 0 … n values along the last axis."""
    total = torch.zeros((*values.shape[:-1], values.shape[-1] + 1), dtype=values.dtype, device=values.device)
    total[..., 1:] = values.cumsum(-1)
    return total


def _dense(key: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Partners within blocks of `_BLOCK` consecutive elements, every pair compared."""
    rows = key.shape[0]
    blocks = key.reshape(rows, -1, _BLOCK)
    before = torch.ones(_BLOCK, _BLOCK, dtype=torch.bool, device=key.device).tril(-1)
    below = (blocks[..., :, None] > blocks[..., None, :]) & before
    both = (below | below.transpose(-1, -2)).to(torch.float64)
    sums = (both @ weight.reshape(rows, -1, _BLOCK, 1)).reshape(key.shape)
    return both.sum(-1).to(torch.int64).reshape(key.shape), sums
