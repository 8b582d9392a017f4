"""Equal values of a sorted list."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def tie_mean(ordered: Tensor, values: Tensor) -> Tensor:
    """`values` [..., n] with each replaced by the mean over the equal entries of `ordered`, which is sorted.

    It is what the values are on average over all orders of the equal entries.
    """
    first, after = torch.searchsorted(ordered, ordered), torch.searchsorted(ordered, ordered, right=True)
    total = functional.pad(values.cumsum(-1), (1, 0))
    return (total.gather(-1, after) - total.gather(-1, first)) / (after - first)
