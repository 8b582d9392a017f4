"""The loss of the probabilistic U-Net."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import _checks
from ._step import step_model
from .softmax import CrossEntropyDiceLoss

KL_WEIGHT = 0.1


class ProbabilisticOutput(NamedTuple):
    """The loss and its terms, each a 0-dim tensor."""

    total: Tensor
    segmentation: Tensor
    """Cross-entropy and Dice of the segmentation with a draw of the posterior."""
    kl: Tensor
    """KL(Q ‖ P), the mean over the images."""


class ProbabilisticLoss(nn.Module):
    r"""Reconstruction of the label with a draw of the posterior, and the divergence of the posterior from the prior.

    Math:
        L = L_ce+dice(z(x, y), y) + kl_weight · mean KL(Q(· | x, y) ‖ P(· | x)); Kohl et al., NeurIPS 2018
        (arXiv 1806.05034), whose reconstruction is the cross-entropy summed over the voxels instead of their mean.

    Args:
        kl_weight: of the divergence.
        ignore_index, class_weights: as of `CrossEntropyDiceLoss`.

    Raises:
        TypeError, ValueError: a wrong option.

    Example:
        >>> import torch
        >>> from sure_fast.losses import ProbabilisticLoss
        >>> from sure_fast.probabilistic import ProbabilisticUNet
        >>> model = ProbabilisticUNet(torch.nn.Conv2d(1, 4, 1), 2, 1, 3, width=4, channels=(4, 8), strides=[(2, 2)])
        >>> image, label = torch.rand(2, 1, 8, 8), torch.randint(0, 3, (2, 8, 8))
        >>> ProbabilisticLoss()(model(image), label, image, model=model).total.backward()
    """

    def __init__(
        self,
        *,
        kl_weight: float = KL_WEIGHT,
        ignore_index: int | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.kl_weight = _checks.positive("kl_weight", kl_weight, zero=True)
        self.ignore_index = ignore_index
        self.reconstruction = CrossEntropyDiceLoss(ignore_index=ignore_index, class_weights=class_weights)

    def forward(
        self, logits: Tensor, label: Tensor, image: Tensor, *, model: Callable[[Tensor], Tensor] | None = None
    ) -> ProbabilisticOutput:
        """The loss of one batch.

        Args:
            logits: the network's answer to `image`, [N, C, *S], with a draw of the prior; only its shape counts.
            label: [N, *S] or [N, 1, *S] integer. image: [N, K, *S].
            model: a `sure_fast.probabilistic.ProbabilisticUNet`, which is asked again with the label.

        Raises:
            TypeError, ValueError: wrong types, shapes or labels; no model.
        """
        logits = _checks.logits("logits", logits)
        label = _checks.label("label", label, logits)
        _checks.labels_in_range("label", label, logits.shape[1], self.ignore_index)
        step_model(model, "", "which is asked again with the label")
        assert model is not None
        classes = logits.shape[1]
        counts = _checks.counted(label, self.ignore_index)
        hot = functional.one_hot(label.long().where(counts, 0), classes).movedim(-1, 1) * counts[:, None]
        answer = model(torch.cat([_checks.tensor("image", image), hot.to(image)], 1))
        segmentation = self.reconstruction(answer[:, :classes], label).total
        if len(label) == 0:  # the share of a rank that has no case
            kl = segmentation.new_zeros(())
        else:
            kl = answer[:, classes].flatten(1)[:, 0].to(segmentation).mean()
        return ProbabilisticOutput(segmentation + self.kl_weight * kl, segmentation, kl)
