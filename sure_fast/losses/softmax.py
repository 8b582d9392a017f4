"""Cross-entropy and Dice of a softmax network: the loss of the methods without evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import _checks
from .._distributed import summed
from ..ops.evidential_loss import checked_weights
from ._step import weight_buffer

EPSILON = 1e-5


class CrossEntropyDiceOutput(NamedTuple):
    """The loss and its terms, each a 0-dim tensor."""

    total: Tensor
    cross_entropy: Tensor
    dice: Tensor


class CrossEntropyDiceLoss(nn.Module):
    r"""Mean cross-entropy plus soft Dice over the batch.

    Math:
        p = softmax(z). :math:`mean_i(-\ln p_{i y_i}) + mean_c(1 - (2 \sum_i p_{ic} y_{ic} + \epsilon) / (\sum_i
        p_{ic} + \sum_i y_{ic} + \epsilon))`, ε = 1e-5; Milletari et al., 3DV 2016, for the Dice term.

    Args:
        ignore_index: voxels of this label count in no term.
        class_weights: C numbers >= 0, not all 0; both means are weighted by them, of voxels by the label's. None: 1.

    Example:
        >>> import torch
        >>> from sure_fast.losses import CrossEntropyDiceLoss
        >>> CrossEntropyDiceLoss()(torch.randn(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long)).total.shape
        torch.Size([])
    """

    class_weights: Tensor | None

    def __init__(self, *, ignore_index: int | None = None, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.ignore_index = _checks.index("ignore_index", ignore_index)
        self.register_buffer("class_weights", weight_buffer(class_weights), persistent=False)

    def forward(self, logits: Tensor, label: Tensor) -> CrossEntropyDiceOutput:
        """The loss of logits [N, C, *S] against labels [N, *S] or [N, 1, *S]; 0 where no voxel counts.

        Within `sure_fast.across_ranks` its sums over voxels are those of all ranks.
        """
        logits = _checks.logits("logits", logits)
        label = _checks.label("label", label, logits)
        _checks.labels_in_range("label", label, logits.shape[1], self.ignore_index)
        label = label.long()
        counts = _checks.counted(label, self.ignore_index)
        log_p = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(1)
        y = label.where(counts, 0)[:, None]
        weights = checked_weights("class_weights", self.class_weights, logits.shape[1], logits.device)
        of_label = log_p.gather(1, y)[:, 0].where(counts, 0.0)
        if weights is None:
            entropy_sum, counted = -of_label.sum(), counts.sum().to(log_p)
        else:
            of_voxel = weights.to(log_p)[y[:, 0]].where(counts, 0.0)
            entropy_sum, counted = -(of_label * of_voxel).sum(), of_voxel.sum()
        p = log_p.exp() * counts[:, None]
        hot = functional.one_hot(y[:, 0], logits.shape[1]).movedim(-1, 1) * counts[:, None]
        axes = [0, *range(2, logits.dim())]
        totals = torch.stack([entropy_sum, counted])
        sums = summed(torch.cat([totals, (p * hot).sum(axes), p.sum(axes) + hot.sum(axes)]))
        both, sizes = sums[2:].chunk(2)
        entropy = sums[0] / sums[1].clamp(min=torch.finfo(sums.dtype).tiny)
        by_class = 1.0 - (2.0 * both + EPSILON) / (sizes + EPSILON)
        dice = by_class.mean() if weights is None else (by_class * weights.to(p)).sum() / weights.sum().to(p)
        return CrossEntropyDiceOutput(entropy + dice, entropy, dice)
