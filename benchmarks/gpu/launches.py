"""What a training step launches on a GPU, counted without one: python -m benchmarks.gpu.launches [FORM …]

On the meta device, whose tensors have no values, every operator of torch that would launch a kernel is counted, every
launch of Triton, and every call of the CUDA library, which launches several of its own; the network is left out. The
tables list them by name and by the line of sure_fast that asks for them, in the backward by the line of the forward.
"""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode

import sure_fast
from sure_fast.losses.noise_uncertainty import check_share, share_of
from sure_fast.ops import (
    _calls,
    _dense_supervision,
    _triton,
    dense_noise_uncertainty_loss,
    uncertainty_supervision,
)

ROOT = str(Path(sure_fast.__file__).parent)
META = torch.device("meta")
KINDS = TORCH, TRITON, LIBRARY = ("torch", "triton", "library")
FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_reshape_alias", "lift_fresh"}
"""Operators that make no view and launch nothing."""


class Launches(TorchDispatchMode):
    """Counts in its block; `counts` by kind, name and line."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[str, str, str]] = Counter()

    def of(self, *kinds: str) -> int:
        return sum(number for (kind, *_), number in self.counts.items() if kind in kinds)

    def add(self, kind: str, name: str) -> None:
        self.counts[kind, name, _line()] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if name in OPDEFS:  # what its function calls is what is launched
            with self:
                return OPDEFS[name]._init_fn(*args, **kwargs)
        out = func(*args, **kwargs)
        results = [t for t in (out if isinstance(out, (tuple, list)) else (out,)) if isinstance(t, Tensor)]
        on_device = any(t.device == META and t.numel() for t in results)
        if on_device and not _is_view(func) and name.removeprefix("aten::") not in FREE:
            self.add(TORCH, name.removeprefix("aten::"))
        return out

    def __enter__(self) -> Launches:
        super().__enter__()
        return self


def _is_view(func: Any) -> bool:
    aliases = [result.alias_info for result in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _line() -> str:
    """The innermost line of sure_fast; in the backward of torch's own operators that of their forward."""
    node = torch._C._current_autograd_node()
    frames = [f for f in traceback.extract_stack() if f.filename.startswith(ROOT)]
    if node is not None and "traceback_" in node.metadata and "Backward" in node.name():
        inner = [f for f in frames if "/ops/" in f.filename or "/kernels/" in f.filename]
        if not any("backward" in f.name for f in inner):
            lines = [line for line in node.metadata["traceback_"] if ROOT in line]
            if lines:
                file, number = lines[-1].split(",")[:2]
                return f"{Path(file.split(ROOT)[1].strip(chr(34))).as_posix()[1:]}:{number.split()[-1]} backward"
    if not frames:
        return "" if node is None else node.name()
    return f"{frames[-1].filename[len(ROOT) + 1 :]}:{frames[-1].lineno}"


class _Library:
    """Stands in for the CUDA library: arguments are of no interest, no scratch is needed, calls are counted."""

    def __init__(self, launches: Launches) -> None:
        self.launches = launches

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name[0].isupper():
            return mock.MagicMock()
        if name.endswith("_workspace"):
            return lambda *_: 0
        return lambda *_: self.launches.add(LIBRARY, name)


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Backends take tensors of the meta device for those of a GPU."""
    with ExitStack() as stack:
        for module, name, value in (
            (_calls, "device_type", "meta"),
            (_calls, "missing", None),
            (_triton, "why_not", lambda *_, **__: None),
            *((module, "backend_beside_triton", lambda _: "cuda")
              for module in (_dense_supervision, dense_noise_uncertainty_loss, uncertainty_supervision)),
        ):  # fmt: skip
            stack.enter_context(mock.patch.object(module, name, value))
        yield


@contextmanager
def counted() -> Iterator[Launches]:
    """Counts what is called in the block with tensors of the meta device."""
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    launches = Launches()

    def run(self: Any, *_: Any, **__: Any) -> None:
        launches.add(TRITON, f"{self.fn.__module__.rsplit('.', 1)[-1]}.{self.fn.__name__.lstrip('_')}")

    with (
        as_on_a_gpu(),
        mock.patch.object(_calls, "library", _Library(launches)),
        mock.patch.object(JITFunction, "run", run),
        mock.patch.object(InterpretedFunction, "run", run),
        torch.autograd.set_detect_anomaly(True, check_nan=False),
        launches,
    ):
        yield launches


PAPER = {
    "support": "patch", "noise": "mean", "noisy_share": 1.0, "normalize": None, "evidence": "softplus",
    "ramp": "exponential",
}  # fmt: skip
FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "a copy of every image": {"noisy_share": 1.0},
    "two copies of every image": {"noisy_share": 1.0, "noisy_copies": 2},
    "paper": PAPER,
    "paper, no mining": {**PAPER, "mining_every": 2},
}
"""Options of `UncertaintySupervisedLoss`; of the last the calls without a search for hard samples count."""


def step(form: str, shape: tuple[int, ...] = (2, 16, 16, 16), classes: int = 4) -> Launches:
    """The launches of one step: noise, loss and gradients of the network's answers."""
    images, *size = shape
    loss = sure_fast.UncertaintySupervisedLoss(num_epochs=10, start_epoch=0, **FORMS[form])
    loss.draws = form == "paper, no mining"
    image = torch.zeros((images, 1, *size), device=META)
    label = torch.zeros(shape, dtype=torch.int64, device=META)

    def answer(number: int) -> Tensor:
        z = torch.zeros((number, classes, *size), dtype=torch.bfloat16, device=META)
        return z.requires_grad_()

    if loss.joint:
        copies = loss.image_noise["noisy_copies"] * share_of(images, *check_share(loss.noisy_share))
        leaves = [answer(images + copies)]
        with counted() as launches:
            noise = loss.noise_of_step(image, epoch=9)
            total = loss(leaves[0], label, image, epoch=9, noise=noise).total
            torch.autograd.grad(total, leaves)
        return launches
    mined, *leaves = [answer(images), answer(images), answer(2 * images)]
    with counted() as launches:
        total = loss(
            leaves[0], label, image, epoch=9, model=lambda x: leaves[1] if len(x) > images else mined.detach()
        ).total
        torch.autograd.grad(total, leaves)
    return launches


def table(launches: Launches, by: int) -> list[str]:
    """Lines by kind, and by name (1) or line (2)."""
    grouped: Counter[tuple[str, str]] = Counter()
    for key, number in launches.counts.items():
        grouped[key[0], key[by]] += number
    return [f"{number:5}  {kind:8} {what}" for (kind, what), number in grouped.most_common()]


def main(forms: list[str]) -> None:
    for form in forms:
        launches = step(form)
        kinds = (f"{launches.of(kind)} of {kind}" for kind in KINDS)
        print(f"{form}: {launches.of(TORCH, TRITON)} launches and calls of the library: {', '.join(kinds)}")
        for by in (1, 2):
            print("\n".join(table(launches, by)), end="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:] or list(FORMS))
