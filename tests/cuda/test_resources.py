from __future__ import annotations

import shutil

import pytest

from tests.cuda.emulated import CSRC
from tests.cuda.resources import ARCHITECTURES, every_kernel, parse, wrong


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("nvcc"), reason="nvcc is not here")
def test_no_kernel_spills_or_needs_a_stack():
    kernels = every_kernel()
    assert {k.architecture for k in kernels} == set(ARCHITECTURES)
    assert len(kernels) > 2 * len(list((CSRC / "cuda").glob("*.cu")))
    assert wrong(kernels) == []


def test_the_report_is_read():
    report = """ptxas info    : Compiling entry function '_Z1kv' for 'sm_90'
ptxas info    : Function properties for _Z1kv
    16 bytes stack frame, 40 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 16 bytes cumulative stack size, 12288 bytes smem
"""
    (found,) = parse(report, "90")
    assert found == ("90", "_Z1kv", 40, 12288, 16, 64)
    assert wrong([found]) == [found]
    assert wrong([found._replace(stack=0, spilled=0)]) == []
