"""Times of every op on a GPU beside the memory's speed: python -m benchmarks.bench_gpu --output FILE.json

A row is refused when its result is not the reference's. Times are medians of CUDA events around one call; the bytes are
those of the tensors that go in and come out, which each have to move at least once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import sure_fast
from sure_fast import _backends
from tests.cuda.gpu_cases import CASES, available, inputs_of, run

SHAPES = {"3D": (2, 192, 192, 192), "2D": (24, 128, 128)}
PAIRS = (1_000_000,)
BUDGET_S = 20.0
"""Of one row of the reference, which is dropped beyond it."""


def milliseconds(call: Any, rounds: int = 20) -> float:
    for _ in range(3):
        call()
    times = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def copy_bandwidth() -> float:
    """Bytes read and written a second by a copy of 1 GB."""
    source = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / milliseconds(lambda: target.copy_(source)) * 1000


def peak_bytes(call: Any) -> int:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = call()
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before


def same(got: list[torch.Tensor], want: list[torch.Tensor]) -> str | None:
    for x, y in zip(got, want, strict=True):
        if not x.is_floating_point():
            if not torch.equal(x, y):
                return "integers differ"
            continue
        scale = y[y.isfinite()].abs().max() if bool(y.isfinite().any()) else torch.ones((), device=y.device)
        error = ((x - y).nan_to_num(0.0, 0.0, 0.0).abs().max() / scale.clamp(min=1e-30)).item()
        if error > 1e-3:
            return f"relative difference {error:.1e}"
    return None


def rows(shape: tuple[int, ...]) -> list[dict[str, Any]]:
    found = []
    for name, backend in available():
        case = CASES[name]
        tensors = inputs_of(case, shape, "cuda")
        row: dict[str, Any] = {"case": name, "backend": backend, "shape": list(shape)}
        try:
            result = run(case, tensors, backend)
            row["bytes"] = sum(t.nbytes for t in (*tensors.values(), *result))
            row["milliseconds"] = milliseconds(lambda c=case, t=tensors, b=backend: run(c, t, b))
            row["peak_extra_bytes"] = peak_bytes(lambda c=case, t=tensors, b=backend: run(c, t, b))
            begin = time.perf_counter()
            want = run(case, tensors, "reference")
            torch.cuda.synchronize()
            if "sampled" not in name:
                row["refused"] = same(result, want)
            if time.perf_counter() - begin < BUDGET_S / 10:
                row["reference_milliseconds"] = milliseconds(lambda c=case, t=tensors: run(c, t, "reference"), 5)
                row["reference_peak_extra_bytes"] = peak_bytes(lambda c=case, t=tensors: run(c, t, "reference"))
        except (RuntimeError, ValueError) as error:
            row["error"] = str(error).splitlines()[0]
        found.append(row)
        print(json.dumps(row), flush=True)
        del tensors
        torch.cuda.empty_cache()
    return found


def boundary_pairs(n: int) -> dict[str, Any]:
    """Every pair of n boundary voxels of one image, forward and slopes."""
    generator = torch.Generator().manual_seed(0)
    u, g = (torch.rand((1, 1, n), generator=generator).cuda() for _ in range(2))
    u.requires_grad_()
    d = torch.zeros_like(g)

    def step() -> list[torch.Tensor]:
        loss = sure_fast.gradient_uncertainty_loss(u, g, d)
        return [loss.detach(), torch.autograd.grad(loss, u)[0]]

    cpu = [t.detach().cpu() for t in (u, g, d)]
    x = cpu[0].requires_grad_()
    loss = sure_fast.gradient_uncertainty_loss(x, *cpu[1:])
    want = [loss.detach(), torch.autograd.grad(loss, x)[0]]
    return {
        "case": f"gradient_uncertainty_loss, {n} boundary voxels",
        "milliseconds": milliseconds(step),
        "peak_extra_bytes": peak_bytes(step),
        "refused": same([t.cpu() for t in step()], want),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "date": time.strftime("%Y-%m-%d"),
        "backends": {op: list(backends) for op, backends in _backends.registered().items()},
        "copy_bytes_per_second": copy_bandwidth(),
        "rows": [],
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    for n in PAIRS:
        result["rows"].append(boundary_pairs(n))
    for shape in arguments.shapes:
        result["rows"] += rows(SHAPES[shape])
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")  # what there is, should time run out
    refused = [row["case"] for row in result["rows"] if row.get("refused") or row.get("error")]
    print("refused:", ", ".join(refused) or "none")


if __name__ == "__main__":
    main()
