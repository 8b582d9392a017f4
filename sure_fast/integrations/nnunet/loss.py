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
        overlap, each has an uncertainty and a boundary of its own: L_gu and the distance term of L_nu are the means
        over the regions, its order and far terms those over the near and far voxels of all of them.

    Args:
        num_epochs, start_epoch, beta, gamma, noisy_share, annealing_epochs, total: as of
            `UncertaintySupervisedLoss`.
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
        noisy_share: float = 1.0,
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
            **schedule, start_epoch=start_epoch, beta=beta, gamma=gamma, noisy_share=noisy_share, channels=CHANNELS,
        )  # fmt: skip
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
        other = other if noise.which is None else other[noise.which]
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
            clean, noisy = logits[: len(label)], logits[len(label) :]
            image = step_image(image, clean, CHANNELS)  # whatever the epoch
            segmentation = weight * self.evidential(clean, label, self.epoch).total
            return segmentation + self._of_regions(clean, noisy, label, image, noise)
        out = self.supervised(logits, label, image, epoch=self.epoch, noise=noise)
        return weight * out.segmentation + (out.total - out.segmentation)

    def _of_regions(self, logits: Tensor, noisy: Tensor, label: Tensor, image: Tensor, noise: NoisyImages) -> Tensor:
        """a (β L_gu + γ L_nu) of the regions, folded into the batch."""
        loss = self.supervised
        weight, total = loss.supervision_weight(self.epoch), logits.new_zeros((), dtype=torch.float32)
        if not weight or not (loss.beta or len(noise.levels)):
            return total
        folded = label.flatten(0, 1)
        volume = folded[:, None] if folded.dim() == 4 else folded  # which is no map per class
        reach = max(loss.options[name] for name in ("gradient_threshold", "noise_threshold"))
        distance = sure_fast.boundary_distance(volume, max_distance=reach, ignore_index=self.evidential.ignore_index)
        if self.ignore_label is not None:  # neither near nor far
            distance = distance.masked_fill(_checks.equals(folded, IGNORED), torch.nan)
        u, normalize = _uncertainty_of_regions(logits), loss.options["normalize"]
        if loss.beta:
            gradient = sure_fast.gradient_magnitude(image, channels=CHANNELS)
            gradient = gradient.expand(-1, logits.shape[1], *image.shape[2:]).flatten(0, 1)
            edges = sure_fast.gradient_uncertainty_loss(
                u, gradient, distance, threshold=loss.options["gradient_threshold"], normalize=normalize
            )
            total = total + weight * loss.beta * edges
        if len(noise.levels):
            copies, regions = noisy.chunk(len(noise.levels)), logits.shape[1]

            def of_copies(batch: Tensor) -> Tensor:
                """What a folded tensor says of the images that have copies."""
                return batch if noise.which is None else batch.unflatten(0, (-1, regions))[noise.which].flatten(0, 1)

            maps = [_uncertainty_of_regions(z) for z in copies]
            options: dict[str, Any] = {**loss.order, "normalize": normalize, "with_distance": loss.weights[1] > 0}
            terms = sure_fast.dense_noise_uncertainty_loss(
                of_copies(u), maps[0], maps[1] if len(maps) > 1 else None, of_copies(distance), noise.levels,
                threshold=loss.options["noise_threshold"], **options,
            )  # fmt: skip
            ordered = sum(w * term for w, term in zip(loss.weights, terms, strict=True))
            label = label if noise.which is None else label[noise.which]
            answered = [self.evidential(z, label, self.epoch).total for z in copies]
            learnt = loss.noisy_weight * torch.stack(answered).mean()
            total = total + weight * loss.gamma * noise.times * (ordered + learnt)
        return total

    def _label(self, target: Tensor) -> Tensor:
        """Labels as integers; of regions without the channel that marks ignored voxels."""
        if not self.regions:
            return target if target.dtype in (torch.int8, torch.int16, torch.int32, torch.int64) else target.short()
        regions = target.to(torch.uint8)
        if self.ignore_label is None:
            return regions
        return regions[:, :-1].masked_fill(regions[:, -1:].bool(), IGNORED)


def _uncertainty_of_regions(logits: Tensor) -> Tensor:
    """u [b · R, 1, *S] of logits [b, R, *S]: a region's Dirichlet has the evidence of absence and presence."""
    return sure_fast.dirichlet_uncertainty(torch.stack([-logits, logits], 2).flatten(0, 1))
