"""What a run is about to do, from its data: what --dry-run prints."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from . import console, distributed
from .cases import Run
from .config import TrainConfig


class Cost(NamedTuple):
    """Of a step."""

    plain: float
    """Seconds before the uncertainty is supervised."""
    supervised: float
    """Seconds from then on, with every term of the loss."""
    memory: int | None
    """Peak, in bytes."""


def describe(run: Run, parameters: int, cost: Cost, steps: int) -> str:
    """Lines on the data, the network, and what training will cost.

    Args:
        parameters: of the network. steps: an epoch has.
    """
    lines = [*_of_data(run), *_of_network(run, parameters)]
    memory = "" if cost.memory is None else f", peak memory {cost.memory / 2**30:.1f} GiB"
    seconds = f"{cost.plain:.3g} s"
    start = _start(run.config)
    if start < run.config.run.epochs:
        seconds = f"{cost.supervised:.3g} s, {cost.plain:.3g} s before epoch {start + 1}"
    lines.append(f"a step: {seconds}{memory}")
    total = steps * (start * cost.plain + (run.config.run.epochs - start) * cost.supervised)
    members = run.config.method.members
    of_members = f" of each of {members} networks" if members > 1 else ""
    lines.append(
        f"to the end: {run.config.run.epochs} epochs of {steps} steps{of_members}, about "
        f"{console.duration(total * members)} without validation"
    )
    return "\n".join(f"  {line}" for line in lines)


def _of_data(run: Run) -> list[str]:
    screening, info, plan = run.screening, run.cases.info, run.plan
    names = [case.name for case in run.cases]
    ranks = distributed.world_size()
    numbers = ", ".join(f"{len(part)} {name}" for name, part in run.names.items())
    lines = [f"cases: {numbers}" + (f"; {ranks} ranks" if ranks > 1 else "")]
    oriented = [screening.oriented(name, plan.orientation) for name in names]
    lines.append(f"size in voxels, smallest, median, largest: {_ranges([shape for shape, _ in oriented])}")
    unit = "" if info.spacing_unit == "mm" else " (pictures, which name none)"
    spacing = _ranges([spacing for _, spacing in oriented])
    lines.append(f"voxel size in mm{unit}, smallest, median, largest: {spacing}")
    grid = []
    if plan.orientation:
        grid.append(f"orientation {plan.orientation}")
    if plan.spacing:
        sizes = [f"{s:.3g}" for axis, s in enumerate(plan.spacing) if axis != plan.slice_axis]
        grid.append(f"resampled to {' x '.join(sizes)} mm")
    if plan.resize:
        grid.append(f"resampled to {' x '.join(map(str, plan.resize))} voxels")
    if plan.foreground_crop:
        grid.append("cut to what is not 0")
    if plan.slice_axis is not None:
        grid.append(f"slices along axis {plan.slice_axis}")
    lines.append(f"the network sees: {', '.join(grid) or 'the voxels as they are stored'}")
    for number, title in sorted(info.class_names.items()):
        counts = [facts.voxels[number] for facts in (screening.facts[name] for name in names) if facts.voxels]
        whole = sum(sum(screening.facts[name].voxels) for name in names)
        share = 100.0 * sum(counts) / max(whole, 1)
        lines.append(f"class {number} {title}: in {sum(c > 0 for c in counts)} cases, {share:.3g} % of the voxels")
    channels = info.channel_names or [f"channel {k}" for k in range(plan.in_channels)]
    for k, channel in enumerate(channels):
        low, middle, high = ([screening.facts[name].quantiles[k][q] for name in names] for q in range(3))
        window = plan.windows[k] if plan.windows else None
        how = "its own values" if window is None else f"the window {window[0]:.4g} to {window[1]:.4g} of the foreground"
        lines.append(
            f"grey values of {channel}: 0.5 to 99.5 % are {min(low):.4g} to {max(high):.4g}, median "
            f"{statistics.median(middle):.4g}; normalised by {how}"
        )
    return lines


def _of_network(run: Run, parameters: int) -> list[str]:
    plan, config = run.plan, run.config
    kind = f"{plan.network}, {plan.dims}D, {parameters:,} parameters"
    if config.network.channels:
        kind += f", channels {', '.join(map(str, plan.channels))}, strides "
        kind += ", ".join("x".join(map(str, step)) for step in plan.strides)
    kind += f", outputs of {plan.deep_supervision} coarser levels" if plan.deep_supervision else ""
    patch = " x ".join(map(str, plan.patch_size))
    return [f"patch: {patch}, batch {config.optimizer.batch_size}", f"network: {kind}"]


def _start(config: TrainConfig) -> int:
    """First epoch in which the uncertainty is supervised; the number of epochs where none is."""
    options = config.method.options
    if not config.method.record.reads("start_epoch", options):
        return config.run.epochs
    return min(int(options["start_epoch"]), config.run.epochs)


def _ranges(rows: Sequence[Iterable[float]]) -> str:
    axes = [sorted(values) for values in zip(*rows, strict=True)]
    picked = ([values[0] for values in axes], [statistics.median(values) for values in axes], [v[-1] for v in axes])
    return "; ".join(" x ".join(f"{value:.4g}" for value in values) for values in picked)


def number_of_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
