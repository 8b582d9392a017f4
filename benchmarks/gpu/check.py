"""Everything that needs a GPU, within a deadline for all of it, what matters first: python -m benchmarks.gpu.check

A library of this Python that is there already is taken, else built; then a smoke test of every op, which ends the check
where one fails; the whole step; every op; the tests; compute-sanitizer. Results are lines of gpu.jsonl in the output
folder from the moment they are there, and gpu.json holds them all, with what each part came to. With --rehearse it runs
on a machine without a GPU, on CPU tensors, in Triton's interpreter and the emulator.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 480
LEAST_S = 5
"""Below this no part is begun."""
CORES = os.cpu_count() or 1


class Check:
    """Parts, one after the other, within the deadline."""

    def __init__(self, output: Path, deadline: float, rehearsed: bool) -> None:
        self.output, self.rows, self.rehearsed = output, output / "gpu.jsonl", rehearsed
        self.begun, self.deadline = time.monotonic(), deadline
        self.parts: list[dict[str, Any]] = []
        self.about: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "deadline_s": deadline}
        output.mkdir(parents=True, exist_ok=True)
        self.rows.write_text("")
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        if rehearsed:
            self.environment |= {"SURE_FAST_REHEARSE": "1", "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}

    @property
    def left(self) -> float:
        return self.deadline - (time.monotonic() - self.begun)

    def part(self, name: str, limit: float, *command: object, **environment: str) -> bool:
        """Runs a command with at most `limit` seconds; whether it succeeded. Its output is NAME.log."""
        limit, log = min(limit, self.left), self.output / f"{name.replace(' ', '_')}.log"
        told: dict[str, Any] = {"part": name, "limit_s": round(limit)}
        if limit < LEAST_S:
            self._end({**told, "status": "no time left"})
            return False
        begin = time.monotonic()
        with open(log, "w", encoding="utf-8") as out:
            try:
                done = subprocess.run(
                    [*map(str, command)], cwd=ROOT, env={**self.environment, **environment}, stdout=out,
                    stderr=subprocess.STDOUT, timeout=limit, stdin=subprocess.DEVNULL,
                )  # fmt: skip
                status = "ok" if done.returncode == 0 else f"exit code {done.returncode}"
            except subprocess.TimeoutExpired:
                status = "time ran out"
            except OSError as error:
                status = f"not started: {error}"
        self._end({**told, "status": status, "seconds": round(time.monotonic() - begin, 1)})
        if status != "ok":
            print("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]), flush=True)
        return status == "ok"

    def _end(self, part: dict[str, Any]) -> None:
        self.parts.append(part)
        print(f"== {part['part']}: {part['status']}, {part.get('seconds', 0)} s of {part['limit_s']}", flush=True)
        self.write()

    def write(self) -> None:
        lines = self.rows.read_text(encoding="utf-8").splitlines()
        rows = []
        for line in lines:
            with contextlib.suppress(ValueError):  # the last may be cut off
                rows.append(json.loads(line))
        partial = self.output / "gpu.json.partial"
        partial.write_text(json.dumps({**self.about, "parts": self.parts, "rows": rows}, indent=1) + "\n")
        os.replace(partial, self.output / "gpu.json")

    def python(self, name: str, limit: float, *arguments: object, **environment: str) -> bool:
        return self.part(name, limit, sys.executable, "-m", *arguments, **environment)


def is_built() -> bool:
    """Whether both libraries are there for this Python, built here or carried."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")  # importing the package would fail where they are not
    return all((ROOT / "sure_fast" / f"_{name}{suffix}").is_file() for name in ("cpu", "cuda"))


def build(check: Check, archs: str) -> bool:
    if check.rehearsed or is_built():
        check._end({"part": "build", "limit_s": 0, "status": "ok", "seconds": 0.0, "taken": "as it is"})
        return True
    return check.part("build", 150, sys.executable, "setup.py", "build_ext", "--inplace", "-j", CORES,
                      SURE_FAST_CUDA="1", SURE_FAST_CUDA_ARCHS=archs)  # fmt: skip


def sanitize(check: Check) -> None:
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        check._end({"part": "compute-sanitizer", "limit_s": 0, "status": "not here"})
        return
    told = subprocess.run([tool, "--help"], capture_output=True, text=True).stdout
    names = ("--kernel-name-exclude", "--kernel-regex-exclude")  # by its version; torch's own kernels are left out
    others = next(([name, "kns=at6native"] for name in names if name in told), [])
    for kind in ("memcheck", "racecheck"):
        check.part(kind, 75, tool, "--tool", kind, "--error-exitcode", 1, *others, sys.executable, "-m",
                   "tests.cuda.gpu_cases", PYTORCH_NO_CUDA_MEMORY_CACHING="1")  # fmt: skip


def tests(check: Check) -> None:
    """What is about the device, then every op's own tests against the reference on CUDA tensors."""
    quiet = ("pytest", "-q", "-p", "no:cacheprovider", *(["--collect-only"] if check.rehearsed else ["--maxfail=10"]))
    check.python("tests", 150, *quiet, "-m", "cuda", "tests/cuda/test_gpu.py")
    check.python("tests of ops", 120, *quiet, "tests/ops", "-k", "test_kernel_agrees and (triton or cuda)")


def told_by(check: Check, expression: str) -> Any:
    """What the device says of itself, asked in a process of its own; None where it cannot be asked."""
    code = f"import json; from benchmarks.gpu.device import DEVICE as d; print(json.dumps({expression}))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=check.environment, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def run(check: Check) -> int:
    """Number of parts that failed."""
    state = told_by(check, "{'device': d.state(), 'versions': d.versions()}")
    if state is None:
        return 1
    check.about |= state
    capability = check.about["versions"]["capability"] or "9.0"
    rows = check.rows
    if not build(check, capability.replace(".", "")):
        return 1
    if not check.python("smoke", 45, "benchmarks.gpu.smoke", rows):
        print("an op is wrong on this device: nothing else is run", flush=True)
        return 1
    step = "benchmarks.gpu.step"
    check.python("step", 60, step, rows, "ours", "ours as a graph")
    check.python("step eager", 45, step, rows, "eager, distance up to 4")
    check.python("ops", 120, "benchmarks.gpu.ops", rows)
    check.python("step compiled", 60, step, rows, "torch.compile")
    check.python("step eager whole", 30, step, rows, "eager")
    tests(check)
    if not check.rehearsed:
        sanitize(check)
    check.about["device_after"] = told_by(check, "d.state()")
    check.write()
    return sum(part["status"] not in ("ok", "not here") for part in check.parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    parser.add_argument("--deadline", type=float, default=DEADLINE_S, help=f"seconds for all (default: {DEADLINE_S})")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU: small, interpreted and emulated")
    options = parser.parse_args()
    check = Check(options.output.resolve(), options.deadline, options.rehearse)
    failed = run(check)
    print(f"== {failed} failed; {time.monotonic() - check.begun:.0f} s; {check.output / 'gpu.json'}", flush=True)
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    main()
