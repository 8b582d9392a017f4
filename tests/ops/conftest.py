from __future__ import annotations

import pytest
import torch

from tests.ops import backends


@pytest.fixture(autouse=True)
def _poisoned(poisoned_memory):
    """Every test of an op sees what was not written."""


def pytest_generate_tests(metafunc):
    backends.parametrize(metafunc)


def running(request):
    backend, constants = request.param
    with pytest.MonkeyPatch.context() as patch:
        for name, value in constants.items():
            patch.setattr(backend.module, name, value)
        with backend.running(request.getfixturevalue):
            yield backend


@pytest.fixture
def backend(request):
    """The op's reference or one of its kernels."""
    yield from running(request)


@pytest.fixture
def kernel(request):
    """One of the op's kernels."""
    yield from running(request)


@pytest.fixture
def variant(request):
    """One of the op's kernels on one instruction set, or in another of its ways."""
    yield from running(request)


@pytest.fixture
def threads():
    """Sets torch's number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
