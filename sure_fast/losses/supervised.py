"""The whole method as one loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import _checks
from ..ops.boundary_distance import boundary_distance
from ..ops.dirichlet_uncertainty import dirichlet_uncertainty
from ..ops.evidential_loss import TOTALS, check_schedule, total_of_terms
from ..ops.sample_hard_patches import sample_hard_patches
from ..ops.uncertainty_supervision import uncertainty_supervision
from .noise_uncertainty import NOISE_LEVELS, NoisyImages, draw_levels, draw_noise_patches, normal_like

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
        :math:`a = 0.01^{1 - (t - t_0)/(T - t_0)}`, t the epoch, t₀ = start_epoch, T = num_epochs. The terms are those
        of `evidential_loss`, `gradient_uncertainty_loss` and `noise_uncertainty_loss`; distances are in voxels.

    Args:
        num_epochs: T.
        start_epoch: t₀, first epoch with supervised uncertainty; less than num_epochs.
        beta, gamma: weights of L_gu and L_nu; a term of weight 0 is not computed.
        kind, total, annealing_epochs, evidence, ignore_index, class_weights: as of `evidential_loss`.
        gradient_threshold: boundary band of L_gu (voxels).
        noise_threshold: what counts as near a boundary in L_nu (voxels).
        pairs, num_pairs, per_class: as of `GradientUncertaintyLoss`.
        operator, spacing, channels, blur_sigma: as of `gradient_magnitude`.
        patch_size: odd edge of the noise patches (voxels), one number or one per axis.
        num_patches: patches per class.
        mining_every: steps from one search for hard samples to the next; in those between, the patches get random
            places that do not overlap, and no forward is needed to find them.
        noise: what the two levels μ ~ U(0, 1) are: "mean" of the noise, as in the paper, or "std", its standard
            deviation at mean 0.
        noise_std: standard deviation of the noise patches with "mean", in units of the (normalised) image.
        order_weight, distance_weight, far_weight: as of `noise_uncertainty_loss`.
        backend: for every op inside.

    Notes:
        All terms come from one call of `uncertainty_supervision`. With γ > 0, from start_epoch on, the network answers
        three more images: a noisy one without gradients, which finds the hard samples, and the two with noise patches,
        in one batch of twice the size; with `mining_every` the first only every so many steps, counted in `draws`. They
        run in the mode the network is in: with batch normalisation in training mode they contribute to its running
        statistics.

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
        num_epochs: int = 100,
        start_epoch: int = 30,
        beta: float = 100.0,
        gamma: float = 1.0,
        kind: str = "digamma",
        total: str = "weighted",
        annealing_epochs: int = 20,
        evidence: str = "softplus",
        ignore_index: int | None = None,
        class_weights: Sequence[float] | None = None,
        gradient_threshold: float = 1.0,
        noise_threshold: float = 4.0,
        pairs: str = "exact",
        num_pairs: int = 100_000,
        per_class: bool = False,
        operator: str = "sobel",
        spacing: Sequence[float] | float | None = None,
        channels: str = "luma",
        blur_sigma: float = 0.0,
        patch_size: int | Sequence[int] = 3,
        num_patches: int = 3,
        mining_every: int = 1,
        noise: str = "mean",
        noise_std: float = 0.3,
        order_weight: float = 1.0,
        distance_weight: float = 1.0,
        far_weight: float = 5.0,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= start_epoch < num_epochs:
            raise ValueError(f"start_epoch: expected 0 <= start_epoch < num_epochs ({num_epochs}), got {start_epoch}")
        if beta < 0 or gamma < 0 or noise_std < 0:
            raise ValueError(f"beta, gamma, noise_std: expected numbers >= 0, got {beta}, {gamma}, {noise_std}")
        if mining_every < 1:
            raise ValueError(f"mining_every: expected at least 1, got {mining_every}")
        _checks.choice("total", total, TOTALS)
        check_schedule(0, num_epochs, annealing_epochs)
        weights = {"order_weight": order_weight, "distance_weight": distance_weight, "far_weight": far_weight}
        self.weights = tuple(_checks.positive(name, weight, zero=True) for name, weight in weights.items())
        self.num_epochs = num_epochs
        self.start_epoch = start_epoch
        self.beta = beta
        self.gamma = gamma
        self.total = total
        self.annealing_epochs = annealing_epochs
        self.patch_size = patch_size
        self.num_patches = num_patches
        self.noise = _checks.choice("noise", noise, NOISE_LEVELS)
        self.noise_std = noise_std
        self.mining_every = mining_every
        self.draws = 0
        """Calls of `draw_noise` so far; a run that goes on sets it."""
        self.evidence = evidence
        self.ignore_index = ignore_index
        self.noise_threshold = noise_threshold
        self.backend = backend
        self.options: dict[str, Any] = {
            "kind": kind,
            "evidence": evidence,
            "ignore_index": ignore_index,
            "class_weights": class_weights,
            "gradient_threshold": gradient_threshold,
            "noise_threshold": noise_threshold,
            "pairs": pairs,
            "num_pairs": num_pairs,
            "per_class": per_class,
            "operator": operator,
            "spacing": spacing,
            "channels": channels,
            "blur_sigma": blur_sigma,
            "backend": backend,
        }

    def supervision_weight(self, epoch: float) -> float:
        """a: 0 before start_epoch, then rising from 0.01 towards 1."""
        if epoch < self.start_epoch:
            return 0.0
        return 0.01 ** (1.0 - (epoch - self.start_epoch) / (self.num_epochs - self.start_epoch))

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
            image = _checks.batched_image("image", image)  # no MetaTensor reaches the network
            label = _checks.label("label", label, logits)
            mining = self.mining_every == 1 or self.draws % self.mining_every == 0
            if self.mining_every > 1:  # the compiled loss would be traced again for every number of draws
                self.draws += 1
            patch_size = self.patch_size
            size = (patch_size,) * (image.dim() - 2) if isinstance(patch_size, int) else tuple(patch_size)
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
        distance = boundary_distance(
            label, max_distance=self.noise_threshold, ignore_index=self.ignore_index, backend=self.backend
        )
        if self.ignore_index is not None:
            distance = distance.masked_fill(label == self.ignore_index, torch.nan)
        noise = normal_like(image, generator).mul_(MINING_STD).add_(MINING_MEAN)
        noisy = model(noise.add_(image))
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
        epoch: float,
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
            epoch: t, counted from 0.
            model: the network; called for the noisy images where L_nu applies and `noisy_logits` are not given.
            noise, noisy_logits: instead of `model`: what `draw_noise` returned, and the network's answer [2N, C, *S] to
                its images.
            generator: makes the draws repeatable; on the CPU or the image's device.

        Raises:
            ValueError: L_nu applies and neither `model` nor both `noise` and `noisy_logits` are given; and as the ops.
        """
        logits, label, image = (
            _checks.tensor(name, value) for name, value in (("logits", logits), ("label", label), ("image", image))
        )
        weight = self.supervision_weight(epoch)
        wanted: dict[str, Any] = {}
        if weight > 0 and self.gamma > 0:
            if noise is None or noisy_logits is None:
                if model is None:
                    raise ValueError(
                        "model: expected the network, or noise and noisy_logits, once L_nu applies "
                        f"(gamma = {self.gamma}, epoch {epoch} >= start_epoch {self.start_epoch}), got None"
                    )
                noise = self.draw_noise(model, logits.detach(), label, image, generator=generator)
                noisy_logits = model(noise.images)
            wanted = {
                "noisy_logits": noisy_logits,
                "centers": noise.centers,
                "levels": noise.levels,
                "valid": noise.valid,
            }
        supervised = image if weight > 0 and self.beta > 0 else None
        terms = uncertainty_supervision(logits, label, supervised, **wanted, **self.options)
        data, kl, dice, gradient, order, apart, far = terms
        segmentation = total_of_terms(data, kl, dice, self.total, epoch, self.num_epochs, self.annealing_epochs)
        noise_total = self.weights[0] * order + self.weights[1] * apart + self.weights[2] * far
        total = segmentation + weight * (self.beta * gradient + self.gamma * noise_total)
        return SupervisionOutput(total, segmentation, data, kl, dice, gradient, noise_total, order, apart, far)


def _no_hard_sample(label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maps of which no voxel is hard, so that `sample_hard_patches` fills all its slots with random places."""
    nothing = torch.zeros(label.shape, dtype=torch.float32, device=label.device)
    return nothing, nothing + 1.0, nothing
