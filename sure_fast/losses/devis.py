"""DEviS: evidential segmentation whose uncertainty is calibrated by accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import _backends, _checks
from .._distributed import summed
from ..ops.dirichlet_uncertainty import EVIDENCE, evidence_of
from ..ops.evidential_loss import check_options
from . import schedule
from ._step import weight_buffer
from .evidential import weighted_terms
from .schedule import ANNEALING_EPOCHS, NUM_EPOCHS

EPSILON = 1e-10


class DevisOutput(NamedTuple):
    """The loss and its terms, each a 0-dim tensor."""

    total: Tensor
    segmentation: Tensor
    """The evidential total."""
    data: Tensor
    kl: Tensor
    dice: Tensor
    calibration: Tensor


def accuracy_uncertainty_loss(
    logits: Tensor,
    uncertainty: Tensor,
    label: Tensor,
    progress: float | None = None,
    *,
    evidence: str = "exp",
    ignore_index: int | None = None,
    epsilon: float = EPSILON,
) -> Tensor:
    r"""Right voxels are to be certain, wrong ones uncertain.

    Math:
        :math:`mean_i\, a [\hat y_i = y_i] (-\hat p_i \ln(1 - u_i + \epsilon)) + (1 - a) [\hat y_i \ne y_i] (-(1 - \hat
        p_i) \ln(u_i + \epsilon))`, p̂ = max_c p_c, :math:`a = 0.01^{1 - \min(1, progress)}`; Zou et al., DEviS (IEEE TMI
        2024).

    Args:
        logits: [N, C, \*S]. uncertainty: their u, [N, 1, \*S], differentiated as p̂ is. label: [N, \*S] or [N, 1, \*S].
        progress: epoch / epochs, >= 0, past 1 as at 1; None: at the end, 1. evidence: e(z) of the logits.
        ignore_index: voxels of this label do not count. epsilon: of the logarithms.

    Returns:
        0-dim, 0 where no voxel counts.

    Raises:
        TypeError, ValueError: wrong types, shapes or options, a label outside [0, C) (on the CPU).
    """
    logits = _checks.logits("logits", logits)
    label = _checks.label("label", label, logits)
    _checks.index("ignore_index", ignore_index)
    _checks.labels_in_range("label", label, logits.shape[1], ignore_index)
    share = 1.0 if progress is None else _checks.positive("progress", progress, zero=True)
    _checks.choice("evidence", evidence, EVIDENCE)
    _checks.positive("epsilon", epsilon)
    u = _checks.maps("uncertainty", uncertainty, label, "label")
    return _accuracy_uncertainty(logits, u, label, share, evidence, ignore_index, epsilon)


def _accuracy_uncertainty(
    logits: Tensor,
    uncertainty: Tensor,
    label: Tensor,
    share: float,
    evidence: str,
    ignore_index: int | None,
    epsilon: float = EPSILON,
) -> Tensor:
    """Of checked arguments; u and labels [N, *S]."""
    counts = _checks.counted(label, ignore_index)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    best, predicted = wide.max(1)
    u = uncertainty.to(wide.dtype)
    # p̂ = α_max / A, and A = C / u
    confidence = (evidence_of(best, evidence) + 1.0) * u / logits.shape[1]
    annealing = schedule.rising(share)
    right = -annealing * confidence * (1.0 - u + epsilon).log()
    wrong = -(1.0 - annealing) * (1.0 - confidence) * (u + epsilon).log()
    total = torch.where(predicted == label, right, wrong).where(counts, 0.0).sum()
    sums = summed(torch.stack([total, counts.sum().to(total)]))
    return sums[0] / sums[1].clamp(min=1)


class DevisLoss(nn.Module):
    """The evidential loss plus `accuracy_uncertainty_loss`.

    Args:
        weight: of the calibration term.
        kind, total, num_epochs, annealing_epochs, evidence, ignore_index, class_weights, backend: as of
            `EvidentialLoss`.

    Raises:
        TypeError, ValueError: a wrong option.

    Example:
        >>> import torch
        >>> from sure_fast.losses import DevisLoss
        >>> loss = DevisLoss(num_epochs=50)
        >>> loss(torch.randn(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long), epoch=2).total.shape
        torch.Size([])
    """

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        weight: float = 1.0,
        kind: str = "digamma",
        total: str = "weighted",
        num_epochs: int = NUM_EPOCHS,
        annealing_epochs: int = ANNEALING_EPOCHS,
        evidence: str = "exp",
        ignore_index: int | None = None,
        class_weights: Sequence[float] | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.weight = _checks.positive("weight", weight, zero=True)
        _backends.check(backend, "evidential_loss")
        self.shared: dict[str, Any] = {"evidence": evidence, "ignore_index": ignore_index}
        self.options: dict[str, Any] = {"kind": kind}
        self.weighting: dict[str, Any] = {
            "total": total,
            "num_epochs": num_epochs,
            "annealing_epochs": annealing_epochs,
        }
        check_options(**self.shared, **self.options, class_weights=class_weights)
        self.register_buffer("class_weights", weight_buffer(class_weights), persistent=False)
        schedule.check_total(**self.weighting)
        self.num_epochs = num_epochs
        self.backend = backend

    def forward(self, logits: Tensor, label: Tensor, epoch: float | None = None) -> DevisOutput:
        """The loss of logits [N, C, *S] against labels [N, *S] or [N, 1, *S] at this epoch; None: at the end."""
        logits = _checks.logits("logits", logits)
        label = _checks.label("label", label, logits)
        _checks.labels_in_range("label", label, logits.shape[1], self.shared["ignore_index"])
        progress = schedule.progress(epoch, self.num_epochs)
        evidential, uncertainty = weighted_terms(
            logits, label, epoch=epoch, weighting=self.weighting, return_uncertainty=True, backend=self.backend,
            class_weights=self.class_weights, **self.shared, **self.options,
        )  # fmt: skip
        assert uncertainty is not None
        calibration = _accuracy_uncertainty(logits, uncertainty[:, 0], label, progress, **self.shared)
        return DevisOutput(evidential.total + self.weight * calibration, *evidential, calibration)
