"""Fused kernels for uncertainty-supervised evidential segmentation of medical images."""

import torch as _torch  # before the kernels, which share its OpenMP runtime  # noqa: F401

from ._backends import explain, use_backend
from .ops.boundary_distance import boundary_distance
from .ops.dirichlet_uncertainty import dirichlet_uncertainty
from .ops.evidential_loss import EvidentialLossOutput, evidential_loss
from .ops.gradient_magnitude import gradient_magnitude

__version__ = "0.1.0"
__all__ = [
    "EvidentialLossOutput",
    "boundary_distance",
    "dirichlet_uncertainty",
    "evidential_loss",
    "explain",
    "gradient_magnitude",
    "use_backend",
]
