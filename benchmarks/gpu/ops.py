"""Every op on the device beside the speed of its memory: python -m benchmarks.gpu.ops ROWS.jsonl [FIRST]

A row is refused when the op's result on a smaller input is not the reference's, which would take minutes on the large
one. Times are medians, as called and of the device alone; bytes are those of the tensors that go in and come out, which
each have to move at least once. `FIRST` and the code at the end are those of `smoke`.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import sure_fast
from tests.cuda.gpu_cases import CASES, available, inputs_of, run

from .check import AGAIN
from .device import DEVICE, REHEARSED, is_lost, poisoned, rehearse, said, tell

SHAPES = ((1, 5, 6, 7),) if REHEARSED else ((2, 192, 192, 192), (24, 128, 128))
DTYPES = (torch.bfloat16, torch.float32)
SMALLER = {3: (2, 40, 41, 42), 2: (3, 65, 66)}
"""By spatial axes, what is held against the reference."""
PAIRS = 2_000 if REHEARSED else 1_000_000
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2}
"""Of the largest value."""


def copy_bandwidth() -> float:
    """Bytes read and written a second by a copy of 1 GB."""
    source = torch.empty((1 << 10) if REHEARSED else (1 << 28), device=DEVICE.name)
    target = torch.empty_like(source)
    return 2 * source.nbytes / DEVICE.milliseconds(lambda: target.copy_(source))[1] * 1000


def difference(got: list[torch.Tensor], want: list[torch.Tensor], tolerance: float, counts: bool = False) -> str | None:
    """What is wrong with a result, or None; `counts`: of bins, where a value on an edge may fall into the next one."""
    for x, y in zip(got, want, strict=True):
        if not x.is_floating_point():
            apart = int((x.long() - y.long()).abs().sum())
            if apart > (max(2, 1e-4 * int(y.long().abs().sum())) if counts else 0):
                return f"integers differ by {apart}"
            continue
        x, y = x.double(), y.double()
        finite = x.isfinite() & y.isfinite()
        if not bool(((x == y) | (x.isnan() & y.isnan()))[~finite].all()):
            return "numbers that are not finite differ"
        x, y = x[finite], y[finite]
        error = float((x - y).abs().max() / y.abs().max().clamp(min=1e-30)) if len(y) else 0.0
        if error > tolerance:
            return f"relative difference {error:.1e}"
    return None


def timed(name: str, backend: str, shape: tuple[int, ...], dtype: torch.dtype, bandwidth: float) -> dict[str, Any]:
    case = CASES[name]
    tensors = inputs_of(case, shape, DEVICE.name, dtype=dtype)

    def call() -> list[torch.Tensor]:
        return run(case, tensors, backend)

    result = call()
    row: dict[str, Any] = {"bytes": sum(t.nbytes for t in (*tensors.values(), *result))}
    row["milliseconds"], row["device_milliseconds"] = DEVICE.milliseconds(call)
    row["percent_of_copy"] = round(100 * row["bytes"] / bandwidth / (row["device_milliseconds"] / 1000), 1)
    row["peak_extra_bytes"] = DEVICE.peak_bytes(call)
    row.update(DEVICE.kernels(call, 6))
    row["refused"] = refused(name, backend, shape if REHEARSED else SMALLER[len(shape) - 1], dtype)
    return row


def refused(name: str, backend: str, shape: tuple[int, ...], dtype: torch.dtype) -> str | None:
    case = CASES[name]
    tensors = inputs_of(case, shape, DEVICE.name, dtype=dtype)
    with poisoned():
        got, want = (run(case, tensors, chosen) for chosen in (backend, "reference"))
    return difference(got, want, max(TOLERANCE[dtype], case.tolerance), counts=name == "segmentation_stats")


def boundary_pairs(n: int) -> dict[str, Any]:
    """Every pair of n boundary voxels of one image, forward and slopes."""
    generator = torch.Generator().manual_seed(0)
    u, g = (torch.rand((1, 1, n), generator=generator).to(DEVICE.name) for _ in range(2))
    u.requires_grad_()
    d = torch.zeros_like(g)

    def step(u: torch.Tensor = u, g: torch.Tensor = g, d: torch.Tensor = d) -> list[torch.Tensor]:
        backend = "cuda" if u.is_cuda or (REHEARSED and u.device.type == "cpu") else "cpu"
        loss = sure_fast.gradient_uncertainty_loss(u, g, d, backend=backend)
        return [loss.detach(), torch.autograd.grad(loss, u)[0]]

    on_cpu = [t.detach().cpu() for t in (u, g, d)]
    x = on_cpu[0].requires_grad_()
    loss = sure_fast.gradient_uncertainty_loss(x, *on_cpu[1:], backend="cpu")
    want = [loss.detach(), torch.autograd.grad(loss, x)[0]]
    as_called, alone = DEVICE.milliseconds(step)
    return {"milliseconds": as_called, "device_milliseconds": alone, "peak_extra_bytes": DEVICE.peak_bytes(step),
            "refused": difference([t.cpu() for t in step()], want, 1e-3)}  # fmt: skip


def planned(bandwidth: float) -> list[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """What each row is of, and what makes it."""
    rows: list[tuple[dict[str, Any], Callable[[], dict[str, Any]]]] = [
        ({"case": f"gradient_uncertainty_loss, {PAIRS} boundary voxels"}, lambda: boundary_pairs(PAIRS))
    ]
    for shape, dtype, (name, backend) in itertools.product(SHAPES, DTYPES, available()):
        what = {"case": name, "backend": backend, "shape": list(shape), "dtype": str(dtype).split(".")[1]}
        rows.append((what, functools.partial(timed, name, backend, shape, dtype, bandwidth)))
    return rows


def main(file: Path, first: int) -> int:
    bandwidth = copy_bandwidth()
    tell(file, kind="copy", bytes_per_second=bandwidth)
    for number, (what, make) in list(enumerate(planned(bandwidth)))[first:]:
        try:
            tell(file, kind="op", **what, **make())
        except Exception as error:  # one op that fails costs no other
            tell(file, kind="op", **what, error=said(error))
            if is_lost():
                return AGAIN + number + 1
        if DEVICE.name == "cuda":
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    with rehearse():
        sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
