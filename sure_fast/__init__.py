"""Fused kernels for uncertainty-supervised evidential segmentation of medical images."""

from importlib import import_module as _import_module
from types import ModuleType as _Module

import torch as _torch  # before the kernels, which share its OpenMP runtime  # noqa: F401

from . import _library  # the kernels, or one line that says why they are not there  # noqa: F401
from ._backends import explain, use_backend
from ._distributed import across_ranks
from .losses import (
    EvidentialLoss,
    GradientUncertaintyLoss,
    NoiseUncertaintyLoss,
    NoisyImages,
    SupervisionOutput,
    UncertaintySupervisedLoss,
)
from .ops.add_noise_patches import add_noise_patches
from .ops.boundary_distance import boundary_distance
from .ops.dense_noise_uncertainty_loss import DenseNoiseUncertaintyLossOutput, dense_noise_uncertainty_loss
from .ops.dirichlet_uncertainty import dirichlet_uncertainty
from .ops.evidential_loss import EvidentialLossOutput, evidential_loss
from .ops.gradient_magnitude import gradient_magnitude
from .ops.gradient_uncertainty_loss import gradient_uncertainty_loss
from .ops.noise_uncertainty_loss import NoiseUncertaintyLossOutput, noise_uncertainty_loss
from .ops.pair_concordance import PairConcordance, pair_concordance
from .ops.sample_hard_patches import HardPatches, sample_hard_patches
from .ops.segmentation_stats import SegmentationStats, segmentation_stats
from .ops.spearman import spearman
from .ops.surface_distances import SurfaceDistances, surface_distances
from .ops.uncertainty_supervision import UncertaintySupervisionOutput, uncertainty_supervision

__version__ = "0.1.0"


def __getattr__(name: str) -> _Module:
    """The data readers and the metrics are imported when they are asked for."""
    if name in ("data", "metrics"):
        return _import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "DenseNoiseUncertaintyLossOutput",
    "EvidentialLoss",
    "EvidentialLossOutput",
    "GradientUncertaintyLoss",
    "HardPatches",
    "NoiseUncertaintyLoss",
    "NoiseUncertaintyLossOutput",
    "NoisyImages",
    "PairConcordance",
    "SegmentationStats",
    "SupervisionOutput",
    "SurfaceDistances",
    "UncertaintySupervisedLoss",
    "UncertaintySupervisionOutput",
    "across_ranks",
    "add_noise_patches",
    "boundary_distance",
    "dense_noise_uncertainty_loss",
    "dirichlet_uncertainty",
    "evidential_loss",
    "explain",
    "gradient_magnitude",
    "gradient_uncertainty_loss",
    "noise_uncertainty_loss",
    "pair_concordance",
    "sample_hard_patches",
    "segmentation_stats",
    "spearman",
    "surface_distances",
    "uncertainty_supervision",
    "use_backend",
]
