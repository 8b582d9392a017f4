from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _poisoned_memory():
    """Uninitialised tensors are filled with NaN (or the largest integer), so that an unwritten output shows."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request):
    """Runs a test on every instruction set of this machine."""
    from sure_fast import _cpu

    levels = ["baseline", "avx2", "avx512"]
    if levels.index(request.param) > levels.index(_cpu.best_isa()):
        pytest.skip(f"this machine has no {request.param}")
    before = _cpu.isa()
    _cpu.set_isa(request.param)
    yield request.param
    _cpu.set_isa(before)


@pytest.fixture
def threads():
    """Sets torch's number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
