"""Every term of a training step with supervised uncertainty, from the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _backends, _checks, _cpu
from .._distributed import summed
from ..reference.uncertainty_supervision import uncertainty_supervision as _reference
from . import _triton
from ._autograd import Parameters
from ._calls import empty_gradient, one_stride
from ._dense_supervision import dense_supervision
from ._sums import kernel_layout, sums_layout
from ._supervision import (
    DenseAnswers,
    NoisyAnswers,
    SupervisionOptions,
    UncertaintySupervisionOutput,
    check_options,
    checked_answers,
    checked_image,
)
from ._supervision_kernels import Outputs, answers, for_triton, run_cpu, run_triton
from ._supervision_of_ops import supervision_of_ops
from ._terms import evidential_terms
from .boundary_distance import fits_bytes, write_squares
from .dense_noise_uncertainty_loss import MARGIN
from .evidential_loss import checked_weights, evidential_args, terms_dtype
from .gradient_uncertainty_loss import GRADIENT_THRESHOLD, MOST_ELEMENTS, NUM_PAIRS, backend_beside_triton, seed_tensor
from .noise_uncertainty_loss import NOISE_THRESHOLD, noise_args


def _cpu_supports(logits: Tensor, *_: object, **__: object) -> str | None:
    if logits.device.type != "cpu":
        return f"logits are on {logits.device}, not on the CPU"
    if len(logits) and logits[0, 0].numel() > MOST_ELEMENTS:
        return f"an image has {logits[0, 0].numel()} voxels, more than {MOST_ELEMENTS}"
    return None


def _triton_supports(
    logits: Tensor,
    *_: object,
    image: Tensor | None = None,
    channels: str = "luma",
    **__: object,
) -> str | None:
    reason = _triton.why_not("logits", logits) or _backends.why_not("boundary_distance", "triton", logits[:, 0])
    if reason is None and image is not None:
        reason = _backends.why_not("gradient_magnitude", "triton", image, channels=channels)
    return reason


_backends.register("uncertainty_supervision", cpu=_cpu_supports, triton=_triton_supports)


@torch.library.custom_op("sure_fast::uncertainty_supervision", mutates_args=())
def _op(
    logits: Tensor,
    label: Tensor,
    image: Tensor | None,
    noisy: Tensor | None,
    centers: Tensor | None,
    levels: Tensor | None,
    valid: Tensor | None,
    squares: Tensor | None,
    kind: str,
    evidence: str,
    ignore_index: int | None,
    class_weights: Tensor | None,
    gradient_threshold: float,
    noise_threshold: float,
    num_pairs: int,
    normalize: str | None,
    per_class: bool,
    seed: Tensor,
    operator: str,
    spacing: Sequence[float],
    channels: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sums as `SumsLayout`, L_gu of each image, (order, distance); and for the backward: boundary bytes where `squares`
    are not given, the slopes of L_gu by u, those of the terms by u^k at the centers."""
    results = _empty(logits, label, image, noisy, centers, levels, valid, squares)
    out = Outputs(*results)
    if label.numel() == 0:
        for output in (out.sums, out.loss, out.terms, out.slopes):
            output.zero_()
        return results
    if centers is not None and valid is not None:
        _checks.inside_image(centers, valid, label.shape[1:])
    options = SupervisionOptions(
        kind, evidence, ignore_index, class_weights, gradient_threshold, noise_threshold, num_pairs, normalize,
        per_class, seed,
        operator, spacing, channels,
    )  # fmt: skip
    noise = answers(noisy, centers, levels, valid)
    if squares is not None:
        out = out._replace(squared=squares)
    elif out.squared.numel():
        write_squares(label, options.reach, ignore_index, backend, out.squared)
    if backend == "triton":
        run_triton(out, logits, label, image, noise, options, backend_beside_triton(logits[:, 0]))
    else:
        run_cpu(out, logits, label, image, noise, options)
    return results


@_op.register_fake
def _empty(
    logits: Tensor,
    label: Tensor,
    image: Tensor | None,
    noisy: Tensor | None,
    centers: Tensor | None,
    levels: Tensor | None,
    valid: Tensor | None,
    squares: Tensor | None,
    *_: object,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    def new(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return logits.new_empty(shape, dtype=dtype)

    none = squares is not None or (image is None and noisy is None)
    compute = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return (
        new(sums_layout(logits.shape[1]).width),
        new(label.shape[0]),
        new(2),
        new(*((0,) if none else label.shape), dtype=torch.uint8),
        new(*((0,) if image is None else label.shape), dtype=compute),
        new(2, 2, 0 if centers is None else centers.shape[0] * centers.shape[1]),
    )


@torch.library.custom_op("sure_fast::uncertainty_supervision_backward", mutates_args=())
def _op_backward(
    grad_sums: Tensor,
    grad_loss: Tensor,
    grad_terms: Tensor,
    squared: Tensor,
    slope: Tensor,
    slopes: Tensor,
    logits: Tensor,
    label: Tensor,
    noisy: Tensor | None,
    centers: Tensor | None,
    levels: Tensor | None,
    valid: Tensor | None,
    kind: str,
    evidence: str,
    ignore_index: int | None,
    class_weights: Tensor | None,
    noise_threshold: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Gradients of the logits and of the noisy logits (empty without them)."""
    noise = answers(noisy, centers, levels, valid)
    if backend == "triton":
        from ..kernels import uncertainty_supervision as kernels

        settings = (kind, evidence, ignore_index, class_weights)
        return kernels.backward(
            grad_sums, grad_loss, grad_terms, squared, slope, slopes, logits, label,
            for_triton(noise, noise_threshold), settings,
        )  # fmt: skip
    far_map = squared if noise is not None else None
    args, logits = evidential_args(
        logits, label, kind, evidence, ignore_index, class_weights, False, far_map,
        _cpu.squared_steps_within(noise_threshold),
    )  # fmt: skip
    gradient = empty_gradient(logits)
    noisy_gradient = logits.new_empty(0)
    if noise is not None:
        noise = noise._replace(logits=one_stride(noise.logits))
        # Of memory that the kernel takes as it is: a copy of one of its halves would be written and thrown away.
        noisy_gradient = empty_gradient(noise.logits)
    if label.numel() == 0:
        return gradient, noisy_gradient
    layout, kernel = sums_layout(logits.shape[1]), kernel_layout(logits.shape[1])
    coefficients = torch.zeros(_cpu.evidential_sums_size(logits.shape[1]), dtype=torch.float64)
    coefficients[kernel.clean] = grad_sums[layout.clean]
    slope_u, (scale, *scales) = slope if slope.numel() else None, grad_loss.tolist()
    if slope_u is not None and any(other != scale for other in scales):
        slope_u, scale = slope * grad_loss.to(slope.dtype).reshape(-1, *[1] * (slope.dim() - 1)), 1.0
    _cpu.evidential_loss_backward(args, coefficients, slope_u, scale, None, None, gradient)
    if noise is not None:
        noise_arguments, _ = noise_args(
            (logits, *noise.logits.chunk(2)), noise.centers, noise.levels, noise.valid, noise_threshold, evidence,
            squared=squared, clean_far=False,
        )  # fmt: skip
        at_centers = (grad_terms[:, None, None] * slopes).sum(0).contiguous()
        far = grad_sums[layout.of_noisy].contiguous()
        _cpu.noise_uncertainty_backward(noise_arguments, far, at_centers, gradient, *noisy_gradient.chunk(2))
    return gradient, noisy_gradient


@_op_backward.register_fake
def _(grad_sums, grad_loss, grad_terms, squared, slope, slopes, logits, label, noisy, *_):
    return empty_gradient(logits), logits.new_empty(0) if noisy is None else empty_gradient(noisy)


_parameters = Parameters(_op)


def _setup_context(ctx, inputs, output) -> None:
    of, kept = _parameters.named(inputs), Outputs(*output)[3:]
    squared = kept[0] if of.squares is None else of.squares
    ctx.save_for_backward(
        squared, *kept[1:], of.logits, of.label, of.noisy, of.centers, of.levels, of.valid, of.class_weights
    )
    ctx.mark_non_differentiable(*kept)
    ctx.set_materialize_grads(False)  # zeros like the maps that are kept
    ctx.shapes = [t.shape for t in output[:3]]
    ctx.kind, ctx.evidence, ctx.ignore_index = of.kind, of.evidence, of.ignore_index
    ctx.noise_threshold, ctx.backend, ctx.noisy_too = of.noise_threshold, of.backend, of.noisy is not None


def _backward(ctx, *grads: Tensor | None):
    *tensors, class_weights = ctx.saved_tensors
    logits = tensors[3]
    of_outputs = (
        logits.new_zeros(shape, dtype=torch.float64) if grad is None else grad
        for grad, shape in zip(grads[:3], ctx.shapes, strict=True)
    )
    logits, noisy = _op_backward(
        *of_outputs, *tensors, ctx.kind, ctx.evidence, ctx.ignore_index, class_weights,
        ctx.noise_threshold, ctx.backend,
    )  # fmt: skip
    return _parameters.gradients(logits=logits, noisy=noisy if ctx.noisy_too else None)


_op.register_autograd(_backward, setup_context=_setup_context)


def _fused(
    logits: Tensor,
    label: Tensor,
    image: Tensor | None,
    noise: NoisyAnswers | None,
    options: SupervisionOptions,
    squares: Tensor | None,
    backend: str,
) -> tuple[Tensor | None, ...]:
    """(data, kl, dice, gradient, order, distance, far) of the operator, None of what was not asked for."""
    noisy = (None, None, None, None) if noise is None else noise
    sums, gradient, terms, *_ = _op(logits, label, image, *noisy, squares, *options, backend)
    *evidential, far = evidential_terms(sums[None], logits.shape[1], options.class_weights, backend)
    order, distance = (None, None) if noise is None else terms.unbind()
    return (*evidential, None if image is None else gradient, order, distance, None if noise is None else far)


def _terms_of(
    logits: Tensor,
    label: Tensor,
    image: Tensor | None,
    noise: NoisyAnswers | DenseAnswers | None,
    options: SupervisionOptions,
    squares: Tensor | None,
    backend: str,
) -> tuple[Tensor | None, ...]:
    """The fields of `UncertaintySupervisionOutput`; those of the noisy copies only where noise is over whole images."""
    fused = backend != "reference" and fits_bytes(options.reach) and not isinstance(noise, DenseAnswers)
    if backend == "triton" and image is not None and fused:  # the fused operator asks a kernel for the pairs
        fused = backend_beside_triton(logits[:, 0]) != "reference"
    if backend != "cpu" or not fused:  # else the kernel looks itself
        _checks.labels_in_range("label", label, logits.shape[1], options.ignore_index)
    if backend == "reference":
        if isinstance(noise, NoisyAnswers):
            _checks.inside_image(noise.centers, noise.valid, label.shape[1:])
        return _reference(logits, label, image, noise, options, add_up=summed)
    if isinstance(noise, DenseAnswers):
        return dense_supervision(logits, label, image, noise, options, backend=backend)
    if fused:
        return _fused(logits, label, image, noise, options, squares, backend)
    return supervision_of_ops(logits, label, image, noise, options, backend=backend)


def uncertainty_supervision(
    logits: Tensor,
    label: Tensor,
    image: Tensor | None = None,
    *,
    noisy_logits: Tensor | None = None,
    centers: Tensor | None = None,
    levels: Tensor | None = None,
    valid: Tensor | None = None,
    margin: float = MARGIN,
    detach: bool = False,
    with_distance: bool = True,
    noisy_segmentation: bool = False,
    noisy_index: Tensor | None = None,
    kind: str = "digamma",
    evidence: str = "exp",
    ignore_index: int | None = None,
    class_weights: Sequence[float] | Tensor | None = None,
    gradient_threshold: float = GRADIENT_THRESHOLD,
    noise_threshold: float = NOISE_THRESHOLD,
    pairs: str = "exact",
    num_pairs: int = NUM_PAIRS,
    normalize: str | None = None,
    per_class: bool = False,
    seed: int | Tensor = 0,
    operator: str = "sobel",
    spacing: Sequence[float] | float | None = None,
    channels: str = "luma",
    blur_sigma: float = 0.0,
    backend: str | None = None,
) -> UncertaintySupervisionOutput:
    r"""Every term of `UncertaintySupervisedLoss` in one call, without a map of the uncertainty.

    Math:
        The data, KL and Dice terms of `evidential_loss`; with an image L_gu of `gradient_uncertainty_loss` with g of
        `gradient_magnitude` and u of `dirichlet_uncertainty`; with noisy logits the order, distance and far terms of
        `noise_uncertainty_loss`, or without centers those of `dense_noise_uncertainty_loss`. Distances are those of
        `boundary_distance` in voxels. Li et al., MICCAI 2025 (arXiv 2509.17098).

    Args:
        logits: [N, C, \*S] floating, of the clean image.
        label: [N, \*S] or [N, 1, \*S] integer in [0, C) or `ignore_index`.
        image: [N, K, \*S] floating; None: no L_gu.
        noisy_logits: [2N, C, \*S], of the two noisy images, one batch after the other; with noise over whole images
            also [N, C, \*S] of one, which counts for both; None: no L_nu. With logits of another dtype, as when one of
            them was computed within autocast, the wider is taken.
        levels: of the noise of the two images, [2], or the one, [1], on the logits' device; needed with `noisy_logits`.
        centers, valid: of noise patches, as of `noise_uncertainty_loss`; None: the noise is over the whole images.
        margin, detach, with_distance: as of `dense_noise_uncertainty_loss`, with noise over whole images.
        noisy_segmentation: with noise over whole images, whether the evidential terms of the noisy copies are wanted.
        noisy_index: int64 [M] in [0, N), with noise over whole images: which images of the batch the copies are of,
            then 2M, of one copy M; None: all.
        kind, evidence, ignore_index, class_weights: as of `evidential_loss`. Ignored voxels are neither near nor far
            from a boundary.
        gradient_threshold: boundary band of L_gu (voxels).
        noise_threshold: what counts as near a boundary in L_nu (voxels).
        pairs, num_pairs, seed, normalize: as of `gradient_uncertainty_loss`; `per_class` compares voxels of one label.
        operator, spacing, channels, blur_sigma: as of `gradient_magnitude`.

    Returns:
        UncertaintySupervisionOutput(data, kl, dice, gradient, order, distance, far, noisy_data, noisy_kl, noisy_dice),
        0-dim: float64 for float64 logits, else float32.

    Raises:
        TypeError, ValueError: as the ops it joins; `noisy_logits` without levels, `valid` without centers.

    Grad:
        `logits` and `noisy_logits`. With patches the clean u is a constant in the order and distance terms.

    Notes:
        Deterministic. With a threshold of 15.9 voxels or more the terms are composed of the ops this one joins, on the
        same backend, which takes a few times longer. Else the forward reads each logits tensor once, and of the clean
        ones the boundary voxels again; the backward reads each once and writes its gradient. Besides, one byte and, for
        L_gu, one number a voxel are kept. With noise over whole images the logits are read as often; u of the three
        images, the distance and g are maps of a float a voxel.

    Example:
        >>> import sure_fast, torch
        >>> logits, image = torch.randn(1, 3, 8, 8, requires_grad=True), torch.rand(1, 1, 8, 8)
        >>> out = sure_fast.uncertainty_supervision(logits, torch.randint(0, 3, (1, 8, 8)), image)
        >>> (out.data + out.kl + out.dice + out.gradient).backward()
    """
    terms, dtype, _ = supervision_terms(
        logits, label, image, noisy_logits=noisy_logits, centers=centers, levels=levels, valid=valid, margin=margin,
        detach=detach, with_distance=with_distance, noisy_segmentation=noisy_segmentation, noisy_index=noisy_index,
        kind=kind, evidence=evidence, ignore_index=ignore_index, class_weights=class_weights,
        gradient_threshold=gradient_threshold, noise_threshold=noise_threshold, pairs=pairs, num_pairs=num_pairs,
        normalize=normalize, per_class=per_class, seed=seed, operator=operator, spacing=spacing, channels=channels,
        blur_sigma=blur_sigma, backend=backend,
    )  # fmt: skip
    none = logits.new_zeros((), dtype=dtype)
    return UncertaintySupervisionOutput(*(none if term is None else _mean(term).to(dtype) for term in terms))


def _mean(term: Tensor) -> Tensor:
    """Of a term of each image."""
    return term.sum() / max(len(term), 1) if term.dim() else term


def supervision_terms(
    logits: Tensor, label: Tensor, image: Tensor | None = None, *, noisy_logits: Tensor | None = None,
    centers: Tensor | None = None, levels: Tensor | None = None, valid: Tensor | None = None, margin: float = MARGIN,
    detach: bool = False, with_distance: bool = True, noisy_segmentation: bool = False,
    noisy_index: Tensor | None = None, class_weights: Sequence[float] | Tensor | None = None, pairs: str,
    num_pairs: int, seed: int | Tensor = 0, spacing: Sequence[float] | float | None, blur_sigma: float,
    backend: str | None, squares: Tensor | None = None, **others: Any,
) -> tuple[tuple[Tensor | None, ...], torch.dtype, str]:  # fmt: skip
    """For a loss that weighs its terms first: the ten terms of `uncertainty_supervision`, not rounded from float64 yet,
    L_gu of each image, None in the place of what was not asked for; the dtype to round to, and the backend. `squares`:
    `boundary_squares` of the label as far as `reach_of` the thresholds, where they are known."""
    logits = _checks.logits("logits", logits)
    label = _checks.label("label", label, logits)
    check_options(pairs=pairs, num_pairs=num_pairs, spacing=spacing, blur_sigma=blur_sigma, **others)
    seed = seed_tensor(seed)
    steps = _checks.spacing(spacing, logits.dim() - 2) or [1.0] * (logits.dim() - 2)
    image = checked_image(image, logits, others["channels"], blur_sigma)
    logits, noise = checked_answers(
        logits, label, noisy_logits, centers, levels, valid, noisy_index, margin=margin, detach=detach,
        with_distance=with_distance, segmentation=noisy_segmentation,
    )  # fmt: skip
    others |= {name: float(others[name]) for name in ("gradient_threshold", "noise_threshold")}
    options = SupervisionOptions(
        class_weights=checked_weights("class_weights", class_weights, logits.shape[1], logits.device),
        num_pairs=num_pairs if pairs == "sampled" else 0, seed=seed, spacing=steps, **others,
    )  # fmt: skip
    chosen = _backends.choose(
        "uncertainty_supervision", backend, logits, None if noise is None else noise.logits, image=image,
        channels=options.channels,
    )  # fmt: skip
    terms = _terms_of(logits, label, image, noise, options, squares, chosen)
    missing = [None] * (len(UncertaintySupervisionOutput._fields) - len(terms))
    return (*terms, *missing), terms_dtype(logits), chosen
