from __future__ import annotations

import pytest

from tests.cuda import emulated
from tests.ops.conftest import _poisoned_memory  # noqa: F401

ORDERS = {"forward": (0, 0), "reverse": (1, 0), "random": (2, 7), "random again": (2, 8)}


@pytest.fixture(scope="session")
def library():
    """The CUDA library for the CPU, compiled where it has changed."""
    return emulated.load(emulated.build(emulated.FOLDER))


@pytest.fixture
def emulation(library):
    """backend="cuda" runs emulated kernels on CPU tensors."""
    with emulated.emulate(library) as module:
        yield module
