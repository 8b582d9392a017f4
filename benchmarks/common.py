"""What the benchmark files share: one row of a group, checked before it is timed, with its peak memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

ROUNDS = {"fast": 30, "slow": 5, "once": 2}


LONG_SECONDS = 1.0
"""A row whose call takes longer is timed as "once"."""


def peak_extra_bytes(run: Callable[[], Any]) -> tuple[Any, int]:
    """A call's result, and the peak of what torch's CPU allocator held during it beyond what it held before, from the
    profiler's events."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = run()
    held = peak = 0
    events = (e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]")
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return result, peak


def row(
    benchmark: Any,
    group: str,
    implementation: str,
    run: Callable[[], Any],
    expected: Any = None,
    *,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    rounds: str | None = None,
) -> None:
    """Times `run` as one row of a group; refuses the row when its result is not the expected one. Ours are timed more
    often than peers, unless `rounds` says how often."""
    rounds = rounds or ("fast" if implementation == "sure_fast" else "slow")
    if rounds != "once":
        run()  # what is compiled or allocated once is left out
    start = time.perf_counter()
    result, benchmark.extra_info["peak_extra_bytes"] = peak_extra_bytes(run)
    if time.perf_counter() - start > LONG_SECONDS:
        rounds = "once"
    if expected is not None:
        torch.testing.assert_close(result, expected, rtol=rtol, atol=atol)
    del result
    benchmark.group = group
    benchmark.extra_info["implementation"] = implementation
    benchmark.extra_info["threads"] = torch.get_num_threads()
    benchmark.pedantic(run, rounds=ROUNDS[rounds], warmup_rounds=0 if rounds == "once" else 2, iterations=1)
