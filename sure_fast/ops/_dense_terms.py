"""The terms of dense_noise_uncertainty_loss from its sums and its pair losses, and back; how, as in _terms.py."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _cpu
from ._autograd import Parameters
from ._terms import new_scalars, number, scalars

ORDER_SUMS, NEAR_NUMBER, FAR_SUMS, FAR_NUMBER, NEAR_SUMS = slice(0, 3), 3, slice(4, 7), 7, slice(8, 11)
"""Where the operator's sums have those of the order term, the number of near voxels, u of the far ones, their number,
and u of the near ones."""
SUMS = _cpu.DENSE_NOISE_SUMS


class _Sums:
    """What forward and backward share."""

    def __init__(self, sums: Sequence[float], each: float, normalize: bool) -> None:
        near, far = sums[NEAR_NUMBER], sums[FAR_NUMBER]
        self.each_near, self.each_far = each / max(near, 1.0), each / max(far, 1.0)
        self.far = (sums[FAR_SUMS][0] + each * sum(sums[FAR_SUMS][1:])) / max(far, 1.0)
        self.order, self.of_mean, self.divisor = sum(sums[ORDER_SUMS]) * self.each_near, 0.0, 1.0
        if normalize:
            self.third = 1.0 / max(3.0 * near, 1.0)
            mean = (sums[NEAR_SUMS][0] + each * sum(sums[NEAR_SUMS][1:])) * self.third
            self.divisor = mean if mean > 0 else 1.0
            self.order /= self.divisor
            if mean > 0:
                self.of_mean = -self.order / mean * self.third
            elif not math.isnan(self.order):
                self.order, self.each_near = 0.0, 0.0


@torch.library.custom_op("sure_fast::dense_noise_terms", mutates_args=())
def _op(
    sums: Tensor, losses1: Tensor | None, losses2: Tensor | None, copies: int, normalize: bool, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Order, distance and far, of sums [11] and of the pair loss of each image [N] in each copy."""
    if backend == "triton":
        from ..kernels import _terms as kernels

        out = new_scalars(3, sums)
        kernels.dense_noise(sums, losses1, losses2, 2.0 / copies, normalize, out)
        return out  # type: ignore[return-value]
    each = 2.0 / copies  # a single copy counts for both
    of = _Sums(sums.tolist(), each, normalize)
    pairs = [loss.mean().item() for loss in (losses1, losses2) if loss is not None and len(loss)]
    return scalars((of.order, each * sum(pairs), of.far))  # type: ignore[return-value]


@_op.register_fake
def _(sums: Tensor, *_: object) -> tuple[Tensor, ...]:
    return new_scalars(3, sums)


@torch.library.custom_op("sure_fast::dense_noise_terms_backward", mutates_args=())
def _op_backward(
    order: Tensor | None,
    distance: Tensor | None,
    far: Tensor | None,
    sums: Tensor,
    images: int,
    copies: int,
    normalize: bool,
    backend: str,
) -> Tensor:
    """The loss's derivatives by the sums and by every pair loss [12]."""
    each = 2.0 / copies
    if backend == "triton":
        from ..kernels import _terms as kernels

        out = sums.new_empty(SUMS + 1)
        kernels.dense_noise_backward((order, distance, far), sums, each, images, normalize, out)
        return out
    of, slopes = _Sums(sums.tolist(), each, normalize), [0.0] * (SUMS + 1)
    by_order, by_far = number(order), number(far)
    slopes[ORDER_SUMS] = [by_order * of.each_near / of.divisor] * 3
    slopes[FAR_SUMS] = [by_far * of.each_far / each, *[by_far * of.each_far] * 2]
    slopes[NEAR_SUMS] = [by_order * of.of_mean, *[by_order * of.of_mean * each] * 2]
    slopes[SUMS] = number(distance) * each / max(images, 1)
    return torch.tensor(slopes, dtype=torch.float64)


@_op_backward.register_fake
def _(order: object, distance: object, far: object, sums: Tensor, *_: object) -> Tensor:
    return sums.new_empty(SUMS + 1)


_parameters = Parameters(_op)


def _setup_context(ctx, inputs, output) -> None:
    of = _parameters.named(inputs)
    ctx.save_for_backward(of.sums)
    ctx.images = 0 if of.losses1 is None else of.losses1.shape[0]
    ctx.two = of.losses2 is not None
    ctx.options = (of.copies, of.normalize, of.backend)
    ctx.set_materialize_grads(False)


def _backward(ctx, order: Tensor | None, distance: Tensor | None, far: Tensor | None):
    slopes = _op_backward(order, distance, far, *ctx.saved_tensors, ctx.images, *ctx.options)
    of_losses = slopes[SUMS].expand(ctx.images) if distance is not None and ctx.images else None
    return _parameters.gradients(sums=slopes[:SUMS], losses1=of_losses, losses2=of_losses if ctx.two else None)


_op.register_autograd(_backward, setup_context=_setup_context)


def dense_noise_terms(
    sums: Tensor, losses: Sequence[Tensor], copies: int, normalize: bool, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Order, distance and far terms; the numbers of voxels are constants. Without losses the distance term is 0."""
    first, second = (*losses, None, None)[:2]
    return _op(sums, first, second, copies, normalize, backend)
