"""Why the CUDA kernels would not run; needs no GPU."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sure_fast import _backends, info
from sure_fast.engine.backends import backend_on
from sure_fast.ops import _calls, _triton

CUDA_OPS = [op for op, backends in _backends.registered().items() if "cuda" in backends]


def test_order_of_backends():
    for op in CUDA_OPS:
        names = [b for b in _backends.registered()[op] if b in ("cpu", "triton", "cuda", "reference")]
        assert names == sorted(names, key=_backends.BACKENDS.index)


def test_reasons(monkeypatch):
    u = torch.rand(1, 8, 8)
    meta = torch.zeros(1, 8, 8, device="meta")
    assert _calls.supports("uncertainty", u) == "the uncertainty is on cpu, not on a CUDA device"
    monkeypatch.setattr(_calls, "device_type", "meta")
    monkeypatch.setattr(_calls, "missing", None)
    assert _calls.supports("uncertainty", meta) is None
    assert _calls.supports("uncertainty", meta, most=63) == "the uncertainty has 64 elements, more than 63"
    monkeypatch.setattr(_calls, "missing", "the CUDA library is missing: …")
    assert _calls.supports("uncertainty", meta) == "the CUDA library is missing: …"


class Library:
    """What it was built for, as setup.py tells it."""

    def __init__(self, sass: tuple[int, ...], ptx: int) -> None:
        self.SASS, self.PTX = sass, ptx
        self.versions = lambda: (13000, 13000)


@pytest.fixture
def device(monkeypatch):
    """Makes the library and the device that torch tells of; nothing here has one."""

    def make(capability: tuple[int, int], sass: tuple[int, ...], ptx: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "GPU of a test")
        monkeypatch.setattr(_calls, "library", Library(sass, ptx))
        monkeypatch.setattr(_calls, "missing", None)

    for module in (_calls._not_built_for, _triton._too_old):
        module.cache_clear()
    yield make
    for module in (_calls._not_built_for, _triton._too_old):
        module.cache_clear()


@pytest.mark.parametrize(
    ("capability", "sass", "ptx", "runs"),
    [
        ((8, 0), (80, 90), 80, True),
        ((8, 6), (80, 90), 90, True),  # machine code of 8.0
        ((8, 9), (80, 90), 90, True),
        ((9, 0), (90,), 90, True),
        ((10, 0), (80, 90), 90, True),  # PTX of 9.0
        ((12, 1), (120,), 120, True),
        ((10, 3), (80, 100), 120, True),
        ((8, 0), (90,), 90, False),
        ((7, 5), (80, 90), 80, False),
        ((8, 0), (86,), 86, False),  # machine code runs on later minor versions only
        ((11, 0), (80, 90, 120), 120, False),
        ((9, 0), (80, 120), 120, False),
    ],
)
def test_what_a_library_runs_on(capability, sass, ptx, runs, device):
    device(capability, sass, ptx)
    assert _calls.runs_on(capability) == runs
    assert (_calls.architecture(0) is None) == runs


def test_a_library_for_other_gpus(device, monkeypatch):
    device((8, 0), (90, 100), 90)
    text = (
        "cuda:0 (GPU of a test) has compute capability 8.0, and the CUDA library was built for 9.0 and 10.0 "
        "with PTX of 9.0; build sure_fast again with SURE_FAST_CUDA_ARCHS=80"
    )
    assert _calls.architecture(0) == text
    assert _triton.architecture(0) is None
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(_triton, "MISSING", None)
    assert backend_on("gradient_uncertainty_loss", cuda) == "reference"
    assert backend_on("evidential_loss", cuda) == "triton"
    assert f"CUDA        GPU of a test; {text}" in info.report().splitlines()


@pytest.mark.parametrize("versions", [(12080, 13000), (11080, 12010)])
def test_a_driver_older_than_the_library(versions, device):
    device((9, 0), (90,), 90)
    _calls.library.versions = lambda: versions
    old, own = (f"{number // 1000}.{number % 1000 // 10}" for number in versions)
    assert _calls.architecture(0) == (
        f"the driver of cuda:0 knows CUDA up to {old}, and the CUDA library was built by nvcc {own}; update the "
        f"driver, or build sure_fast with an nvcc {versions[0] // 1000}"
    )


def test_a_driver_that_is_as_old_as_its_major_version_allows(device):
    device((9, 0), (90,), 90)
    _calls.library.versions = lambda: (12010, 12080)  # minor versions of one major version are compatible
    assert _calls.architecture(0) is None


def test_it_is_refused_where_asked_for_and_told_once_where_not(device, monkeypatch):
    device((8, 0), (90,), 90)
    monkeypatch.setattr(_backends, "_warned", set())
    with FakeTensorMode():
        u = torch.zeros(1, 8, 8, device="cuda:0")
    with pytest.raises(
        ValueError, match=r"backend 'cuda' was requested, but cuda:0 .* was built for 9.0 with PTX of 9.0"
    ):
        _backends.choose("gradient_uncertainty_loss", "cuda", u)
    with pytest.warns(UserWarning, match=r"reference on a CUDA tensor \(cuda: cuda:0 .* build sure_fast again with"):
        assert _backends.choose("gradient_uncertainty_loss", None, u) == "reference"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _backends.choose("gradient_uncertainty_loss", None, u) == "reference"
        monkeypatch.setattr(_calls, "library", Library((80,), 80))
        assert _backends.choose("gradient_uncertainty_loss", None, u) == "reference"  # a device is asked once
        _calls._not_built_for.cache_clear()
        assert _backends.choose("gradient_uncertainty_loss", None, u) == "cuda"


@pytest.mark.parametrize(("capability", "supported"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_what_triton_runs_on(capability, supported, device):
    device(capability, (75,), 75)
    reason = _triton.architecture(0)
    assert (reason is None) == supported
    assert supported or reason == "cuda:0 has compute capability 7.5, and Triton's kernels need 8.0"


def test_imports_without_the_library():
    code = (
        "import sys; sys.modules['sure_fast._cuda'] = None\n"
        "import torch, sure_fast; u = torch.rand(1, 4, 4); print(sure_fast.gradient_uncertainty_loss(u, u, u).item())\n"
        "from sure_fast.ops import _calls; print(_calls.missing)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "the CUDA library is missing: sure_fast was built without nvcc (" in done.stdout
