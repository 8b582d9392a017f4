"""Losses as modules: composition of the ops, no kernels."""

from .evidential import EvidentialLoss
from .gradient_uncertainty import GradientUncertaintyLoss
from .noise_uncertainty import NoiseUncertaintyLoss, NoisyImages, add_noise_patches, draw_levels
from .supervised import SupervisionOutput, UncertaintySupervisedLoss

__all__ = [
    "EvidentialLoss",
    "GradientUncertaintyLoss",
    "NoiseUncertaintyLoss",
    "NoisyImages",
    "SupervisionOutput",
    "UncertaintySupervisedLoss",
    "add_noise_patches",
    "draw_levels",
]
