"""Where the kernels for a GPU run on a machine without one, memory that shows what was not written, and Ctrl-C."""

from __future__ import annotations

import os
import signal

import pytest
import torch

# Triton's interpreter must be chosen before Triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A shell starts what it runs in the background with Ctrl-C ignored, and a program that is started so keeps ignoring it:
# the tests of Ctrl-C, and the programs that they start, get the handler of one in the foreground.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _checked_addresses():
    """Interpreted kernels of Triton stay within their arguments."""
    from sure_fast.ops import _triton

    if _triton.MISSING is not None or not _triton.INTERPRETED:
        yield
        return
    from tests.kernels import addresses

    with addresses.checked():
        yield


@pytest.fixture
def poisoned_memory():
    """Uninitialised tensors are filled with NaN (or the largest integer), so that an unwritten output shows."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    # torch's own kernels of a GPU may be indeterministic
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before


@pytest.fixture(scope="session")
def library():
    """The CUDA library for the CPU, compiled where it has changed."""
    from tests.cuda import emulated

    return emulated.load(emulated.build(emulated.FOLDER))


@pytest.fixture
def emulation(library):
    """backend="cuda" runs emulated kernels on CPU tensors."""
    from tests.cuda import emulated

    with emulated.emulate(library) as module:
        yield module
