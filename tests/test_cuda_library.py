"""The CUDA library: built wherever nvcc is; its results are tested where there is a GPU."""

from __future__ import annotations

import importlib.util

import pytest
import torch

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sure_fast._cuda") is None, reason="sure_fast was built without nvcc"
)


def test_loads_without_a_gpu():
    from sure_fast import _cuda

    assert callable(_cuda.spearman_forward)


def test_memory_of_another_device_never_reaches_a_kernel():
    from sure_fast import _cuda

    x = torch.zeros(1, 8)
    with pytest.raises(ValueError, match="expected a tensor on a CUDA device for its kernels, got one on cpu"):
        _cuda.RowPairArgs(x, x, None)


def test_it_says_what_it_was_built_for():
    from sure_fast import _cuda

    assert tuple(sorted(set(_cuda.SASS))) == _cuda.SASS
    assert _cuda.SASS[0] == _cuda.PTX  # whatever is later has code
    driver, own = _cuda.versions()
    assert driver >= 0
    assert own >= 11000
