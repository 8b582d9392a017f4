"""From gradients to weights: precision, loss scaling, clipping, schedule, averaged weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from .config import ConfigError, TrainConfig
from .gradients import GradientAverage
from .sections import OptimizerConfig

PRECISIONS = {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DECAY_POWER = 0.9
LEAST_SCALE = 1.0
"""A gradient that is not finite at this scale of the loss is no overflow of float16."""


def check_device(config: TrainConfig, device: torch.device) -> None:
    """Refuses what cannot be done on the device.

    Raises:
        ConfigError: a precision that the device lacks, or no compiler for torch.compile.
    """
    if config.network.amp == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError(f"network.amp: expected none or fp16 on {torch.cuda.get_device_name(device)}, got bf16")
    if config.network.amp == "fp16" and device.type not in ("cuda", "cpu"):
        raise ConfigError(f"network.amp: expected none or bf16 on {device}, got fp16")
    if config.network.compile:
        try:
            torch.compile(lambda x: x.sin() + 1.0)(torch.zeros(2, device=device))
        except Exception as error:  # the compiler's failures have no class in common
            reason = str(error).strip().splitlines()
            raise ConfigError(
                f"network.compile: torch.compile cannot be used here: {reason[0] if reason else type(error).__name__}"
            ) from None


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[None]:
    """The network's precision; parameters, losses and metrics stay in float32."""
    return torch.autocast(device.type, PRECISIONS[config.network.amp], enabled=config.network.amp != "none")


def memory_format(config: TrainConfig, dims: int) -> torch.memory_format:
    if not config.network.channels_last:
        return torch.contiguous_format
    return torch.channels_last if dims == 2 else torch.channels_last_3d


@contextmanager
def crops_of_one_shape() -> Iterator[None]:
    """Within the block cuDNN tries which of its convolutions is the fastest for a shape: it will meet it again."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def ema_update(decay: float, spoiled: Tensor | None = None) -> Callable[[Any, Any, Any], None]:
    """θ̄ ← d θ̄ + (1 - d) θ, d = min(decay, (1 + n)/(10 + n)) at the n-th update, so that the start is soon forgotten.

    Nothing changes where `spoiled`, 0-dim on the parameters' device, is 1.
    """

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], number: Tensor | int) -> None:
        n = int(number)
        share = 1.0 - min(decay, (1.0 + n) / (10.0 + n))
        if spoiled is None:
            torch._foreach_lerp_(list(averaged), list(current), share)
            return
        steps = torch._foreach_sub(list(current), list(averaged))
        torch._foreach_mul_(steps, share * (1.0 - spoiled))
        torch._foreach_add_(list(averaged), steps)

    return update


def make_optimizer(parameters: Any, of: OptimizerConfig, fused: bool | None = None) -> torch.optim.Optimizer:
    """`fused`: one kernel for all parameters, which can be told on the device to do nothing."""
    assert of.learning_rate is not None
    shared: dict[str, Any] = {"lr": of.learning_rate, "weight_decay": of.weight_decay, "fused": fused}
    if of.name != "sgd":
        return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[of.name](parameters, **shared)
    optimizer = torch.optim.SGD(parameters, momentum=of.momentum, nesterov=of.momentum > 0, **shared)
    if fused:
        begin_momentum(optimizer)
    return optimizer


def begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Where SGD has none yet: a fused first step that is told to do nothing would leave it unwritten."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("momentum") else ():
            if optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def schedule_factor(of: OptimizerConfig, epochs: int) -> Callable[[int], float]:
    """Epoch -> what the learning rate is multiplied by.

    With w epochs of warm-up it rises as (t + 1)/(w + 1); from t = w on it is 1, (1 − s)^0.9 or (1 + cos πs)/2 with
    s = (t − w)/(T − w).
    """

    def factor(epoch: int) -> float:
        if epoch < of.warmup:
            return (epoch + 1) / (of.warmup + 1)
        done = min((epoch - of.warmup) / max(epochs - of.warmup, 1), 1.0)
        if of.schedule == "poly":
            return float((1.0 - done) ** DECAY_POWER)
        return 0.5 * (1.0 + math.cos(math.pi * done)) if of.schedule == "cosine" else 1.0

    return factor


class Optimization:
    """The optimizer with what surrounds it.

    Args:
        model: whose parameters it changes.
        config: its optimizer's options, with `clip_norm` and `ema` (averaged weights, for validation and in the
            checkpoints), and `amp` (fp16: with a loss scaler).
        device: of the model.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, device: torch.device) -> None:
        self.model, self.clip_norm = model, config.optimizer.clip_norm or math.inf
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.network.amp == "fp16")
        self.fused = True if device.type == "cuda" else None
        self.optimizer = make_optimizer(model.parameters(), config.optimizer, self.fused)
        self.gradients = GradientAverage(model.parameters())
        self.spoiled: Tensor | None = None
        """Where the host does not wait for a step to see whether its numbers are finite: 1 since they were not, 0-dim
        on the device. Then no step changes anything any more."""
        if self.fused and not self.scaler.is_enabled():
            self.spoiled = torch.zeros((), device=device)
            told = cast("Any", self.optimizer)
            told.found_inf, told.grad_scale = self.spoiled, None
        constant = config.optimizer.schedule == "constant" and not config.optimizer.warmup
        factor = schedule_factor(config.optimizer, config.run.epochs)
        self.schedule = None if constant else LambdaLR(self.optimizer, factor)
        self.average = AveragedModel(model) if config.optimizer.ema else None
        self._update = ema_update(config.optimizer.ema, self.spoiled)
        self._buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self._kept = [buffer.clone() for buffer in self._buffers]

    @property
    def learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def weights(self) -> nn.Module:
        """The network to validate and to keep: the averaged one where there is one."""
        return self.model if self.average is None else self.average.module

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to call backward on."""
        return self.scaler.scale(loss) if self.scaler.is_enabled() else loss

    def look_at(self, numbers: Tensor) -> None:
        """Where one of them is not finite, no step changes anything from here on."""
        if self.spoiled is not None:
            torch.maximum(self.spoiled, (~numbers.isfinite()).any().to(self.spoiled), out=self.spoiled)

    def gradient_norm(self) -> Tensor:
        """Averages the gradients over the ranks, unscales and clips them; the norm before clipping, 0-dim."""
        self.gradients.finish()
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        return nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)

    def overflowed(self, norm: float) -> bool:
        """Whether this norm is an overflow of float16, after which a smaller scale is tried."""
        return not math.isfinite(norm) and self.scaler.is_enabled() and self.scaler.get_scale() > LEAST_SCALE

    def step(self) -> None:
        """Changes the weights; after an overflow only the scale."""
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        if self.average is not None:
            self._average(self.average)

    @torch.no_grad()
    def _average(self, average: AveragedModel) -> None:
        """As its update_parameters, which takes the number of updates to the device and back."""
        averaged: list[Tensor] = list(average.module.parameters())
        current: list[Tensor] = list(self.model.parameters())
        number = int(average.n_averaged)  # on the CPU
        if number:
            self._update(averaged, current, number)
        else:
            torch._foreach_copy_(averaged, current)
        for own, buffer in zip(average.module.buffers(), self.model.buffers(), strict=True):
            own.copy_(buffer)
        average.n_averaged += 1

    def keep_statistics(self) -> None:
        """What normalisation keeps running, as it is before a step."""
        if self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)

    @torch.no_grad()
    def restore_statistics(self) -> None:
        """As they were, where the step is spoiled; without a flag on the device in any case."""
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            buffer.copy_(kept if self.spoiled is None else torch.where(self.spoiled > 0, kept, buffer))

    def end_epoch(self) -> None:
        if self.schedule is not None:
            with warnings.catch_warnings():
                # a run that was resumed at the end of an epoch has made no step in this process
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                self.schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors: optimizer, scaler, schedule, and with `ema` the averaged weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        groups = [{**group, "fused": self.fused} for group in state["optimizer"]["param_groups"]]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})  # of whatever device it was
        if self.fused:
            begin_momentum(self.optimizer)
        self.scaler.load_state_dict(state["scaler"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
