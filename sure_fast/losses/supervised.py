"""The whole method as one loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import _backends, _checks
from ..ops._supervision import check_noisy, check_options
from ..ops.boundary_distance import boundary_distance
from ..ops.dirichlet_uncertainty import dirichlet_uncertainty
from ..ops.gradient_uncertainty_loss import GRADIENT_THRESHOLD, NUM_PAIRS
from ..ops.noise_uncertainty_loss import DISTANCE_WEIGHT, FAR_WEIGHT, NOISE_THRESHOLD, ORDER_WEIGHT, check_weights
from ..ops.sample_hard_patches import NUM_PATCHES, PATCH_SIZE, sample_hard_patches
from ..ops.uncertainty_supervision import uncertainty_supervision
from . import schedule
from ._step import answer, draw_seed, step_image, step_model, try_model
from .noise_uncertainty import NOISE_LEVELS, NOISE_STD, NoisyImages, draw_levels, draw_noise_patches, normal_like
from .schedule import ANNEALING_EPOCHS, NUM_EPOCHS

BETA, GAMMA = 100.0, 1.0
"""Weights of L_gu and L_nu, found on a validation split (docs/results.md)."""
MINING_OPS = ("boundary_distance", "dirichlet_uncertainty", "sample_hard_patches")

# The noise of the forward that finds hard samples (arXiv 2509.17098): the whole image, N(0.5, 0.3²).
MINING_MEAN, MINING_STD = 0.5, 0.3


class SupervisionOutput(NamedTuple):
    """The loss and its terms, each a 0-dim tensor; terms that do not apply yet are 0."""

    total: Tensor
    segmentation: Tensor
    """The evidential total."""
    data: Tensor
    kl: Tensor
    dice: Tensor
    gradient: Tensor
    """L_gu, unweighted."""
    noise: Tensor
    """L_nu: its weighted terms summed, without γ."""
    order: Tensor
    distance: Tensor
    far: Tensor


class UncertaintySupervisedLoss(nn.Module):
    r"""Evidential segmentation loss with supervised uncertainty: the loss of arXiv 2509.17098, complete.

    Math:
        L = L_seg for epoch < start_epoch, then L_seg + a (β L_gu + γ L_nu) with
        :math:`a = 0.01^{1 - (t - t_0)/(T - t_0)}`, t the epoch, t₀ = start_epoch, T = num_epochs; past T as
        at T. The terms are those of `evidential_loss`, `gradient_uncertainty_loss` and `noise_uncertainty_loss`;
        distances are in voxels.

    Args:
        num_epochs: T.
        start_epoch: t₀, first epoch with supervised uncertainty, less than num_epochs; None: after 30 % of them.
        beta, gamma: weights of L_gu and L_nu; a term of weight 0 is not computed.
        kind, total, annealing_epochs, evidence, ignore_index, class_weights: as of `EvidentialLoss`.
        gradient_threshold: boundary band of L_gu (voxels).
        noise_threshold: what counts as near a boundary in L_nu (voxels).
        pairs, num_pairs, per_class: as of `GradientUncertaintyLoss`.
        operator, spacing, channels, blur_sigma: as of `gradient_magnitude`.
        patch_size: odd edge of the noise patches (voxels), one number or one per axis.
        num_patches: patches per class.
        mining_every: steps from one search for hard samples to the next; in those between, the patches get random
            centers that do not overlap, and no forward is needed to find them.
        noise: what the two levels μ ~ U(0, 1) are: "mean" of the noise, as in the paper, or "std", its standard
            deviation at mean 0.
        noise_std: standard deviation of the noise patches with "mean", in units of the (normalised) image.
        order_weight, distance_weight, far_weight: as of `noise_uncertainty_loss`.
        backend: for every op inside; one that all of them have.

    Raises:
        TypeError, ValueError: a wrong option.

    Notes:
        All terms come from one call of `uncertainty_supervision`. With γ > 0, from start_epoch on, the network answers
        three more images: a noisy one without gradients, which finds the hard samples, and the two with noise patches,
        in one batch of twice the size; with `mining_every` the first only every so many steps, counted in `draws`. They
        run in the mode the network is in: with batch normalisation in training mode they contribute to its running
        statistics. What they will need is looked at from the first call on; a network that is an nn.Module then answers
        the batch once more, without gradients and without a trace: buffers and random numbers stay as they were.

    Example:
        >>> import sure_fast, torch
        >>> model = torch.nn.Conv2d(1, 3, 3, padding=1)
        >>> loss = sure_fast.UncertaintySupervisedLoss(num_epochs=10, start_epoch=3)
        >>> image, label = torch.rand(2, 1, 16, 16), torch.randint(0, 3, (2, 16, 16))
        >>> out = loss(model(image), label, image, epoch=5, model=model)
        >>> out.total.backward()
    """

    def __init__(
        self,
        *,
        num_epochs: int = NUM_EPOCHS,
        start_epoch: int | None = None,
        beta: float = BETA,
        gamma: float = GAMMA,
        kind: str = "digamma",
        total: str = "weighted",
        annealing_epochs: int = ANNEALING_EPOCHS,
        evidence: str = "softplus",
        ignore_index: int | None = None,
        class_weights: Sequence[float] | None = None,
        gradient_threshold: float = GRADIENT_THRESHOLD,
        noise_threshold: float = NOISE_THRESHOLD,
        pairs: str = "exact",
        num_pairs: int = NUM_PAIRS,
        per_class: bool = False,
        operator: str = "sobel",
        spacing: Sequence[float] | float | None = None,
        channels: str = "luma",
        blur_sigma: float = 0.0,
        patch_size: int | Sequence[int] = PATCH_SIZE,
        num_patches: int = NUM_PATCHES,
        mining_every: int = 1,
        noise: str = "mean",
        noise_std: float = NOISE_STD,
        order_weight: float = ORDER_WEIGHT,
        distance_weight: float = DISTANCE_WEIGHT,
        far_weight: float = FAR_WEIGHT,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.num_epochs = _checks.count("num_epochs", num_epochs)
        self.start_epoch = schedule.start_of(num_epochs, start_epoch)
        schedule.check_total(total=total, num_epochs=num_epochs, annealing_epochs=annealing_epochs)
        self.beta = _checks.positive("beta", beta, zero=True)
        self.gamma = _checks.positive("gamma", gamma, zero=True)
        self.weights = check_weights(order_weight, distance_weight, far_weight)
        self.total, self.annealing_epochs = total, annealing_epochs
        _checks.patch_size(patch_size)
        self.patch_size = patch_size
        self.num_patches = _checks.count("num_patches", num_patches)
        self.noise = _checks.choice("noise", noise, NOISE_LEVELS)
        self.noise_std = _checks.positive("noise_std", noise_std, zero=True)
        self.mining_every = _checks.count("mining_every", mining_every)
        self.draws = 0
        """Calls of `draw_noise` so far; a run that goes on sets it."""
        self.evidence = evidence
        self.ignore_index = ignore_index
        self.noise_threshold = noise_threshold
        self.backend = backend
        self.options: dict[str, Any] = {
            "kind": kind, "evidence": evidence, "ignore_index": ignore_index, "class_weights": class_weights,
            "gradient_threshold": gradient_threshold, "noise_threshold": noise_threshold,
            "pairs": pairs, "num_pairs": num_pairs, "per_class": per_class,
            "operator": operator, "spacing": spacing, "channels": channels, "blur_sigma": blur_sigma,
        }  # fmt: skip
        check_options(**self.options)
        self.ops = ("uncertainty_supervision", *(MINING_OPS if self.gamma else ()))
        _backends.check(backend, *self.ops)
        self._tried = False

    def supervision_weight(self, epoch: float | None) -> float:
        """a: 0 before start_epoch, then rising from 0.01 to 1, which it holds past num_epochs; None: 1."""
        return schedule.supervision_weight(epoch, self.start_epoch, self.num_epochs)

    def draw_noise(
        self,
        model: Callable[[Tensor], Tensor],
        logits: Tensor,
        label: Tensor,
        image: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> NoisyImages:
        """Returns the two copies with noise patches, at hard samples that one noisy forward finds.

        Args:
            model: image [N, K, *S] -> logits [N, C, *S]; called once, without gradients, or not at all between the
                searches of `mining_every`.
            logits, label, image: as of `forward`.
            generator: makes the draws repeatable.
        """
        with torch.no_grad():
            logits = _checks.logits("logits", logits)
            image = step_image(image, logits, self.options["channels"])  # no MetaTensor reaches the network
            label = _checks.label("label", label, logits)
            _checks.generator(generator)
            size = self._fitting_patch(image)
            mining = self.mining_every == 1 or self.draws % self.mining_every == 0
            if self.mining_every > 1:  # the compiled loss would be traced again for every number of draws
                self.draws += 1
            clean, changed, distance = (
                self._answers_to_noise(model, logits, label, image, generator) if mining else _no_hard_sample(label)
            )
            levels = draw_levels(image.device, generator)
            patches = sample_hard_patches(
                clean,
                changed,
                label,
                distance,
                num_classes=logits.shape[1],
                patch_size=size,
                num_patches=self.num_patches,
                max_distance=self.noise_threshold,
                image=image,
                noise=draw_noise_patches(
                    image, levels, patch_size=size, noise=self.noise, noise_std=self.noise_std, generator=generator
                ),
                generator=generator,
                backend=self.backend,
            )
            assert patches.images is not None
            return NoisyImages(patches.images, patches.centers, patches.valid, levels)

    def _answers_to_noise(
        self,
        model: Callable[[Tensor], Tensor],
        logits: Tensor,
        label: Tensor,
        image: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """u of the image, u of the image under noise, and the distance to the boundary."""
        volume = label[:, None] if label.dim() == 4 else label
        distance = boundary_distance(
            volume, max_distance=self.noise_threshold, ignore_index=self.ignore_index, backend=self.backend
        )
        if self.ignore_index is not None:
            distance = distance.masked_fill(_checks.equals(label, self.ignore_index), torch.nan)
        noise = normal_like(image, generator).mul_(MINING_STD).add_(MINING_MEAN)
        noisy = answer(model, noise.add_(image), logits)
        clean, changed = (
            dirichlet_uncertainty(z, evidence=self.evidence, backend=self.backend) for z in (logits, noisy)
        )
        return clean, changed, distance

    def forward(
        self,
        logits: Tensor,
        label: Tensor,
        image: Tensor,
        *,
        epoch: float | None = None,
        model: Callable[[Tensor], Tensor] | None = None,
        noise: NoisyImages | None = None,
        noisy_logits: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> SupervisionOutput:
        """The loss of one batch.

        Args:
            logits: the network's answer to `image`, [N, C, *S].
            label: [N, *S] or [N, 1, *S] integer.
            image: [N, K, *S], floating, normalised.
            epoch: t >= 0, counted from 0; None: all schedules at their end, a = λ = 1.
            model: the network; called for the noisy images where L_nu applies and `noisy_logits` are not given. Of a
                list of outputs the first counts.
            noise, noisy_logits: instead of `model`: what `draw_noise` returned, and the network's answer [2N, C, *S] to
                its images.
            generator: makes the draws repeatable; on the CPU or the image's device.

        Raises:
            ValueError: gamma > 0, in whatever epoch, and neither `model` nor both `noise` and `noisy_logits` are given;
                an image that does not fit the logits, the channels or the patches, or that requires a gradient, which
                L_gu would leave out; and as the ops.
        """
        logits = _checks.logits("logits", logits)
        weight = self.supervision_weight(epoch)
        label = _checks.label("label", label, logits)
        image = self._check_step(logits, image, model, noise, noisy_logits, generator, later=weight == 0)
        wanted: dict[str, Any] = {}
        if weight > 0 and self.gamma > 0:
            if noise is None or noisy_logits is None:
                assert model is not None
                noise = self.draw_noise(model, logits.detach(), label, image, generator=generator)
                noisy_logits = answer(model, noise.images, logits)
            wanted = {
                "noisy_logits": noisy_logits,
                "centers": noise.centers,
                "levels": noise.levels,
                "valid": noise.valid,
            }
        supervised = image if weight > 0 and self.beta > 0 else None
        if supervised is not None and self.options["pairs"] == "sampled":
            wanted["seed"] = draw_seed(generator)
        terms = uncertainty_supervision(logits, label, supervised, **wanted, **self.options, backend=self.backend)
        segmentation = schedule.total_of_terms(
            terms.data, terms.kl, terms.dice, epoch=epoch, total=self.total, num_epochs=self.num_epochs,
            annealing_epochs=self.annealing_epochs,
        )  # fmt: skip
        order_weight, distance_weight, far_weight = self.weights
        noise_total = order_weight * terms.order + distance_weight * terms.distance + far_weight * terms.far
        total = segmentation + weight * (self.beta * terms.gradient + self.gamma * noise_total)
        # one by one: torch 2.6 does not trace a slice of a named tuple
        return SupervisionOutput(
            total, segmentation, terms.data, terms.kl, terms.dice, terms.gradient, noise_total, terms.order,
            terms.distance, terms.far,
        )  # fmt: skip

    def _check_step(
        self,
        logits: Tensor,
        image: Tensor,
        model: Callable[[Tensor], Tensor] | None,
        noise: NoisyImages | None,
        noisy_logits: Tensor | None,
        generator: torch.Generator | None,
        *,
        later: bool,
    ) -> Tensor:
        """The image; whatever the epoch, what the terms of this or a later one need is there and fits."""
        _checks.generator(generator)
        if not self.beta and not self.gamma:
            return _checks.tensor("image", image)
        image = step_image(image, logits, self.options["channels"])
        _checks.spacing(self.options["spacing"], image.dim() - 2)
        if not self.gamma:
            return image
        if noise is not None and not isinstance(noise, NoisyImages):
            raise TypeError(f"noise: expected NoisyImages, as draw_noise returns them, got {type(noise).__name__}")
        if noisy_logits is not None:
            check_noisy(noisy_logits, logits)
        if noise is None or noisy_logits is None:
            step_model(
                model, ", or noise and noisy_logits",
                f"from the first call on for L_nu, which begins at epoch {self.start_epoch} (gamma = {self.gamma})",
            )  # fmt: skip
            self._fitting_patch(image)
            _backends.check(self.backend, *self.ops)  # use_backend may ask for what no constructor has seen
            if later and not torch.compiler.is_compiling() and not self._tried:
                assert model is not None
                try_model(model, image, logits)
                self._tried = True
        return image

    def _fitting_patch(self, image: Tensor) -> tuple[int, ...]:
        """The edges of the noise patches, which have to fit into the image."""
        size = _checks.patch_size(self.patch_size, image.dim() - 2)
        _checks.room_for(size, image.shape[2:])
        return size


def _no_hard_sample(label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maps of which no voxel is hard, so that `sample_hard_patches` fills all its slots with random centers."""
    nothing = torch.zeros(label.shape, dtype=torch.float32, device=label.device)
    return nothing, nothing + 1.0, nothing
