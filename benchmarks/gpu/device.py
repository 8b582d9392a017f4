"""The device that is measured, and a stand-in on the CPU with which the check is rehearsed where there is none."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

REHEARSED = os.environ.get("SURE_FAST_REHEARSE") == "1"
"""The kernels are interpreted and emulated on CPU tensors, sizes are small, and times mean nothing."""
ASLEEP_MS = 30.0
"""How long the device is kept busy while the host queues a call."""
GPU_QUERY = "name,driver_version,memory.total,clocks.sm,clocks.mem,temperature.gpu,power.draw"


class Cuda:
    """Times on the current CUDA device."""

    name = "cuda"

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def milliseconds(self, call: Callable[[], Any], rounds: int = 10) -> tuple[float, float]:
        """Medians of one call as it is made, with Python and launches, and of the device's part alone.

        For the second the call is queued behind a kernel that does nothing for a while, so that the device never waits
        for the host.
        """
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        return self._timed(call, rounds, 0), self._timed(call, rounds, self._cycles())

    def _timed(self, call: Callable[[], Any], rounds: int, cycles: int) -> float:
        times = []
        for _ in range(rounds):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            if cycles:
                torch.cuda._sleep(cycles)
            begin.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end))
        return statistics.median(times)

    def _cycles(self) -> int:
        """Of a sleep that takes ASLEEP_MS: measured each time, as the clock changes, and no property of every torch
        tells it."""
        tried = 10_000_000
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(2):  # the first wakes the device
            begin.record()
            torch.cuda._sleep(tried)
            end.record()
            torch.cuda.synchronize()
        return int(tried * ASLEEP_MS / begin.elapsed_time(end))

    def peak_bytes(self, call: Callable[[], Any]) -> int:
        """What a call holds at most beyond what was held before."""
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = call()
        torch.cuda.synchronize()
        del result
        return torch.cuda.max_memory_allocated() - before

    def captured(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """A call as a CUDA graph: each call replays it, and returns what it wrote."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            written = call()

        def replay() -> Any:
            graph.replay()
            return written

        return replay

    def kernels(self, call: Callable[[], Any], number: int = 25) -> dict[str, Any]:
        """Launches of one call, and the kernels that take most of its time, in µs; or why there is no profile, which
        costs no timing."""
        try:
            return self._profiled(call, number)
        except Exception as error:
            return {"profile": said(error)}

    def _profiled(self, call: Callable[[], Any], number: int) -> dict[str, Any]:
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiled:
            call()
            torch.cuda.synchronize()
        found = [event for event in profiled.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA]
        found.sort(key=lambda event: -event.self_device_time_total)
        rows = [[event.key[:90], event.count, round(event.self_device_time_total, 1)] for event in found]
        return {
            "launches": sum(row[1] for row in rows),
            "microseconds": sum(row[2] for row in rows),
            "top": rows[:number],
        }

    def state(self) -> dict[str, str]:
        """What nvidia-smi tells of the device."""
        command = ["nvidia-smi", f"--query-gpu={GPU_QUERY}", "--format=csv,noheader,nounits"]
        done = subprocess.run(command, capture_output=True, text=True)
        values = done.stdout.strip().splitlines()
        return (
            dict(zip(GPU_QUERY.split(","), values[0].split(", "), strict=False)) if values else {"error": done.stderr}
        )

    def versions(self) -> dict[str, Any]:
        capability = ".".join(map(str, torch.cuda.get_device_capability()))
        return {"torch": torch.__version__, "cuda": torch.version.cuda, "capability": capability}


class Rehearsal(Cuda):
    """Stands in for a device: the same calls on CPU tensors."""

    name = "cpu"

    def synchronize(self) -> None:
        """Nothing is under way."""

    def milliseconds(self, call: Callable[[], Any], rounds: int = 10) -> tuple[float, float]:
        begin = time.perf_counter()
        call()
        took = 1e3 * (time.perf_counter() - begin)
        return took, took

    def peak_bytes(self, call: Callable[[], Any]) -> int:
        call()
        return 0

    def captured(self, call: Callable[[], Any]) -> Callable[[], Any]:
        call()
        return call

    def kernels(self, call: Callable[[], Any], number: int = 25) -> dict[str, Any]:
        call()
        return {"launches": 0, "microseconds": 0.0, "top": []}

    def state(self) -> dict[str, str]:
        return {"name": "rehearsed on the CPU"}

    def versions(self) -> dict[str, Any]:
        return {"torch": torch.__version__, "cuda": None, "capability": None}


DEVICE = Rehearsal() if REHEARSED else Cuda()


def rehearse() -> Any:
    """Within the block the CUDA kernels run in the emulator; on a device nothing changes."""
    if not REHEARSED:
        return nullcontext()
    from tests.cuda import emulated

    return emulated.emulate(emulated.load(emulated.build(emulated.FOLDER)))


def said(error: Exception) -> str:
    """In one line."""
    lines = str(error).splitlines() or ["without a message"]
    return f"{type(error).__name__}: {lines[0][:300]}"


def is_lost() -> bool:
    """Whether the device answers no more in this process, as after an illegal address."""
    try:
        DEVICE.synchronize()
    except Exception:
        return True
    return False


@contextmanager
def poisoned() -> Iterator[None]:
    """Within the block uninitialised memory is NaN, so that an output that was not written shows."""
    before = torch.utils.deterministic.fill_uninitialized_memory, torch.are_deterministic_algorithms_enabled()
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = before[0]
        torch.use_deterministic_algorithms(before[1])


def tell(file: Path, **row: Any) -> None:
    """One line, on the disk before anything else happens."""
    line = json.dumps(row)
    with open(file, "a", encoding="utf-8") as out:
        out.write(line + "\n")
        out.flush()
        os.fsync(out.fileno())
    print(line[:200], flush=True)
