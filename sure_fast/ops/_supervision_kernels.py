"""What the operator of `uncertainty_supervision` runs: kernels of the CPU, or Triton's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks, _cpu
from ._calls import one_stride, workspace
from ._sums import kernel_layout, sums_layout
from ._supervision import NoisyAnswers, SupervisionOptions
from .evidential_loss import evidential_args
from .gradient_magnitude import channel_weights, gradient_args
from .gradient_uncertainty_loss import write_pair_losses
from .noise_uncertainty_loss import NOISY_FAR_SUMS, noise_args


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
    normalize: bool,
    gradient: tuple[str, Sequence[float], str],
) -> Tensor:
    """L_gu of each image, float64 [N]; writes its slopes."""
    groups = label.to(torch.int64).contiguous() if per_class else None
    args = _cpu.BoundaryPairArgs(
        one_stride(logits), evidence, gradient_args(image, *gradient), squared=squared, near=near, label=groups,
        num_pairs=num_pairs, seed=seed, normalize=normalize, threads=torch.get_num_threads(),
    )  # fmt: skip
    counts = torch.empty((len(label), _cpu.compact_chunks(label[0].numel())), dtype=torch.int64)
    _cpu.uncertainty_supervision_count(args, counts)
    most = int(counts.sum(1).max())
    scratch = workspace(_cpu.uncertainty_supervision_workspace(args, most))
    loss = torch.empty(len(label), dtype=torch.float64)
    _cpu.uncertainty_supervision_forward(args, counts, most, scratch, loss, slope)
    return loss


class Outputs(NamedTuple):
    """What the operator returns: see `_op`."""

    sums: Tensor
    loss: Tensor
    terms: Tensor
    squared: Tensor
    slope: Tensor
    slopes: Tensor


def answers(
    logits: Tensor | None, centers: Tensor | None, levels: Tensor | None, valid: Tensor | None
) -> NoisyAnswers | None:
    if logits is None or centers is None or levels is None or valid is None:
        return None
    return NoisyAnswers(logits, centers, levels, valid)


def for_triton(noise: NoisyAnswers | None, threshold: float):
    from ..kernels.uncertainty_supervision import Noise

    return None if noise is None else Noise(*noise, threshold)


def run_triton(
    out: Outputs,
    logits: Tensor,
    label: Tensor,
    image: Tensor | None,
    noise: NoisyAnswers | None,
    options: SupervisionOptions,
    sorting: str,
) -> None:
    """`sorting`: the backend of the pair loss."""
    from ..kernels import uncertainty_supervision as kernels

    def pair_loss(u: Tensor, g: Tensor, squared: Tensor) -> None:
        groups = label if options.per_class else None
        near = float(_cpu.squared_steps_within(options.gradient_threshold))
        write_pair_losses(
            u, g, squared, groups, near, options.num_pairs, options.seed, options.normalize is not None, sorting,
            out.loss, out.slope,
        )  # fmt: skip

    edges = None
    if image is not None:
        scale, weights = [1.0 / step for step in options.spacing], channel_weights(options.channels, image.shape[1])
        edges = kernels.Edges(image, options.operator == "sobel", scale, weights, pair_loss)
    settings = (options.kind, options.evidence, options.ignore_index, options.class_weights)
    kernels.forward(
        logits, label, edges, for_triton(noise, options.noise_threshold), settings, out.sums, out.loss,
        out.terms, out.squared, out.slopes,
    )  # fmt: skip


def run_cpu(
    out: Outputs,
    logits: Tensor,
    label: Tensor,
    image: Tensor | None,
    noise: NoisyAnswers | None,
    options: SupervisionOptions,
) -> None:
    classes, evidence, ignore_index = logits.shape[1], options.evidence, options.ignore_index
    far_map = out.squared if noise is not None else None
    args, logits = evidential_args(
        logits, label, options.kind, evidence, ignore_index, options.class_weights, False, far_map,
        _cpu.squared_steps_within(options.noise_threshold),
    )  # fmt: skip
    of_kernel = torch.empty(_cpu.evidential_sums_size(classes), dtype=torch.float64)
    _cpu.evidential_loss_forward(args, of_kernel, None, None, None)
    layout, kernel = sums_layout(classes), kernel_layout(classes)
    if of_kernel[kernel.wrong_labels] > 0:
        _checks.labels_in_range("label", label, classes, ignore_index)
    out.sums[layout.clean] = of_kernel[kernel.clean]
    if image is not None:
        gradient = (options.operator, options.spacing, options.channels)
        losses = _boundary_loss(
            logits, label, image, out.squared, out.slope, evidence,
            _cpu.squared_steps_within(options.gradient_threshold), options.num_pairs, options.per_class,
            int(options.seed), options.normalize is not None, gradient,
        )  # fmt: skip
        out.loss.copy_(losses)
    else:
        out.loss.zero_()
    if noise is None:
        out.sums[layout.noisy_far] = 0.0
        out.terms.zero_()
    else:
        noise_arguments, _ = noise_args(
            (logits, *noise.logits.chunk(2)), noise.centers, noise.levels, noise.valid, options.noise_threshold,
            evidence, squared=out.squared, clean_far=False,
        )  # fmt: skip
        far = torch.empty(4, dtype=torch.float64)
        _cpu.noise_uncertainty_forward(noise_arguments, far, out.terms, out.slopes)
        out.sums[layout.noisy_far] = far[NOISY_FAR_SUMS]
