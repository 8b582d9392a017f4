"""The training loop: epochs, losses, validation, checkpoints and logs."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, TextIO

import torch
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from .._distributed import across_ranks
from ..data import SegmentationDataset
from ..data.batches import Collate, RankBatches
from ..losses import CrossEntropyDiceLoss, DevisLoss, PriusLoss, UncertaintySupervisedLoss
from ..losses.prius import PUBLISHED
from . import checkpoint, distributed
from .cli import RunFailure
from .config import TrainConfig
from .evaluation import validation_dice
from .network import Network
from .optimization import Optimization, autocast, memory_format

COMPOSITES = ("total", "segmentation", "noise")
"""Terms made of others, which are blamed last for a NaN."""
MEMBER_SEED = 100_003  # apart, so that runs with neighbouring seeds share no member
RANK_SEED = 1_000_003
OF_OWN_IMAGES = ("evidential", "prius")
"""Losses whose terms beside `segmentation` are of the rank's own images; all else is of the batch of all ranks."""
SHOWN = {"dice": "dice", "gradient": "L_gu", "noise": "L_nu", "calibration": "calibration",
         "contrast": "contrast", "corruption": "corruption", "geometry": "geometry"}  # fmt: skip
Objective = Callable[..., Any]


def make_loss(config: TrainConfig, *, dims: int, in_channels: int, ignore_index: int | None) -> Objective:
    """(logits, label, image, epoch=, model=, generator=) -> the terms of the configured loss as a named tuple."""
    start_epoch = config.start_epoch or 0  # None: nothing begins
    channels = "luma" if in_channels in (1, 3) else "mean"
    evidential: dict[str, Any] = {
        "num_epochs": config.epochs,
        "kind": config.kind,
        "total": config.total,
        "annealing_epochs": config.annealing_epochs,
        "evidence": config.evidence,
        "ignore_index": ignore_index,
    }
    if config.loss == "softmax":
        softmax = CrossEntropyDiceLoss(ignore_index=ignore_index)
        return lambda logits, label, image, *, epoch, model, generator: softmax(logits, label)
    if config.loss == "devis":
        devis = DevisLoss(**evidential)
        return lambda logits, label, image, *, epoch, model, generator: devis(logits, label, epoch)
    if config.loss == "prius":
        return PriusLoss(
            **evidential,
            **PUBLISHED[dims],
            start_epoch=start_epoch,
            distance=config.prius_distance,
            operator=config.operator,
            channels=channels,
        )
    return UncertaintySupervisedLoss(
        **evidential,
        start_epoch=start_epoch,
        beta=config.beta,
        gamma=config.gamma,
        pairs=config.pairs,
        operator=config.operator,
        channels=channels,
        blur_sigma=config.blur_sigma,
        noise=config.noise,
        patch_size=config.noise_patch_size,
        num_patches=config.num_patches,
        mining_every=config.mining_every,
        order_weight=config.order_weight,
        distance_weight=config.distance_weight,
        far_weight=config.far_weight,
    )


class Trainer:
    """One training run in one output folder; of an ensemble one `member`, with a seed and files of its own."""

    def __init__(
        self,
        config: TrainConfig,
        plan: checkpoint.ModelPlan,
        dataset: SegmentationDataset,
        validation_cases: Sequence[Any],
        info: Any,
        device: torch.device,
        output: Path,
        member: int = 0,
    ) -> None:
        self.member = member
        seed = config.seed + MEMBER_SEED * member
        dataset.seed = seed
        self.config, self.plan, self.info, self.device, self.output = config, plan, info, device, output
        self.dataset, self.validation_cases = dataset, validation_cases
        torch.manual_seed(seed)
        self.memory_format = memory_format(config, plan.dims)
        self.model = plan.build().to(device)
        distributed.same_start(self.model)
        self.model = self.model.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        # Two compiled programs, of the batch and of its two noisy copies, rather than one of any batch size.
        self.network = torch.compile(self.model, dynamic=False) if config.compile else self.model
        self.optimization = Optimization(self.model, config, device)
        self.loss = make_loss(config, dims=plan.dims, in_channels=plan.in_channels, ignore_index=dataset.ignore_index)
        rank, ranks = distributed.rank(), distributed.world_size()
        if rank:
            torch.manual_seed(seed + RANK_SEED * rank)
        self.generator = torch.Generator().manual_seed(seed + RANK_SEED * rank)
        self.batches = RankBatches(len(dataset), config.batch_size, rank, ranks)
        self.loader = DataLoader(
            dataset,
            batch_sampler=self.batches,
            collate_fn=Collate(dataset),
            num_workers=config.num_workers,
            persistent_workers=config.num_workers > 0,
        )
        self.best = -math.inf
        self.unimproved = 0
        self.step = 0
        self.network_seconds = self.supervision_seconds = 0.0

    @property
    def weights(self) -> torch.nn.Module:
        """The network to evaluate: with `ema` the averaged one."""
        return self.optimization.weights

    def save(self, name: str, epoch: int) -> Path:
        path = self.output / "checkpoints" / checkpoint.member_name(name, self.member)
        if distributed.is_main():
            checkpoint.save(
                path,
                self.weights.state_dict(),
                self.optimization.optimizer.state_dict(),
                self.plan,
                epoch,
                self.config.to_dict(),
            )
        return path

    def train(self, progress: bool = True) -> None:
        """Trains to the last epoch, or until `patience` is at an end; leaves checkpoints/last.pt and best.pt."""
        suffix = f"-{self.member}" if self.member else ""
        with ExitStack() as stack:
            log, board = None, None
            if distributed.is_main():
                log = stack.enter_context(open(self.output / f"metrics{suffix}.jsonl", "w", encoding="utf-8"))
                board = stack.enter_context(SummaryWriter(str(self.output / "tensorboard" / suffix[1:])))
            epoch = 0
            try:
                for epoch in range(self.config.epochs):
                    self._epoch(epoch, log, board, progress and distributed.is_main())
                    self.optimization.end_epoch()
                    self.save("last.pt", epoch)
                    if self.config.patience and self.unimproved >= self.config.patience:
                        break
            except KeyboardInterrupt:
                path = self.save("last.pt", epoch)
                raise KeyboardInterrupt(f"interrupted in epoch {epoch}; the state is saved in {path}") from None

    def describe_times(self) -> str:
        """One line: what a step's time went into. On a GPU it is the time to launch the work, not to do it."""
        steps, total = max(self.step, 1), self.network_seconds + self.supervision_seconds
        network, supervision = (1e3 * t / steps for t in (self.network_seconds, self.supervision_seconds))
        share = 100 * self.supervision_seconds / total if total else 0.0
        return f"time per step: network {network:.1f} ms, supervision {supervision:.1f} ms ({share:.1f} %)"

    def _epoch(self, epoch: int, log: TextIO | None, board: SummaryWriter | None, progress: bool) -> None:
        self.dataset.set_epoch(epoch)
        self.model.train()
        started = time.perf_counter()
        volumes = 0
        width = len(str(self.config.epochs))
        bar = tqdm(
            self.loader, desc=f"epoch {epoch + 1:{width}}/{self.config.epochs}", unit="step", disable=not progress
        )
        for number, batch in enumerate(bar):
            values = self._step(epoch, number, batch["image"].to(self.device), batch["label"].to(self.device))
            volumes += self.batches.step_size(number)
            speed = volumes / (time.perf_counter() - started)
            if log is not None and board is not None:
                log.write(json.dumps({"kind": "step", "epoch": epoch, "step": self.step, **values}) + "\n")
                for name, value in values.items():
                    board.add_scalar(f"train/{name}", value, self.step)
            shown = {title: f"{values[name]:.4f}" for name, title in SHOWN.items() if name in values}
            bar.set_postfix({"loss": f"{values['total']:.3f}", **shown, "volumes_s": f"{speed:.1f}"})
            self.step += 1
        distributed.average_buffers(self.model)
        seconds = time.perf_counter() - started
        row: dict[str, Any] = {
            "kind": "epoch",
            "epoch": epoch,
            "seconds": seconds,
            "volumes_per_second": volumes / seconds,
            "lr": self.optimization.learning_rate,
            "val_dice": None,
        }
        last = epoch == self.config.epochs - 1
        if self.validation_cases and (last or (epoch + 1) % self.config.validate_every == 0):
            dice = validation_dice(
                self.weights,
                self.validation_cases,
                info=self.info,
                patch_size=self.plan.patch_size,
                device=self.device,
            )
            row["val_dice"] = dice["mean"]
            row["val_dice_per_class"] = {name: value for name, value in dice.items() if name != "mean"}
            if board is not None:
                board.add_scalar("validation/dice", dice["mean"], epoch)
            self.unimproved += 1
            if dice["mean"] > self.best:
                self.best, self.unimproved = dice["mean"], 0
                self.save("best.pt", epoch)
        if log is not None:
            log.write(json.dumps(row) + "\n")
            log.flush()

    def _step(self, epoch: int, number: int, image: torch.Tensor, label: torch.Tensor) -> dict[str, float]:
        """Batch `number` of the epoch; with `accumulate` the last of each group, and of the epoch, changes the weights.

        The gradient is that of the mean over the group of the loss of the batch of all ranks.
        """
        started = time.perf_counter()
        place = number % self.config.accumulate
        group = min(self.config.accumulate, len(self.batches) - (number - place))
        if place == 0:
            self.optimization.zero_grad()
        network = Network(
            self.network,
            self.plan.num_classes,
            precision=lambda: autocast(self.config, self.device),
            memory_format=self.memory_format,
        )
        logits = network(image)
        ranks = distributed.world_size()
        with across_ranks() if ranks > 1 else nullcontext():
            out = self.loss(logits, label, image, epoch=epoch, model=network, generator=self.generator)
        terms = torch.stack([term.detach().double() for term in out])
        values = dict(zip(out._fields, distributed.weighted_mean(terms, len(image)).tolist(), strict=True))
        for name in sorted(values, key=lambda name: name in COMPOSITES):
            if not math.isfinite(values[name]):
                self._stop(epoch, f"loss term {name!r} is {values[name]}")
        # What is a mean over the rank's own images has to count by their number.
        share = len(image) * ranks / self.batches.step_size(number)
        total = out.total
        if share != 1.0 and self.config.loss in OF_OWN_IMAGES:
            total = out.segmentation + (share * (out.total - out.segmentation) if share else 0.0)
        self.optimization.scale(total / group).backward()
        self.supervision_seconds += time.perf_counter() - started - network.seconds
        network.backward()
        self.network_seconds += network.seconds
        if place == group - 1:
            norm = self.optimization.gradient_norm()
            if not math.isfinite(norm) and not self.optimization.overflowed(norm):
                self._stop(epoch, f"the gradient's norm is {norm}")
            self.optimization.step()
        return values

    def _stop(self, epoch: int, what: str) -> None:
        path = self.save("last.pt", epoch)
        raise RunFailure(f"epoch {epoch}, step {self.step}: {what}; the state before this step is saved in {path}")


def describe_backends() -> str:
    """One line: which backend every op of the loss runs on for CPU tensors, and with what instruction set."""
    from .. import _backends
    from .._cpu import isa

    ops = ", ".join(f"{op}={backends[0]}" for op, backends in _backends.registered().items())
    return f"ops: {ops}; instruction set {isa()}, {torch.get_num_threads()} threads"


def plan_for(config: TrainConfig, shapes: Sequence[Sequence[int]], in_channels: int, info: Any) -> checkpoint.ModelPlan:
    """Patch size and strides for images of these shapes."""
    from ..models import divisor, plan_strides
    from .config import ConfigError

    dims = len(shapes[0])
    levels = len(config.channels)
    if config.patch_size:
        if len(config.patch_size) != dims or min(config.patch_size) < 1:
            raise ConfigError(f"patch_size: expected {dims} numbers >= 1 for these images, got {config.patch_size}")
        patch = list(config.patch_size)
    else:
        limit = 96 if dims == 3 else 256
        unit = 2 ** (levels - 1)
        patch = []
        for axis in range(dims):
            lengths = sorted(shape[axis] for shape in shapes)
            typical = min(limit, lengths[len(lengths) // 10])
            patch.append(typical // unit * unit if typical >= 4 * unit else typical)
    strides = plan_strides(patch, levels)
    for axis in range(dims):
        if patch[axis] % divisor(strides, axis):
            raise ConfigError(
                f"patch_size: expected multiples of {divisor(strides, axis)} along axis {axis}, got {patch}"
            )
    return checkpoint.ModelPlan(
        dims=dims,
        in_channels=in_channels,
        num_classes=info.num_classes,
        channels=copy.copy(config.channels),
        strides=[list(step) for step in strides],
        patch_size=patch,
        class_names=dict(info.class_names),
        evidence=config.evidence,
        dropout=config.dropout,
        norm=config.norm,
    )
