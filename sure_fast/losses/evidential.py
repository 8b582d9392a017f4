"""The evidential segmentation loss as a module."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .. import _backends
from ..ops.evidential_loss import (
    ANNEALING_EPOCHS,
    NUM_EPOCHS,
    EvidentialLossOutput,
    check_options,
    evidential_loss,
)


class EvidentialLoss(nn.Module):
    """`sure_fast.evidential_loss` with its options fixed; see there for the equations and the errors.

    Args:
        kind, total, num_epochs, annealing_epochs, evidence, ignore_index, class_weights, regions, reduction,
            level_weights, backend: as of `evidential_loss`.

    Raises:
        TypeError, ValueError: a wrong option.

    Example:
        >>> import sure_fast, torch
        >>> loss = sure_fast.EvidentialLoss(num_epochs=50)
        >>> out = loss(torch.randn(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long), epoch=2)
        >>> out.total.shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        kind: str = "digamma",
        total: str = "weighted",
        num_epochs: int = NUM_EPOCHS,
        annealing_epochs: int = ANNEALING_EPOCHS,
        evidence: str = "softplus",
        ignore_index: int | None = None,
        class_weights: Sequence[float] | None = None,
        regions: bool = False,
        reduction: str = "mean",
        level_weights: Sequence[float] | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        check_options(
            kind=kind, total=total, num_epochs=num_epochs, annealing_epochs=annealing_epochs, evidence=evidence,
            ignore_index=ignore_index, class_weights=class_weights, regions=regions, reduction=reduction,
            level_weights=level_weights,
        )  # fmt: skip
        _backends.check(backend, "evidential_loss")
        self.kind = kind
        self.total = total
        self.num_epochs = num_epochs
        self.annealing_epochs = annealing_epochs
        self.evidence = evidence
        self.ignore_index = ignore_index
        self.class_weights = class_weights
        self.regions = regions
        self.reduction = reduction
        self.level_weights = level_weights
        self.backend = backend

    def forward(
        self, logits: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor], epoch: float | None = None
    ) -> EvidentialLossOutput:
        """The loss of logits [N, C, *S] or a list of outputs, against labels [N, *S] or [N, 1, *S], at this epoch.

        Without an epoch the schedules are at their end: λ = 1.
        """
        return evidential_loss(
            logits,
            target,
            kind=self.kind,
            total=self.total,
            epoch=epoch,
            num_epochs=self.num_epochs,
            annealing_epochs=self.annealing_epochs,
            evidence=self.evidence,
            ignore_index=self.ignore_index,
            class_weights=self.class_weights,
            regions=self.regions,
            reduction=self.reduction,
            level_weights=self.level_weights,
            backend=self.backend,
        )
