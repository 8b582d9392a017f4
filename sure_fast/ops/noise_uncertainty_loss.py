"""Noise-uncertainty loss: more noise must mean more uncertainty, and none far from a boundary."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _backends, _checks
from ..reference.noise_uncertainty_loss import noise_uncertainty_loss as _reference

_backends.register("noise_uncertainty_loss")


class NoiseUncertaintyLossOutput(NamedTuple):
    """The weighted sum and its unweighted terms, each a 0-dim tensor."""

    total: Tensor
    order: Tensor
    distance: Tensor
    far: Tensor


def noise_uncertainty_loss(
    uncertainty: Tensor,
    noisy1: Tensor,
    noisy2: Tensor,
    distance: Tensor,
    centers: Tensor,
    levels: Tensor,
    *,
    valid: Tensor | None = None,
    threshold: float = 4.0,
    order_weight: float = 1.0,
    distance_weight: float = 1.0,
    far_weight: float = 1.0,
    backend: str | None = None,
) -> NoiseUncertaintyLossOutput:
    r"""Violations of "the more noise near a boundary, the more uncertainty; far from one, none".

    Math:
        u, u¹, u² are the uncertainties of the clean image and of two copies with noise patches of mean
        :math:`\mu_1, \mu_2` added at the centers. L = order_weight·order + distance_weight·distance + far_weight·far:

        - order, over all centers with d <= threshold: for each of w = (u²-u¹)(μ₂-μ₁), (u¹-u)μ₁, (u²-u)μ₂ the mean of -w
          over w < 0, summed (u constant);
        - distance, per image and k = 1, 2: Δ = u^k - u at the centers with d <= threshold, 0 at the others; the mean
          over pairs of centers of v = (d_i-d_j)(Δ_i-Δ_j) over v > 0; summed over k, mean over images (u constant);
        - far: mean over all voxels with d > threshold of u + u¹ + u².

        Li et al., MICCAI 2025 (arXiv 2509.17098), L_nu.

    Args:
        uncertainty, noisy1, noisy2: u, u¹, u²; [N, 1, \*S] or [N, \*S], floating.
        distance: d, [N, \*S] or [N, 1, \*S], in voxels or mm; +inf beyond a truncation or without a boundary.
        centers: patch centers, int64 [N, P, D] voxel indices.
        levels: μ₁, μ₂, floating [2].
        valid: bool [N, P], which centers exist; None: all.
        threshold: in the unit of `distance`.
        order_weight, distance_weight, far_weight: weights of the terms, >= 0.

    Returns:
        NoiseUncertaintyLossOutput(total, order, distance, far), 0-dim, the terms unweighted.

    Raises:
        TypeError, ValueError: wrong types, shapes or weights; a valid center outside the image (on the CPU).

    Grad:
        `noisy1` and `noisy2` in all terms, `uncertainty` in the far term only.

    Notes:
        Deterministic. A set without a violation, or no far voxel, gives 0. A center whose distance is +inf is in no
        pair of the distance term: a truncated map has no difference of distances there.

    Example:
        >>> import sure_fast, torch
        >>> u, one = torch.full((1, 1, 3, 3), 0.5), torch.ones(1, 1, 3, 3)
        >>> out = sure_fast.noise_uncertainty_loss(
        ...     u, 0.4 * one, 0.3 * one, torch.zeros(1, 3, 3), torch.tensor([[[1, 1]]]), torch.tensor([0.5, 1.0])
        ... )
        >>> round(out.order.item(), 3)  # 0.1 * 0.5 + 0.1 * 0.5 + 0.2 * 1
        0.3
    """
    u = _checks.maps("uncertainty", uncertainty)
    u1 = _checks.maps("noisy1", noisy1, u)
    u2 = _checks.maps("noisy2", noisy2, u)
    d = _checks.maps("distance", distance, u)
    centers = _checks.integer("centers", centers)
    dims = u.dim() - 1
    if centers.dim() != 3 or centers.shape[0] != u.shape[0] or centers.shape[2] != dims:
        raise ValueError(
            f"centers: expected [N={u.shape[0]}, P, {dims}], got shape {_checks.shape_text(centers.shape)}"
        )
    if valid is None:
        valid = torch.ones(centers.shape[:2], dtype=torch.bool, device=centers.device)
    elif _checks.tensor("valid", valid).dtype != torch.bool or valid.shape != centers.shape[:2]:
        raise ValueError(
            f"valid: expected bool {_checks.shape_text(centers.shape[:2])}, got {valid.dtype} "
            f"{_checks.shape_text(valid.shape)}"
        )
    levels = _checks.floating("levels", levels)
    if levels.shape != (2,):
        raise ValueError(f"levels: expected shape [2], got {_checks.shape_text(levels.shape)}")
    if centers.device.type == "cpu" and not torch.compiler.is_compiling():
        size = torch.tensor(u.shape[1:])
        outside = ((centers < 0) | (centers >= size)).any(-1) & valid
        if bool(outside.any()):
            found = centers[outside][0].tolist()
            raise ValueError(f"centers: expected voxel indices inside {_checks.shape_text(u.shape[1:])}, got {found}")
    threshold = _checks.positive("threshold", threshold, zero=True)
    weights = [
        _checks.positive(name, weight, zero=True)
        for name, weight in (
            ("order_weight", order_weight),
            ("distance_weight", distance_weight),
            ("far_weight", far_weight),
        )
    ]
    _backends.choose("noise_uncertainty_loss", backend, u)
    order, apart, far = _reference(u, u1, u2, d, centers.long(), levels, valid=valid, threshold=threshold)
    total = weights[0] * order + weights[1] * apart + weights[2] * far
    return NoiseUncertaintyLossOutput(total, order, apart, far)
