"""PriUS: uncertainty supervised by contrast, corruption and geometry (arXiv 2605.10984)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import _checks
from ..ops._nearest import nearest_along
from ..ops.boundary_distance import boundary_distance
from ..ops.dirichlet_uncertainty import dirichlet_uncertainty
from ..ops.evidential_loss import check_options
from ..ops.gradient_magnitude import check_options as check_edges
from ..ops.gradient_magnitude import gradient_magnitude
from . import schedule
from ._step import answer, step_image, step_model, try_model
from .evidential import weighted_terms
from .noise_uncertainty import normal_like
from .schedule import ANNEALING_EPOCHS, NUM_EPOCHS

BLUR_SIGMA = 0.5
DISTANCES = ("region", "boundary")
PUBLISHED: dict[int, dict[str, Any]] = {
    2: {},
    3: {
        "gradient_threshold": 2.0,
        "far_threshold": 2.0,
        "noise_threshold": 2.0,
        "distance_margin": 2.0,
        "kappa": math.inf,
        "corruption_weight": 0.1,
        "distance_weight": 100.0,
    },
}
"""Settings of the paper by number of spatial axes: cardiac MR slices; whole-heart CT volumes, with hard thresholds."""


class PriusOutput(NamedTuple):
    """The loss and its terms, each a 0-dim tensor; terms that do not apply yet are 0."""

    total: Tensor
    segmentation: Tensor
    """The evidential total."""
    data: Tensor
    kl: Tensor
    dice: Tensor
    contrast: Tensor
    corruption: Tensor
    geometry: Tensor


def region_distance(label: Tensor, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """Distance in voxels from a foreground voxel to the nearest voxel of another label, 0 in the background.

    Args:
        label: integer [N, *S] or, in 3D, [N, 1, *S]. num_classes: C. ignore_index: voxels of this label are of no class
            and no outside.

    Returns:
        float32 [N, *S], exact; in a region without an outside the diagonal of the image.
    """
    label = _checks.label("label", label)
    _checks.table_size("num_classes", num_classes)
    _checks.index("ignore_index", ignore_index)
    _checks.labels_in_range("label", label, num_classes, ignore_index)
    return _region_distance(label, num_classes, ignore_index)


def _region_distance(label: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Of checked labels [N, *S]."""
    largest = float(sum(n * n for n in label.shape[1:]))
    result = torch.zeros(label.shape, dtype=torch.float32, device=label.device)
    for c in range(1, num_classes):
        inside = _checks.equals(label, c)
        kept = inside if ignore_index is None else inside | _checks.equals(label, ignore_index)
        squared = kept * largest
        for axis in range(1, label.dim()):
            squared = nearest_along(squared, axis)
        result = torch.where(inside, squared.clamp(max=largest).sqrt(), result)
    return result


def same_label_pairs(
    label: Tensor, ignore_index: int | None = None, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Disjoint random pairs of voxels of one label, over the whole batch: two index tensors into label.flatten()."""
    label = _checks.whole("label", label)
    _checks.index("ignore_index", ignore_index)
    _checks.generator(generator)
    first, second, same = _pairs(label, ignore_index, generator)
    return first[same], second[same]


class Pairs(NamedTuple):
    """Of voxels, by their indices into label.flatten() [N*V // 2]; those that do not count are of two labels."""

    first: Tensor
    second: Tensor
    counts: Tensor
    """bool"""

    def of(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The values of the first and of the second voxels; 0 in pairs that do not count."""
        flat, none = values.flatten(), ~self.counts
        return flat[self.first].masked_fill(none, 0.0), flat[self.second].masked_fill(none, 0.0)


def _pairs(label: Tensor, ignore_index: int | None, generator: torch.Generator | None) -> Pairs:
    """As many whatever the labels, so that nothing waits for the device."""
    flat = label.flatten()
    source = generator.device if generator is not None else flat.device
    order = torch.randperm(flat.numel(), generator=generator, device=source)
    order = _checks.onto("generator", order, flat.device)
    order = order[flat[order].sort(stable=True).indices]
    if ignore_index is not None:  # behind all labels
        order = order[_checks.equals(flat[order], ignore_index).sort(stable=True).indices]
    first, second = order[: len(order) // 2 * 2].view(-1, 2).unbind(1)
    same = flat[first] == flat[second]  # at most one pair a label lies across two
    if ignore_index is not None:
        same &= _checks.counted(flat[first], ignore_index)
    return Pairs(first, second, same)


class PriusLoss(nn.Module):
    r"""Evidential segmentation loss with the three principles of PriUS.

    Math:
        With :math:`ind(x) = sigmoid(\kappa x)`, :math:`\tilde u` the 3-wide mean of u, :math:`\tilde g` the 3-wide
        maximum of the gradient magnitude of the image scaled to [0, 1] and blurred (σ 0.5), d the distance from a
        foreground voxel to the outside of its class, 0 in the background, and (i, j) disjoint random pairs of voxels of
        one label:

        - contrast: :math:`\sum w [(\tilde u_i - \tilde u_j)(\tilde g_i - \tilde g_j)]^+ / \sum w`, w = ind(10 (d_g -
          max(d_i, d_j)));
        - corruption: whole-image noise of standard deviations 0 < σ₁ < σ₂ drawn up to σ_max, :math:`\bar u_n` the
          5-wide mean of u: :math:`\sum_n \sum w [-(\sigma_n - \sigma_{n-1})(\bar u_n - \bar u_{n-1})]^+ / \sum w`, w =
          ind(d_n - d), the weaker level a constant;
        - geometry: t = ind(d_i - d_f) ind(d_j - d_f), w = ind(|d_i - d_j| - d_ε), s = c_d w (1 - t)(d_i - d_j) + t
          c_far: :math:`\sum [s (u_i - (1 - 2t) u_j)]^+ / \sum (w (1 - t) + t)`.

        L = L_seg before `start_epoch`, then L_seg plus the weighted terms. arXiv 2605.10984.

    Args:
        num_epochs, start_epoch: the terms apply from `start_epoch` on; None: after 30 % of the epochs.
        contrast_weight, corruption_weight, geometry_weight: a term of weight 0 is not computed.
        gradient_threshold, far_threshold, noise_threshold, distance_margin: d_g, d_f, d_n, d_ε (voxels).
        distance: "region": d as above; "boundary": the distance to the label boundary of `boundary_distance`.
        distance_weight, far_weight: c_d, c_far. kappa: κ; infinite: hard indicators.
        max_std: σ_max, as a share of the image's range.
        kind, total, annealing_epochs, evidence, ignore_index: as of `EvidentialLoss`.
        operator, channels: as of `gradient_magnitude`.

    Raises:
        TypeError, ValueError: a wrong option.

    Notes:
        With a corruption weight the network answers two more images, in one batch of twice the size. The default
        settings are those of the paper for cardiac MR slices; `PUBLISHED[3]` has those for volumes.

    Example:
        >>> import torch
        >>> from sure_fast.losses import PriusLoss
        >>> model = torch.nn.Conv2d(1, 3, 3, padding=1)
        >>> image, label = torch.rand(2, 1, 16, 16), torch.randint(0, 3, (2, 16, 16))
        >>> out = PriusLoss(num_epochs=10, start_epoch=3)(model(image), label, image, epoch=5, model=model)
        >>> out.total.backward()
    """

    def __init__(
        self,
        *,
        num_epochs: int = NUM_EPOCHS,
        start_epoch: int | None = None,
        contrast_weight: float = 1.0,
        corruption_weight: float = 1.0,
        geometry_weight: float = 1.0,
        gradient_threshold: float = 0.5,
        far_threshold: float = 8.5,
        noise_threshold: float = 7.5,
        distance_margin: float = 3.0,
        distance_weight: float = 1.0,
        far_weight: float = 100.0,
        distance: str = "region",
        kappa: float = 10.0,
        max_std: float = 40.0 / 255.0,
        kind: str = "digamma",
        total: str = "weighted",
        annealing_epochs: int = ANNEALING_EPOCHS,
        evidence: str = "exp",
        ignore_index: int | None = None,
        operator: str = "sobel",
        channels: str = "luma",
    ) -> None:
        super().__init__()
        self.start_epoch = schedule.start_of(num_epochs, start_epoch)
        weights = {"contrast_weight": contrast_weight, "corruption_weight": corruption_weight,
                   "geometry_weight": geometry_weight}  # fmt: skip
        self.weights = tuple(_checks.positive(name, weight, zero=True) for name, weight in weights.items())
        self.kappa = _checks.positive("kappa", kappa, infinite=True)
        self.distance = _checks.choice("distance", distance, DISTANCES)
        self.gradient_threshold = _checks.finite("gradient_threshold", gradient_threshold)
        self.far_threshold = _checks.finite("far_threshold", far_threshold)
        self.noise_threshold = _checks.finite("noise_threshold", noise_threshold)
        self.distance_margin = _checks.finite("distance_margin", distance_margin)
        self.distance_weight = _checks.positive("distance_weight", distance_weight, zero=True)
        self.far_weight = _checks.positive("far_weight", far_weight, zero=True)
        self.max_std = _checks.positive("max_std", max_std, zero=True)
        check_edges(operator=operator, channels=channels)
        self.evidence, self.ignore_index, self.operator, self.channels = evidence, ignore_index, operator, channels
        self.evidential: dict[str, Any] = {"kind": kind, "evidence": evidence, "ignore_index": ignore_index}
        self.weighting: dict[str, Any] = {"total": total, "annealing_epochs": annealing_epochs,
                                          "num_epochs": num_epochs}  # fmt: skip
        check_options(**self.evidential)
        schedule.check_total(**self.weighting)
        self._tried = False

    def forward(
        self,
        logits: Tensor,
        label: Tensor,
        image: Tensor,
        *,
        epoch: float | None = None,
        model: Callable[[Tensor], Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> PriusOutput:
        """The loss of one batch.

        Args:
            logits: the network's answer to `image`, [N, C, *S]. label: [N, *S] or [N, 1, *S]. image: [N, K, *S].
            epoch: t >= 0, counted from 0; None: at the end of the schedules.
            model: the network, for the noisy images where the corruption term applies; of a list of outputs the first
                counts.
            generator: makes the draws repeatable; on the CPU or the image's device.

        Raises:
            TypeError, ValueError: a corruption weight, in whatever epoch, without the network; an image that does not
                fit the logits or the channels, or requires a gradient; and as `evidential_loss`.
        """
        logits = _checks.logits("logits", logits)
        label = _checks.label("label", label, logits)
        schedule.check_epoch(epoch)
        begun = epoch is None or epoch >= self.start_epoch
        image = self._check_step(logits, image, model, generator, later=not begun)
        _checks.labels_in_range("label", label, logits.shape[1], self.ignore_index)
        evidential, uncertainty = weighted_terms(
            logits, label, epoch=epoch, weighting=self.weighting, return_uncertainty=True, **self.evidential
        )
        assert uncertainty is not None
        terms = [evidential.total.new_zeros(()) for _ in range(3)]
        if begun:
            u = uncertainty.float()
            distance = self._distances(label, logits.shape[1])
            pairs = _pairs(label, self.ignore_index, generator)
            contrast, corruption, geometry = self.weights
            if contrast:
                terms[0] = self.contrast(u, image, distance, pairs)
            if corruption:
                assert model is not None
                terms[1] = self.corruption(u, label, image, distance, lambda x: answer(model, x, logits), generator)
            if geometry:
                terms[2] = self.geometry(u, distance, pairs)
        total = evidential.total + sum(weight * term for weight, term in zip(self.weights, terms, strict=True))
        return PriusOutput(total, *evidential, *terms)

    def _check_step(
        self, logits: Tensor, image: Tensor, model: object, generator: torch.Generator | None, *, later: bool
    ) -> Tensor:
        """The image; whatever the epoch, what the terms of this or a later one need is there and fits."""
        _checks.generator(generator)
        contrast, corruption, _ = self.weights
        if contrast:
            image = step_image(image, logits, self.channels)
        elif corruption:
            image = step_image(image, logits, "mean")  # whose channels are not made one
        if corruption:
            why = "from the first call on for the corruption term, which begins at epoch {start}"
            step_model(model, "", why, start=self.start_epoch)
            if later and not torch.compiler.is_compiling() and not self._tried:
                assert callable(model)
                try_model(model, image, logits)
                self._tried = True
        return image

    def _distances(self, label: Tensor, num_classes: int) -> Tensor:
        if self.distance == "region":
            return _region_distance(label, num_classes, self.ignore_index)
        diagonal = math.sqrt(sum(n * n for n in label.shape[1:]))
        volume = label[:, None] if label.dim() == 4 else label  # which is no map per class
        return boundary_distance(volume, ignore_index=self.ignore_index).float().clamp(max=diagonal)

    def _indicator(self, x: Tensor) -> Tensor:
        return (x > 0).float() if math.isinf(self.kappa) else (self.kappa * x).sigmoid()

    def contrast(self, u: Tensor, image: Tensor, distance: Tensor, pairs: Pairs) -> Tensor:
        """Of u [N, 1, *S]: a pair's voxel of the stronger edge is to be less uncertain."""
        gradient = gradient_magnitude(
            _unit(image), operator=self.operator, channels=self.channels, blur_sigma=BLUR_SIGMA
        ).float()
        pool = functional.max_pool2d if u.dim() == 4 else functional.max_pool3d
        g, mean = pool(gradient, 3, 1, 1), _window_mean(u, 3)
        (gi, gj), (ui, uj), (di, dj) = (pairs.of(x) for x in (g, mean, distance))
        weight = self._indicator(10.0 * (self.gradient_threshold - torch.maximum(di, dj))) * pairs.counts
        return _weighted((ui - uj) * (gi - gj), weight, weight)

    def corruption(
        self,
        u: Tensor,
        label: Tensor,
        image: Tensor,
        distance: Tensor,
        model: Callable[[Tensor], Tensor],
        generator: torch.Generator | None,
    ) -> Tensor:
        """Of u [N, 1, *S] and of u under noise of two rising standard deviations: near a boundary it is to rise."""
        source = generator.device if generator is not None else image.device
        levels = torch.rand(2, generator=generator, device=source).sort().values
        levels = _checks.onto("generator", levels, image.device) * self.max_std
        span = image.flatten(1).amax(1) - image.flatten(1).amin(1)
        step = span.reshape(-1, *[1] * (image.dim() - 1))
        noisy = [image + normal_like(image, generator) * (step * level).to(image) for level in levels]
        answers = dirichlet_uncertainty(model(torch.cat(noisy)), evidence=self.evidence).float()
        clean, weaker, stronger = (_window_mean(x, 5)[:, 0] for x in (u, *answers.chunk(2)))
        weight = self._indicator(self.noise_threshold - distance)
        if self.ignore_index is not None:
            weight = weight.masked_fill(_checks.equals(label, self.ignore_index), 0.0)
        first = _weighted(-levels[0] * (weaker - clean.detach()), weight, weight)
        return first + _weighted(-(levels[1] - levels[0]) * (stronger - weaker.detach()), weight, weight)

    def geometry(self, u: Tensor, distance: Tensor, pairs: Pairs) -> Tensor:
        """Of u [N, 1, *S]: deeper inside its class a voxel is to be less uncertain, far inside not at all."""
        (ui, uj), (di, dj) = (pairs.of(x) for x in (u, distance))
        far = self._indicator(di - self.far_threshold) * self._indicator(dj - self.far_threshold)
        ordered = self._indicator((di - dj).abs() - self.distance_margin)
        slope = self.distance_weight * ordered * (1.0 - far) * (di - dj) + far * self.far_weight
        return _weighted(
            slope * (ui - (1.0 - 2.0 * far) * uj), torch.ones_like(far), (ordered * (1.0 - far) + far) * pairs.counts
        )


def _weighted(values: Tensor, weight: Tensor, divisor: Tensor) -> Tensor:
    """Σ w v⁺ / Σ divisor; 0 where that is 0."""
    total = divisor.sum()
    return (weight * values.relu()).sum() / total.where(total > 0, 1.0)


def _window_mean(x: Tensor, width: int) -> Tensor:
    """Mean over a window, of what of it lies inside the image."""
    pool = functional.avg_pool2d if x.dim() == 4 else functional.avg_pool3d
    return pool(x, width, 1, width // 2, count_include_pad=False)


def _unit(image: Tensor) -> Tensor:
    """Every image scaled to [0, 1]."""
    flat = image.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    shape = (-1, *[1] * (image.dim() - 1))
    return (image - low.reshape(shape)) / (high - low).clamp(min=torch.finfo(image.dtype).tiny).reshape(shape)
