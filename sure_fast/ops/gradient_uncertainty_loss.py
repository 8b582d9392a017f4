"""Gradient-uncertainty loss: a clear edge must be less uncertain."""

from __future__ import annotations

from torch import Tensor

from .. import _backends, _checks
from ..reference.gradient_uncertainty_loss import gradient_uncertainty_loss as _reference

PAIRS = ("exact", "sampled")

_backends.register("gradient_uncertainty_loss")


def gradient_uncertainty_loss(
    uncertainty: Tensor,
    gradient: Tensor,
    distance: Tensor,
    *,
    threshold: float = 1.0,
    pairs: str = "exact",
    num_pairs: int = 100_000,
    label: Tensor | None = None,
    seed: int = 0,
    backend: str | None = None,
) -> Tensor:
    r"""Mean violation of "the higher the image gradient at the boundary, the lower the uncertainty".

    Math:
        Per image, over the boundary voxels :math:`B = \{i : d_i \le threshold\}` and unordered pairs,
        :math:`v_{ij} = (g_i - g_j)(u_i - u_j)`, :math:`L = \sum v_{ij}^+ / \#\{v_{ij} > 0\}`, 0 when no pair violates;
        the mean over the images. Li et al., MICCAI 2025 (arXiv 2509.17098), equation of L_gu.

    Args:
        uncertainty: u, [N, 1, \*S] or [N, \*S], floating.
        gradient: g, image gradient magnitude, the shape of `uncertainty`; not differentiated.
        distance: d, distance to the label boundary, [N, \*S] or [N, 1, \*S].
        threshold: the boundary band, in the unit of `distance`.
        pairs: "exact": every pair, by sorting, in O(n log² n). "sampled": `num_pairs` ordered pairs an image, drawn
            uniformly with replacement.
        num_pairs: pairs drawn per image when `pairs="sampled"`.
        label: [N, \*S] integer labels: only pairs of equal label count (the per-class variant of PriUS,
            arXiv 2605.10984). None: all pairs.
        seed: seed of the counter-based generator of "sampled": the same seed draws the same pairs anywhere.

    Returns:
        0-dim, float64 for float64 `uncertainty`, else float32.

    Raises:
        TypeError, ValueError: wrong types, shapes or options, or a `gradient` that requires grad.

    Grad:
        `uncertainty`. The number of violating pairs is a constant.

    Notes:
        Ties in g or u contribute nothing. Deterministic; sums in float64. Images without a boundary count as 0 in the
        mean over images. The published code cuts its sampled pairs into chunks of 20 000 and adds the chunks' means: to
        carry its β over, multiply it by (sampled pairs / 20 000), rounded up.

    Example:
        >>> import sure_fast, torch
        >>> u = torch.tensor([[[[0.2, 0.6]]]])
        >>> g = torch.tensor([[[[1.0, 3.0]]]])
        >>> sure_fast.gradient_uncertainty_loss(u, g, torch.zeros(1, 1, 2))  # (3 - 1)(0.6 - 0.2)
        tensor(0.8000)
    """
    u = _checks.maps("uncertainty", uncertainty)
    g = _checks.maps("gradient", gradient, u)
    d = _checks.maps("distance", distance, u)
    if gradient.requires_grad:
        raise ValueError("gradient: requires grad, but the loss is not differentiated in it; pass gradient.detach()")
    threshold = _checks.positive("threshold", threshold, zero=True)
    _checks.choice("pairs", pairs, PAIRS)
    if num_pairs < 1:
        raise ValueError(f"num_pairs: expected at least 1, got {num_pairs}")
    if label is not None:
        label = _checks.label("label", label, u.unsqueeze(1), "uncertainty")
    _backends.choose("gradient_uncertainty_loss", backend, u)
    return _reference(u, g, d, threshold=threshold, pairs=pairs, num_pairs=num_pairs, label=label, seed=seed)
