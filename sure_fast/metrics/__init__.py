"""Metrics of uncertainty, segmentation and calibration; undefined values are NaN."""

from .calibration import compute_ece
from .segmentation import compute_dice, compute_hd95
from .uncertainty import compute_ucc, compute_uncertainty_metrics, compute_ur, thin_by_gradient

__all__ = [
    "compute_dice",
    "compute_ece",
    "compute_hd95",
    "compute_ucc",
    "compute_uncertainty_metrics",
    "compute_ur",
    "thin_by_gradient",
]
