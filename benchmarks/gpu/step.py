"""The whole supervision of a training step, its network left out: python -m benchmarks.gpu.step ROWS.jsonl VARIANT …

[2, 1, 192, 192, 192] with four classes in bfloat16, noise over whole images: losses and gradients of all logits. Each
variant that may not end within a limit is started in a process of its own. A row is refused where its loss or gradients
are not those of the first row.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import sure_fast
from tests.cuda.gpu_cases import _label

from . import launches
from .check import rows_of
from .device import DEVICE, REHEARSED, rehearse, said, tell
from .ops import difference

SHAPE = (2, 5, 6, 7) if REHEARSED else (2, 192, 192, 192)
CLASSES = 4
SAMPLES = 500
"""Of the gradients, that a row keeps."""
VARIANTS = ("ours", "ours as a graph", "eager", "eager, distance up to 4", "torch.compile")


class Step:
    """A batch with the network's answers, [2N, C, *S] of clean and noisy images."""

    def __init__(self, backend: str | None) -> None:
        generator = torch.Generator().manual_seed(0)
        n, *size = SHAPE
        self.label = _label(SHAPE, generator).to(DEVICE.name)
        self.image = torch.randn((n, 1, *size), generator=generator).to(DEVICE.name)
        logits = torch.randn((2 * n, CLASSES, *size), generator=generator)
        self.logits = logits.to(DEVICE.name, torch.bfloat16).requires_grad_()
        self.loss = sure_fast.UncertaintySupervisedLoss(num_epochs=10, start_epoch=0, noisy_share=1.0, backend=backend)
        torch.manual_seed(0)
        self.noise = self.loss.noise_of_step(self.image, epoch=9)

    def total(self, logits: torch.Tensor) -> torch.Tensor:
        return self.loss(logits, self.label, self.image, epoch=9, noise=self.noise).total

    def __call__(self) -> list[torch.Tensor]:
        """The draw of the noise is a part of it, though the same noise is used."""
        self.loss.noise_of_step(self.image, epoch=9)
        total = self.total(self.logits)
        return [total.detach(), *torch.autograd.grad(total, self.logits)]


def make(variant: str) -> tuple[Callable[[], Any], Any]:
    """The call, and a context that it runs in."""
    ours = "triton" if REHEARSED else None
    if variant == "ours":
        return Step(ours), None
    if variant == "ours as a graph":
        return DEVICE.captured(Step(ours)), None
    step = Step("reference")
    if variant == "torch.compile":
        compiler = "eager" if REHEARSED else "inductor"
        step.total = torch.compile(step.total, backend=compiler)  # type: ignore[method-assign]
    if variant == "eager, distance up to 4":
        name = "sure_fast.reference.uncertainty_supervision.boundary_distance"
        from sure_fast.reference.boundary_distance import boundary_distance

        return step, mock.patch(name, functools.partial(boundary_distance, max_distance=4.0))
    return step, None


def summary(result: list[torch.Tensor]) -> dict[str, Any]:
    """The loss, and of its gradients the norm and some that are spread over them."""
    total, gradient = float(result[0]), result[1].detach().flatten()
    some = gradient[:: max(1, len(gradient) // SAMPLES)].float().tolist()
    return {"total": total, "gradient_norm": float(torch.linalg.vector_norm(gradient.float())), "gradients": some}


def disagreement(file: Path, found: dict[str, Any]) -> str | None:
    """What is wrong with a summary, beside that of the first row that has one."""
    first = next((row for row in rows_of(file) if row["kind"] == "step" and "gradients" in row), found)
    for name in ("total", "gradient_norm", "gradients"):
        got, want = (torch.tensor(x[name], dtype=torch.float64).reshape(-1) for x in (found, first))
        problem = difference([got], [want], 2e-2 if name == "gradients" else 5e-3)
        if problem is not None:
            return f"{name}: {problem}"
    return None


def measure(file: Path, variant: str, what: dict[str, Any]) -> None:
    """A row of the times, which nothing that follows can cost; of ours one of its launches."""
    call, within = make(variant)
    with within or nullcontext():
        found = summary(call())
        as_called, alone = DEVICE.milliseconds(call, 8)
        row = {"milliseconds": as_called, "device_milliseconds": alone, "refused": disagreement(file, found), **found}
        tell(file, **what, **row)
        told = {**what, "kind": "step in detail", "peak_extra_bytes": DEVICE.peak_bytes(call)}
        if variant == "ours":
            told |= DEVICE.kernels(call)
        tell(file, **told)
    if variant == "ours":
        counted = launches.step("default")
        tell(file, **{**what, "kind": "step counted"}, counted={kind: counted.of(kind) for kind in launches.KINDS})


def main(file: Path, variants: list[str]) -> None:
    for variant in variants:
        what = {"kind": "step", "variant": variant, "shape": list(SHAPE), "dtype": "bfloat16"}
        try:
            measure(file, variant, what)
        except Exception as error:
            tell(file, **{**what, "kind": "step failed"}, error=said(error))
        if DEVICE.name == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    with rehearse():
        main(Path(sys.argv[1]), sys.argv[2:] or list(VARIANTS))
