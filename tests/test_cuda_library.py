"""The CUDA library: built wherever nvcc is; its results are tested where there is a GPU."""

from __future__ import annotations

import importlib.util

import pytest
import scipy.special
import torch

NAMES = ["exponential", "logarithm", "log_one_plus", "softplus", "sigmoid", "digamma", "trigamma", "entropic"]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sure_fast._cuda") is None, reason="sure_fast was built without nvcc"
)


def test_loads_without_a_gpu():
    from sure_fast import _cuda

    assert callable(_cuda.special_function)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("name", ["digamma", "trigamma"])
def test_gamma_family_on_the_device(name, dtype, bound):
    from sure_fast import _cuda

    x = (1 + torch.logspace(-6, 8, 100_001, dtype=torch.float64)).to("cuda", dtype)
    out = torch.full_like(x, torch.nan)
    queue = _cuda.Queue(torch.cuda.current_stream().cuda_stream, 16)
    _cuda.special_function(queue, NAMES.index(name), dtype == torch.float64, x.data_ptr(), x.numel(), out.data_ptr())
    wide = x.double().cpu().numpy()
    want = scipy.special.digamma(wide) if name == "digamma" else scipy.special.polygamma(1, wide)
    scale = abs(want).clip(1) if name == "digamma" else abs(want)
    assert (abs(out.double().cpu().numpy() - want) / scale).max() < bound
