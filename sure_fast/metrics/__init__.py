"""Metrics of uncertainty, segmentation and calibration; undefined values are NaN."""

from .calibration import compute_ece, ece_of_stats
from .segmentation import SurfaceMetrics, compute_dice, compute_surface_metrics, dice_of_stats
from .uncertainty import compute_ucc, compute_uncertainty_metrics, compute_ur, thin_by_gradient

__all__ = [
    "SurfaceMetrics",
    "compute_dice",
    "compute_ece",
    "compute_surface_metrics",
    "compute_ucc",
    "compute_uncertainty_metrics",
    "compute_ur",
    "dice_of_stats",
    "ece_of_stats",
    "thin_by_gradient",
]
