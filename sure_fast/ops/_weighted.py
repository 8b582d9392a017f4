"""The terms of a step times their weights, which are numbers of the host: one launch on a GPU; how, as in _terms.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ._autograd import Parameters
from ._terms import new_scalars, number, scalars


class Weights(NamedTuple):
    """Of the terms of `UncertaintySupervisedLoss`."""

    data: float
    kl: float
    dice: float
    order: float
    """With the two after it times how many calls L_nu stands for."""
    distance: float
    far: float
    noisy: float
    """Of L_seg of the noisy copies in L_nu."""
    gradient: float
    """Of L_gu in the total."""
    noise: float
    """Of L_nu in the total."""


OUTPUTS = 11


def weighted(terms: Sequence[Tensor | float], of: Weights) -> tuple[Tensor | float, ...]:
    """(total, segmentation, data, kl, dice, gradient, noise, order, distance, far, noisy) of
    (data, kl, dice, gradient, order, distance, far, and of the noisy copies data, kl, dice), with plain arithmetic."""
    data, kl, dice, gradient, order, distance, far, noisy_data, noisy_kl, noisy_dice = terms
    noisy = of.data * noisy_data + of.kl * noisy_kl + of.dice * noisy_dice
    ordered = of.order * order + of.distance * distance + of.far * far
    of_copies = of.noisy * noisy
    segmentation = of.data * data + of.kl * kl + of.dice * dice + of.noise * of_copies
    total = segmentation + of.gradient * gradient + of.noise * ordered
    return (
        total, segmentation, data, kl, dice, gradient, ordered + of_copies, order, distance, far, noisy,
    )  # fmt: skip


def slopes(grads: Sequence[float], of: Weights) -> list[float]:
    """The derivatives by the terms from those by the outputs of `weighted`."""
    total, segmentation, *own, noise, order, distance, far, noisy = grads
    data, kl, dice, gradient = own
    segmentation += total
    ordered = noise + of.noise * total
    noisy += of.noisy * (noise + of.noise * segmentation)
    return [
        data + of.data * segmentation, kl + of.kl * segmentation, dice + of.dice * segmentation,
        gradient + of.gradient * total, order + of.order * ordered, distance + of.distance * ordered,
        far + of.far * ordered, of.data * noisy, of.kl * noisy, of.dice * noisy,
    ]  # fmt: skip


@torch.library.custom_op("sure_fast::weighted_terms", mutates_args=())
def _op(
    data: Tensor,
    kl: Tensor,
    dice: Tensor,
    gradient: Tensor | None,
    order: Tensor | None,
    distance: Tensor | None,
    far: Tensor | None,
    noisy_data: Tensor | None,
    noisy_kl: Tensor | None,
    noisy_dice: Tensor | None,
    weights: Sequence[float],
    dtype: torch.dtype,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The outputs of `weighted` from terms that are 0-dim or, over whose mean they are, one number for each image; a
    term that is None is 0."""
    terms = (data, kl, dice, gradient, order, distance, far, noisy_data, noisy_kl, noisy_dice)
    of = Weights(*weights)
    if backend == "triton":
        from ..kernels import _terms as kernels

        out = new_scalars(OUTPUTS, data, dtype)
        kernels.weighted(terms, of, out)
        return out  # type: ignore[return-value]
    numbers = [0.0 if t is None else t.item() if t.numel() == 1 else sum(t.tolist()) / max(len(t), 1) for t in terms]
    return scalars(weighted(numbers, of), dtype)  # type: ignore[arg-type, return-value]


@_op.register_fake
def _(
    data, kl, dice, gradient, order, distance, far, noisy_data, noisy_kl, noisy_dice, weights, dtype, backend
) -> tuple[Tensor, ...]:
    return new_scalars(OUTPUTS, data, dtype)


@torch.library.custom_op("sure_fast::weighted_terms_backward", mutates_args=())
def _op_backward(
    grads: Sequence[Tensor | None], like: Tensor, images: int, weights: Sequence[float], backend: str
) -> Tensor:
    """The loss's derivatives by the terms, float64 [10]; by that of each image."""
    of = Weights(*weights)
    if backend == "triton":
        from ..kernels import _terms as kernels

        out = like.new_empty(OUTPUTS - 1, dtype=torch.float64)
        kernels.weighted_backward(grads, of, images, out)
        return out
    by_terms = slopes([number(grad) for grad in grads], of)
    by_terms[3] /= max(images, 1)
    return torch.tensor(by_terms, dtype=torch.float64)


@_op_backward.register_fake
def _(grads: object, like: Tensor, *_: object) -> Tensor:
    return like.new_empty(OUTPUTS - 1, dtype=torch.float64)


_parameters = Parameters(_op)
_TERMS = _parameters.names[:10]


def _setup_context(ctx, inputs, output) -> None:
    of = _parameters.named(inputs)
    ctx.save_for_backward(of.data)
    ctx.terms = [(name, t.shape, t.dtype) for name in _TERMS if (t := getattr(of, name)) is not None]
    ctx.images = 1 if of.gradient is None else of.gradient.numel()
    ctx.options = (of.weights, of.backend)
    ctx.set_materialize_grads(False)


def _backward(ctx, *grads: Tensor | None):
    by_terms = _op_backward(grads, *ctx.saved_tensors, ctx.images, *ctx.options)
    of = dict(zip(_TERMS, by_terms.unbind(), strict=True))
    return _parameters.gradients(**{name: of[name].to(dtype).expand(shape) for name, shape, dtype in ctx.terms})


_op.register_autograd(_backward, setup_context=_setup_context)


def weighted_terms(
    terms: Sequence[Tensor | None], weights: Weights, dtype: torch.dtype, backend: str
) -> tuple[Tensor, ...]:
    """The outputs of `weighted`, in this dtype, of the terms of `supervision_terms`.

    Compiled code does the arithmetic itself: it would be compiled anew for every number that an operator is given, and
    the weights follow the epoch.
    """
    compiling = torch.compiler.is_compiling()
    if backend != "reference" and not compiling:
        return _op(*terms, weights, dtype, backend)
    data = terms[0]
    assert data is not None
    wide = torch.float64 if compiling else dtype
    zero = data.new_zeros((), dtype=wide)
    single = [zero if t is None else t.to(wide) if t.dim() == 0 else t.to(wide).sum() / max(len(t), 1) for t in terms]
    return tuple(t.to(dtype) for t in weighted(single, weights))  # type: ignore[union-attr]
