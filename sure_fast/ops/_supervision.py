"""What the parts of `uncertainty_supervision` hand to each other, and how it is checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks
from .dense_noise_uncertainty_loss import MARGIN
from .evidential_loss import check_options as evidential_options
from .gradient_magnitude import check_options as edge_options
from .gradient_magnitude import gaussian_blur
from .gradient_uncertainty_loss import GRADIENT_THRESHOLD, NUM_PAIRS
from .gradient_uncertainty_loss import check_options as pair_options
from .noise_uncertainty_loss import NOISE_THRESHOLD, one_dtype


class NoisyAnswers(NamedTuple):
    """The network's answers to two copies of the images with noise patches, checked."""

    logits: Tensor
    """[2N, C, *S], one batch after the other."""
    centers: Tensor
    """[N, P, D]."""
    levels: Tensor
    """[2]."""
    valid: Tensor
    """bool [N, P]."""


class DenseAnswers(NamedTuple):
    """The network's answers to copies of the images with noise everywhere, checked, and what is asked of them."""

    logits: Tensor
    """[2M, C, *S], one copy of M images after the other; of one copy [M, C, *S]."""
    levels: Tensor
    """[2], of one copy [1]."""
    which: Tensor | None
    """int64 [M]: the images of the batch that have copies; None: all N, in their order."""
    margin: float
    detach: bool
    with_distance: bool
    segmentation: bool
    """Whether the evidential terms of the copies are wanted."""

    @property
    def copies(self) -> tuple[Tensor, ...]:
        """The logits of each."""
        # of a single one a view would be copied in the backward
        return self.logits.chunk(2) if len(self.levels) > 1 else (self.logits,)

    def of(self, batch: Tensor) -> Tensor:
        """What a tensor [N, …] says of the images of which the copies are, [M, …]."""
        return batch if self.which is None else batch.index_select(0, self.which)


class UncertaintySupervisionOutput(NamedTuple):
    """The terms, unweighted, each a 0-dim tensor; those that were not asked for are 0."""

    data: Tensor
    kl: Tensor
    dice: Tensor
    gradient: Tensor
    """L_gu."""
    order: Tensor
    distance: Tensor
    far: Tensor
    noisy_data: Tensor
    """With the two after it the means over the noisy copies of the evidential terms."""
    noisy_kl: Tensor
    noisy_dice: Tensor


class SupervisionOptions(NamedTuple):
    """The options of `uncertainty_supervision`, checked, in the order of its operator."""

    kind: str
    evidence: str
    ignore_index: int | None
    class_weights: Tensor | None
    """[C] float64."""
    gradient_threshold: float
    noise_threshold: float
    num_pairs: int
    """0: all pairs."""
    normalize: str | None
    per_class: bool
    seed: Tensor
    """0-dim int64 on the CPU."""
    operator: str
    spacing: Sequence[float]
    channels: str

    @property
    def reach(self) -> float:
        """As far as distances are needed (voxels)."""
        return max(self.gradient_threshold, self.noise_threshold)


def check_options(
    *,
    kind: str = "digamma",
    evidence: str = "exp",
    ignore_index: int | None = None,
    class_weights: Sequence[float] | Tensor | None = None,
    gradient_threshold: float = GRADIENT_THRESHOLD,
    noise_threshold: float = NOISE_THRESHOLD,
    pairs: str = "exact",
    num_pairs: int = NUM_PAIRS,
    normalize: str | None = None,
    per_class: bool = False,
    operator: str = "sobel",
    spacing: Sequence[float] | float | None = None,
    channels: str = "luma",
    blur_sigma: float = 0.0,
) -> None:
    """What can be told of the options of `uncertainty_supervision` without its tensors."""
    evidential_options(kind=kind, evidence=evidence, ignore_index=ignore_index, class_weights=class_weights)
    _checks.positive("gradient_threshold", gradient_threshold, zero=True)
    _checks.positive("noise_threshold", noise_threshold, zero=True)
    pair_options(pairs=pairs, num_pairs=num_pairs, normalize=normalize)
    _checks.flag("per_class", per_class)
    edge_options(operator=operator, spacing=spacing, channels=channels, blur_sigma=blur_sigma)


def matching_image(image: object, logits: Tensor, channels: str) -> Tensor:
    """An image [N, K, *S] of the voxels and on the device of logits [N, C, *S], whose channels can be made one."""
    images = _checks.batched_image("image", image)
    if images.shape[0] != logits.shape[0] or images.shape[2:] != logits.shape[2:]:
        raise ValueError(
            f"image: expected [N, K, *S] to match logits {_checks.shape_text(logits.shape)}, "
            f"got {_checks.shape_text(images.shape)}"
        )
    _checks.same_device("image", images, "logits", logits)
    edge_options(channels=channels, image=images)
    return images


def check_noisy(value: object, logits: Tensor, number: int) -> Tensor:
    """Logits [number, C, *S] of noisy copies beside those [N, C, *S] of the clean images."""
    noisy = _checks.logits("noisy_logits", value)
    wanted = (number, *logits.shape[1:])
    if tuple(noisy.shape) != wanted:
        raise ValueError(f"noisy_logits: expected {_checks.shape_text(wanted)}, got {_checks.shape_text(noisy.shape)}")
    _checks.same_device("noisy_logits", noisy, "logits", logits)
    return noisy


def checked_image(image: Tensor | None, logits: Tensor, channels: str, blur_sigma: float) -> Tensor | None:
    """The image of which the gradient is taken, checked and blurred."""
    if image is None:
        return None
    image = matching_image(image, logits, channels)
    _checks.constant("image", image)
    return gaussian_blur(image.detach(), blur_sigma) if blur_sigma > 0 else image.detach()


def checked_answers(
    logits: Tensor,
    label: Tensor,
    noisy: Tensor | None,
    centers: Tensor | None,
    levels: Tensor | None,
    valid: Tensor | None,
    index: Tensor | None = None,
    *,
    margin: float = MARGIN,
    detach: bool = False,
    with_distance: bool = True,
    segmentation: bool = False,
) -> tuple[Tensor, NoisyAnswers | DenseAnswers | None]:
    """The logits and, where they are given, the noisy ones in one dtype, with their patches or levels, checked."""
    margin = _checks.positive("margin", margin, zero=True)
    _checks.flag("detach", detach)
    _checks.flag("with_distance", with_distance)
    _checks.flag("noisy_segmentation", segmentation)
    if noisy is None:
        return logits, None
    if levels is None:
        raise ValueError("levels: expected those of the noise with noisy_logits, got None")
    copies = 1 if centers is None and _checks.floating("levels", levels).shape == (1,) else 2
    number = len(logits) if index is None else len(_checked_index(index, logits))
    logits, noisy = one_dtype(logits, check_noisy(noisy, logits, copies * number))
    if centers is not None:
        given = {"margin": margin > 0, "detach": detach, "with_distance": not with_distance,
                 "noisy_segmentation": segmentation, "noisy_index": index is not None}  # fmt: skip
        for name in (name for name, idle in given.items() if idle):
            raise ValueError(f"{name}: expected only with noise over whole images, got centers of patches")
        return logits, NoisyAnswers(noisy, *_checks.patches(centers, levels, valid, label))
    if valid is not None:
        raise ValueError("valid: expected centers with it, got None")
    levels = _checks.noise_levels(levels, copies)
    _checks.same_device("levels", levels, "logits", logits)
    return logits, DenseAnswers(noisy, levels, index, margin, detach, with_distance, segmentation)


def _checked_index(value: object, logits: Tensor) -> Tensor:
    """Which images of a batch have noisy copies."""
    index = _checks.tensor("noisy_index", value)
    if index.dtype != torch.int64 or index.dim() != 1:
        raise ValueError(f"noisy_index: expected int64 [M], got {index.dtype} {_checks.shape_text(index.shape)}")
    _checks.same_device("noisy_index", index, "logits", logits)
    if index.device.type == "cpu" and not torch.compiler.is_compiling():
        outside = (index < 0) | (index >= len(logits))
        if bool(outside.any()):
            raise ValueError(f"noisy_index: expected indices in [0, {len(logits)}), got {int(index[outside][0])}")
    return index
