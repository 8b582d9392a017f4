"""Losses as modules: composition of the ops, no kernels."""

from .deep_supervision import DeepSupervision
from .devis import DevisLoss, DevisOutput, accuracy_uncertainty_loss
from .evidential import EvidentialLoss, EvidentialOutput
from .gradient_uncertainty import GradientUncertaintyLoss
from .noise_uncertainty import NoiseUncertaintyLoss, NoisyImages, draw_image_noise, draw_levels, draw_noisy_images
from .prius import PriusLoss, PriusOutput, region_distance, same_label_pairs
from .probabilistic import ProbabilisticLoss, ProbabilisticOutput
from .softmax import CrossEntropyDiceLoss, CrossEntropyDiceOutput
from .supervised import SupervisionOutput, UncertaintySupervisedLoss

__all__ = [
    "CrossEntropyDiceLoss",
    "CrossEntropyDiceOutput",
    "DeepSupervision",
    "DevisLoss",
    "DevisOutput",
    "EvidentialLoss",
    "EvidentialOutput",
    "GradientUncertaintyLoss",
    "NoiseUncertaintyLoss",
    "NoisyImages",
    "PriusLoss",
    "PriusOutput",
    "ProbabilisticLoss",
    "ProbabilisticOutput",
    "SupervisionOutput",
    "UncertaintySupervisedLoss",
    "accuracy_uncertainty_loss",
    "draw_image_noise",
    "draw_levels",
    "draw_noisy_images",
    "region_distance",
    "same_label_pairs",
]
