"""The gradient-uncertainty loss as a module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import _backends, _checks
from ..ops._supervision import check_options
from ..ops.boundary_distance import boundary_distance
from ..ops.gradient_magnitude import gradient_magnitude
from ..ops.gradient_uncertainty_loss import GRADIENT_THRESHOLD, NUM_PAIRS, gradient_uncertainty_loss
from ._step import draw_seed

NORMALIZE = "band"


class GradientUncertaintyLoss(nn.Module):
    """L_gu from the uncertainty, the image and the labels; see `sure_fast.gradient_uncertainty_loss`.

    Args:
        threshold: half width of the boundary band, in voxels.
        pairs, num_pairs, per_class: which pairs of voxels are compared; `per_class` compares those of one label.
        normalize: as of `gradient_uncertainty_loss`.
        operator, spacing, channels, blur_sigma: as of `gradient_magnitude`.
        ignore_index: label that is neither boundary nor compared.
        backend: for every op inside; one that all of them have.

    Raises:
        TypeError, ValueError: a wrong option.

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
        threshold: float = GRADIENT_THRESHOLD,
        pairs: str = "exact",
        num_pairs: int = NUM_PAIRS,
        normalize: str | None = NORMALIZE,
        per_class: bool = False,
        operator: str = "sobel",
        spacing: Sequence[float] | float | None = None,
        channels: str = "luma",
        blur_sigma: float = 0.0,
        ignore_index: int | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.threshold = _checks.positive("threshold", threshold, zero=True)
        check_options(
            pairs=pairs, num_pairs=num_pairs, normalize=normalize, per_class=per_class, operator=operator,
            spacing=spacing, channels=channels, blur_sigma=blur_sigma, ignore_index=ignore_index,
        )  # fmt: skip
        _backends.check(backend, "gradient_magnitude", "boundary_distance", "gradient_uncertainty_loss")
        self.pairs = pairs
        self.num_pairs = num_pairs
        self.normalize = normalize
        self.per_class = per_class
        self.operator = operator
        self.spacing = spacing
        self.channels = channels
        self.blur_sigma = blur_sigma
        self.ignore_index = ignore_index
        self.backend = backend

    def forward(
        self,
        uncertainty: Tensor,
        image: Tensor,
        label: Tensor,
        *,
        distance: Tensor | None = None,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """L_gu of uncertainty [N, 1, *S] or [N, *S] for an image [N, K, *S] and labels [N, *S] or [N, 1, *S].

        Args:
            distance: the labels' boundary distance where it is at hand.
            seed: of sampled pairs; None: drawn anew at every call.
            generator: from which it is drawn; None: torch's default one.
        """
        image = _checks.batched_image("image", image)
        _checks.constant("image", image)
        _checks.generator(generator)
        u = _checks.maps("uncertainty", uncertainty, image[:, 0], "one channel of image")
        label = _checks.label("label", label, image, "image")
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
                _as_volume(label), max_distance=self.threshold, ignore_index=self.ignore_index, backend=self.backend
            )
        distance = _checks.maps("distance", distance, u)
        if self.ignore_index is not None:
            distance = distance.masked_fill(_checks.equals(label, self.ignore_index), torch.inf)
        if seed is None and self.pairs == "sampled":
            seed = draw_seed(generator)
        return gradient_uncertainty_loss(
            u,
            gradient,
            distance,
            threshold=self.threshold,
            pairs=self.pairs,
            num_pairs=self.num_pairs,
            label=label if self.per_class else None,
            seed=0 if seed is None else seed,
            normalize=self.normalize,
            backend=self.backend,
        )


def _as_volume(label: Tensor) -> Tensor:
    """With a channel axis a volume [N, *S] of labels is nothing else."""
    return label[:, None] if label.dim() == 4 else label
