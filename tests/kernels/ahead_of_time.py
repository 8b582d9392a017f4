"""Compiles every kernel as its launcher would launch it, for GPUs that need not be there, and prints what each uses:

    python -m tests.kernels.ahead_of_time [--json] [op ...]

A launch is caught before it looks for a device; its arguments say what is compiled: types, constants, divisibility.
Registers and the stack, which is where spilled registers go, are read from the cubin; an error where a kernel needs
one. With another Triton in PYTHONPATH it is that one which compiles. Needs TRITON_INTERPRET unset.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from tests.kernels.launches import CASES

ARCHITECTURES = (80, 90, 100, 120)
OPTIONS = ("num_warps", "num_stages")
TYPES = {
    torch.float32: "fp32", torch.float64: "fp64", torch.bfloat16: "bf16", torch.float16: "fp16", torch.uint8: "u8",
    torch.int8: "i8", torch.int16: "i16", torch.int32: "i32", torch.int64: "i64", torch.bool: "i1",
}  # fmt: skip


def source_of(kernel: JITFunction, args: tuple, kwargs: dict) -> tuple[ASTSource, dict]:
    """What Triton would compile for this launch, and with which options."""
    options = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
    bound = kernel.signature.bind(*args, **kwargs)
    bound.apply_defaults()
    signature: dict[str, str] = {}
    constants: dict[tuple[int], object] = {}
    attributes: dict[tuple[int], list] = {}
    for index, parameter in enumerate(kernel.params):
        value = bound.arguments[parameter.name]
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            signature[parameter.name] = "constexpr"
            constants[index,] = value
            continue
        if isinstance(value, torch.Tensor):
            signature[parameter.name] = f"*{TYPES[value.dtype]}"
            number = value.data_ptr()
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
            continue
        else:
            signature[parameter.name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            number = value
        if number % 16 == 0:
            attributes[index,] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature=signature, constexprs=constants, attrs=attributes), options


def launches(case: Callable[[], object]) -> list[tuple[ASTSource, dict]]:
    """The kernels that a call of a launcher would launch."""
    found = []

    def run(self: JITFunction, *args: object, grid: object, warmup: bool, **kwargs: object) -> None:
        found.append(source_of(self, args, kwargs))

    before, JITFunction.run = JITFunction.run, run
    try:
        case()
    finally:
        JITFunction.run = before
    return found


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers and stack bytes of a thread."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    (registers,), (stack,) = (re.findall(rf"{name}:(\d+)", text) for name in ("REG", "STACK"))
    return int(registers), int(stack)


def compiled_for(architecture: int, wanted: list[str]) -> list[list]:
    """Kernel, launch, architecture, warps, registers and stack of everything that the wanted ops launch."""
    rows, seen = [], set()
    target = GPUTarget("cuda", architecture, 32)
    for name, case in CASES.items():
        if wanted and not any(name.startswith(op) for op in wanted):
            continue
        for source, options in launches(case):
            key = (source.hash(), str(options))
            if key in seen:
                continue
            seen.add(key)
            registers, stack = resources(triton.compile(source, target=target, options=options).asm["cubin"])
            kernel = f"{source.fn.__module__.rsplit('.', 1)[-1]}.{source.fn.__name__.lstrip('_')}"
            rows.append([kernel, name, architecture, options.get("num_warps", 4), registers, stack])
    return rows


def wrong(rows: list[list]) -> list[list]:
    """Those that need a stack."""
    return [row for row in rows if row[5] > 0]


def main() -> int:
    wanted = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork")) as pool:
        found = pool.map(partial(compiled_for, wanted=wanted), ARCHITECTURES)
        rows = [row for part in zip(*found, strict=True) for row in part]
    if "--json" in sys.argv:
        print(json.dumps(rows))
        return 0
    print(f"{'kernel':<42} {'launched by':<58} {'sm':>3} {'warps':>5} {'registers':>9} {'stack':>5}")
    for kernel, name, *numbers in rows:
        print(f"{kernel:<42} {name:<58} {numbers[0]:>3} {numbers[1]:>5} {numbers[2]:>9} {numbers[3]:>5}")
    more = wrong(rows)
    print(f"{len(rows)} kernels of Triton {triton.__version__}, {len(more)} with a stack")
    return bool(more)


if __name__ == "__main__":
    sys.exit(main())
