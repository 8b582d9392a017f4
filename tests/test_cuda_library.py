"""The CUDA library: built wherever nvcc is; its results are tested where there is a GPU."""

from __future__ import annotations

import importlib.util

import pytest
import scipy.special
import torch

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sure_fast._cuda") is None, reason="sure_fast was built without nvcc"
)


def test_loads_without_a_gpu():
    from sure_fast import _cuda

    assert callable(_cuda.special_function)


def test_memory_of_another_device_never_reaches_a_kernel():
    from sure_fast import _cuda

    x = torch.zeros(8)
    with pytest.raises(ValueError, match="expected a tensor on a CUDA device for its kernels, got one on cpu"):
        _cuda.special_function("digamma", _cuda.Stream(0, 1), x, x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("name", ["digamma", "trigamma"])
def test_gamma_family_on_the_device(name, dtype, bound):
    from sure_fast import _cuda

    x = (1 + torch.logspace(-6, 8, 100_001, dtype=torch.float64)).to("cuda", dtype)
    out = torch.full_like(x, torch.nan)
    _cuda.special_function(name, _cuda.Stream(torch.cuda.current_stream().cuda_stream, 16), x, out)
    wide = x.double().cpu().numpy()
    want = scipy.special.digamma(wide) if name == "digamma" else scipy.special.polygamma(1, wide)
    scale = abs(want).clip(1) if name == "digamma" else abs(want)
    assert (abs(out.double().cpu().numpy() - want) / scale).max() < bound
