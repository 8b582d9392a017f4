"""Machine instructions are counted as often as their loops run."""

from __future__ import annotations

import pytest

from sure_fast.ops import _triton

if _triton.MISSING is not None:
    pytest.skip(_triton.MISSING, allow_module_level=True)

CODE = [
    (0x00, "MOV", "R1, c[0x0][0x28]"),
    (0x10, "FFMA", "R2, R2, R3, R4"),
    (0x20, "MUFU.EX2", "R2, R2"),
    (0x30, "BRA", "0x20"),
    (0x40, "BRA", "0x10"),
    (0x50, "EXIT", ""),
]
"""A loop of two within a loop of four, behind one and before another."""


def test_loops_within_loops():
    from benchmarks.gpu.instructions import counted, loops

    assert loops(CODE) == [(0x10, 0x40), (0x20, 0x30)]
    assert counted(CODE, (2, 5)) == (1 + 2 * (1 + 5 * 2 + 1) + 1, 2 * 5)
    with pytest.raises(ValueError, match="trips: expected those of 2 loops"):
        counted(CODE, (2,))


def test_what_the_rows_name_is_launched():
    from benchmarks.gpu.instructions import ROWS
    from tests.kernels.launches import CASES

    assert {row.launch for row in ROWS} <= set(CASES)
