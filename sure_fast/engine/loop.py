"""The training loop: epochs, losses, validation, checkpoints and logs."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..data import SegmentationDataset
from ..losses import CrossEntropyDiceLoss, DevisLoss, PriusLoss, UncertaintySupervisedLoss
from ..losses.prius import PUBLISHED
from . import checkpoint
from .cli import RunFailure
from .config import TrainConfig
from .evaluation import validation_dice

COMPOSITES = ("total", "segmentation", "noise")
"""Terms made of others, which are blamed last for a NaN."""
MEMBER_SEED = 100_003  # apart, so that runs with neighbouring seeds share no member
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
        self.model = plan.build().to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        self.loss = make_loss(config, dims=plan.dims, in_channels=plan.in_channels, ignore_index=dataset.ignore_index)
        self.generator = torch.Generator().manual_seed(seed)
        self.loader = DataLoader(
            dataset,
            batch_size=config.batch_size,
            num_workers=config.num_workers,
            persistent_workers=config.num_workers > 0,
        )
        self.best = -math.inf
        self.step = 0
        self.network_seconds = self.supervision_seconds = 0.0

    def save(self, name: str, epoch: int) -> Path:
        path = self.output / "checkpoints" / checkpoint.member_name(name, self.member)
        checkpoint.save(
            path, self.model.state_dict(), self.optimizer.state_dict(), self.plan, epoch, self.config.to_dict()
        )
        return path

    def train(self, progress: bool = True) -> None:
        """Trains to the last epoch; leaves checkpoints/last.pt and best.pt (by validation Dice)."""
        suffix = f"-{self.member}" if self.member else ""
        with (
            open(self.output / f"metrics{suffix}.jsonl", "w", encoding="utf-8") as log,
            SummaryWriter(str(self.output / "tensorboard" / suffix[1:])) as board,
        ):
            epoch = 0
            try:
                for epoch in range(self.config.epochs):
                    self._epoch(epoch, log, board, progress)
                    self.save("last.pt", epoch)
            except KeyboardInterrupt:
                path = self.save("last.pt", epoch)
                raise KeyboardInterrupt(f"interrupted in epoch {epoch}; the state is saved in {path}") from None

    def describe_times(self) -> str:
        """One line: what a step's time went into. On a GPU it is the time to launch the work, not to do it."""
        steps, total = max(self.step, 1), self.network_seconds + self.supervision_seconds
        network, supervision = (1e3 * t / steps for t in (self.network_seconds, self.supervision_seconds))
        share = 100 * self.supervision_seconds / total if total else 0.0
        return f"time per step: network {network:.1f} ms, supervision {supervision:.1f} ms ({share:.1f} %)"

    def _epoch(self, epoch: int, log: TextIO, board: SummaryWriter, progress: bool) -> None:
        self.dataset.set_epoch(epoch)
        self.model.train()
        started = time.perf_counter()
        volumes = 0
        width = len(str(self.config.epochs))
        bar = tqdm(
            self.loader, desc=f"epoch {epoch + 1:{width}}/{self.config.epochs}", unit="step", disable=not progress
        )
        for batch in bar:
            values = self._step(epoch, batch["image"].to(self.device), batch["label"].to(self.device))
            volumes += len(batch["image"])
            speed = volumes / (time.perf_counter() - started)
            log.write(json.dumps({"kind": "step", "epoch": epoch, "step": self.step, **values}) + "\n")
            for name, value in values.items():
                board.add_scalar(f"train/{name}", value, self.step)
            shown = {title: f"{values[name]:.4f}" for name, title in SHOWN.items() if name in values}
            bar.set_postfix({"loss": f"{values['total']:.3f}", **shown, "volumes_s": f"{speed:.1f}"})
            self.step += 1
        seconds = time.perf_counter() - started
        row: dict[str, Any] = {
            "kind": "epoch",
            "epoch": epoch,
            "seconds": seconds,
            "volumes_per_second": volumes / seconds,
            "lr": self.optimizer.param_groups[0]["lr"],
            "val_dice": None,
        }
        last = epoch == self.config.epochs - 1
        if self.validation_cases and (last or (epoch + 1) % self.config.validate_every == 0):
            dice = validation_dice(
                self.model,
                self.validation_cases,
                info=self.info,
                patch_size=self.plan.patch_size,
                device=self.device,
            )
            row["val_dice"] = dice["mean"]
            row["val_dice_per_class"] = {name: value for name, value in dice.items() if name != "mean"}
            board.add_scalar("validation/dice", dice["mean"], epoch)
            if dice["mean"] > self.best:
                self.best = dice["mean"]
                self.save("best.pt", epoch)
        log.write(json.dumps(row) + "\n")
        log.flush()

    def _step(self, epoch: int, image: torch.Tensor, label: torch.Tensor) -> dict[str, float]:
        started = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        network = _Network(self.model)
        logits = network(image)
        out = self.loss(logits, label, image, epoch=epoch, model=network, generator=self.generator)
        numbers = torch.stack([term.detach().double() for term in out]).tolist()
        values = dict(zip(out._fields, numbers, strict=True))
        for name in sorted(values, key=lambda name: name in COMPOSITES):
            if not math.isfinite(values[name]):
                self._stop(epoch, f"loss term {name!r} is {values[name]}")
        out.total.backward()
        self.supervision_seconds += time.perf_counter() - started - network.seconds
        network.backward()
        self.network_seconds += network.seconds
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), math.inf))
        if not math.isfinite(norm):
            self._stop(epoch, f"the gradient's norm is {norm}")
        self.optimizer.step()
        return values

    def _stop(self, epoch: int, what: str) -> None:
        path = self.save("last.pt", epoch)
        raise RunFailure(f"epoch {epoch}, step {self.step}: {what}; the state before this step is saved in {path}")


class _Network:
    """The network, with the loss cut off from it, so that the time of each can be told.

    Its answers are leaves, where the loss's backward ends; `backward` carries their gradients on through the network.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.answers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.seconds = 0.0

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        started = time.perf_counter()
        answer = self.model(image)
        self.seconds += time.perf_counter() - started
        if not torch.is_grad_enabled():
            return answer
        leaf = answer.detach().requires_grad_()
        self.answers.append((answer, leaf))
        return leaf

    def backward(self) -> None:
        started = time.perf_counter()
        used = [(answer, leaf.grad) for answer, leaf in self.answers if leaf.grad is not None]
        answers, gradients = zip(*used, strict=True)
        torch.autograd.backward(answers, gradients)
        self.seconds += time.perf_counter() - started


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
