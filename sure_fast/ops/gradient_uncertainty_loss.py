"""Gradient-uncertainty loss: a clear edge must be less uncertain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .. import _backends, _checks, _cpu
from ..reference.gradient_uncertainty_loss import gradient_uncertainty_loss as _reference
from . import _calls
from ._autograd import Parameters
from ._calls import single_or_double, workspace

PAIRS = ("exact", "sampled")
NORMALIZATIONS = ("band",)
GRADIENT_THRESHOLD = 1.0
"""The boundary band of arXiv 2509.17098 in voxels."""
NUM_PAIRS = 100_000
MOST_ELEMENTS = 2**32 - 1
"""Voxels of one image that the kernel's 32-bit ranks can tell apart."""

COMPARED = 8192
"""Voxels of an image up to which the CUDA kernel compares all pairs instead of sorting; an estimate, not measured."""


def _cpu_supports(uncertainty: Tensor, *_: object, **__: object) -> str | None:
    if uncertainty.device.type != "cpu":
        return f"the uncertainty is on {uncertainty.device}, not on the CPU"
    if len(uncertainty) and uncertainty[0].numel() > MOST_ELEMENTS:
        return f"an image has {uncertainty[0].numel()} voxels, more than {MOST_ELEMENTS}"
    return None


def _cuda_supports(uncertainty: Tensor, *_: object, **__: object) -> str | None:
    return _calls.supports("uncertainty", uncertainty)


_backends.register("gradient_uncertainty_loss", cpu=_cpu_supports, cuda=_cuda_supports)


@torch.library.custom_op("sure_fast::gradient_uncertainty_loss", mutates_args=(), device_types=("cpu", "cuda"))
def _op(
    uncertainty: Tensor,
    gradient: Tensor,
    distance: Tensor,
    label: Tensor | None,
    threshold: float,
    num_pairs: int,
    seed: Tensor,
    normalize: bool,
    backend: str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Loss of each image [N] float64, and its gradient with respect to the uncertainty [N, *S].

    The distance may be uint8, such as squared steps, with a threshold of the same measure. The seed, 0-dim int64 on the
    CPU, is a tensor so that a compiled step may draw it.
    """
    loss, slope = _empty(uncertainty)
    if uncertainty.numel() == 0:
        return loss.zero_(), slope
    write_pair_losses(
        uncertainty, gradient, distance, label, threshold, num_pairs, seed, normalize, backend, loss, slope
    )
    return loss, slope


def write_pair_losses(
    uncertainty: Tensor,
    gradient: Tensor,
    distance: Tensor,
    label: Tensor | None,
    threshold: float,
    num_pairs: int,
    seed: Tensor,
    normalize: bool,
    backend: str,
    loss: Tensor,
    slope: Tensor,
) -> None:
    """Writes the outputs of the operator for maps that are not empty."""
    number, u = int(seed), single_or_double(uncertainty).contiguous()
    g = gradient.to(u.dtype).contiguous()
    if backend == "cuda":
        d = (distance if distance.dtype == torch.uint8 else single_or_double(distance)).contiguous()
        options = {"threshold": threshold, "num_pairs": num_pairs, "seed": number, "normalize": normalize}
        _run_cuda(u, g, d, None if label is None else label.contiguous(), options, loss, slope)
        return
    d = single_or_double(distance).contiguous()
    groups = None if label is None else label.to(torch.int64).contiguous()
    n = u[0].numel()
    args = _cpu.PairArgs(
        u, g, d, groups, threshold=threshold, num_pairs=num_pairs, seed=number, normalize=normalize,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    counts = torch.empty((len(u), _cpu.compact_chunks(n)), dtype=torch.int64)
    _cpu.gradient_uncertainty_count(args, counts)
    most = int(counts.sum(1).max())
    scratch = workspace(_cpu.gradient_uncertainty_workspace(args, most))
    _cpu.gradient_uncertainty_forward(args, counts, most, scratch, loss, slope)


def _run_cuda(
    u: Tensor,
    g: Tensor,
    d: Tensor,
    label: Tensor | None,
    options: Mapping[str, Any],
    loss: Tensor,
    slope: Tensor,
) -> None:
    library = _calls.library
    args = library.PairArgs(u, g, d, label, **options, compared=COMPARED)
    with _calls.stream(u) as stream:
        scratch = workspace(library.gradient_uncertainty_workspace(args, stream), u)
        library.gradient_uncertainty_forward(args, stream, scratch, loss, slope)


@_op.register_fake
def _empty(uncertainty: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if uncertainty.dtype == torch.float64 else torch.float32
    loss = uncertainty.new_empty(uncertainty.shape[0], dtype=torch.float64)
    return loss, uncertainty.new_empty(uncertainty.shape, dtype=dtype)


_parameters = Parameters(_op)


def _setup_context(ctx, inputs, output) -> None:
    ctx.save_for_backward(output[1])
    of = _parameters.named(inputs)
    ctx.dtype, ctx.once = of.uncertainty.dtype, of.normalize
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # zeros like the slope


def _backward(ctx, grad_loss: Tensor | None, _: None):
    if grad_loss is None:
        return _parameters.gradients()
    if ctx.once and torch.is_grad_enabled():  # without it the loss is piecewise linear, and its slope a constant
        raise RuntimeError(
            "gradient_uncertainty_loss: expected no create_graph=True with normalize 'band', of which only backend "
            "'reference' has second derivatives"
        )
    (slope,) = ctx.saved_tensors
    scale = grad_loss.to(slope.dtype).reshape(-1, *[1] * (slope.dim() - 1))
    return _parameters.gradients(uncertainty=(slope * scale).to(ctx.dtype))


_op.register_autograd(_backward, setup_context=_setup_context)


def backend_beside_triton(maps: Tensor) -> str:
    """Which backend sorts the pairs of an op whose other parts Triton's kernels do: the kernel of the maps' device, or
    where there is none the reference, of which a warning tells once."""
    kernel = "cuda" if maps.is_cuda else "cpu"
    reason = _backends.why_not("gradient_uncertainty_loss", kernel, maps)
    if reason is None:
        return kernel
    if not torch.compiler.is_compiling():
        _backends.warn_of_reference("gradient_uncertainty_loss", (maps,), {kernel: reason})
    return "reference"


def pair_losses(
    uncertainty: Tensor,
    values: Tensor,
    distance: Tensor,
    *,
    threshold: float,
    normalize: bool,
    label: Tensor | None = None,
    num_pairs: int = 0,
    seed: Tensor | None = None,
    backend: str,
) -> Tensor:
    """The loss of each image, of the reference their mean [1], in float64, of checked maps [N, *S] with `values` in the
    place of g; num_pairs 0: every pair."""
    seed = torch.zeros((), dtype=torch.int64) if seed is None else seed
    if backend != "reference":
        return _op(uncertainty, values, distance, label, threshold, num_pairs, seed, normalize, backend)[0]
    mean = _reference(
        uncertainty, values, distance, threshold=threshold, pairs="sampled" if num_pairs else "exact",
        num_pairs=max(num_pairs, 1), label=label, seed=seed, normalize="band" if normalize else None,
    )  # fmt: skip
    return mean.to(torch.float64)[None]


def check_options(*, pairs: str = "exact", num_pairs: int = NUM_PAIRS, normalize: str | None = None) -> None:
    _checks.choice("pairs", pairs, PAIRS)
    _checks.count("num_pairs", num_pairs)
    if normalize is not None:
        _checks.choice("normalize", normalize, NORMALIZATIONS)


def seed_tensor(seed: int | Tensor) -> Tensor:
    """0-dim int64 on the CPU."""
    if not isinstance(seed, Tensor):
        return torch.tensor(_checks.seed("seed", seed))
    if seed.dim() or seed.dtype != torch.int64 or seed.device.type != "cpu":
        raise ValueError(
            f"seed: expected an integer or a 0-dim int64 tensor on the CPU, "
            f"got {_checks.shape_text(seed.shape)} {seed.dtype} on {seed.device}"
        )
    return seed


def gradient_uncertainty_loss(
    uncertainty: Tensor,
    gradient: Tensor,
    distance: Tensor,
    *,
    threshold: float = GRADIENT_THRESHOLD,
    pairs: str = "exact",
    num_pairs: int = NUM_PAIRS,
    label: Tensor | None = None,
    seed: int | Tensor = 0,
    normalize: str | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Mean violation of "the higher the image gradient at the boundary, the lower the uncertainty".

    Math:
        Per image, over the boundary voxels :math:`B = \{i : d_i \le threshold\}` and unordered pairs,
        :math:`v_{ij} = (g_i - g_j)(u_i - u_j)`, :math:`L = \sum v_{ij}^+ / \#\{v_{ij} > 0\}`, 0 when no pair violates;
        the mean over the images. Li et al., MICCAI 2025 (arXiv 2509.17098), equation of L_gu. With `normalize` L of
        each image is divided by :math:`\sigma_g \sigma_u`, the standard deviations over B, and 0 where one of them is.

    Args:
        uncertainty: u, [N, 1, \*S] or [N, \*S], floating.
        gradient: g, image gradient magnitude, the shape of `uncertainty`; not differentiated.
        distance: d, distance to the label boundary, [N, \*S] or [N, 1, \*S].
        threshold: the boundary band, in the unit of `distance`; a distance larger by 1e-6 of it still counts.
        pairs: "exact": every pair, by sorting, in O(n log n). "sampled": `num_pairs` ordered pairs an image, drawn
            uniformly with replacement.
        num_pairs: pairs drawn per image when `pairs="sampled"`.
        label: [N, \*S] integer labels: only pairs of equal label count (the per-class variant of PriUS,
            arXiv 2605.10984). None: all pairs.
        seed: seed of the counter-based generator of "sampled": the same seed draws the same pairs anywhere. Also
            a 0-dim int64 tensor on the CPU.
        normalize: "band": the value does not depend on the scale of g and u, so that it cannot fall by a smaller u
            alone. None: the paper's form.

    Returns:
        0-dim, float64 for float64 `uncertainty`, else float32.

    Raises:
        TypeError, ValueError: wrong types, shapes or options, or a `gradient` that requires grad.

    Grad:
        `uncertainty`, in :math:`\sigma_u` too. The number of violating pairs is a constant. With `normalize` the
        kernels refuse `create_graph=True` (RuntimeError): the slope depends on u, and the second derivative would be
        wrong.

    Notes:
        Ties in g or u contribute nothing. A u or g of the band that is no finite number makes the value of its image
        NaN, and the gradient of the band. Deterministic; sums in float64. Images without a boundary count as 0 in the
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
    _checks.constant("gradient", g)
    _checks.constant("distance", d)
    threshold = _checks.reach("threshold", threshold)
    check_options(pairs=pairs, num_pairs=num_pairs, normalize=normalize)
    seed = seed_tensor(seed)
    if label is not None:
        label = _checks.label("label", label, u.unsqueeze(1), "uncertainty")
    chosen = _backends.choose("gradient_uncertainty_loss", backend, u, g, d)
    if chosen != "reference":
        drawn = num_pairs if pairs == "sampled" else 0
        loss, _ = _op(u, g, d, label, threshold, drawn, seed, normalize is not None, chosen)
        return loss.sum().div(max(len(u), 1)).to(torch.float64 if u.dtype == torch.float64 else torch.float32)
    return _reference(
        u, g, d, threshold=threshold, pairs=pairs, num_pairs=num_pairs, label=label, seed=seed, normalize=normalize
    )
