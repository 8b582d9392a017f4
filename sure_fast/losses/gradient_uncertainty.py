"""The gradient-uncertainty loss as a module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import _checks
from ..ops.boundary_distance import boundary_distance
from ..ops.gradient_magnitude import gradient_magnitude
from ..ops.gradient_uncertainty_loss import gradient_uncertainty_loss


class GradientUncertaintyLoss(nn.Module):
    """L_gu from the uncertainty, the image and the labels; see `sure_fast.gradient_uncertainty_loss`.

    Args:
        threshold: half width of the boundary band, in voxels.
        pairs, num_pairs, per_class: which pairs of voxels are compared; `per_class` compares those of one label.
        operator, spacing, channels, blur_sigma: as of `gradient_magnitude`.
        ignore_index: label that is neither boundary nor compared.
        backend: for every op inside.

    Example:
        >>> import sure_fast, torch
        >>> label = torch.zeros(1, 8, 8, dtype=torch.long)
        >>> label[:, 4:] = 1
        >>> sure_fast.GradientUncertaintyLoss()(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8), label).shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        threshold: float = 1.0,
        pairs: str = "exact",
        num_pairs: int = 100_000,
        per_class: bool = False,
        operator: str = "sobel",
        spacing: Sequence[float] | float | None = None,
        channels: str = "luma",
        blur_sigma: float = 0.0,
        ignore_index: int | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.threshold = threshold
        self.pairs = pairs
        self.num_pairs = num_pairs
        self.per_class = per_class
        self.operator = operator
        self.spacing = spacing
        self.channels = channels
        self.blur_sigma = blur_sigma
        self.ignore_index = ignore_index
        self.backend = backend

    def forward(
        self, uncertainty: Tensor, image: Tensor, label: Tensor, *, distance: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        """L_gu of uncertainty [N, 1, *S] for an image [N, K, *S] and labels [N, *S] or [N, 1, *S].

        `distance` is the labels' boundary distance where it is at hand; `seed` is for sampled pairs.
        """
        label = _checks.integer("label", label)
        if label.dim() == uncertainty.dim():
            label = label.squeeze(1)
        with torch.no_grad():
            gradient = gradient_magnitude(
                image,
                operator=self.operator,
                spacing=self.spacing,
                channels=self.channels,
                blur_sigma=self.blur_sigma,
                backend=self.backend,
            )
            if distance is None:
                distance = boundary_distance(
                    label, max_distance=self.threshold, ignore_index=self.ignore_index, backend=self.backend
                )
            if self.ignore_index is not None:
                distance = distance.masked_fill(label == self.ignore_index, torch.inf)
        return gradient_uncertainty_loss(
            uncertainty,
            gradient,
            distance,
            threshold=self.threshold,
            pairs=self.pairs,
            num_pairs=self.num_pairs,
            label=label if self.per_class else None,
            seed=seed,
            backend=self.backend,
        )
