"""Registers, shared memory, stack and spills of every CUDA kernel, from ptxas: python -m tests.cuda.resources

Compiles csrc/cuda for each architecture; exits with an error when a kernel spills registers or needs a stack.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

from tests.cuda.emulated import CSRC

ARCHITECTURES = ("80", "90", "100", "120")
"""Those of setup.py."""


class Resources(NamedTuple):
    architecture: str
    kernel: str
    registers: int
    shared: int
    stack: int
    spilled: int


REPORT = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for 'sm_\w+'.*?(?P<stack>\d+) bytes stack frame, "
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers"
    r"(?P<rest>[^\n]*)",
    re.DOTALL,
)


def compile_one(source: Path, architecture: str, nvcc: str = "nvcc") -> list[Resources]:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            nvcc, "-std=c++17", "-O3", f"-I{CSRC}", "-Xptxas", "-v,--warn-on-spills", f"-arch=sm_{architecture}",
            "-cubin", str(source), "-o", f"{folder}/out.cubin",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return parse(done.stderr, architecture)


def parse(report: str, architecture: str) -> list[Resources]:
    found = []
    for m in REPORT.finditer(report):
        shared = re.search(r"(\d+) bytes smem", m["rest"])
        spilled = int(m["stores"]) + int(m["loads"])
        numbers = int(m["registers"]), int(shared[1]) if shared else 0, int(m["stack"]), spilled
        found.append(Resources(architecture, m["kernel"], *numbers))
    return found


def readable(names: list[str]) -> list[str]:
    if not shutil.which("c++filt"):
        return names
    plain = subprocess.run(["c++filt", "-p"], input="\n".join(names), capture_output=True, text=True).stdout
    return [re.sub(r"sure_fast::|\(anonymous namespace\)::", "", name) for name in plain.splitlines()]


def every_kernel() -> list[Resources]:
    sources = sorted((CSRC / "cuda").glob("*.cu"))
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda job: compile_one(*job), product(sources, ARCHITECTURES)))
    return [kernel for kernels in found for kernel in kernels]


def wrong(kernels: list[Resources]) -> list[Resources]:
    """Those that spill or need a stack."""
    return [k for k in kernels if k.stack or k.spilled]


def main() -> int:
    kernels = every_kernel()
    print("sm   registers  shared  stack  spilled  kernel")
    for k, name in zip(kernels, readable([k.kernel for k in kernels]), strict=True):
        print(f"{k.architecture:>3}  {k.registers:9}  {k.shared:6}  {k.stack:5}  {k.spilled:7}  {name}")
    more = wrong(kernels)
    print(f"{len(kernels)} kernels, {len(more)} with a stack or spills")
    return bool(more)


if __name__ == "__main__":
    sys.exit(main())
