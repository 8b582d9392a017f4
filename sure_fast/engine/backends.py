"""Which backend of an op runs on a device of this machine."""

from __future__ import annotations

import torch

from .. import _backends
from ..ops import _calls, _triton


def backend_on(op: str, device: torch.device) -> str:
    """The backend an op runs on for tensors of this device that its kernels take."""
    wanted = _backends.requested()
    if wanted is not None:
        return wanted
    return next(name for name in _backends.registered()[op] if _runs(name, device))


def describe(device: torch.device) -> str:
    """One line: the backend of every op on this device, with the instruction set and threads of the CPU."""
    from .._cpu import isa

    by_backend: dict[str, list[str]] = {}
    for op in _backends.registered():
        by_backend.setdefault(backend_on(op, device), []).append(op)
    ops = "; ".join(f"{backend} for {', '.join(names)}" for backend, names in by_backend.items())
    ops = f"{next(iter(by_backend))} for every op" if len(by_backend) == 1 else ops
    return f"backends on {device.type}: {ops}; CPU {isa()}, {torch.get_num_threads()} threads"


def _runs(backend: str, device: torch.device) -> bool:
    if backend == "reference":
        return True
    if backend == "cpu":
        return device.type == "cpu"
    if device.type != "cuda":
        return False
    if backend == "triton":
        return _triton.MISSING is None and _triton.architecture(device.index) is None
    return _calls.missing is None and _calls.architecture(device.index) is None
