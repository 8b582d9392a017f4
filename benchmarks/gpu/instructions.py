"""What the Triton kernels cannot be faster than on an H200, without one: python -m benchmarks.gpu.instructions

Compiled for sm_90, their machine instructions are counted, those of a loop as often as it runs. A multiprocessor issues
four a cycle, of 32 lanes each, and has a special function unit (ex2, lg2, rcp, sqrt) for each eighth of these lanes.
Needs TRITON_INTERPRET unset. What is called seldom (divisions of subnormal numbers) is left out; what a branch skips is
counted: of segmentation_stats the histograms of a class that a block does not have, or is right about everywhere.
"""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import triton
from triton.backends.compiler import GPUTarget

from tests.kernels.ahead_of_time import CASES, launches

MULTIPROCESSORS, SCHEDULERS, CLOCK, BANDWIDTH = 132, 4, 1.755e9, 4.8e12
SPECIAL = 8
"""Cycles of a scheduler's special function unit for an instruction of 32 lanes."""
VOXELS = 2 * 192**3
GOAL = 0.8
"""What of the largest floor a kernel is to reach."""
LINE = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]*)\s*([^;]*);")


class Row(NamedTuple):
    """A kernel as a launch of `tests.kernels.launches` compiles it."""

    launch: str
    kernel: str
    bytes: float
    """That a voxel of 4 classes must move."""
    trips: tuple[int, ...] = ()
    """Of its loops where no constant of the kernel tells them, in the order in which they begin."""


ROWS = (
    Row("dirichlet_uncertainty forward bfloat16 softplus", "_forward", 10),
    Row("dirichlet_uncertainty backward bfloat16 softplus", "_backward", 18),
    Row("evidential_loss forward bfloat16 exp", "_forward", 16),
    Row("evidential_loss backward bfloat16 exp", "_backward", 24),
    Row("evidential_loss forward bfloat16 full", "_forward", 29),
    Row("evidential_loss backward bfloat16 full", "_backward", 37),
    Row("noise_uncertainty_loss forward bfloat16", "_far_sums", 28),
    Row("noise_uncertainty_loss backward bfloat16", "_backward", 52),
    Row("noise_uncertainty_loss forward bfloat16 bytes", "_far_sums", 17),
    Row("noise_uncertainty_loss backward bfloat16 bytes", "_backward", 33),
    Row("dense_noise_uncertainty_loss forward 1", "_forward", 12),
    Row("dense_noise_uncertainty_loss forward 2", "_forward", 16),
    Row("dense_noise_uncertainty_loss backward 2 False", "_backward", 28),
    Row("gradient_magnitude float32 [1, 16, 32, 32] sobel", "_forward", 8),
    Row("boundary_distance [16, 32, 32] int64 limit 4.0 ignore None", "_boundary", 9),
    Row("boundary_distance [16, 32, 32] int64 limit 4.0 ignore None", "_window", 9),
    Row("segmentation_stats float32", "_forward", 24, (5, 10)),
    Row("segmentation_stats float32", "_forward", 24, (5, 2)),
)


class Count(NamedTuple):
    """Of a voxel."""

    instructions: float
    special: float

    @property
    def seconds(self) -> tuple[float, float]:
        """Of all voxels: until every instruction is issued, and until the special function units are done."""
        rate = MULTIPROCESSORS * SCHEDULERS * CLOCK * 32
        return VOXELS * self.instructions / rate, VOXELS * self.special * SPECIAL / rate


def machine_code(cubin: bytes) -> list[tuple[int, str, str]]:
    """Address, instruction and operands."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-sass", file.name], capture_output=True, text=True, check=True).stdout
    found = (LINE.match(line) for line in text.splitlines())
    return [(int(match[1], 16), match[2], match[3]) for match in found if match and match[2] != "NOP"]


def loops(code: list[tuple[int, str, str]]) -> list[tuple[int, int]]:
    """First and last address of what a branch backwards repeats, in the order of the first."""
    found = []
    for at, name, operands in code:
        target = re.search(r"0x([0-9a-f]+)", operands)
        if name.startswith("BRA") and target and int(target[1], 16) < at:
            found.append((int(target[1], 16), at))
    return sorted(found)


def counted(code: list[tuple[int, str, str]], trips: tuple[int, ...]) -> tuple[int, int]:
    """Instructions that a warp executes, and those of the special function units."""
    repeated = loops(code)
    if len(repeated) != len(trips):
        raise ValueError(f"trips: expected those of {len(repeated)} loops, got {trips}")
    every, special = 0, 0
    for at, name, _ in code:
        times = math.prod(n for (first, last), n in zip(repeated, trips, strict=True) if first <= at <= last)
        every += times
        special += times * name.startswith("MUFU")
    return every, special


def count(row: Row) -> Count:
    """Of all launches of the kernel, added up."""
    instructions = special = 0.0
    for source, options in launches(CASES[row.launch]):
        if source.fn.__name__ != row.kernel:
            continue
        constants = {source.fn.arg_names[index]: value for (index,), value in source.constants.items()}
        trips = constants.get("TILES", constants.get("PLANES", 1))
        tile = constants.get("LANES", constants.get("BLOCK"))
        code = machine_code(triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"])
        found = counted(code, row.trips or (trips,) * len(loops(code)))
        lanes = options.get("num_warps", 4) * 32 / (tile * trips)
        instructions, special = instructions + found[0] * lanes, special + found[1] * lanes
    return Count(instructions, special)


def main() -> None:
    print("| kernel | instructions a voxel | issue | special functions | memory | goal | of a copy |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in ROWS:
        found = count(row)
        memory = VOXELS * row.bytes / BANDWIDTH
        floor = max(*found.seconds, memory)
        times = " | ".join(f"{1e6 * seconds:.0f} µs" for seconds in (*found.seconds, memory, floor / GOAL))
        name = f"`{row.launch}` `{row.kernel.lstrip('_')}`" + f", loops of {row.trips}" * bool(row.trips)
        print(f"| {name} | {found.instructions:.0f} | {times} | {100 * GOAL * memory / floor:.0f} % |")


if __name__ == "__main__":
    main()
