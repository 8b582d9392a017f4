"""From networks to probabilities and an uncertainty map: the prediction-time methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data import DatasetInfo
from ..data.resampling import Place, around, inside, resample, target_size
from ..metrics import probability_stats
from ..ops.dirichlet_uncertainty import dirichlet_uncertainty, evidence_of
from ..ops.segmentation_stats import SegmentationStats, segmentation_stats
from ..probabilistic import ProbabilisticUNet

INFERENCE = ("evidential", "softmax", "mc-dropout", "ensemble", "tta", "probabilistic")
STITCHED_BYTES = 2**31
"""Largest logits, in float32, that are put together on a GPU."""
WINDOWS = {2: 16, 3: 4}
"""That a network answers at a time, of two and of three axes."""
DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@dataclass(frozen=True)
class Prediction:
    """Of one image."""

    probabilities: Tensor
    """[1, C, *S]."""
    uncertainty: Tensor
    """[1, *S] in [0, 1]: u = C / A, or the entropy of the probabilities over ln C."""
    logits: Tensor | None = None
    """[1, C, *S] of an evidential network."""
    evidence: str = "exp"
    segmentation: Tensor | None = None
    """[1, *S], where it is another than the most probable class, as of a tool that mends it afterwards."""
    known: frozenset[str] = frozenset(("probabilities", "uncertainty"))
    """Which of the two mean something; a tool may tell of one, or of none."""

    @property
    def labels(self) -> Tensor:
        """[1, *S]: the class of the largest α or probability, the first of equals, as `stats` counts it."""
        if self.segmentation is not None:
            return self.segmentation
        if self.logits is None:
            return self.probabilities.argmax(1)
        return (evidence_of(self.logits.float(), self.evidence) + 1.0).argmax(1)

    def slice(self, axis: int, number: int) -> Prediction:
        """Of one slice of a volume."""

        def cut(x: Tensor) -> Tensor:
            return x.select(x.dim() - 3 + axis, number).contiguous()

        logits, segmentation = (None if x is None else cut(x) for x in (self.logits, self.segmentation))
        maps = cut(self.probabilities), cut(self.uncertainty)
        return Prediction(*maps, logits, self.evidence, segmentation, self.known)

    @property
    def spoiled(self) -> bool:
        """A NaN or infinity in it: nothing is defined."""
        return not bool(self.probabilities.isfinite().all() and self.uncertainty.isfinite().all())

    def stats(self, label: Tensor, ignore_index: int | None) -> SegmentationStats:
        """Every count of it against a label [1, *S], in one pass over the logits where there are some."""
        if self.logits is not None:
            return segmentation_stats(self.logits, label, evidence=self.evidence, ignore_index=ignore_index)
        return self._counts(self.probabilities, label, ignore_index)

    def stats_of_labels(self, label: Tensor, ignore_index: int | None, stats: SegmentationStats) -> SegmentationStats:
        """`stats` with the segmentation in the place of the most probable class."""
        if self.segmentation is None:
            return stats
        certain = functional.one_hot(self.segmentation, self.probabilities.shape[1]).movedim(-1, 1)
        return self._counts(certain.to(self.probabilities), label, ignore_index)

    def _counts(self, p: Tensor, label: Tensor, ignore_index: int | None) -> SegmentationStats:
        return probability_stats(p, label, uncertainty=self.uncertainty, ignore_index=ignore_index)


def home(device: torch.device, shape: Sequence[int], num_classes: int) -> torch.device:
    """Where an image of this shape [*S] and its maps are kept: large ones in main memory, whatever the device."""
    return device if 4 * num_classes * math.prod(shape) <= STITCHED_BYTES else torch.device("cpu")


def entropy_of(p: Tensor) -> Tensor:
    """−Σ p ln p / ln C of probabilities [1, C, *S]: [1, *S] in [0, 1]."""
    return (torch.special.entr(p).sum(1) / math.log(p.shape[1])).clamp(0.0, 1.0)


class WholeImage:
    """Logits of whole images, brought to the network's grid and its answer back.

    Args:
        model: the network. patch_size: window, as in training.
        info: of a data set, how images are prepared: box, voxel size, slices; None: as they are.
    """

    def __init__(self, model: nn.Module, patch_size: Sequence[int], info: DatasetInfo | None = None) -> None:
        self.info = info
        self.windows = sliding_window(model, patch_size)

    def __call__(self, image: Tensor, place: Place | None = None, mirrored: tuple[int, ...] = ()) -> Tensor:
        """Logits [1, C, *S] of an image [1, K, *S].

        Args:
            place: of the image, its voxel size and what of it is shown; None: the network's voxel size, all.
            mirrored: axes along which the network sees it turned round.
        """
        if self.info is None:
            return self.windows(image.flip(mirrored)).flip(mirrored) if mirrored else self.windows(image)
        box, axis = place and place.box, self.info.slice_axis
        shown = inside(box, image)
        own = place.spacing if place is not None else self.info.spacing or (1.0,) * (image.dim() - 2)
        seen = resample(shown, target_size(shown.shape[2:], own, self.info))
        seen = seen.flip(mirrored) if mirrored else seen
        if axis is None:
            logits = self.windows(seen)
        else:
            logits = self.windows(seen.movedim(axis + 2, 0)[:, 0]).movedim(0, axis + 1)[None]
        logits = logits.flip(mirrored) if mirrored else logits
        return around(box, image.shape[2:], resample(logits, shown.shape[2:]))


def sliding_window(model: nn.Module, patch_size: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Logits of whole images [N, K, *S]: sliding windows of the training crop, blended with a Gaussian.

    The network answers a few windows at a time on its own device; they are put together on the image's. So the
    memory on the device of the network does not grow with an image that is kept elsewhere.
    """
    from monai.inferers.utils import sliding_window_inference

    def finest(windows: Tensor) -> Tensor:
        answer: Any = model(windows)
        return answer[0] if isinstance(answer, (list, tuple)) else answer

    def predict(image: Tensor) -> Tensor:
        missing = [max(0, p - s) for p, s in zip(patch_size, image.shape[2:], strict=True)]
        before = [m // 2 for m in missing]
        pad = [n for b, m in zip(reversed(before), reversed(missing), strict=True) for n in (b, m - b)]
        whole = functional.pad(image, pad, mode="replicate") if any(missing) else image
        parameter = next(model.parameters(), None)
        logits = sliding_window_inference(
            whole,
            tuple(patch_size),
            WINDOWS[len(patch_size)],
            finest,
            overlap=0.5,
            mode="gaussian",
            sw_device=image.device if parameter is None else parameter.device,
            device=image.device,
        )
        for axis, (start, size) in enumerate(zip(before, image.shape[2:], strict=True)):
            logits = logits.narrow(axis + 2, start, size)  # type: ignore[union-attr]
        return logits  # type: ignore[return-value]

    return predict


def dropout_layers(model: nn.Module) -> list[nn.Module]:
    return [layer for layer in model.modules() if isinstance(layer, DROPOUT) and layer.p > 0]


def has_dropout(model: nn.Module) -> bool:
    return bool(dropout_layers(model))


class Predictor:
    """Predicts whole images.

    Args:
        models: the network; for "ensemble" several.
        patch_size: window, as in training.
        inference: "evidential": α = e(z) + 1, p = α / A, u = C / A. The others have u = −Σ p ln p / ln C, of p =
            softmax(z) ("softmax") or of its mean over `samples` passes with dropout ("mc-dropout", Gal and Ghahramani,
            ICML 2016), over the networks ("ensemble", Lakshminarayanan et al., NeurIPS 2017), or over the image
            mirrored along every set of axes ("tta", Wang et al., Neurocomputing 2019), or over `samples` draws of the
            prior of a probabilistic U-Net, each the same in every window ("probabilistic", Kohl et al., NeurIPS 2018).
        evidence: e(z). samples, seed: of the dropout masks or draws, the same for every image.
        info: how images are prepared, as of `WholeImage`.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        patch_size: Sequence[int],
        *,
        inference: str = "evidential",
        evidence: str = "exp",
        samples: int = 8,
        seed: int = 0,
        info: DatasetInfo | None = None,
    ) -> None:
        if inference not in INFERENCE:
            raise ValueError(f"inference: expected one of {', '.join(INFERENCE)}, got {inference!r}")
        if not models or (inference == "ensemble") != (len(models) > 1):
            wanted = "at least 2 networks" if inference == "ensemble" else "1 network"
            raise ValueError(f"models: expected {wanted} for {inference}, got {len(models)}")
        self.models = [model.eval() for model in models]
        self.windows = [WholeImage(model, patch_size, info) for model in models]
        self.inference, self.evidence, self.samples, self.seed = inference, evidence, samples, seed
        if inference == "probabilistic" and not isinstance(models[0], ProbabilisticUNet):
            raise ValueError("models: expected a ProbabilisticUNet for probabilistic, got another network")
        if inference == "mc-dropout" and not has_dropout(models[0]):
            raise ValueError("models: expected a network with dropout for mc-dropout, got one without")

    @torch.no_grad()
    def __call__(self, image: Tensor, place: Place | None = None) -> Prediction:
        """The prediction of an image [1, K, *S], on its own grid; `place` as of `WholeImage`."""
        if self.inference == "evidential":
            logits = self.windows[0](image, place)
            alpha = evidence_of(logits.float(), self.evidence) + 1.0
            u = dirichlet_uncertainty(logits, evidence=self.evidence)[:, 0]
            return Prediction(alpha / alpha.sum(1, keepdim=True), u, logits, self.evidence)
        mean, number = torch.zeros(()), 0
        for logits in self._passes(image, place):
            mean, number = mean + logits.float().softmax(1), number + 1
        p = mean / number
        return Prediction(p, entropy_of(p))

    def _passes(self, image: Tensor, place: Place | None) -> Iterator[Tensor]:
        if self.inference == "mc-dropout":
            with self._dropping(next(self.models[0].parameters()).device):
                for _ in range(self.samples):
                    yield self.windows[0](image, place)
        elif self.inference == "probabilistic":
            yield from self._draws(image, place)
        elif self.inference == "tta":
            info = self.windows[0].info
            sliced = None if info is None or info.slice_axis is None else info.slice_axis + 2
            axes = [axis for axis in range(2, image.dim()) if axis != sliced]
            for flipped in chain.from_iterable(combinations(axes, k) for k in range(len(axes) + 1)):
                yield self.windows[0](image, place, flipped)
        else:
            for window in self.windows:
                yield window(image, place)

    def _draws(self, image: Tensor, place: Place | None) -> Iterator[Tensor]:
        """Logits with draws of the latent variable, each the same in every window."""
        model: Any = self.models[0]
        generator = torch.Generator().manual_seed(self.seed)
        try:
            for _ in range(self.samples):
                model.noise = torch.randn(model.latent, generator=generator)
                yield self.windows[0](image, place)
        finally:
            model.noise = None

    @contextmanager
    def _dropping(self, device: torch.device) -> Iterator[None]:
        """Dropout at work, from the same seed each time and without a trace in the global generator."""
        layers = dropout_layers(self.models[0])
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            for layer in layers:
                layer.train()
            try:
                yield
            finally:
                for layer in layers:
                    layer.eval()
