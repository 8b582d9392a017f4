"""Where a training run is: what its checkpoints hold beside the network and the optimizer."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.utils.data import Sampler

from . import distributed
from .config import ConfigError


@dataclass
class Progress:
    """Position of the sampler, and what was counted up to it."""

    epoch: int = 0
    batch: int = 0
    """Batches of this epoch that are done."""
    step: int = 0
    """Steps of all epochs."""
    best: float = -math.inf
    """Best validation Dice so far."""
    best_epoch: int = 0
    """The epoch it is of, counted from 1; 0: none yet."""
    unimproved: int = 0
    """Validations since."""
    seconds: float = 0.0
    """Spent on the batches of this epoch."""
    volumes: int = 0
    network_seconds: float = 0.0
    supervision_seconds: float = 0.0
    training_seconds: float = 0.0
    """Spent on the batches of the epochs before."""
    validation_seconds: float = 0.0

    def next_epoch(self) -> None:
        self.training_seconds += self.seconds
        self.epoch, self.batch, self.seconds, self.volumes = self.epoch + 1, 0, 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for entry in fields(self):
            setattr(self, entry.name, state.get(entry.name, entry.default))


class RankState:
    """What differs from rank to rank: random generators, torch's own and the trainer's, and running statistics.

    Every rank has to ask for the state, and gets that of all.
    """

    def __init__(self, generator: torch.Generator, model: nn.Module, device: torch.device) -> None:
        self.generator, self.model, self.device = generator, model, device

    def state_dict(self) -> dict[str, Any]:
        state = {"torch": torch.get_rng_state(), "generator": self.generator.get_state()}
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        if distributed.world_size() > 1:  # those of one rank are in its model
            state.update({f"buffer {name}": buffer.cpu() for name, buffer in self.model.named_buffers()})
        return {"ranks": distributed.gather(state)}

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """ConfigError where there were more ranks, or fewer."""
        before, now = len(states["ranks"]), distributed.world_size()
        if before != now:
            raise ConfigError(f"expected as many ranks as when it was written, {before}, got {now}")
        state = states["ranks"][distributed.rank()]
        torch.set_rng_state(state["torch"])
        set_state(self.generator, state["generator"])
        if self.device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self.device)
        if now > 1:
            for name, buffer in self.model.named_buffers():
                buffer.copy_(state[f"buffer {name}"])


def set_state(generator: torch.Generator, state: torch.Tensor) -> None:
    """Of a generator on another kind of device the state has another form: a seed is made of it."""
    if state.numel() == generator.get_state().numel():
        generator.set_state(state)
    else:
        generator.manual_seed(
            int.from_bytes(hashlib.blake2b(state.numpy().tobytes(), digest_size=7).digest(), "little")
        )


class LossState:
    """Where the loss is in its share of noisy copies, and how often it drew noise: what it does next follows."""

    COUNTS = ("shared", "draws")

    def __init__(self, loss: Any) -> None:
        self.loss = loss

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self.loss, name, 0) for name in self.COUNTS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.COUNTS:
            if hasattr(self.loss, name):
                setattr(self.loss, name, state.get(name, 0))


class RemainingBatches(Sampler[list[int]]):
    """The batches of a batch sampler without the first `start` of each pass."""

    def __init__(self, batches: Sampler[list[int]]) -> None:
        self.batches, self.start = batches, 0

    def __len__(self) -> int:
        return len(self.batches) - self.start  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self.batches, self.start, None)
