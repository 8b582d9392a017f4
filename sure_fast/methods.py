"""The methods that are compared: one record each, from which everything that lists methods reads.

A method is a loss with its options, and a way to predict. An option is a keyword of the loss and exists there only:
its name, default and checks are the loss's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import nn

from .losses import CrossEntropyDiceLoss, DevisLoss, PriusLoss, ProbabilisticLoss, UncertaintySupervisedLoss
from .losses.prius import PUBLISHED
from .losses.supervised import OF_IMAGES, OF_PATCHES
from .ops.noise_uncertainty_loss import DISTANCE_WEIGHT, FAR_WEIGHT, ORDER_WEIGHT
from .probabilistic import LATENT

PRIUS_WEIGHTS = ("contrast_weight", "corruption_weight", "geometry_weight")

SUPPLIED = ("num_epochs", "ignore_index", "channels", "backend")
"""Keywords of losses that follow from a run and its data, or are chosen for the whole process: no options."""


@dataclass(frozen=True)
class Method:
    """How a network is trained, and where its uncertainty comes from."""

    name: str
    title: str
    """In tables and legends."""
    colour: str
    """In plots, #rrggbb."""
    loss: type[nn.Module]
    """A module whose forward takes (logits, label) and, by name, any of `image`, `epoch`, `model`, `generator`, and
    returns a named tuple of 0-dim terms that begins with `total`."""
    shown: Mapping[str, str] = field(default_factory=dict)
    """Terms that are told beside the total while it trains, with their titles."""
    composites: tuple[str, ...] = ("total", "segmentation")
    """Terms made of others, which are blamed last for a NaN."""
    unsupervised: Mapping[str, Any] = field(default_factory=dict)
    """Options of the loss with which it is that of the segmentation alone, as at coarser resolutions."""
    own_images: bool = False
    """Whether the terms beside `segmentation` are means over the images of one rank; else all are of all ranks."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the loss that make it this method."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Options whose default is another than the loss's own."""
    by_dims: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Defaults that depend on whether the images have 2 or 3 axes; until that is known the option is None."""
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Options that do nothing unless one of these weights is above 0."""
    idle: tuple[str, ...] = ()
    """Keywords of the loss that do nothing for this method, whatever its options."""
    inference: str = "softmax"
    """See `sure_fast.engine.prediction.Predictor`."""
    dropout: float = 0.0
    """Of the network."""
    members: int = 1
    """Networks, trained one after the other."""
    latent: int = 0
    """Numbers of the latent variable of a probabilistic U-Net around the network; 0: none."""

    @cached_property
    def options(self) -> dict[str, Any]:
        """Every option with its default."""
        defaults = {}
        for name, parameter in inspect.signature(self.loss).parameters.items():
            if name in (*SUPPLIED, *self.idle, *self.fixed) or not self._can_matter(name):
                continue
            default = self.defaults.get(name, parameter.default)
            defaults[name] = None if self._depends_on_dims(name) else default
        return defaults

    def _depends_on_dims(self, name: str) -> bool:
        return any(name in defaults for defaults in self.by_dims.values())

    def _can_matter(self, name: str) -> bool:
        return name not in self.needs or any(self.fixed.get(weight) != 0 for weight in self.needs[name])

    def has(self, key: str) -> bool:
        """Whether an option of a run, section.key, is one of this method's, or of every method's."""
        section, _, name = key.partition(".")
        if key == "network.dropout":
            return self.dropout > 0
        if key == "method.members":
            return self.members > 1
        return section != "method" or name in self.options

    def reads(self, name: str, options: Mapping[str, Any]) -> bool:
        """Whether an option does anything beside these others."""
        if name not in self.options:
            return False
        weights = self.needs.get(name)
        return weights is None or any({**self.fixed, **options}[weight] for weight in weights)

    def make_loss(
        self, options: Mapping[str, Any], *, num_epochs: int, dims: int, in_channels: int, ignore_index: int | None
    ) -> nn.Module:
        """The loss of a run.

        Raises:
            TypeError, ValueError: naming the option, what was expected and what came.
        """
        published = self.by_dims.get(dims, {})
        chosen = {}
        for name, value in options.items():
            if value is not None or not self._depends_on_dims(name):
                chosen[name] = value
            elif name in published:
                chosen[name] = published[name]
        supplied = {
            "num_epochs": num_epochs,
            "ignore_index": ignore_index,
            "channels": "luma" if in_channels in (1, 3) else "mean",
        }
        taken = inspect.signature(self.loss).parameters
        return self.loss(**{k: v for k, v in supplied.items() if k in taken}, **self.fixed, **chosen)

    def make_coarse_loss(self, options: Mapping[str, Any], **of_run: Any) -> nn.Module:
        """The loss of coarser resolutions: without what asks for the image or the network."""
        kept = {name: value for name, value in options.items() if name not in self.unsupervised}
        fixed = {name: value for name, value in self.fixed.items() if name not in self.unsupervised}
        return replace(self, fixed={**fixed, **self.unsupervised}).make_loss(kept, **of_run)

    def call(self, loss: nn.Module) -> Callable[..., Any]:
        """(logits, label, image=, epoch=, model=, generator=) -> the terms: hands over what the loss takes of these."""
        taken = inspect.signature(loss.forward).parameters
        any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())

        def terms(logits: Any, label: Any, **step: Any) -> Any:
            return loss(logits, label, **{name: value for name, value in step.items() if any_name or name in taken})

        return terms


_SUPERVISED_NEEDS = {
    **dict.fromkeys(("start_epoch", "ramp"), ("beta", "gamma")),
    **dict.fromkeys(
        ("gradient_threshold", "pairs", "num_pairs", "normalize", "per_class", "operator", "spacing", "blur_sigma"),
        ("beta",),
    ),
    **dict.fromkeys(
        ("support", "noise_threshold", "noisy_share", *OF_PATCHES, *OF_IMAGES, "noise", "noise_std", "order_weight",
         "distance_weight", "far_weight"),
        ("gamma",),
    ),
}  # fmt: skip
_EVIDENTIAL: dict[str, Any] = {"inference": "evidential", "own_images": True}
_SUPERVISED: dict[str, Any] = {
    "loss": UncertaintySupervisedLoss,
    "composites": ("total", "segmentation", "noise"),
    "unsupervised": {"beta": 0.0, "gamma": 0.0},
    "needs": _SUPERVISED_NEEDS,
    **_EVIDENTIAL,
}

_SHOWN = {"dice": "dice_loss", "gradient": "L_gu", "noise": "L_nu"}
PAPER: dict[str, Any] = {
    "evidence": "softplus", "normalize": None, "noise": "mean", "noisy_share": 1.0, "ramp": "exponential",
    "beta": 100.0, "gamma": 1.0, "order_weight": ORDER_WEIGHT, "distance_weight": DISTANCE_WEIGHT,
    "far_weight": FAR_WEIGHT,
}  # fmt: skip
"""The form of arXiv 2509.17098. It gives no weights: these were found on validation cases (docs/results.md)."""

DEFAULT = "dense"

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("softmax", "Softmax entropy", "#7f7f7f", CrossEntropyDiceLoss, {"dice": "dice_loss"}),
        Method("mc-dropout", "MC dropout", "#bcbd22", CrossEntropyDiceLoss, {"dice": "dice_loss"},
               inference="mc-dropout", dropout=0.2),
        Method("ensemble", "Deep ensemble", "#2ca02c", CrossEntropyDiceLoss, {"dice": "dice_loss"},
               inference="ensemble", members=3),
        Method("tta", "Test-time augmentation", "#17becf", CrossEntropyDiceLoss, {"dice": "dice_loss"},
               inference="tta"),
        Method("probabilistic", "Probabilistic U-Net", "#8c564b", ProbabilisticLoss, {"kl": "kl"},
               composites=("total", "segmentation"), own_images=True, inference="probabilistic", latent=LATENT),
        Method("evidential", "Evidential", "#1f77b4", shown={"dice": "dice_loss"},
               fixed={"beta": 0.0, "gamma": 0.0}, **_SUPERVISED),
        Method("devis", "DEviS", "#9467bd", DevisLoss, {"dice": "dice_loss", "calibration": "calibration"},
               inference="evidential"),
        Method("prius", "PriUS", "#ff7f0e", PriusLoss,
               {"dice": "dice_loss", "contrast": "contrast", "corruption": "corruption", "geometry": "geometry"},
               by_dims=PUBLISHED, unsupervised=dict.fromkeys(PRIUS_WEIGHTS, 0.0), **_EVIDENTIAL),
        Method("sure", "SURE", "#d62728", shown=_SHOWN, fixed={"support": "patch"}, defaults=PAPER,
               idle=tuple(OF_IMAGES), **_SUPERVISED),
        Method("dense", "Dense SURE", "#e377c2", shown=_SHOWN, fixed={"support": "image"}, idle=tuple(OF_PATCHES),
               **_SUPERVISED),
    )
}  # fmt: skip
"""By the name that `preset` gives, in the order of the tables."""
