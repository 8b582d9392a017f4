"""Noise-uncertainty loss: more noise must mean more uncertainty, and none far from a boundary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _backends, _checks, _cpu
from ..reference.noise_uncertainty_loss import noise_uncertainty_loss as _reference
from . import _triton
from ._autograd import Parameters
from ._calls import empty_gradient, one_stride, single_or_double
from .dirichlet_uncertainty import EVIDENCE


def _cpu_supports(logits: Tensor, *_: object, **__: object) -> str | None:
    return None if logits.device.type == "cpu" else f"logits are on {logits.device}, not on the CPU"


def _triton_supports(
    logits: Tensor, noisy1: object = None, noisy2: object = None, distance: Tensor | None = None, *_: object,
    **__: object,
) -> str | None:  # fmt: skip
    if distance is not None and distance.dtype == torch.float64:
        return "the distance is float64, and the Triton kernels compute in float32"
    return _triton.why_not("logits", logits)


_backends.register("noise_uncertainty_loss", cpu=_cpu_supports, triton=_triton_supports)

NOISE_THRESHOLD = 4.0
"""What is near a boundary in arXiv 2509.17098, in voxels."""
ORDER_WEIGHT, DISTANCE_WEIGHT, FAR_WEIGHT = 1.0, 1.0, 5.0
"""The paper gives none; these were found on a validation split, with β = 100 and γ = 1 (docs/results.md)."""


FAR_SUMS, NOISY_FAR_SUMS, FAR_NUMBER = slice(0, 3), slice(1, 3), 3
"""Σ u, Σ u¹, Σ u² over the far voxels, the last two of them, and the number of these voxels, in the operator's sums."""


def noise_args(
    logits: Sequence[Tensor],
    centers: Tensor,
    levels: Tensor,
    valid: Tensor,
    threshold: float,
    evidence: str,
    *,
    distance: Tensor | None = None,
    squared: Tensor | None = None,
    clean_far: bool = True,
) -> tuple[_cpu.NoiseArgs, tuple[Tensor, Tensor, Tensor]]:
    """The kernel's arguments, and the logits as they name them."""
    clean, noisy1, noisy2 = (one_stride(z) for z in logits)
    first, second = levels.tolist()
    args = _cpu.NoiseArgs(
        clean,
        noisy1,
        noisy2,
        evidence=evidence,
        clean_far=clean_far,
        distance=None if distance is None else single_or_double(distance).contiguous(),
        squared=squared,
        threshold=threshold,
        centers=centers.to(torch.int64).contiguous(),
        valid=valid.contiguous(),
        level1=first,
        level2=second,
        threads=torch.get_num_threads(),
    )
    return args, (clean, noisy1, noisy2)


@torch.library.custom_op("sure_fast::noise_uncertainty_loss", mutates_args=())
def _op(
    logits: Tensor,
    noisy1: Tensor,
    noisy2: Tensor,
    distance: Tensor,
    centers: Tensor,
    levels: Tensor,
    valid: Tensor,
    threshold: float,
    evidence: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """(order, distance), sums of u, u¹, u² over the far voxels and their number, d term / d u^k at the centers."""
    terms, far, slopes = _empty(logits, noisy1, noisy2, distance, centers)
    _checks.inside_image(centers, valid, logits.shape[2:])
    settings = (centers, levels, valid, threshold)
    if backend == "triton":
        from ..kernels import noise_uncertainty_loss as kernels

        arguments = kernels.Arguments((logits, noisy1, noisy2), *settings, evidence, distance=distance)
        kernels.forward(arguments, terms, far, slopes)
        return terms, far, slopes
    args, _ = noise_args((logits, noisy1, noisy2), *settings, evidence, distance=distance)
    _cpu.noise_uncertainty_forward(args, far, terms, slopes)
    return terms, far, slopes


@_op.register_fake
def _empty(logits: Tensor, noisy1: Tensor, noisy2: Tensor, distance: Tensor, centers: Tensor, *_: object):
    def new(*shape: int) -> Tensor:
        return logits.new_empty(shape, dtype=torch.float64)

    return new(2), new(4), new(2, 2, centers.shape[0] * centers.shape[1])


@torch.library.custom_op("sure_fast::noise_uncertainty_loss_backward", mutates_args=())
def _op_backward(
    grad_terms: Tensor,
    grad_far: Tensor,
    slopes: Tensor,
    logits: Tensor,
    noisy1: Tensor,
    noisy2: Tensor,
    distance: Tensor,
    centers: Tensor,
    levels: Tensor,
    valid: Tensor,
    threshold: float,
    evidence: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    coefficients = grad_far.to(torch.float64).contiguous()
    logits3, settings = (logits, noisy1, noisy2), (centers, levels, valid, threshold)
    if backend == "triton":
        from ..kernels import noise_uncertainty_loss as kernels
        from ..kernels._launch import writable

        arguments = kernels.Arguments(logits3, *settings, evidence, distance=distance)
        (clean, flat0), (first, flat1), (second, flat2) = (writable(z) for z in logits3)
        kernels.backward(arguments, coefficients, grad_terms.contiguous(), slopes, (flat0, flat1, flat2))
        return clean, first, second
    at_centers = (grad_terms[:, None, None] * slopes).sum(0).contiguous()
    args, kept = noise_args(logits3, *settings, evidence, distance=distance)
    clean, first, second = (empty_gradient(z) for z in kept)
    _cpu.noise_uncertainty_backward(args, coefficients[:3], at_centers, clean, first, second)
    return clean, first, second


@_op_backward.register_fake
def _(grad_terms: Tensor, grad_far: Tensor, slopes: Tensor, logits: Tensor, noisy1: Tensor, noisy2: Tensor, *_: object):
    return empty_gradient(logits), empty_gradient(noisy1), empty_gradient(noisy2)


_parameters = Parameters(_op)


def _setup_context(ctx, inputs, output) -> None:
    of, (_, _, slopes) = _parameters.named(inputs), output
    ctx.save_for_backward(slopes, of.logits, of.noisy1, of.noisy2, of.distance, of.centers, of.levels, of.valid)
    ctx.threshold, ctx.evidence, ctx.backend = of.threshold, of.evidence, of.backend
    ctx.mark_non_differentiable(slopes)
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_terms: Tensor | None, grad_far: Tensor | None, _: None):
    saved = ctx.saved_tensors  # read once, as a checkpointed region allows
    slopes = saved[0]
    grad_terms = slopes.new_zeros(2) if grad_terms is None else grad_terms
    grad_far = slopes.new_zeros(4) if grad_far is None else grad_far
    logits, noisy1, noisy2 = _op_backward(grad_terms, grad_far, *saved, ctx.threshold, ctx.evidence, ctx.backend)
    return _parameters.gradients(logits=logits, noisy1=noisy1, noisy2=noisy2)


_op.register_autograd(_backward, setup_context=_setup_context)


class NoiseUncertaintyLossOutput(NamedTuple):
    """The weighted sum and its unweighted terms, each a 0-dim tensor."""

    total: Tensor
    order: Tensor
    distance: Tensor
    far: Tensor


def check_weights(
    order_weight: float = ORDER_WEIGHT, distance_weight: float = DISTANCE_WEIGHT, far_weight: float = FAR_WEIGHT
) -> tuple[float, float, float]:
    """Of the three terms, in this order."""
    return (
        _checks.positive("order_weight", order_weight, zero=True),
        _checks.positive("distance_weight", distance_weight, zero=True),
        _checks.positive("far_weight", far_weight, zero=True),
    )


def one_dtype(logits: Tensor, *noisy: Tensor) -> tuple[Tensor, ...]:
    """All in the widest of their types: a network answers in half precision within autocast, in float32 outside."""
    dtype = logits.dtype
    for other in noisy:
        dtype = torch.promote_types(dtype, other.dtype)
    return tuple(z.to(dtype) for z in (logits, *noisy))


def noise_uncertainty_loss(
    logits: Tensor,
    noisy1: Tensor,
    noisy2: Tensor,
    distance: Tensor,
    centers: Tensor,
    levels: Tensor,
    *,
    valid: Tensor | None = None,
    evidence: str = "exp",
    threshold: float = NOISE_THRESHOLD,
    order_weight: float = ORDER_WEIGHT,
    distance_weight: float = DISTANCE_WEIGHT,
    far_weight: float = FAR_WEIGHT,
    backend: str | None = None,
) -> NoiseUncertaintyLossOutput:
    r"""Violations of "the more noise near a boundary, the more uncertainty; far from one, none".

    Math:
        u, u¹, u² are the uncertainties :math:`C / \sum_c (e(z_c) + 1)` of the clean image and of two copies with noise
        patches of mean
        :math:`\mu_1, \mu_2` added at the centers. L = order_weight·order + distance_weight·distance + far_weight·far:

        - order, over all centers with d <= threshold: for each of w = (u²-u¹)(μ₂-μ₁), (u¹-u)μ₁, (u²-u)μ₂ the mean of -w
          over w < 0, summed (u constant);
        - distance, per image and k = 1, 2: Δ = u^k - u at the centers with d <= threshold, 0 at the others; the mean
          over pairs of centers of v = (d_i-d_j)(Δ_i-Δ_j) over v > 0; summed over k, mean over images (u constant);
        - far: mean over all voxels with d > threshold of u + u¹ + u².

        Li et al., MICCAI 2025 (arXiv 2509.17098), L_nu.

    Args:
        logits, noisy1, noisy2: the network's answers to the clean and the two noisy images, [N, C, \*S], floating; of
            several dtypes, as when one of them was computed within autocast, the widest is taken.
        distance: d, [N, \*S] or [N, 1, \*S], in voxels or mm; +inf beyond a truncation or without a boundary.
        centers: patch centers, int64 [N, P, D] voxel indices.
        levels: μ₁, μ₂, floating [2].
        valid: bool [N, P], which centers exist; None: all.
        evidence: e(z), "softplus", "relu" or "exp", as of `dirichlet_uncertainty`.
        threshold: in the unit of `distance`; a distance larger by 1e-6 of it still counts as within.
        order_weight, distance_weight, far_weight: weights of the terms, >= 0.

    Returns:
        NoiseUncertaintyLossOutput(total, order, distance, far), 0-dim, the terms unweighted; float64 for float64
        logits, else float32.

    Raises:
        TypeError, ValueError: wrong types, shapes or weights; a valid center outside the image (on the CPU).

    Grad:
        `noisy1` and `noisy2` in all terms, `logits` in the far term only.

    Notes:
        Deterministic; no map of the uncertainty is written. A set without a violation, or no far voxel, gives 0. A
        center whose distance is +inf is in no pair of the distance term: a truncated map has no difference there.

    Example:
        >>> import sure_fast, torch
        >>> z = torch.zeros(1, 2, 3, 3)  # e = relu(z): u = 1, then 0.8 and 0.5
        >>> out = sure_fast.noise_uncertainty_loss(
        ...     z, z + 0.25, z + 1, torch.zeros(1, 3, 3), torch.tensor([[[1, 1]]]), torch.tensor([0.5, 1.0]),
        ...     evidence="relu",
        ... )
        >>> round(out.order.item(), 3)  # 0.3 * 0.5 + 0.2 * 0.5 + 0.5 * 1
        0.75
    """
    logits = _checks.logits("logits", logits)
    noisy = [_checks.logits("noisy1", noisy1), _checks.logits("noisy2", noisy2)]
    for name, other in zip(("noisy1", "noisy2"), noisy, strict=True):
        if other.shape != logits.shape:
            raise ValueError(
                f"{name}: expected the shape of logits {_checks.shape_text(logits.shape)}, "
                f"got {_checks.shape_text(other.shape)}"
            )
        _checks.same_device(name, other, "logits", logits)
    logits, *noisy = one_dtype(logits, *noisy)
    d = _checks.maps("distance", distance, logits[:, 0], "one channel of logits")
    _checks.constant("distance", d)
    _checks.choice("evidence", evidence, EVIDENCE)
    centers, levels, valid = _checks.patches(centers, levels, valid, d)
    threshold = _checks.reach("threshold", threshold)
    weights = check_weights(order_weight, distance_weight, far_weight)
    chosen = _backends.choose("noise_uncertainty_loss", backend, logits, *noisy, d)
    if chosen != "reference":
        terms, sums, _ = _op(logits, *noisy, d, centers, levels, valid, threshold, evidence, chosen)
        order, distance_term = terms.unbind()
        far = sums[FAR_SUMS].sum() / sums[FAR_NUMBER].clamp(min=1)
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        order, distance_term, far = order.to(dtype), distance_term.to(dtype), far.to(dtype)
    else:
        _checks.inside_image(centers, valid, logits.shape[2:])
        order, distance_term, far = _reference(
            logits, noisy[0], noisy[1], d, centers, levels, valid=valid, evidence=evidence, threshold=threshold
        )
    total = weights[0] * order + weights[1] * distance_term + weights[2] * far
    return NoiseUncertaintyLossOutput(total, order, distance_term, far)
