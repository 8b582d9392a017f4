"""One loss over the outputs of several resolutions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import _checks


class DeepSupervision(nn.Module):
    r"""Weighted sum of a loss over a network's outputs, the finest first.

    Math:
        :math:`\sum_k w_k L(z_k, y_k)`, each term of the loss as its total. Lee et al., AISTATS 2015 (arXiv 1409.5185).

    A loss that looks at the image too takes the finest output alone, with a segmentation loss of the others beside it::

        total = loss(outputs[0], label, image, epoch=epoch, model=finest).total
        total = total + coarser(outputs[1:], label, epoch=epoch).total / 2  # DeepSupervision(EvidentialLoss(...))

    Args:
        loss: (logits, target, ...) -> a 0-dim tensor, or a named tuple of them.
        level_weights: w >= 0, one for each output; None: halving from one to the next, their sum 1.

    Raises:
        TypeError, ValueError: a loss that cannot be called, or looks at the image; weights that are negative or all 0.

    Example:
        >>> import sure_fast, torch
        >>> from sure_fast.losses import DeepSupervision
        >>> loss = DeepSupervision(sure_fast.EvidentialLoss())
        >>> outputs = [torch.randn(1, 3, 8, 8), torch.randn(1, 3, 4, 4)]
        >>> loss(outputs, torch.zeros(1, 8, 8, dtype=torch.long), epoch=2).total.shape
        torch.Size([])
    """

    def __init__(self, loss: Callable[..., Any], level_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not callable(loss):
            raise TypeError(f"loss: expected a function of logits and target, got {type(loss).__name__}")
        if isinstance(loss, nn.Module) and "image" in inspect.signature(loss.forward).parameters:
            raise TypeError(
                f"loss: expected one of logits and target alone, got {type(loss).__name__}, which looks at the image "
                "too: give it the finest output, and DeepSupervision(EvidentialLoss(...)) the coarser ones"
            )
        _checks.weights("level_weights", level_weights)
        self.loss = loss
        self.level_weights = level_weights

    def forward(
        self, logits: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor], *args: Any, **kwargs: Any
    ) -> Any:
        """What the loss returns, of outputs [N, C, *S_k] and targets.

        Args:
            logits: a list of outputs, the finest first; one tensor is a list of one.
            target: a list of as many; or one, [N, ..., *S], of which each output takes the labels nearest to its
                voxels.
            args, kwargs: for the loss, the same at each output.

        Raises:
            TypeError, ValueError: no outputs; targets or weights of another number; and as the loss.
        """
        levels = [logits] if isinstance(logits, Tensor) else logits
        return over_levels(
            lambda level, label: self.loss(level, label, *args, **kwargs), levels, target, self.level_weights
        )


def over_levels(
    loss: Callable[[Tensor, Tensor], Any],
    levels: Sequence[Tensor],
    target: Tensor | Sequence[Tensor],
    level_weights: Sequence[float] | None,
) -> Any:
    """The weighted sum of the levels' losses; see `DeepSupervision`."""
    levels = [_checks.tensor("logits", level) for level in levels]
    if not levels:
        raise ValueError("logits: expected at least one output, got an empty list")
    if isinstance(target, Tensor):
        label = _checks.tensor("target", target)
        targets = [_at_size(label, level.shape[2:]) for level in levels]
    else:
        targets = list(target)
    given = _checks.weights("level_weights", level_weights)
    weights = halving(len(levels)) if given is None else [float(w) for w in given]
    if len(weights) != len(levels) or len(targets) != len(levels):
        raise ValueError(
            f"level_weights, target: expected one for each of the {len(levels)} outputs, "
            f"got {len(weights)} and {len(targets)}"
        )
    parts = [loss(level, label) for level, label in zip(levels, targets, strict=True)]
    if isinstance(parts[0], Tensor):
        return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum(0)
    terms = torch.stack([weight * torch.stack(tuple(part)) for weight, part in zip(weights, parts, strict=True)])
    return type(parts[0])(*terms.sum(0))


def halving(number: int) -> list[float]:
    """Weights of so many resolutions, the finest first: each half the one before, their sum 1."""
    halves = [0.5**k for k in range(number)]
    return [half / sum(halves) for half in halves]


def _at_size(target: Tensor, size: Sequence[int]) -> Tensor:
    """The labels nearest to the voxels of a coarser grid over the same image (its last axes)."""
    for axis, coarse in zip(range(target.dim() - len(size), target.dim()), size, strict=True):
        fine = target.shape[axis]
        if fine != coarse:
            nearest = (torch.arange(coarse, device=target.device) * 2 + 1) * fine // (2 * coarse)
            target = target.index_select(axis, nearest)
    return target
