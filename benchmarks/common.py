"""What the benchmark files share: one row of a group, checked before it is timed, with its peak memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROUNDS = {"fast": 30, "slow": 5}


def resident(field: str) -> int:
    """A field of /proc/self/status in bytes: VmRSS (now) or VmHWM (peak)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def peak_extra_bytes(run: Callable[[], Any]) -> int | None:
    """Peak memory of the process during a call beyond what it held before; None where it cannot be measured."""
    try:
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        run()
        return max(0, resident("VmHWM") - before)
    except OSError:
        return None


def row(
    benchmark: Any,
    group: str,
    implementation: str,
    run: Callable[[], Any],
    expected: Any = None,
    *,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    rounds: str = "fast",
) -> None:
    """Times `run` as one row of a group; refuses the row when its result is not the expected one."""
    result = run()
    if expected is not None:
        torch.testing.assert_close(result, expected, rtol=rtol, atol=atol)
    benchmark.group = group
    benchmark.extra_info["implementation"] = implementation
    benchmark.extra_info["threads"] = torch.get_num_threads()
    benchmark.extra_info["peak_extra_bytes"] = peak_extra_bytes(run)
    benchmark.pedantic(run, rounds=ROUNDS[rounds], warmup_rounds=2, iterations=1)
