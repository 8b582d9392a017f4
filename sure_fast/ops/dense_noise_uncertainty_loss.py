"""Noise-uncertainty loss of whole images: at every voxel near a boundary more noise must mean more uncertainty."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _backends, _checks, _cpu
from ..reference.dense_noise_uncertainty_loss import dense_noise_uncertainty_loss as _reference
from . import _triton
from ._autograd import Parameters
from ._calls import single_or_double
from ._dense_terms import dense_noise_terms
from .gradient_uncertainty_loss import backend_beside_triton, pair_losses
from .gradient_uncertainty_loss import check_options as check_pairs
from .noise_uncertainty_loss import NOISE_THRESHOLD, one_dtype

MARGIN = 0.0


def _cpu_supports(uncertainty: Tensor, *_: object, **__: object) -> str | None:
    if uncertainty.device.type != "cpu":
        return f"the uncertainty is on {uncertainty.device}, not on the CPU"
    return _backends.why_not("gradient_uncertainty_loss", "cpu", uncertainty)


def _triton_supports(uncertainty: Tensor, *others: Tensor | None, **__: object) -> str | None:
    if any(other is not None and other.dtype == torch.float64 for other in others[:3]):
        return "a map is float64, and the Triton kernels compute in float32"
    return _triton.why_not("uncertainty", uncertainty)


_backends.register("dense_noise_uncertainty_loss", cpu=_cpu_supports, triton=_triton_supports)


def _args(
    u: Tensor, noisy1: Tensor, noisy2: Tensor | None, distance: Tensor, levels: Tensor, threshold: float,
    margin: float, detach: bool,
) -> _cpu.DenseNoiseArgs:  # fmt: skip
    of_copies = levels.tolist()
    return _cpu.DenseNoiseArgs(
        u.contiguous(), noisy1.contiguous(), None if noisy2 is None else noisy2.contiguous(), distance.contiguous(),
        level1=of_copies[0], level2=of_copies[-1], threshold=threshold, margin=margin, detach=detach,
        threads=torch.get_num_threads(),
    )  # fmt: skip


@torch.library.custom_op("sure_fast::dense_noise_uncertainty_loss", mutates_args=())
def _op(
    uncertainty: Tensor,
    noisy1: Tensor,
    noisy2: Tensor | None,
    distance: Tensor,
    levels: Tensor,
    threshold: float,
    margin: float,
    detach: bool,
    backend: str,
) -> Tensor:
    """Sums float64 [11], see `_dense_terms`; of one noisy copy those of a second are 0."""
    sums = _empty(uncertainty)
    maps = (uncertainty, noisy1, noisy2, distance)
    if uncertainty.numel() == 0:
        return sums.zero_()
    if backend == "triton":
        from ..kernels import dense_noise_uncertainty_loss as kernels

        kernels.forward(*maps, levels, threshold, margin, sums)
    else:
        _cpu.dense_noise_uncertainty_forward(_args(*maps, levels, threshold, margin, detach), sums)
    return sums


@_op.register_fake
def _empty(uncertainty: Tensor, *_: object) -> Tensor:
    return uncertainty.new_empty(_cpu.DENSE_NOISE_SUMS, dtype=torch.float64)


@torch.library.custom_op("sure_fast::dense_noise_uncertainty_loss_backward", mutates_args=())
def _op_backward(
    grad_sums: Tensor,
    uncertainty: Tensor,
    noisy1: Tensor,
    noisy2: Tensor | None,
    distance: Tensor,
    levels: Tensor,
    threshold: float,
    margin: float,
    detach: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the maps; that of a second noisy copy is empty without one."""
    maps = (uncertainty, noisy1, noisy2, distance)
    gradients = _empty_gradients(grad_sums, *maps)
    coefficients = grad_sums.to(torch.float64).contiguous()
    if uncertainty.numel() == 0:
        return gradients
    if backend == "triton":
        from ..kernels import dense_noise_uncertainty_loss as kernels

        kernels.backward(coefficients, *maps, levels, threshold, margin, detach, *gradients)
    else:
        args = _args(*maps, levels, threshold, margin, detach)
        _cpu.dense_noise_uncertainty_backward(args, coefficients, *gradients)
    return gradients


@_op_backward.register_fake
def _empty_gradients(
    _: Tensor, uncertainty: Tensor, __: Tensor, noisy2: Tensor | None, *___: object
) -> tuple[Tensor, Tensor, Tensor]:
    def new(there: bool = True) -> Tensor:
        return uncertainty.new_empty(uncertainty.shape if there else 0)

    return new(), new(), new(noisy2 is not None)


_parameters = Parameters(_op)


def _setup_context(ctx, inputs, output) -> None:
    of = _parameters.named(inputs)
    ctx.save_for_backward(of.uncertainty, of.noisy1, of.noisy2, of.distance, of.levels)
    ctx.options = (of.threshold, of.margin, of.detach, of.backend)


def _backward(ctx, grad_sums: Tensor):
    saved = ctx.saved_tensors  # read once, as a checkpointed region allows
    clean, noisy1, noisy2 = _op_backward(grad_sums, *saved, *ctx.options)
    two = saved[2] is not None
    return _parameters.gradients(uncertainty=clean, noisy1=noisy1, noisy2=noisy2 if two else None)


_op.register_autograd(_backward, setup_context=_setup_context)


class DenseNoiseUncertaintyLossOutput(NamedTuple):
    """The terms, unweighted, each a 0-dim tensor."""

    order: Tensor
    distance: Tensor
    far: Tensor


def dense_noise_uncertainty_loss(
    uncertainty: Tensor,
    noisy1: Tensor,
    noisy2: Tensor | None,
    distance: Tensor,
    levels: Tensor,
    *,
    threshold: float = NOISE_THRESHOLD,
    margin: float = MARGIN,
    detach: bool = False,
    normalize: str | None = None,
    with_distance: bool = True,
    backend: str | None = None,
) -> DenseNoiseUncertaintyLossOutput:
    r"""Violations of "the more noise near a boundary, the more uncertainty; far from one, none", at every voxel.

    Math:
        u₀ = `uncertainty` of the clean image, u₁ and u₂ of two copies of it under noise of levels l₁ and l₂ from one
        field, l₀ = 0. Over the near voxels :math:`N = \{d \le threshold\}` of the batch:

        - order: :math:`\sum_{i<j} \mathrm{mean}_N [s (u_i - u_j) + margin\,|l_j - l_i|]^+`, s the sign of
          :math:`l_j - l_i`;
        - distance: for k = 1, 2 the loss of `gradient_uncertainty_loss` with d in the place of g and u_k - u₀ in that
          of u, every pair of an image; summed over k, mean over images;
        - far: mean over all voxels with d > threshold of u₀ + u₁ + u₂.

        A single noisy copy counts for both: u₂ = u₁, l₂ = l₁. These are the second and third principle of arXiv
        2509.17098 at every voxel instead of at patch centers; docs/method.md.

    Args:
        uncertainty, noisy1, noisy2: u₀, u₁, u₂, [N, 1, \*S] or [N, \*S], floating; of several dtypes the widest counts.
            noisy2 None: there is one noisy copy.
        distance: d, [N, \*S] or [N, 1, \*S], in voxels or mm; +inf beyond a truncation or without a boundary, NaN where
            a voxel is neither near nor far.
        levels: l₁, l₂ ≥ 0, floating [2], of one copy [1]; in which unit does not matter but for the margin.
        threshold: in the unit of `distance`; a distance larger by 1e-6 of it still counts as within.
        margin: by what u has to rise, times the rise of the noise.
        detach: whether the image of less noise is a constant in the order and distance terms.
        normalize: "band": the order term is divided by the mean over N of u₀, u₁ and u₂, and the distance term of each
            image by the standard deviations of d and u_k - u₀ over N, so that neither falls by a smaller u alone.
        with_distance: False: the distance term, which sorts the near voxels, is not computed and 0.

    Returns:
        DenseNoiseUncertaintyLossOutput(order, distance, far), 0-dim: float64 for float64 maps, else float32.

    Raises:
        TypeError, ValueError: wrong types, shapes or options, or a `distance` that requires grad.

    Grad:
        `uncertainty`, `noisy1`, `noisy2`; in the distance term the number of violating pairs is a constant.

    Notes:
        Deterministic; sums in float64. No near voxel, or no far one, gives 0.

    Example:
        >>> import sure_fast, torch
        >>> u = torch.full((1, 4, 4), 0.5)
        >>> out = sure_fast.dense_noise_uncertainty_loss(
        ...     u, u - 0.25, u + 0.25, torch.zeros(1, 4, 4), torch.tensor([0.3, 0.8])
        ... )
        >>> out.order  # 0.25 that u fell from the first to the second image
        tensor(0.2500)
    """
    first = _checks.maps("uncertainty", uncertainty)
    one = _checks.maps("noisy1", noisy1, first)
    two = None if noisy2 is None else _checks.maps("noisy2", noisy2, first)
    d = _checks.maps("distance", distance, first)
    _checks.constant("distance", d)
    levels = _checks.noise_levels(levels, 1 if two is None else 2)
    _checks.same_device("levels", levels, "uncertainty", first)
    threshold = _checks.reach("threshold", threshold)
    margin = _checks.positive("margin", margin, zero=True)
    _checks.flag("detach", detach)
    _checks.flag("with_distance", with_distance)
    check_pairs(normalize=normalize)
    chosen = _backends.choose("dense_noise_uncertainty_loss", backend, first, one, two, d)
    if chosen == "reference":
        terms = _reference(
            first, one, two, d, levels, threshold=threshold, margin=margin, detach=detach, normalize=normalize,
            with_distance=with_distance,
        )  # fmt: skip
        return DenseNoiseUncertaintyLossOutput(*terms)
    terms = kernel_terms(
        first, one, two, d, levels, threshold=threshold, margin=margin, detach=detach, normalize=normalize,
        with_distance=with_distance, backend=chosen,
    )  # fmt: skip
    double = any(u is not None and u.dtype == torch.float64 for u in (first, one, two))
    return DenseNoiseUncertaintyLossOutput(*(t.to(torch.float64 if double else torch.float32) for t in terms))


def kernel_terms(
    first: Tensor, one: Tensor, two: Tensor | None, d: Tensor, levels: Tensor, *,
    threshold: float, margin: float, detach: bool, normalize: str | None, with_distance: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The terms in float64 of checked maps [N, *S], on "cpu" or "triton"."""
    first, *copies = one_dtype(*(single_or_double(u) for u in (first, one, two) if u is not None))
    second = copies[1] if two is not None else None
    d = single_or_double(d)
    sums = _op(first, copies[0], second, d, levels, threshold, margin, detach, backend)
    losses: list[Tensor] = []
    if with_distance:
        clean = first.detach() if detach else first
        sorting = "cpu" if backend == "cpu" else backend_beside_triton(clean)
        losses = [pair_losses(noisy - clean, d, d, threshold=threshold, normalize=normalize is not None,
                              backend=sorting) for noisy in copies]  # fmt: skip
    return dense_noise_terms(sums, losses, len(copies), normalize is not None, backend)
