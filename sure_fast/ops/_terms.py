"""From sums over voxels to terms, and back: a few numbers, in float64. On a GPU a program of kernels/_terms.py instead
of a launch for every arithmetic operation, on the CPU NumPy instead of a dispatch for each."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from .. import _distributed
from ._autograd import Parameters
from ._sums import sums_layout

SHIFT = 1e-3
"""Dice counts y + SHIFT."""
EPS = 1e-5
"""Added to what Dice divides by."""
LEAST, MOST = 0.2, 0.8
"""Limits of the weight of false positives."""


def scalars(values: Iterable[float], dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """0-dim tensors, each with memory of its own, as the outputs of an operator have to be."""
    return tuple(torch.scalar_tensor(value, dtype=dtype) for value in values)


def new_scalars(number: int, like: Tensor, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    return tuple(like.new_empty((), dtype=dtype) for _ in range(number))


def number(t: Tensor | None) -> float:
    """Of a derivative that nothing asked for: 0."""
    return 0.0 if t is None else t.item()


class _Rows:
    """Rows of sums as arrays [batches, classes], of regions [1, regions]."""

    def __init__(self, sums: np.ndarray, classes: int, weights: np.ndarray | None, regions: bool) -> None:
        self.sums, self.regions, self.layout = sums, regions, sums_layout(classes)
        p, hit, y = sums[:, self.layout.by_class].reshape(-1, 3, classes).transpose(1, 0, 2)
        counted, voxels = y, y.sum(1, keepdims=True)
        if regions:  # of the presence alone
            p, hit, y, voxels = p[None, :, 1], hit[None, :, 1], y[None, :, 1], voxels.T
            counted = voxels
        self.tp = hit + SHIFT * p
        self.fp = p - self.tp
        self.fn = y + SHIFT * voxels - self.tp
        self.whole = self.fp + self.fn + EPS
        self.share = self.fp / self.whole
        self.a = self.share.clip(LEAST, MOST)
        self.inverse = 1.0 / (self.tp + self.a * self.fp + (1.0 - self.a) * self.fn + EPS)
        self.weights = np.ones(counted.shape[1]) if weights is None else weights
        self.of_dice = self.weights / self.weights.sum()
        scale = counted @ self.weights
        self.seen = scale > 0
        self.divisor = np.where(self.seen, scale, 1.0)

    def terms(self) -> list[float]:
        means = self.sums[:, self.layout.means]
        if self.regions:
            means = self.weights[None] @ means
        means = (means / self.divisor[:, None]).mean(0)
        dice = (self.of_dice * (1.0 - self.tp * self.inverse)).sum(1)
        return [*means.tolist(), np.where(self.seen, dice, 0.0).mean().item()]

    def slopes(self, data: float, kl: float, dice: float) -> np.ndarray:
        """The loss's derivatives by the sums from those by the terms; the numbers of voxels are constants."""
        out, batches = np.zeros_like(self.sums), len(self.seen)
        each = (self.weights if self.regions else 1.0) / (self.divisor * batches)
        out[:, 0], out[:, 1] = data * each, kl * each
        inside = (self.share >= LEAST) & (self.share <= MOST)
        change = np.where(inside, (self.fp - self.fn) / (self.whole * self.whole), 0.0)
        by_all = self.tp * self.inverse * self.inverse
        by_tp = by_all - self.inverse
        by_fp = by_all * (self.a + change * (self.fn + EPS))
        by_fn = by_all * (1.0 - self.a - change * self.fp)
        weight = np.where(self.seen[:, None], dice / batches * self.of_dice, 0.0)
        by_class = out[:, self.layout.by_class].reshape(len(out), 3, -1)
        for k, slope in enumerate((SHIFT * (by_tp - by_fn) + (1.0 - SHIFT) * by_fp, by_tp - by_fp - by_fn)):
            if self.regions:
                by_class[:, k, 1] = (weight * slope)[0]
            else:
                by_class[:, k] = weight * slope
        return out


def _rows(sums: Tensor, classes: int, weights: Tensor | None, regions: bool) -> _Rows:
    return _Rows(sums.numpy(), classes, None if weights is None else weights.numpy(), regions)


def _quiet() -> np.errstate:
    """Numbers that are none say so themselves."""
    return np.errstate(all="ignore")


@torch.library.custom_op("sure_fast::evidential_terms", mutates_args=())
def _op(
    sums: Tensor, weights: Tensor | None, classes: int, regions: bool, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of sums [rows, `terms` or `width` of `SumsLayout`]: data, KL, Dice, and where they are as wide the far term of
    one row."""
    if backend == "triton":
        from ..kernels import _terms as kernels

        out = new_scalars(4, sums)
        kernels.evidential(sums, weights, classes, regions, out)
        return out  # type: ignore[return-value]
    with _quiet():
        terms = _rows(sums, classes, weights, regions).terms()
    layout = sums_layout(classes)
    far = 0.0
    if sums.shape[1] == layout.width:
        clean, voxels, first, second = sums[0, layout.clean_far :].tolist()
        far = (clean + first + second) / max(voxels, 1.0)
    return scalars((*terms, far))  # type: ignore[return-value]


@_op.register_fake
def _(sums: Tensor, *_: object) -> tuple[Tensor, ...]:
    return new_scalars(4, sums)


@torch.library.custom_op("sure_fast::evidential_terms_backward", mutates_args=())
def _op_backward(
    data: Tensor | None,
    kl: Tensor | None,
    dice: Tensor | None,
    far: Tensor | None,
    sums: Tensor,
    weights: Tensor | None,
    classes: int,
    regions: bool,
    backend: str,
) -> Tensor:
    if backend == "triton":
        from ..kernels import _terms as kernels

        out = torch.empty_like(sums, memory_format=torch.contiguous_format)
        kernels.evidential_backward((data, kl, dice, far), sums, weights, classes, regions, out)
        return out
    with _quiet():
        slopes = _rows(sums, classes, weights, regions).slopes(number(data), number(kl), number(dice))
    layout = sums_layout(classes)
    if sums.shape[1] == layout.width:
        each = number(far) / max(sums[0, layout.far_number].item(), 1.0)
        slopes[0, layout.clean_far], slopes[0, layout.noisy_far] = each, each
    return torch.from_numpy(slopes)


@_op_backward.register_fake
def _(data: object, kl: object, dice: object, far: object, sums: Tensor, *_: object) -> Tensor:
    return torch.empty_like(sums, memory_format=torch.contiguous_format)


_parameters = Parameters(_op)


def _setup_context(ctx, inputs, output) -> None:
    of = _parameters.named(inputs)
    ctx.save_for_backward(of.sums, of.weights)
    ctx.options = (of.classes, of.regions, of.backend)
    ctx.set_materialize_grads(False)


def _backward(ctx, *grads: Tensor | None):
    return _parameters.gradients(sums=_op_backward(*grads, *ctx.saved_tensors, *ctx.options))


_op.register_autograd(_backward, setup_context=_setup_context)


def evidential_terms(
    sums: Tensor, classes: int, weights: Tensor | None, backend: str, *, regions: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean data term, mean KL term, Dice term and far term from rows of sums; all 0 when no voxel counts.

    A row for each region, or for each batch, over which the terms are averaged; one as wide as `SumsLayout` says has
    what the far term follows from, which is 0 without. Dice: y' = y + 1e-3, TP = Σ p y', FP = Σ p (1 - y'),
    FN = Σ (1 - p) y', a = clamp(FP / (FP + FN + 1e-5), 0.2, 0.8), mean_c (1 - TP / (TP + a FP + (1 - a) FN + 1e-5)), of
    regions their presence alone. The weights of the classes, or of the regions, weight all three means. Within
    `across_ranks` the sums of the evidential terms are those of all ranks. Σ y is a constant.
    """
    if _distributed.is_across_ranks():
        end = sums_layout(classes).terms.stop
        sums = torch.cat([_distributed.summed(sums[:, :end]), sums[:, end:]], 1)
    return _op(sums, weights, classes, regions, backend)
