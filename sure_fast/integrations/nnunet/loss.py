"""The loss of a training step in nnU-Net's terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

import sure_fast
from sure_fast import _checks
from sure_fast.losses import NoisyImages
from sure_fast.losses._step import step_image

IGNORED = 255  # what an ignored voxel of a region becomes
CHANNELS = "max"  # the modalities of a scan are no colours: the strongest edge of any


class NNUNetLoss(nn.Module):
    """The evidential loss of every resolution and, within `supervising`, the uncertainty terms of the finest.

    Math:
        scale · (Σ_k w_k L_seg(level k) + a (β L_gu + γ L_nu)); see `UncertaintySupervisedLoss`. Of regions, which may
        overlap, L_gu is the mean over the regions, each with its own uncertainty and boundary, and γ must be 0.

    Args:
        num_epochs, start_epoch, beta, gamma, noise_every, annealing_epochs, total: as of `UncertaintySupervisedLoss`.
        scale: of the whole loss, > 0.
        level_weights: w >= 0, of the resolutions, the finest first; None: the network has one output.
        regions: targets are one 0 or 1 a region and voxel instead of labels.
        ignore_label: label that does not count; of regions any number, which says that the last channel of the target
            marks such voxels.
        image_channels: how many of the network's input channels are image; the others, a cascade's segmentation, get no
            noise and have no part in the image gradient.
        ddp: the evidential terms are those of the batch of all ranks.

    Raises:
        TypeError, ValueError: a wrong option.
    """

    def __init__(
        self,
        *,
        num_epochs: int,
        start_epoch: int | None = None,
        beta: float,
        gamma: float,
        noise_every: int = 1,
        annealing_epochs: int,
        total: str = "weighted",
        scale: float = 1.0,
        level_weights: Sequence[float] | None = None,
        regions: bool = False,
        ignore_label: int | None = None,
        image_channels: int = 1,
        ddp: bool = False,
    ) -> None:
        super().__init__()
        self.regions = _checks.flag("regions", regions)
        if regions and _checks.positive("gamma", gamma, zero=True) > 0:
            raise ValueError(f"gamma: expected 0 with regions, for which L_nu is not defined, got {gamma}")
        self.scale = _checks.positive("scale", scale)
        given = _checks.weights("level_weights", level_weights)
        self.level_weights = None if given is None else [float(w) for w in given]
        self.ignore_label = _checks.index("ignore_label", ignore_label)
        self.image_channels = _checks.count("image_channels", image_channels)
        self.ddp = _checks.flag("ddp", ddp)
        self.epoch = 0
        ignore_index = None if ignore_label is None else IGNORED if regions else ignore_label
        schedule: dict[str, Any] = {
            "num_epochs": num_epochs,
            "annealing_epochs": annealing_epochs,
            "total": total,
            "ignore_index": ignore_index,
        }
        self.evidential = sure_fast.EvidentialLoss(**schedule, regions=regions)
        self.supervised = sure_fast.UncertaintySupervisedLoss(
            **schedule, start_epoch=start_epoch, beta=beta, gamma=gamma, noise_every=noise_every, channels=CHANNELS
        )
        self._batch: tuple[Tensor, NoisyImages] | None = None

    @contextmanager
    def supervising(self, data: Tensor) -> Iterator[Tensor]:
        """Within the block the loss has the uncertainty terms and is of the network's answer to the batch that this
        gives: `data` and, where L_nu applies, noisy copies of it."""
        if data.shape[1] < self.image_channels:
            raise ValueError(f"image_channels: expected at most the {data.shape[1]} channels of the data, got "
                             f"{self.image_channels}")  # fmt: skip
        image, other = data[:, : self.image_channels], data[:, self.image_channels :]
        noise = self.supervised.noise_of_step(image, epoch=self.epoch)
        self._batch = (image, noise)
        copies = len(noise.levels)
        try:
            yield torch.cat([data, torch.cat([noise.images, torch.cat([other] * copies)], 1)]) if copies else data
        finally:
            self._batch = None

    def forward(self, output: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> Tensor:
        """A number, of logits [b, C, *S] and targets [b, 1, *S] (regions [b, R, *S]), or of lists, the finest first."""
        levels = [output] if isinstance(output, Tensor) else list(output)
        targets = [target] if isinstance(target, Tensor) else list(target)
        weights = [1.0] if self.level_weights is None else self.level_weights
        if not len(levels) == len(targets) == len(weights):
            raise ValueError(
                f"output, target: expected {len(weights)} resolutions, got {len(levels)} and {len(targets)}"
            )
        with sure_fast.across_ranks() if self.ddp else nullcontext():
            loss = self._finest(levels[0], self._label(targets[0]), weights[0])
            for weight, level, label in zip(weights[1:], levels[1:], targets[1:], strict=True):
                if weight:
                    clean = level[: len(label)]
                    loss = loss + weight * self.evidential(clean, self._label(label), self.epoch).total
        return self.scale * loss

    def _finest(self, logits: Tensor, label: Tensor, weight: float) -> Tensor:
        if self._batch is None:
            return weight * self.evidential(logits, label, self.epoch).total
        image, noise = self._batch
        if self.regions:
            image = step_image(image, logits, CHANNELS)  # whatever the epoch
            return weight * self.evidential(logits, label, self.epoch).total + self._region_edges(logits, label, image)
        out = self.supervised(logits, label, image, epoch=self.epoch, noise=noise)
        return weight * out.segmentation + (out.total - out.segmentation)

    def _region_edges(self, logits: Tensor, label: Tensor, image: Tensor) -> Tensor:
        """a β L_gu of the regions, folded into the batch."""
        weight = self.supervised.supervision_weight(self.epoch) * self.supervised.beta
        if not weight:
            return logits.new_zeros((), dtype=torch.float32)
        # a region's Dirichlet has the evidence of absence and presence
        pairs = torch.stack([-logits, logits], 2).flatten(0, 1)
        gradient = sure_fast.gradient_magnitude(image, channels=CHANNELS).expand(-1, logits.shape[1], *image.shape[2:])
        label = label.flatten(0, 1)
        volume = label[:, None] if label.dim() == 4 else label  # which is no map per class
        distance = sure_fast.boundary_distance(volume, max_distance=1.0, ignore_index=self.evidential.ignore_index)
        if self.ignore_label is not None:
            distance = distance.masked_fill(_checks.equals(label, IGNORED), torch.inf)
        u = sure_fast.dirichlet_uncertainty(pairs)
        normalize = self.supervised.options["normalize"]
        return weight * sure_fast.gradient_uncertainty_loss(u, gradient.flatten(0, 1), distance, normalize=normalize)

    def _label(self, target: Tensor) -> Tensor:
        """Labels as integers; of regions without the channel that marks ignored voxels."""
        if not self.regions:
            return target if target.dtype in (torch.int8, torch.int16, torch.int32, torch.int64) else target.short()
        regions = target.to(torch.uint8)
        if self.ignore_label is None:
            return regions
        return regions[:, :-1].masked_fill(regions[:, -1:].bool(), IGNORED)
