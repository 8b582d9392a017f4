"""The evidential segmentation loss as a module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from .. import _backends, _checks
from ..ops.evidential_loss import check_options, float64_terms, terms_dtype
from ._step import weight_buffer
from .deep_supervision import over_levels
from .schedule import ANNEALING_EPOCHS, NUM_EPOCHS, check_epoch, check_total, total_of_terms


class EvidentialOutput(NamedTuple):
    """The loss and its terms, each a 0-dim tensor; with reduction "none" `total`, `data` and `kl` of every voxel."""

    total: Tensor
    data: Tensor
    """Mean data term over the voxels."""
    kl: Tensor
    """Mean KL term over the voxels, not annealed."""
    dice: Tensor
    """Dice term."""


def weighted_terms(
    logits: Tensor, target: Tensor, *, epoch: float | None, weighting: dict[str, Any], **options: Any
) -> tuple[EvidentialOutput, Tensor | None]:
    """The terms and their total, `weighting` the options of `total_of_terms`, and u where it is asked for."""
    data, kl, dice, uncertainty = float64_terms(logits, target, **options)
    total, dtype = total_of_terms(data, kl, dice, epoch=epoch, **weighting), terms_dtype(logits)
    return EvidentialOutput(total.to(dtype), data.to(dtype), kl.to(dtype), dice.to(dtype)), uncertainty


class EvidentialLoss(nn.Module):
    r"""The terms of `sure_fast.evidential_loss` weighted; see there for their equations.

    Math:
        With :math:`\lambda = \min(1, epoch / annealing\_epochs)`,

        - "weighted": 10 mean(data) + λ mean(KL) + 10 Dice
        - "annealed": mean(data) + λ mean(KL) + (1 - 0.01^(1 - min(1, epoch / num_epochs))) Dice

        Li et al., MICCAI 2025 (arXiv 2509.17098) and its code.

    Args:
        total: how the terms are weighted, "weighted" or "annealed".
        num_epochs: T; used by "annealed".
        annealing_epochs: epochs until the KL term has its full weight; 0: from the start.
        kind, evidence, ignore_index, regions, backend: as of `evidential_loss`.
        class_weights: as of `evidential_loss`; a buffer, so that `.to(device)` spares a copy at every call, which
            a CUDA graph could not hold.
        reduction: "mean"; or "none": the data and KL terms of every voxel, and a total that adds the Dice term to each.
        level_weights: of a list of outputs, as of `DeepSupervision`.

    Raises:
        TypeError, ValueError: a wrong option.

    Example:
        >>> import sure_fast, torch
        >>> loss = sure_fast.EvidentialLoss(num_epochs=50)
        >>> out = loss(torch.randn(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long), epoch=2)
        >>> out.total.shape
        torch.Size([])
    """

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        kind: str = "digamma",
        total: str = "weighted",
        num_epochs: int = NUM_EPOCHS,
        annealing_epochs: int = ANNEALING_EPOCHS,
        evidence: str = "exp",
        ignore_index: int | None = None,
        class_weights: Sequence[float] | None = None,
        regions: bool = False,
        reduction: str = "mean",
        level_weights: Sequence[float] | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        check_options(
            kind=kind, evidence=evidence, ignore_index=ignore_index, class_weights=class_weights, regions=regions,
            reduction=reduction,
        )  # fmt: skip
        check_total(total=total, num_epochs=num_epochs, annealing_epochs=annealing_epochs)
        _checks.weights("level_weights", level_weights)
        _backends.check(backend, "evidential_loss")
        self.kind = kind
        self.total = total
        self.num_epochs = num_epochs
        self.annealing_epochs = annealing_epochs
        self.evidence = evidence
        self.ignore_index = ignore_index
        self.register_buffer("class_weights", weight_buffer(class_weights), persistent=False)
        self.regions = regions
        self.reduction = reduction
        self.level_weights = level_weights
        self.backend = backend

    def forward(
        self, logits: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor], epoch: float | None = None
    ) -> EvidentialOutput:
        """The loss of logits [N, C, *S] against labels [N, *S] or [N, 1, *S], of regions [N, C, *S], at this epoch.

        Args:
            logits: also a list of outputs, the finest first, whose losses are summed as `DeepSupervision` does.
            target: of a list of outputs a list, or one target for all of them.
            epoch: t >= 0, counted from 0; past the end of a schedule it holds its last value. None: at the end of both,
                λ = 1 and the Dice term of "annealed" without weight.

        Raises:
            TypeError, ValueError: as `evidential_loss`; an epoch that is negative, NaN or infinite; `level_weights` for
                one tensor; reduction "none" for a list of outputs.
        """
        check_epoch(epoch)
        if not isinstance(logits, Tensor) and isinstance(logits, Sequence):
            if self.reduction != "mean":
                raise ValueError(f'reduction: expected "mean" with a list of outputs, got {self.reduction!r}')
            return over_levels(lambda z, y: self._of_one(z, y, epoch), logits, target, self.level_weights)
        if self.level_weights is not None:
            raise ValueError("level_weights: expected a list of outputs in logits, got one tensor")
        return self._of_one(logits, target, epoch)  # type: ignore[arg-type]

    def _of_one(self, logits: Tensor, target: Tensor, epoch: float | None) -> EvidentialOutput:
        weighting = {
            "total": self.total,
            "num_epochs": self.num_epochs,
            "annealing_epochs": self.annealing_epochs,
        }
        return weighted_terms(
            logits,
            target,
            epoch=epoch,
            weighting=weighting,
            kind=self.kind,
            evidence=self.evidence,
            ignore_index=self.ignore_index,
            class_weights=self.class_weights,
            regions=self.regions,
            reduction=self.reduction,
            backend=self.backend,
        )[0]
