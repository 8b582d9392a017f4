"""The whole method as one loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import _backends, _checks
from .._distributed import number_of_ranks
from ..ops._supervision import check_noisy, check_options
from ..ops._weighted import Weights, weighted_terms
from ..ops.dense_noise_uncertainty_loss import MARGIN
from ..ops.gradient_uncertainty_loss import GRADIENT_THRESHOLD, NUM_PAIRS
from ..ops.noise_uncertainty_loss import NOISE_THRESHOLD, check_weights
from ..ops.sample_hard_patches import NUM_PATCHES, PATCH_SIZE
from ..ops.uncertainty_supervision import supervision_terms
from . import schedule
from ._step import answer, draw_seed, step_image, step_model, try_model, weight_buffer
from .gradient_uncertainty import NORMALIZE
from .hard_patches import MINING_OPS, HardPatches, fitting_patch
from .noise_uncertainty import (
    COPIES,
    LEVEL_MAX,
    NOISE_STD,
    SHARE,
    NoisyImages,
    check_noise,
    check_share,
    draw_image_noise,
    share_of,
)
from .schedule import ANNEALING_EPOCHS, NUM_EPOCHS, RAMPS

BETA, GAMMA = 0.5, 0.3
ORDER_WEIGHT, DISTANCE_WEIGHT, FAR_WEIGHT, NOISY_WEIGHT = 5.0, 0.3, 10.0, 0.5
"""Weights of L_gu, L_nu and the terms of L_nu, found on validation cases (docs/results.md)."""


MOST_TRACED = 8
"""Of the states of a loss, for each of which torch.compile traces it."""

OF_IMAGES = {
    "level_max": LEVEL_MAX, "noisy_copies": COPIES, "margin": MARGIN, "detach": False, "noisy_weight": NOISY_WEIGHT,
}  # fmt: skip
OF_PATCHES = {"patch_size": PATCH_SIZE, "num_patches": NUM_PATCHES, "mining_every": 1}
"""Options with their defaults that only noise over whole images has, or only patches."""


class SupervisionOutput(NamedTuple):
    """The loss and its terms, each a 0-dim tensor; terms that do not apply yet are 0."""

    total: Tensor
    segmentation: Tensor
    """The evidential total, with what the noisy copies add to it."""
    data: Tensor
    kl: Tensor
    dice: Tensor
    gradient: Tensor
    """L_gu, unweighted."""
    noise: Tensor
    """L_nu: its weighted terms summed, without γ; with noisy_share what it counts for in this step, or 0."""
    order: Tensor
    distance: Tensor
    far: Tensor
    noisy: Tensor
    """L_seg of the noisy copies, their mean."""


class UncertaintySupervisedLoss(nn.Module):
    r"""Evidential segmentation loss with supervised uncertainty, of arXiv 2509.17098 and in a denser form.

    Math:
        L = L_seg for epoch < start_epoch, then L_seg + a (β L_gu + γ L_nu), with the ramp "constant" a = 1 and
        "exponential" :math:`a = 0.01^{1 - (t - t_0)/(T - t_0)}`, t the epoch, t₀ = start_epoch, T = num_epochs; past T
        as at T. The terms are those of `evidential_loss`, `gradient_uncertainty_loss`, and of L_nu those of
        `dense_noise_uncertainty_loss` (support "image") or `noise_uncertainty_loss` ("patch"), each times its weight;
        with "image" noisy_weight times the mean of L_seg over the noisy copies is one of them. Distances are in
        voxels. The paper's form is support "patch", normalize None, noise "mean", evidence "softplus", ramp
        "exponential".

    Args:
        num_epochs: T.
        start_epoch: t₀, first epoch with supervised uncertainty, less than num_epochs; None: after 30 % of them.
        ramp: a from t₀ on, "constant" or "exponential".
        beta, gamma: weights of L_gu and L_nu; a term of weight 0 is not computed.
        kind, total, annealing_epochs, evidence, ignore_index, class_weights: as of `EvidentialLoss`.
        gradient_threshold: boundary band of L_gu (voxels).
        noise_threshold: what counts as near a boundary in L_nu (voxels).
        pairs, num_pairs, normalize, per_class: as of `GradientUncertaintyLoss`.
        operator, spacing, channels, blur_sigma: as of `gradient_magnitude`.
        support: where the noise of L_nu is, "image": everywhere, or "patch": in patches at hard samples.
        noise: what its levels are: "mean" of the noise, "std", its standard deviation at mean 0, or "both": one of
            them, drawn at every step ("image" alone).
        noise_std: standard deviation of the noise with "mean", in units of the (normalised) image.
        level_max: with "image", up to where the levels are drawn; of patches they are drawn up to 1.
        noisy_copies: with "image", noisy copies of the batch, 2 of ordered levels, or 1 that counts for both.
        noisy_share: of the images, those that get noisy copies, in (0, 1], to three digits. With "image" so many of
            each batch, drawn anew, or where that is no whole number one more or less from call to call; L_nu is of
            these. With "patch" all of a batch or none: in one call of 1 / noisy_share. With M of N images L_nu counts
            M / (N √noisy_share), on the average √noisy_share: what fewer copies let a step scatter stays as it is.
        margin, detach: with "image", as of `dense_noise_uncertainty_loss`.
        noisy_weight: with "image", of the segmentation loss of the noisy copies.
        patch_size: odd edge of the noise patches (voxels), one number or one per axis.
        num_patches: patches per class.
        mining_every: draws of noise from one search for hard samples to the next; in those between, the patches get
            random centers that do not overlap, and no forward is needed to find them.
        order_weight, distance_weight, far_weight: of the terms of L_nu.
        backend: for every op inside; one that all of them have.

    Raises:
        TypeError, ValueError: a wrong option.

    Notes:
        All terms come from one call of `uncertainty_supervision`. With γ > 0, from start_epoch on, the network answers
        the noisy copies of the batch, in one batch, and with patches before that a noisy one without gradients, which
        finds the hard samples. `noisy_share` counts in `shared`, `mining_every` in `draws`. They run in the mode the
        network is in: with batch normalisation in training mode they contribute to its running statistics. What they
        will need is looked at from the first call on; a network that is an nn.Module then answers the batch once more,
        without gradients and without a trace: buffers and random numbers stay as they were.

    Example:
        >>> import sure_fast, torch
        >>> model = torch.nn.Conv2d(1, 3, 3, padding=1)
        >>> loss = sure_fast.UncertaintySupervisedLoss(num_epochs=10, start_epoch=3)
        >>> image, label = torch.rand(2, 1, 16, 16), torch.randint(0, 3, (2, 16, 16))
        >>> out = loss(model(image), label, image, epoch=5, model=model)
        >>> out.total.backward()
    """

    class_weights: Tensor | None
    shared: int
    """Calls in which L_nu was asked for so far and `noisy_share` was no whole number of images, up to where it begins
    anew; a run that goes on sets it."""
    draws: int
    """Calls of `draw_noise` so far, counted with mining_every > 1; a run that goes on sets it."""
    _tried = False

    def __init__(
        self,
        *,
        num_epochs: int = NUM_EPOCHS,
        start_epoch: int | None = None,
        ramp: str = "constant",
        beta: float = BETA,
        gamma: float = GAMMA,
        kind: str = "digamma",
        total: str = "weighted",
        annealing_epochs: int = ANNEALING_EPOCHS,
        evidence: str = "exp",
        ignore_index: int | None = None,
        class_weights: Sequence[float] | None = None,
        gradient_threshold: float = GRADIENT_THRESHOLD,
        noise_threshold: float = NOISE_THRESHOLD,
        pairs: str = "exact",
        num_pairs: int = NUM_PAIRS,
        normalize: str | None = NORMALIZE,
        per_class: bool = False,
        operator: str = "sobel",
        spacing: Sequence[float] | float | None = None,
        channels: str = "luma",
        blur_sigma: float = 0.0,
        support: str = "image",
        noise: str = "both",
        noise_std: float = NOISE_STD,
        level_max: float = LEVEL_MAX,
        noisy_copies: int = COPIES,
        noisy_share: float = SHARE,
        margin: float = MARGIN,
        detach: bool = False,
        noisy_weight: float = NOISY_WEIGHT,
        patch_size: int | Sequence[int] = PATCH_SIZE,
        num_patches: int = NUM_PATCHES,
        mining_every: int = 1,
        order_weight: float = ORDER_WEIGHT,
        distance_weight: float = DISTANCE_WEIGHT,
        far_weight: float = FAR_WEIGHT,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        counts = {"num_epochs": num_epochs, "mining_every": mining_every}
        self.num_epochs, self.mining_every = (_checks.count(*count) for count in counts.items())
        self.noisy_share, self._share, self.shared, self.draws = noisy_share, check_share(noisy_share), 0, 0
        self.start_epoch, self.ramp = schedule.start_of(num_epochs, start_epoch), _checks.choice("ramp", ramp, RAMPS)
        schedule.check_total(total=total, num_epochs=num_epochs, annealing_epochs=annealing_epochs)
        self.total, self.annealing_epochs, self.support, self.backend = total, annealing_epochs, support, backend
        each = {"beta": beta, "gamma": gamma, "noisy_weight": noisy_weight}
        self.beta, self.gamma, self.noisy_weight = (_checks.positive(*weight, zero=True) for weight in each.items())
        self.weights = check_weights(order_weight, distance_weight, far_weight)
        self.order = {"margin": _checks.positive("margin", margin, zero=True), "detach": _checks.flag("detach", detach)}
        self.image_noise = check_noise(support=support, noise=noise, noise_std=noise_std, level_max=level_max,
                                       noisy_copies=noisy_copies)  # fmt: skip
        _refuse_idle(support, **self.image_noise, margin=margin, detach=detach, noisy_weight=noisy_weight,
                     patch_size=patch_size, num_patches=num_patches, mining_every=mining_every)  # fmt: skip
        self.options: dict[str, Any] = {
            "kind": kind, "evidence": evidence, "ignore_index": ignore_index, "gradient_threshold": gradient_threshold,
            "noise_threshold": noise_threshold, "pairs": pairs, "num_pairs": num_pairs, "normalize": normalize,
            "per_class": per_class, "operator": operator, "spacing": spacing, "channels": channels,
            "blur_sigma": blur_sigma}  # fmt: skip
        check_options(**self.options, class_weights=class_weights)
        self.patches = HardPatches(patch_size, num_patches, noise, noise_std, self.options, backend)
        _backends.check(backend, *self.ops)
        self.register_buffer("class_weights", weight_buffer(class_weights), persistent=False)

    @property
    def ops(self) -> tuple[str, ...]:
        """What it calls."""
        return ("uncertainty_supervision", *(MINING_OPS if self._has_patches else ()))

    @property
    def _has_patches(self) -> bool:
        return self.gamma > 0 and self.support == "patch"

    def supervision_weight(self, epoch: float | None) -> float:
        """a: 0 before start_epoch; then 1, or with the ramp "exponential" rising from 0.01 to 1. None: 1."""
        return schedule.supervision_weight(epoch, self.start_epoch, self.num_epochs, self.ramp)

    def draw_noise(
        self,
        model: Callable[[Tensor], Tensor],
        logits: Tensor,
        label: Tensor,
        image: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> NoisyImages:
        """Returns noisy copies of every image; with patches two, at hard samples that one noisy forward finds.

        Args:
            model: image [N, K, *S] -> logits [N, C, *S]; with patches called once, without gradients, or not at all
                between the searches of `mining_every`.
            logits, label, image: as of `forward`.
            generator: makes the draws repeatable.
        """
        return self._draw(model, logits, label, image, None, generator)[0]

    def _draw(
        self, model: Callable[[Tensor], Tensor], logits: Tensor, label: Tensor, image: Tensor, number: int | None,
        generator: torch.Generator | None,
    ) -> tuple[NoisyImages, Tensor | None]:  # fmt: skip
        """`draw_noise` of so many images; and the squared distances of this label, where the search needed them and the
        terms do."""
        with torch.no_grad():
            logits = _checks.logits("logits", logits)
            image = step_image(image, logits, self.options["channels"])  # no MetaTensor reaches the network
            label = _checks.label("label", label, logits)
            _checks.generator(generator)
            if self.support == "image":
                return draw_image_noise(image, **self.image_noise, number=number, generator=generator), None
            mining = self.mining_every == 1 or self.draws % self.mining_every == 0
            if self.mining_every > 1:  # the compiled loss would be traced again for every number of draws
                self.draws += 1
            return self.patches.draw(model, logits, label, image, mining=mining, generator=generator)

    @property
    def joint(self) -> bool:
        """Whether `noise_of_step` tells the noisy copies before the network has answered the clean images."""
        return self.gamma > 0 and self.support == "image"

    def noise_of_step(
        self, image: Tensor, *, epoch: float | None = None, generator: torch.Generator | None = None
    ) -> NoisyImages:
        """The noisy copies that L_nu needs in this step, which counts; none where it does not apply.

        A network that answers them in one batch with the clean images, `noise.beside(image)`, normalises both alike:
        with batch normalisation noise is then in training what it is in evaluation. A checkpointed region takes what
        was drawn before it: calls count, and one in the recomputation would be of another step.

        Args:
            image, epoch, generator: as of `forward`.

        Raises:
            ValueError: noise in patches, whose places depend on the network's answer; a wrong image.

        Example:
            >>> import sure_fast, torch
            >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.BatchNorm2d(3))
            >>> loss = sure_fast.UncertaintySupervisedLoss()
            >>> image, label = torch.rand(2, 1, 16, 16), torch.randint(0, 3, (2, 16, 16))
            >>> noise = loss.noise_of_step(image, epoch=50)
            >>> loss(model(noise.beside(image)), label, image, epoch=50, noise=noise).total.backward()
        """
        if self.support != "image":
            raise ValueError(
                f"support: expected 'image' to draw noise before the network answers, got {self.support!r}"
            )
        _checks.generator(generator)
        image = _checks.batched_image("image", image)
        if self.gamma > 0 and self.supervision_weight(epoch) > 0:
            number, times = self._copied(len(image))
            if self._takes_part(number):
                with torch.no_grad():
                    drawn = draw_image_noise(image, **self.image_noise, number=number, generator=generator)
                return drawn._replace(times=times)
        return NoisyImages(image[:0], None, None, torch.zeros(0, device=image.device))

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
            logits: the network's answer to `image`, [N, C, *S]; where `noise` is given without `noisy_logits`, that to
                `noise.beside(image)`, [3N, C, *S], of one copy [2N, C, *S], of none [N, C, *S]; with `noisy_share` of
                fewer copies.
            label: [N, *S] or [N, 1, *S] integer.
            image: [N, K, *S], floating, normalised.
            epoch: t >= 0, counted from 0; None: all schedules at their end, a = λ = 1.
            model: the network; called for the noisy images where L_nu applies and `noisy_logits` are not given. Of a
                list of outputs the first counts.
            noise: instead of `model`: what `noise_of_step` or `draw_noise` returned.
            noisy_logits: the network's answer to `noise.images`, where `logits` do not hold it.
            generator: makes the draws repeatable; on the CPU or the image's device.

        Raises:
            ValueError: gamma > 0, in whatever epoch, and neither `model` nor `noise` is given; logits that are not
                those of the image and the copies of `noise`; an image that does not fit the logits, the channels or the
                patches, or that requires a gradient, which L_gu would leave out; and as the ops.
        """
        logits = _checks.logits("logits", logits)
        weight = self.supervision_weight(epoch)
        if isinstance(noise, NoisyImages) and noisy_logits is None:
            logits, noisy_logits = _parted(logits, image, noise)
        label = _checks.label("label", label, logits)
        image = self._check_step(logits, image, model, noise, noisy_logits, generator, later=weight == 0)
        wanted: dict[str, Any] = {}
        times: float = 1
        if noise is None and weight > 0 and self.gamma > 0:
            assert model is not None
            number, times = self._copied(len(image))
            if self._takes_part(number):
                noise, wanted["squares"] = self._draw(model, logits.detach(), label, image, number, generator)
                noise = noise._replace(times=times)
                noisy_logits = answer(model, noise.images, logits) if len(noise.images) else logits[:0]
        if noise is not None and len(noise.levels) and weight > 0 and self.gamma > 0:
            times = noise.times
            wanted |= {"noisy_logits": noisy_logits, "levels": noise.levels}
            wanted |= (
                {"centers": noise.centers, "valid": noise.valid}
                if noise.centers is not None
                else {
                    **self.order, "with_distance": self.weights[1] > 0, "noisy_segmentation": self.noisy_weight > 0,
                    "noisy_index": noise.which,
                }
            )  # fmt: skip
        supervised = image if weight > 0 and self.beta > 0 else None
        if supervised is not None and self.options["pairs"] == "sampled":
            wanted["seed"] = draw_seed(generator)
        terms, dtype, backend = supervision_terms(
            logits, label, supervised, class_weights=self.class_weights, **wanted, **self.options, backend=self.backend
        )
        evidential = schedule.evidential_weights(
            epoch=epoch, total=self.total, num_epochs=self.num_epochs, annealing_epochs=self.annealing_epochs
        )
        order_weight, distance_weight, far_weight = self.weights
        weights = Weights(
            *evidential, times * order_weight, times * distance_weight, times * far_weight, times * self.noisy_weight,
            weight * self.beta, weight * self.gamma,
        )  # fmt: skip
        return SupervisionOutput(*weighted_terms(terms, weights, dtype, backend))

    def _copied(self, images: int) -> tuple[int, float]:
        """How many of these images have noisy copies, and what the mean over them counts for; the call counts.

        It depends on the number of the call and of the images alone, so that ranks with as many agree.
        """
        part, whole = self._share
        asked = images if self.support == "image" else 1
        if number_of_ranks() > 1 or asked * part % whole:
            if torch.compiler.is_compiling() and whole > MOST_TRACED:
                raise ValueError(
                    f"noisy_share: expected a fraction with a denominator up to {MOST_TRACED} in a compiled loss, "
                    f"which is traced for each of so many calls, got {self.noisy_share}"
                )
            before = self.shared
            self.shared = (before + 1) % whole
        else:
            before = 0
        due = share_of((before + 1) * asked, part, whole) - share_of(before * asked, part, whole)
        times = due / asked * math.sqrt(whole / part) if asked else 0.0
        return (due if self.support == "image" else images * due), times

    def _takes_part(self, copied: int) -> bool:
        """Whether there is something to compute: the sums of the copies are added up over the ranks, of which some may
        have none."""
        return copied > 0 or number_of_ranks() > 1

    def _fewest(self, images: int) -> int:
        """Of so many images those with noisy copies, where there are any."""
        part, whole = self._share
        return images if self.support != "image" else min(images, max(1, images * part // whole))

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
            if noise is None:
                raise ValueError("noise: expected the noise of noisy_logits, got None")
            check_noisy(noisy_logits, logits, len(noise.images))
        if noise is None:
            step_model(
                model, ", or noise",
                "from the first call on for L_nu, which begins at epoch {start} (gamma = {gamma})",
                start=self.start_epoch, gamma=self.gamma,
            )  # fmt: skip
            if self._has_patches:
                fitting_patch(self.patches.patch_size, image)
            _backends.check(self.backend, *self.ops)  # use_backend may ask for what no constructor has seen
            if later and not torch.compiler.is_compiling() and not self._tried:
                assert model is not None
                fewest = self._fewest(len(image))
                try_model(model, image[:fewest], logits[:fewest])
                self._tried = True
        return image


def _parted(logits: Tensor, image: Tensor, noise: NoisyImages) -> tuple[Tensor, Tensor | None]:
    """The logits of the clean images and, where there are any, those of the noisy copies."""
    number = len(_checks.tensor("image", image))
    wanted = number + len(noise.images)
    if len(logits) != wanted:
        raise ValueError(
            f"logits: expected those of the {wanted} images of noise.beside(image), or noisy_logits beside those of "
            f"{number}, got {len(logits)}"
        )
    if not len(noise.levels):
        return logits, None
    clean, noisy = logits.split([number, wanted - number])  # of which the gradients are put side by side at once
    return clean, noisy


def _refuse_idle(support: str, **options: Any) -> None:
    """An option of the other support that is not at its default would do nothing."""
    other, default = ("patch", OF_PATCHES) if support == "image" else ("image", OF_IMAGES)
    for name, value in options.items():
        if name in default and value != default[name]:
            raise ValueError(f"{name}: expected only with support {other!r}, got {value!r} with {support!r}")
