"""Several processes, as torchrun starts them: one rank a device, each with its share of every batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .._distributed import number_of_ranks
from .config import ConfigError

T = TypeVar("T")
ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
TIMEOUT = timedelta(hours=2)  # a rank may wait for another one that reads or evaluates a large data set


def launched() -> bool:
    """Whether the environment is that of a process started by torchrun."""
    return all(name in os.environ for name in ENVIRONMENT)


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    return number_of_ranks()


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Within the block the processes of one torchrun are ranks that can talk; in a process of its own nothing happens.

    NCCL joins ranks on GPUs, gloo those on the CPU.

    Raises:
        ConfigError: no GPU for this rank, or one GPU named for all.
    """
    if not launched() or dist.is_initialized():
        yield
        return
    chosen = own_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    # gloo frees the tensors of a message in threads of its own, and one that does so while the interpreter ends aborts
    # the process. Destroying the group waits for these threads if nothing else holds the group. This module's functions
    # would: their defaults are the group that is there when they are imported, which Dynamo and DDP do.
    from torch.distributed import nn  # noqa: F401

    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def choose_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device: {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def own_device(device: str) -> torch.device:
    """The device of this rank: of several on one machine each has the GPU of its local rank."""
    if not launched() or device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return choose_device(device)
    if device not in ("auto", "cuda"):
        raise ConfigError(f"device: expected auto, cuda or cpu for the processes of torchrun, got {device!r}")
    local, number = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= number:
        raise ConfigError(f"device: expected a GPU for each process of this machine, got {number} for rank {local}")
    return choose_device(f"cuda:{local}")


def refuse_ranks(program: str) -> None:
    """ConfigError where torchrun started several processes of a program that does its work in one."""
    if launched() and int(os.environ["WORLD_SIZE"]) > 1:
        raise ConfigError(f"torchrun: expected one process of {program}, got {os.environ['WORLD_SIZE']}")


def barrier() -> None:
    """Waits until every rank is here."""
    if world_size() > 1:
        gather(None)


def gather(value: T) -> list[T]:
    """The values of all ranks in their order, on every rank; plain data."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def from_main(function: Callable[[], T]) -> T:
    """What `function` returns on rank 0, on every rank. What it raises there is raised on every rank, and told once."""
    if world_size() == 1:
        return function()
    message: list[Any] = [None, None]
    if is_main():
        try:
            message[0] = function()
        except Exception as error:
            message[1] = error
    dist.broadcast_object_list(message, src=0)
    if message[1] is not None:
        message[1].told = not is_main()
        raise message[1]
    return message[0]


def share(values: Sequence[T]) -> Sequence[T]:
    """Every world_size-th value from this rank's on; of all ranks together each value once."""
    return values[rank() :: world_size()]


def interleave(parts: Sequence[Sequence[T]]) -> list[T]:
    """The values in their order, from the shares of all ranks."""
    longest = max(len(part) for part in parts)
    return [part[k] for k in range(longest) for part in parts if k < len(part)]


def weighted_mean(values: Tensor, weight: float) -> Tensor:
    """Σ w v / Σ w over the ranks; the values of weight 0 enter nothing, NaN included."""
    if world_size() == 1:
        return values
    sums = torch.cat([values * weight if weight else torch.zeros_like(values), values.new_full((1,), float(weight))])
    dist.all_reduce(sums)
    return sums[:-1] / sums[-1]


def largest(value: int) -> int:
    """Of all ranks, on every rank."""
    if world_size() == 1:
        return value
    most = torch.tensor(value)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def same_start(model: torch.nn.Module) -> None:
    """Gives every rank the parameters and buffers of rank 0."""
    if world_size() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)


def average_buffers(model: torch.nn.Module) -> None:
    """Gives every rank the mean over the ranks of what batch normalisation keeps running."""
    if world_size() > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= world_size()
