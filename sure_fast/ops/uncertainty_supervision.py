"""Every term of a training step with supervised uncertainty, from the logits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _backends, _checks, _cpu
from ..reference.evidential_loss import terms_of_sums
from ..reference.gradient_magnitude import channel_weights, gaussian_blur
from ..reference.uncertainty_supervision import uncertainty_supervision as _reference
from . import _triton
from ._calls import one_stride, workspace
from ._supervision_of_ops import supervision_of_ops
from .boundary_distance import squared_steps
from .dirichlet_uncertainty import EVIDENCE
from .evidential_loss import KINDS, checked_weights, evidential_args
from .evidential_loss import check_options as evidential_options
from .gradient_magnitude import check_options as edge_options
from .gradient_magnitude import gradient_args
from .gradient_uncertainty_loss import GRADIENT_THRESHOLD, MOST_ELEMENTS, NUM_PAIRS, seed_tensor
from .gradient_uncertainty_loss import _op as _pair_loss
from .gradient_uncertainty_loss import check_options as pair_options
from .noise_uncertainty_loss import NOISE_THRESHOLD, noise_args, one_dtype

BYTE_REACH = 15.9
"""Squared distances below its square fit the byte map, with two values to spare."""


class UncertaintySupervisionOutput(NamedTuple):
    """The terms, unweighted, each a 0-dim tensor; those that were not asked for are 0."""

    data: Tensor
    kl: Tensor
    dice: Tensor
    gradient: Tensor
    """L_gu."""
    order: Tensor
    distance: Tensor
    far: Tensor


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
        # boundary voxels are sorted by the backend of the device
        reason = _backends.why_not("gradient_magnitude", "triton", image, channels=channels) or _backends.why_not(
            "gradient_uncertainty_loss", "cuda" if logits.is_cuda else "cpu", logits[:, 0]
        )
    return reason


_backends.register("uncertainty_supervision", cpu=_cpu_supports, triton=_triton_supports)


def _boundary_loss(
    logits: Tensor,
    label: Tensor,
    image: Tensor,
    squared: Tensor,
    slope: Tensor,
    evidence: str,
    near: int,
    num_pairs: int,
    per_class: bool,
    seed: int,
    gradient: tuple[str, Sequence[float], str],
) -> Tensor:
    """L_gu of each image, float64 [N]; writes its slopes."""
    groups = label.to(torch.int64).contiguous() if per_class else None
    args = _cpu.BoundaryPairArgs(
        one_stride(logits), evidence, gradient_args(image, *gradient), squared=squared, near=near, label=groups,
        num_pairs=num_pairs, seed=seed, threads=torch.get_num_threads(),
    )  # fmt: skip
    counts = torch.empty((len(label), _cpu.compact_chunks(label[0].numel())), dtype=torch.int64)
    _cpu.uncertainty_supervision_count(args, counts)
    most = int(counts.sum(1).max())
    scratch = workspace(_cpu.uncertainty_supervision_workspace(args, most))
    loss = torch.empty(len(label), dtype=torch.float64)
    _cpu.uncertainty_supervision_forward(args, counts, most, scratch, loss, slope)
    return loss


def _steps(threshold: float) -> int:
    """The largest squared distance in voxels that is within the threshold."""
    return int(threshold * threshold * (1 + 1e-12))


def _settings(kind: str, evidence: str, ignore_index: int | None, class_weights: Tensor | None):
    """As the Triton kernels take them."""
    return KINDS.index(kind), EVIDENCE.index(evidence), ignore_index, class_weights


def _noise(noisy: Tensor | None, centers: Tensor | None, levels: Tensor | None, valid: Tensor | None, threshold: float):
    """As the Triton kernels take it."""
    from ..kernels.uncertainty_supervision import Noise

    if noisy is None or centers is None or levels is None or valid is None:
        return None
    return Noise(noisy, centers, levels, valid, threshold)


@torch.library.custom_op("sure_fast::uncertainty_supervision", mutates_args=())
def _op(
    logits: Tensor,
    label: Tensor,
    image: Tensor | None,
    noisy: Tensor | None,
    centers: Tensor | None,
    levels: Tensor | None,
    valid: Tensor | None,
    kind: str,
    evidence: str,
    ignore_index: int | None,
    class_weights: Tensor | None,
    gradient_threshold: float,
    noise_threshold: float,
    num_pairs: int,
    per_class: bool,
    seed: Tensor,
    operator: str,
    spacing: Sequence[float],
    channels: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sums, L_gu, (order, distance); and for the backward: boundary bytes, d L_gu / d u, d term / d u^k at the centers.

    The sums are those of evidential_loss, then Σ u, Σ u¹, Σ u² over the far voxels and their number.
    """
    classes = logits.shape[1]
    sums, loss, terms, squared, slope, slopes = _empty(logits, label, image, noisy, centers)
    if label.numel() == 0:
        return sums.zero_(), loss.zero_(), terms.zero_(), squared, slope, slopes.zero_()
    if centers is not None and valid is not None:
        _checks.inside_image(centers, valid, label.shape[1:])
    if backend == "triton":
        from ..kernels import uncertainty_supervision as kernels

        def pair_loss(u: Tensor, g: Tensor, squared: Tensor) -> tuple[Tensor, Tensor]:
            groups = label if per_class else None
            near = float(_steps(gradient_threshold))
            return _pair_loss(u, g, squared, groups, near, num_pairs, seed, "cuda" if u.is_cuda else "cpu")

        edges = None
        if image is not None:
            scale, weights = [1.0 / step for step in spacing], channel_weights(channels, image.shape[1])
            edges = kernels.Edges(image, operator == "sobel", scale, weights, pair_loss)
        kernels.forward(
            logits, label, edges, _noise(noisy, centers, levels, valid, noise_threshold),
            max(gradient_threshold, noise_threshold), _settings(kind, evidence, ignore_index, class_weights),
            sums, loss, terms, squared, slope, slopes,
        )  # fmt: skip
        return sums, loss, terms, squared, slope, slopes
    supervised = image is not None or noisy is not None
    if supervised:
        squared_steps(label, max(gradient_threshold, noise_threshold), ignore_index, squared)
    far_above = _steps(noise_threshold)
    far_map = squared if noisy is not None else None
    args, _logits = evidential_args(
        logits, label, kind, evidence, ignore_index, class_weights, False, far_map, far_above
    )
    everything = torch.empty(_cpu.evidential_sums_size(classes), dtype=torch.float64)
    _cpu.evidential_loss_forward(args, everything, None, None, None)
    if everything[-1] > 0:
        _checks.labels_in_range("label", label, classes, ignore_index)
    sums.zero_()
    sums[: 3 + 3 * classes] = everything[: 3 + 3 * classes]
    sums[-1] = everything[-2]
    loss.zero_()
    if image is not None:
        gradient = (operator, spacing, channels)
        near = _steps(gradient_threshold)
        losses = _boundary_loss(
            _logits, label, image, squared, slope, evidence, near, num_pairs, per_class, int(seed), gradient
        )
        loss.copy_(losses.mean())
    terms.zero_()
    if noisy is not None and centers is not None and levels is not None and valid is not None:
        noise, _ = noise_args(
            (_logits, *noisy.chunk(2)), centers, levels, valid, noise_threshold, evidence, squared=squared,
            clean_far=False,
        )  # fmt: skip
        far = torch.empty(4, dtype=torch.float64)
        _cpu.noise_uncertainty_forward(noise, far, terms, slopes)
        sums[-3:-1] = far[1:3]
    return sums, loss, terms, squared, slope, slopes


@_op.register_fake
def _empty(
    logits: Tensor, label: Tensor, image: Tensor | None, noisy: Tensor | None, centers: Tensor | None, *_: object
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    def new(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return logits.new_empty(shape, dtype=dtype)

    none = image is None and noisy is None
    compute = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return (
        new(2 + 3 * logits.shape[1] + 4),
        new(),
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
    if backend == "triton":
        from ..kernels import uncertainty_supervision as kernels

        return kernels.backward(
            grad_sums, grad_loss, grad_terms, squared, slope, slopes, logits, label,
            _noise(noisy, centers, levels, valid, noise_threshold),
            _settings(kind, evidence, ignore_index, class_weights),
        )  # fmt: skip
    classes = logits.shape[1]
    far_map = squared if noisy is not None else None
    args, _logits = evidential_args(
        logits, label, kind, evidence, ignore_index, class_weights, False, far_map, _steps(noise_threshold)
    )
    gradient = one_stride(torch.empty_like(_logits))
    if noisy is None:
        noisy_gradient = logits.new_empty(0)
    else:
        noisy = one_stride(noisy)
        # Of memory that the kernel takes as it is: a copy of one of its halves would be written and thrown away.
        noisy_gradient = one_stride(torch.empty_like(noisy))
    if label.numel() == 0:
        return gradient, noisy_gradient
    coefficients = torch.zeros(_cpu.evidential_sums_size(classes), dtype=torch.float64)
    coefficients[: 3 + 3 * classes] = grad_sums[: 3 + 3 * classes]
    scale = float(grad_loss) / len(logits)
    slope_u = slope if slope.numel() else None
    _cpu.evidential_loss_backward(args, coefficients, slope_u, scale, None, None, gradient)
    if noisy is not None and centers is not None and levels is not None and valid is not None:
        noise, _ = noise_args(
            (_logits, *noisy.chunk(2)), centers, levels, valid, noise_threshold, evidence, squared=squared,
            clean_far=False,
        )  # fmt: skip
        at_centers = (grad_terms[:, None, None] * slopes).sum(0).contiguous()
        far = grad_sums[-4:-1].contiguous()
        _cpu.noise_uncertainty_backward(noise, far, at_centers, gradient, *noisy_gradient.chunk(2))
    return gradient, noisy_gradient


@_op_backward.register_fake
def _(grad_sums, grad_loss, grad_terms, squared, slope, slopes, logits, label, noisy, *_):
    return torch.empty_like(logits), logits.new_empty(0) if noisy is None else torch.empty_like(noisy)


def _setup_context(ctx, inputs, output) -> None:
    logits, label, _, noisy, centers, levels, valid, ctx.kind, ctx.evidence, ctx.ignore_index, weights, *rest = inputs
    ctx.noise_threshold, ctx.backend = rest[1], rest[-1]
    ctx.save_for_backward(*output[3:], logits, label, noisy, centers, levels, valid, weights)
    ctx.mark_non_differentiable(*output[3:])


def _backward(ctx, grad_sums: Tensor, grad_loss: Tensor, grad_terms: Tensor, *_: Tensor):
    *tensors, weights = ctx.saved_tensors
    settings = (ctx.kind, ctx.evidence, ctx.ignore_index, weights, ctx.noise_threshold, ctx.backend)
    gradient, noisy = _op_backward(grad_sums, grad_loss, grad_terms, *tensors, *settings)
    return (gradient, None, None, noisy if ctx.needs_input_grad[3] else None, *[None] * 16)


_op.register_autograd(_backward, setup_context=_setup_context)


def check_options(
    *,
    kind: str = "digamma",
    evidence: str = "softplus",
    ignore_index: int | None = None,
    class_weights: Sequence[float] | Tensor | None = None,
    gradient_threshold: float = GRADIENT_THRESHOLD,
    noise_threshold: float = NOISE_THRESHOLD,
    pairs: str = "exact",
    num_pairs: int = NUM_PAIRS,
    per_class: bool = False,
    operator: str = "sobel",
    spacing: Sequence[float] | float | None = None,
    channels: str = "luma",
    blur_sigma: float = 0.0,
) -> None:
    """What can be told of the options of `uncertainty_supervision` without its tensors."""
    evidential_options(kind=kind, evidence=evidence, ignore_index=ignore_index, class_weights=class_weights)
    _checks.positive("gradient_threshold", gradient_threshold, zero=True)
    _checks.positive("noise_threshold", noise_threshold, zero=True)
    pair_options(pairs=pairs, num_pairs=num_pairs)
    _checks.flag("per_class", per_class)
    edge_options(operator=operator, spacing=spacing, channels=channels, blur_sigma=blur_sigma)


def matching_image(image: object, logits: Tensor, channels: str) -> Tensor:
    """An image [N, K, *S] of the voxels and on the device of logits [N, C, *S], whose channels can be made one."""
    found = _checks.batched_image("image", image)
    if found.shape[0] != logits.shape[0] or found.shape[2:] != logits.shape[2:]:
        raise ValueError(
            f"image: expected [N, K, *S] to match logits {_checks.shape_text(logits.shape)}, "
            f"got {_checks.shape_text(found.shape)}"
        )
    _checks.same_device("image", found, "logits", logits)
    edge_options(channels=channels, image=found)
    return found


def check_noisy(value: object, logits: Tensor) -> Tensor:
    """Logits [2N, C, *S] of two noisy copies beside those [N, C, *S] of the clean images."""
    noisy = _checks.logits("noisy_logits", value)
    wanted = (2 * logits.shape[0], *logits.shape[1:])
    if tuple(noisy.shape) != wanted:
        raise ValueError(f"noisy_logits: expected {_checks.shape_text(wanted)}, got {_checks.shape_text(noisy.shape)}")
    _checks.same_device("noisy_logits", noisy, "logits", logits)
    return noisy


def uncertainty_supervision(
    logits: Tensor,
    label: Tensor,
    image: Tensor | None = None,
    *,
    noisy_logits: Tensor | None = None,
    centers: Tensor | None = None,
    levels: Tensor | None = None,
    valid: Tensor | None = None,
    kind: str = "digamma",
    evidence: str = "softplus",
    ignore_index: int | None = None,
    class_weights: Sequence[float] | Tensor | None = None,
    gradient_threshold: float = GRADIENT_THRESHOLD,
    noise_threshold: float = NOISE_THRESHOLD,
    pairs: str = "exact",
    num_pairs: int = NUM_PAIRS,
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
        `noise_uncertainty_loss`. Distances are those of `boundary_distance` in voxels. Li et al., MICCAI 2025
        (arXiv 2509.17098).

    Args:
        logits: [N, C, \*S] floating, of the clean image.
        label: [N, \*S] or [N, 1, \*S] integer in [0, C) or `ignore_index`.
        image: [N, K, \*S] floating; None: no L_gu.
        noisy_logits: [2N, C, \*S], of the two noisy images, one batch after the other; None: no L_nu. With logits of
            another dtype, as when one of them was computed within autocast, the wider is taken.
        centers, levels, valid: the noise patches, as of `noise_uncertainty_loss`; needed with `noisy_logits`.
        kind, evidence, ignore_index, class_weights: as of `evidential_loss`. Ignored voxels are neither near nor far
            from a boundary.
        gradient_threshold: boundary band of L_gu (voxels).
        noise_threshold: what counts as near a boundary in L_nu (voxels).
        pairs, num_pairs, seed: as of `gradient_uncertainty_loss`; `per_class` compares voxels of one label.
        operator, spacing, channels, blur_sigma: as of `gradient_magnitude`.

    Returns:
        UncertaintySupervisionOutput(data, kl, dice, gradient, order, distance, far), 0-dim: float64 for float64 logits,
        else float32.

    Raises:
        TypeError, ValueError: as the ops it joins; `noisy_logits` without centers and levels.

    Grad:
        `logits` and `noisy_logits`. In the order and distance terms the clean u is a constant.

    Notes:
        Deterministic. With a threshold of 15.9 voxels or more the terms are composed of the ops this one joins, on the
        same backend, which takes a few times longer. Else the forward reads each logits tensor once, and of the clean
        ones the boundary voxels again; the backward reads each once and writes its gradient. Besides, one byte and, for
        L_gu, one number a voxel are kept.

    Example:
        >>> import sure_fast, torch
        >>> logits, image = torch.randn(1, 3, 8, 8, requires_grad=True), torch.rand(1, 1, 8, 8)
        >>> out = sure_fast.uncertainty_supervision(logits, torch.randint(0, 3, (1, 8, 8)), image)
        >>> (out.data + out.kl + out.dice + out.gradient).backward()
    """
    logits = _checks.logits("logits", logits)
    label = _checks.label("label", label, logits)
    check_options(
        kind=kind, evidence=evidence, ignore_index=ignore_index, gradient_threshold=gradient_threshold,
        noise_threshold=noise_threshold, pairs=pairs, num_pairs=num_pairs, per_class=per_class, operator=operator,
        spacing=spacing, channels=channels, blur_sigma=blur_sigma,
    )  # fmt: skip
    seed = seed_tensor(seed)
    thresholds = (float(gradient_threshold), float(noise_threshold))
    steps = _checks.spacing(spacing, logits.dim() - 2) or [1.0] * (logits.dim() - 2)
    if image is not None:
        image = matching_image(image, logits, channels)
        _checks.constant("image", image)
        image = image.detach()
        if blur_sigma > 0:
            image = gaussian_blur(image, blur_sigma)
    if noisy_logits is not None:
        noisy_logits = check_noisy(noisy_logits, logits)
        logits, noisy_logits = one_dtype(logits, noisy_logits)
        if centers is None or levels is None:
            raise ValueError("centers, levels: expected both with noisy_logits, got None")
        centers, levels, valid = _checks.patches(centers, levels, valid, label)
    else:
        centers = levels = valid = None
    weights = checked_weights("class_weights", class_weights, logits.shape[1], logits.device)
    drawn = num_pairs if pairs == "sampled" else 0
    chosen = _backends.choose("uncertainty_supervision", backend, logits, image=image, channels=channels)
    reach = max(thresholds)
    if chosen != "cpu" or reach >= BYTE_REACH:  # else the kernel looks itself
        _checks.labels_in_range("label", label, logits.shape[1], ignore_index)
    if chosen != "reference" and reach < BYTE_REACH:
        sums, gradient, terms, *_ = _op(
            logits, label, image, noisy_logits, centers, levels, valid, kind, evidence, ignore_index, weights,
            *thresholds, drawn, per_class, seed, operator, steps, channels, chosen,
        )  # fmt: skip
        far = sums[-4:-1].sum() / sums[-1].clamp(min=1)
        found = (*terms_of_sums(sums[None, :-4], weights), gradient, *terms.unbind(), far)
    else:
        if chosen == "reference" and centers is not None and valid is not None:
            _checks.inside_image(centers, valid, label.shape[1:])
        run = _reference if chosen == "reference" else partial(supervision_of_ops, backend=chosen)
        found = run(
            logits, label, image, noisy_logits, centers, levels, valid, kind=kind, evidence=evidence,
            ignore_index=ignore_index, class_weights=weights, gradient_threshold=thresholds[0],
            noise_threshold=thresholds[1], num_pairs=drawn, per_class=per_class,
            seed=seed, operator=operator, spacing=steps, channels=channels,
        )  # fmt: skip
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return UncertaintySupervisionOutput(*(term.to(dtype) for term in found))
