"""DEviS: evidential segmentation whose uncertainty is calibrated by accuracy."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import _checks
from .._distributed import summed
from ..ops.dirichlet_uncertainty import evidence_of
from ..ops.evidential_loss import evidential_loss


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
    progress: float,
    *,
    evidence: str = "softplus",
    ignore_index: int | None = None,
    epsilon: float = 1e-10,
) -> Tensor:
    r"""Right voxels are to be certain, wrong ones uncertain.

    Math:
        :math:`mean_i\, a [\hat y_i = y_i] (-\hat p_i \ln(1 - u_i + \epsilon)) + (1 - a) [\hat y_i \ne y_i] (-(1 - \hat
        p_i) \ln(u_i + \epsilon))`, p̂ = max_c p_c, :math:`a = 0.01^{1 - progress}`; Zou et al., DEviS (IEEE TMI 2024).

    Args:
        logits: [N, C, \*S]. uncertainty: their u, [N, 1, \*S], differentiated as p̂ is. label: [N, \*S] or [N, 1, \*S].
        progress: epoch / epochs. evidence: e(z) of the logits. ignore_index: voxels of this label do not count.
        epsilon: of the logarithms.

    Returns:
        0-dim, 0 where no voxel counts.
    """
    label = _checks.label("label", label, logits)
    counts = torch.ones_like(label, dtype=torch.bool) if ignore_index is None else label != ignore_index
    wide = logits if logits.dtype == torch.float64 else logits.float()
    best, predicted = wide.max(1)
    u = uncertainty[:, 0].to(wide.dtype)
    # p̂ = α_max / A, and A = C / u
    confidence = (evidence_of(best, evidence) + 1.0) * u / logits.shape[1]
    annealing = 0.01 ** (1.0 - progress)
    right = -annealing * confidence * (1.0 - u + epsilon).log()
    wrong = -(1.0 - annealing) * (1.0 - confidence) * (u + epsilon).log()
    total = torch.where(predicted == label, right, wrong).where(counts, 0.0).sum()
    sums = summed(torch.stack([total, counts.sum().to(total)]))
    return sums[0] / sums[1].clamp(min=1)


class DevisLoss(nn.Module):
    """The evidential loss plus `accuracy_uncertainty_loss`.

    Args:
        weight: of the calibration term.
        num_epochs, kind, total, annealing_epochs, evidence, ignore_index, class_weights, backend: as of
            `evidential_loss`.

    Example:
        >>> import torch
        >>> from sure_fast.losses import DevisLoss
        >>> loss = DevisLoss(num_epochs=50)
        >>> loss(torch.randn(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long), epoch=2).total.shape
        torch.Size([])
    """

    def __init__(
        self, *, weight: float = 1.0, num_epochs: int = 100, evidence: str = "softplus",
        ignore_index: int | None = None, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight = _checks.positive("weight", weight, zero=True)
        self.num_epochs, self.evidence, self.ignore_index, self.options = num_epochs, evidence, ignore_index, options

    def forward(self, logits: Tensor, label: Tensor, epoch: float = 0) -> DevisOutput:
        """The loss of logits [N, C, *S] against labels [N, *S] or [N, 1, *S] at this epoch."""
        shared: dict[str, Any] = {"evidence": self.evidence, "ignore_index": self.ignore_index}
        out = evidential_loss(
            logits, label, epoch=epoch, num_epochs=self.num_epochs, return_uncertainty=True, **shared, **self.options
        )
        assert out.uncertainty is not None
        calibration = accuracy_uncertainty_loss(logits, out.uncertainty, label, epoch / self.num_epochs, **shared)
        return DevisOutput(out.total + self.weight * calibration, *out[:4], calibration)
