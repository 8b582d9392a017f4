"""What the machine can do, for the floors of benchmarks/floors.py: copying memory, and the scalar formulas of
csrc/math on one thread over an array that stays in L1.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.common import row
from benchmarks.floors import COPIED, FORMULAS, LENGTH, MACHINE, REPEATS


def test_copy(benchmark):
    source = torch.randn(COPIED // 4)
    target = torch.empty_like(source)
    row(benchmark, MACHINE, "copy", lambda: target.copy_(source), source, rounds="fast")


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(benchmark, name):
    from sure_fast import _cpu

    x = 1 + torch.rand(LENGTH, generator=torch.Generator().manual_seed(0)) * 9
    out = torch.empty_like(x)

    def run():
        for _ in range(REPEATS):
            _cpu.special_function(name, x, out)

    row(benchmark, MACHINE, name, run, rounds="fast")
