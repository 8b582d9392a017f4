"""Everything that needs a GPU, within a deadline for all of it, what matters first: python -m benchmarks.gpu.check

A library of this Python that is there already is taken, else built; then a smoke test of every op; what only a device
can tell of each (that nothing waits for it, streams, graphs); the whole step; every op; the other tests;
compute-sanitizer. Results are lines of gpu.jsonl in the output folder from the moment they are there, gpu.json holds
them all, with what each part came to, and gpu.log what the parts printed. `--parts` runs some, in another call. With
`--rehearse` it runs on a machine without a GPU, on CPU tensors, in Triton's interpreter and the emulator.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 480
LEAST_S = 5
"""Below this no part is begun."""
AGAIN = 100
"""Added to the number of the row to go on with, the exit code of a process whose device answers no more."""
CORES = os.cpu_count() or 1


def rows_of(file: Path) -> list[dict[str, Any]]:
    """What was told so far; a line that is cut off, as of a process that was ended, is none."""
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


class Check:
    """Parts, one after the other, within the deadline."""

    def __init__(self, output: Path, deadline: float, rehearsed: bool) -> None:
        self.output, self.rehearsed = output, rehearsed
        self.rows, self.log = output / "gpu.jsonl", output / "gpu.log"
        self.begun, self.deadline = time.monotonic(), deadline
        self.parts: list[dict[str, Any]] = []
        self.about: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "deadline_s": deadline}
        output.mkdir(parents=True, exist_ok=True)
        for file in (self.rows, self.log):
            file.write_text("")
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        if rehearsed:
            self.environment |= {"SURE_FAST_REHEARSE": "1", "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}

    @property
    def left(self) -> float:
        return self.deadline - (time.monotonic() - self.begun)

    def part(self, name: str, limit: float, *command: object, **environment: str) -> int | None:
        """Runs a command with at most `limit` seconds; its exit code, None where it did not come to its end. Its output
        goes to gpu.log."""
        patience = 5 if self.rehearsed else 1  # the interpreter takes its time, on a busy machine more
        limit, code, begin = min(limit * patience, self.left), None, time.monotonic()
        told: dict[str, Any] = {"part": name, "limit_s": round(limit)}
        if limit < LEAST_S:
            self._end({**told, "status": "no time left"})
            return None
        with open(self.log, "a", encoding="utf-8") as out:
            out.write(f"== {name}\n")
            out.flush()
            where = out.tell()
            try:
                process = subprocess.Popen(
                    [*map(str, command)], cwd=ROOT, env={**self.environment, **environment}, stdout=out,
                    stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
                code = finished(process, limit)
                status = "ok" if code == 0 else "time ran out" if code is None else f"exit code {code}"
            except OSError as error:
                status = f"not started: {error}"
        self._end({**told, "status": status, "seconds": round(time.monotonic() - begin, 1)})
        if status != "ok":
            with open(self.log, encoding="utf-8", errors="replace") as printed:
                printed.seek(where)
                print("\n".join(printed.read().splitlines()[-15:]), flush=True)
        return code

    def _end(self, part: dict[str, Any]) -> None:
        self.parts.append(part)
        print(f"== {part['part']}: {part['status']}, {part.get('seconds', 0)} s of {part['limit_s']}", flush=True)
        self.write()

    def write(self) -> None:
        rows = rows_of(self.rows)
        partial = self.output / "gpu.json.partial"
        partial.write_text(json.dumps({**self.about, "parts": self.parts, "rows": rows}, indent=1) + "\n")
        os.replace(partial, self.output / "gpu.json")

    def python(self, name: str, limit: float, *arguments: object, **environment: str) -> int | None:
        return self.part(name, limit, sys.executable, "-m", *arguments, **environment)

    def every(self, name: str, limit: float, module: str) -> None:
        """Rows of a module, which is begun again behind one after which the device answered no more."""
        code = self.python(name, limit, module, self.rows)
        while code is not None and code > AGAIN:
            code = self.python(f"{name}, from row {code - AGAIN}", limit, module, self.rows, code - AGAIN)


def finished(process: subprocess.Popen, limit: float) -> int | None:
    """The exit code; None after so many seconds, when it is interrupted, as a test then reports, and after some more
    ended with all that it started."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(limit)
    for signal_, seconds in ((signal.SIGINT, 5), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal_)
            process.wait(seconds)
    return None


def is_built() -> bool:
    """Whether both libraries are there for this Python, built here or carried."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")  # importing the package would fail where they are not
    return all((ROOT / "sure_fast" / f"_{name}{suffix}").is_file() for name in ("cpu", "cuda"))


def build(check: Check) -> None:
    if check.rehearsed or is_built():
        check._end({"part": "build", "limit_s": 0, "status": "ok", "seconds": 0.0, "taken": "as it is"})
        return
    archs = (check.about["versions"]["capability"] or "9.0").replace(".", "")
    check.part("build", 150, sys.executable, "setup.py", "build_ext", "--inplace", "-j", CORES,
               SURE_FAST_CUDA="1", SURE_FAST_CUDA_ARCHS=archs)  # fmt: skip


def pytest(check: Check, name: str, limit: float, *arguments: str) -> None:
    how = ["--collect-only", "-q"] if check.rehearsed else ["-v", "--tb=short", "--maxfail=10"]
    check.python(name, limit, "pytest", "-p", "no:cacheprovider", *how, *arguments)


def sanitize(check: Check) -> None:
    tool = shutil.which("compute-sanitizer")
    if tool is None or check.rehearsed:
        check._end({"part": "compute-sanitizer", "limit_s": 0, "status": "not here"})
        return
    small = (sys.executable, "-c", "import torch; torch.zeros(1, device='cuda').add_(1).cpu()")
    if check.part("compute-sanitizer", 40, tool, "--error-exitcode", 1, *small) != 0:  # as where it may not attach
        return
    told = subprocess.run([tool, "--help"], capture_output=True, text=True).stdout
    names = ("--kernel-name-exclude", "--kernel-regex-exclude")  # by its version; torch's own kernels are left out
    others = next(([name, "kns=at6native"] for name in names if name in told), [])
    for kind in ("memcheck", "racecheck"):
        check.part(kind, 75, tool, "--tool", kind, "--error-exitcode", 1, *others, sys.executable, "-m",
                   "tests.cuda.gpu_cases", PYTORCH_NO_CUDA_MEMORY_CACHING="1")  # fmt: skip


STEP, DEVICE_TESTS, OP_TESTS = "benchmarks.gpu.step", "wait or captured or current_stream", "triton or cuda"
PARTS: dict[str, Callable[[Check], object]] = {
    "smoke": lambda c: c.every("smoke", 45, "benchmarks.gpu.smoke"),
    "tests of the device": lambda c: pytest(
        c, "tests of the device", 75, "-m", "cuda", "tests/cuda/test_gpu.py", "-k", DEVICE_TESTS
    ),
    "step": lambda c: c.python("step", 60, STEP, c.rows, "ours", "ours as a graph"),
    "ops": lambda c: c.every("ops", 120, "benchmarks.gpu.ops"),
    "step eager": lambda c: c.python("step eager", 45, STEP, c.rows, "eager, distance up to 4"),
    "tests": lambda c: pytest(c, "tests", 120, "-m", "cuda", "tests/cuda/test_gpu.py", "-k", f"not ({DEVICE_TESTS})"),
    "step compiled": lambda c: c.python("step compiled", 60, STEP, c.rows, "torch.compile"),
    "step eager whole": lambda c: c.python("step eager whole", 30, STEP, c.rows, "eager"),
    "tests of ops": lambda c: pytest(c, "tests of ops", 120, "tests/ops", "-k", f"test_kernel_agrees and ({OP_TESTS})"),
    "compute-sanitizer": sanitize,
}
"""In their order; the build comes before them."""


def told_by(check: Check, expression: str) -> Any:
    """What the device says of itself, asked in a process of its own; None where it cannot be asked."""
    code = f"import json; from benchmarks.gpu.device import DEVICE as d; print(json.dumps({expression}))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=check.environment, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def run(check: Check, parts: Sequence[str]) -> int:
    """Number of parts that failed."""
    state = told_by(check, "{'device': d.state(), 'versions': d.versions()}")
    if state is None:
        return 1
    check.about |= state
    build(check)
    if check.parts[0]["status"] != "ok":
        return 1
    for name in parts:
        PARTS[name](check)
    check.about["device_after"] = told_by(check, "d.state()")
    check.write()
    return sum(part["status"] not in ("ok", "not here") for part in check.parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    parser.add_argument("--deadline", type=float, default=DEADLINE_S, help=f"seconds for all (default: {DEADLINE_S})")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of: %(default)s")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU: small, interpreted and emulated")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := [name for name in parts if name not in PARTS]:
        parser.error(f"--parts: expected some of {', '.join(PARTS)}, got {unknown[0]!r}")
    check = Check(options.output.resolve(), options.deadline, options.rehearse)
    failed = run(check, parts)
    print(f"== {failed} failed; {time.monotonic() - check.begun:.0f} s; {check.output / 'gpu.json'}", flush=True)
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    main()
