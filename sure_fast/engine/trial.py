"""A run tried out: one step to see that all is right, some to time, some to trace. No weights are kept."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._distributed import across_ranks
from ..losses.noise_uncertainty import check_share
from ..methods import METHODS
from . import distributed
from .evaluation import validation_dice
from .fingerprint import Cost
from .loop import STAGES, Trainer

WARM_UP = 2
"""Steps before any that is timed or traced: memory is allocated, programs are compiled."""
TRACED = 3


def batches(trainer: Trainer) -> Iterator[tuple[float, int, Tensor, Tensor]]:
    """Without end: seconds waited for the batch, its number in the epoch, image and label on the device.

    All belong to the last epoch, in which every term of the loss applies.
    """
    trainer.dataset.set_epoch(trainer.config.run.epochs - 1)
    trainer.model.train()
    while True:
        started = trainer.clock()
        for number, batch in enumerate(trainer.loader):
            image, label = trainer.on_device(batch)
            yield trainer.clock() - started, number, image, label
            started = trainer.clock()


def dry_run(trainer: Trainer) -> Cost:
    """One change of the weights with every term, a checkpoint and a validation case: what can fail has its chance.

    Returns:
        What a step costs, with its data, of the first epoch and of the last: of each the second that is tried.
    """
    last = trainer.config.run.epochs - 1
    accumulate = trainer.config.optimizer.accumulate
    trainer.clock = clock_of(trainer.device)
    seconds: dict[int, float] = {}
    source = batches(trainer)
    for epoch in (0, last):
        for k in range(accumulate * WARM_UP):
            started = trainer.clock()
            _, number, image, label = next(source)
            trainer.step(epoch, number, image, label)
            seconds[epoch] = trainer.clock() - started
            if number + 1 == len(trainer.batches) and k + 1 >= accumulate:
                break
    trainer.save("last.pt")
    if trainer.validation_cases:
        validation_dice(
            trainer.weights,
            trainer.validation_cases[: distributed.world_size()],
            info=trainer.info,
            patch_size=trainer.plan.patch_size,
            device=trainer.device,
        )
    return Cost(seconds[0], seconds[last], _peak_memory(trainer.device))


def clock_of(device: torch.device) -> Any:
    """A clock that waits for the device before it tells the time."""
    if device.type != "cuda":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def benchmark(trainer: Trainer, steps: int) -> dict[str, Any]:
    """Seconds of each stage, and how many plain evidential steps a step costs, over `steps` of them.

    The seconds are medians over groups of steps that hold one search for hard samples, one draw of noise and one change
    of the weights. Stages: waiting for the data; the network's forward and backward of the clean batch; those of the
    noisy copies; the loss, forward and backward; the optimizer, with averaging over ranks and clipping. Forwards: how
    many of the batch the network does in a step, a backward counted for two. A plain step, timed in turn with them, is
    forward, evidential loss and backward of the same batch. Neither data nor optimizer enter the ratio.
    """
    config = trainer.config
    plan = trainer.plan
    plain = METHODS["evidential"]
    shared = {name: config.method.options.get(name, default) for name, default in plain.options.items()}
    plain_loss = plain.call(
        plain.make_loss(
            shared,
            num_epochs=config.run.epochs,
            dims=plan.dims,
            in_channels=plan.in_channels,
            ignore_index=trainer.dataset.ignore_index,
        )
    )
    trainer.clock = clock_of(trainer.device)
    epoch = config.run.epochs - 1
    waited, plain_steps = [], []
    stages: list[dict[str, float]] = []
    forwards = []
    source = batches(trainer)
    for k in range(WARM_UP + steps):
        if k == WARM_UP and trainer.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(trainer.device)
        seconds, number, image, label = next(source)
        before, forwards_before = dict(trainer.stages), trainer.forwards
        trainer.step(epoch, number, image, label)
        one = _plain_step(trainer, plain_loss, epoch, image, label)
        if k >= WARM_UP:
            waited.append(seconds)
            plain_steps.append(one)
            forwards.append(trainer.forwards - forwards_before)
            stages.append({name: trainer.stages[name] - before[name] for name in STAGES})
    of_noise = {name: config.method.options.get(name, 1) for name in ("noisy_share", "mining_every")}
    group = math.lcm(_noise_period(trainer.loss, config.optimizer.batch_size), config.optimizer.accumulate)
    medians = {name: _median([row[name] for row in stages], group) for name in STAGES}
    ratios = [
        sum(sum(row.values()) - row["optimizer"] for row in stages[k : k + group])
        / sum(plain for plain, _ in plain_steps[k : k + group])
        for k in _starts(steps, group)
    ]
    return {
        "device": _device_name(trainer.device),
        "ranks": distributed.world_size(),
        "preset": config.method.preset,
        "patch_size": list(plan.patch_size),
        "batch_size": config.optimizer.batch_size,
        "network": plan.network,
        "channels": list(plan.channels),
        "precision": config.network.amp,
        "compile": config.network.compile,
        "channels_last": config.network.channels_last,
        **of_noise,
        "steps": steps,
        "seconds": {"data": _median(waited, group), **medians},
        "plain_seconds": _median([seconds for seconds, _ in plain_steps], group),
        "forwards": _median(forwards, group),
        "plain_forwards": _median([count for _, count in plain_steps], group),
        "step_over_plain": statistics.median(ratios),
        "peak_memory_bytes": _peak_memory(trainer.device),
    }


def _noise_period(loss: Any, batch_size: int) -> int:
    """Steps after which noisy copies, and searches for hard samples, come as before."""
    if not getattr(loss, "gamma", 0) or not hasattr(loss, "noisy_share"):
        return 1
    _, whole = check_share(loss.noisy_share)
    if loss.support == "patch":
        return whole * loss.mining_every
    return whole // math.gcd(whole, batch_size)


def _starts(steps: int, group: int) -> range:
    """Of whole groups; of the one there is when there is no whole one."""
    return range(0, max(steps - group + 1, 1), group)


def _median(values: Sequence[float], group: int) -> float:
    """Of the means of the groups."""
    return statistics.median(statistics.mean(values[k : k + group]) for k in _starts(len(values), group))


def _plain_step(trainer: Trainer, loss: Any, epoch: int, image: Tensor, label: Tensor) -> tuple[float, float]:
    """Seconds and forwards of one forward, evidential loss and backward; its gradients are thrown away."""
    kept = [parameter.grad for parameter in trainer.model.parameters()]
    trainer.optimization.zero_grad()
    started = trainer.clock()
    network = trainer.cut_network()
    logits, *coarser = network.levels(image)
    with across_ranks() if distributed.world_size() > 1 else nullcontext():
        out = loss(logits, label, image=image, epoch=epoch, model=network, generator=trainer.generator)
        out = trainer.deeply_supervised(out, coarser, label, image, epoch)
    out.total.backward()
    network.backward()
    seconds = trainer.clock() - started
    for parameter, grad in zip(trainer.model.parameters(), kept, strict=True):
        parameter.grad = grad
    return seconds, network.forwards / max(len(image), 1)


def profile(trainer: Trainer, folder: Path) -> Path:
    """Traces `TRACED` steps with torch.profiler into folder/trace.json (of further ranks trace-RANK.json)."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if trainer.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    source = batches(trainer)

    def step() -> None:
        _, number, image, label = next(source)
        trainer.step(trainer.config.run.epochs - 1, number, image, label)

    for _ in range(WARM_UP):
        step()
    with torch.profiler.profile(activities=activities, record_shapes=True, profile_memory=True) as profiler:
        for _ in range(TRACED):
            step()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f"trace-{distributed.rank()}.json" if distributed.rank() else "trace.json")
    profiler.export_chrome_trace(str(path))
    return path


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def _peak_memory(device: torch.device) -> int | None:
    """Bytes: of a GPU what torch allocated while it was timed, else what the process ever held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
