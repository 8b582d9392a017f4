"""Fused kernels for uncertainty-supervised evidential segmentation of medical images."""

from ._backends import explain, use_backend
from .ops.boundary_distance import boundary_distance

__version__ = "0.1.0"
__all__ = ["boundary_distance", "explain", "use_backend"]
