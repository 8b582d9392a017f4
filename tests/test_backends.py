from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest
import torch

import sure_fast
from sure_fast import _backends, _cpu


def test_order_of_requests(monkeypatch):
    image = torch.rand(1, 1, 4, 4)
    choose = _backends.choose
    assert choose("gradient_magnitude", None, image) == "cpu"
    assert choose("gradient_magnitude", "reference", image) == "reference"
    with sure_fast.use_backend("reference"):
        assert choose("gradient_magnitude", None, image) == "reference"
        assert choose("gradient_magnitude", "cpu", image) == "cpu"
        with sure_fast.use_backend(None):
            assert choose("gradient_magnitude", None, image) == "cpu"
    assert choose("gradient_magnitude", None, image) == "cpu"


def test_use_backend_is_left_on_an_error():
    with pytest.raises(RuntimeError, match="inside"), sure_fast.use_backend("reference"):
        raise RuntimeError("inside")
    assert _backends.requested() is None
    with pytest.raises(ValueError, match="use_backend: expected one of cpu, triton, cuda, reference, got 'gpu'"):
        sure_fast.use_backend("gpu")


def test_use_backend_without_a_block_and_as_a_decorator():
    image = torch.rand(1, 1, 4, 4)

    @sure_fast.use_backend("reference")
    def within():
        return _backends.choose("gradient_magnitude", None, image)

    assert [within(), _backends.requested(), within(), _backends.requested()] == ["reference", None, "reference", None]
    try:
        sure_fast.use_backend("reference")  # said as the README says it, it is not ignored
        assert _backends.choose("gradient_magnitude", None, image) == "reference"
        with sure_fast.use_backend("cpu"):
            assert _backends.requested() == "cpu"
        assert _backends.requested() == "reference"
    finally:
        sure_fast.use_backend(None)
    assert _backends.requested() is None


def test_impossible_requests_say_why():
    meta = torch.zeros(1, 1, 4, 4, device="meta")
    with pytest.raises(ValueError, match="backend 'cpu' was requested, but the image is on meta, not on the CPU"):
        sure_fast.gradient_magnitude(meta, backend="cpu")
    text = "spearman: backend 'triton' was requested, but the op has only cpu, cuda, reference"
    with pytest.raises(ValueError, match=text):
        sure_fast.spearman(torch.rand(3), torch.rand(3), backend="triton")


def test_the_reference_on_the_cpu_is_told_once(monkeypatch):
    """Where the op has a kernel for the CPU that cannot take these arguments; under compilation nothing is said."""
    monkeypatch.setattr(_backends, "_registry", dict(_backends._registry))
    monkeypatch.setattr(_backends, "_warned", set())
    small = _backends._registry["gradient_uncertainty_loss"]
    too_large = {"cpu": lambda *_, **__: "an image has 5000000000 voxels, more than 4294967295"}
    _backends._registry["gradient_uncertainty_loss"] = {**small, **too_large}
    u = torch.rand(1, 1, 4, 4)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(3):
            sure_fast.gradient_uncertainty_loss(u, u, torch.zeros(1, 4, 4))
    assert [str(w.message) for w in said] == [
        "sure_fast.gradient_uncertainty_loss runs its plain PyTorch reference on a CPU tensor "
        "(cpu: an image has 5000000000 voxels, more than 4294967295)"
    ]
    monkeypatch.setattr(_backends, "_warned", set())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        sure_fast.gradient_uncertainty_loss(u, u, torch.zeros(1, 4, 4), backend="reference")  # as asked for
        with sure_fast.use_backend("reference"):
            sure_fast.gradient_uncertainty_loss(u, u, torch.zeros(1, 4, 4))
        compiled = torch.compile(sure_fast.gradient_uncertainty_loss, backend="aot_eager")
        compiled(u, u, torch.zeros(1, 4, 4))
    assert not [str(w.message) for w in said if "sure_fast" in str(w.message)]  # torch.compile has warnings of its own


def test_no_ordinary_cpu_tensor_runs_on_the_reference():
    """Of any type, number of axes, strides and thresholds."""
    for op, backends in _backends.registered().items():
        assert backends[0] == "cpu", op
    for shape in ((2, 3, 8, 9), (1, 3, 4, 5, 6)):
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            logits = torch.randn(shape).to(dtype)
            label = torch.randint(0, 3, (shape[0], *shape[2:]))
            for x in (
                logits,
                logits.movedim(1, -1).contiguous().movedim(-1, 1),
                logits.transpose(-1, -2),
                logits[..., ::2],
            ):
                for op in _backends.registered():
                    first = label if op in ("boundary_distance", "surface_distances") else x
                    given = {"num_classes": 1000} if op == "sample_hard_patches" else {}
                    if op == "uncertainty_supervision":
                        given = {"image": x, "gradient_threshold": 50.0, "noise_threshold": 100.0, "channels": "max"}
                    chosen = [c.backend for c in sure_fast.explain(op, first, first, **given) if c.chosen]
                    assert chosen == ["cpu"], (op, shape, dtype)


def test_explain():
    found = sure_fast.explain(sure_fast.evidential_loss, torch.rand(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))
    assert [c.backend for c in found if c.chosen] == ["cpu"]
    assert str(found).splitlines()[0] == "evidential_loss"
    assert "-> cpu" in str(found)
    forced = sure_fast.explain("gradient_magnitude", torch.rand(1, 1, 4, 4), backend="reference")
    assert [c.backend for c in forced if c.chosen] == ["reference"]
    elsewhere = sure_fast.explain("gradient_magnitude", torch.zeros(1, 1, 4, 4, device="meta"))
    assert [c.backend for c in elsewhere if c.chosen] == ["reference"]
    assert "meta" in elsewhere[0].reason
    with pytest.raises(ValueError, match=r"op: expected one of .*, got 'sobel'"):
        sure_fast.explain("sobel")


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_environment(isa):
    levels = ["baseline", "avx2", "avx512"]
    if levels.index(isa) > levels.index(_cpu.best_isa()):
        pytest.skip(f"this machine has no {isa}")
    code = (
        "import torch, sure_fast; from sure_fast import _cpu; "
        "print(_cpu.isa(), sure_fast.explain('gradient_magnitude', torch.rand(1, 1, 3, 3)))"
    )
    environment = {**os.environ, "SURE_FAST_ISA": isa, "SURE_FAST_BACKEND": "reference"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(isa)
    assert "-> reference" in done.stdout


def test_bad_environment_is_named():
    for name, value in (("SURE_FAST_ISA", "avx9000"), ("SURE_FAST_BACKEND", "fast")):
        environment = {**os.environ, name: value}
        done = subprocess.run(
            [sys.executable, "-c", "import sure_fast"], env=environment, capture_output=True, text=True
        )
        assert done.returncode != 0
        assert f"{name}: expected one of" in done.stderr


def test_openmp_runtime_is_torchs():
    """In a process of its own: other packages bring theirs."""
    code = (
        "import sure_fast; print(*{x.split()[-1] for x in open('/proc/self/maps') if 'libgomp' in x or 'libomp' in x})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert len(done.stdout.split()) <= 1


INPUTS = (
    torch.arange(1000.0).reshape(1, 1, 10, 10, 10),
    torch.zeros(1, 2, 40, 40, 40),
    torch.zeros(1, 40, 40, 40).long(),
)


def _run_kernels(_):
    """Small torch calls only: torch's own parallel loops hang in a forked child."""
    image, logits, target = INPUTS
    return float(sure_fast.gradient_magnitude(image).sum()) + float(sure_fast.evidential_loss(logits, target).data)


@pytest.mark.skipif(sys.platform != "linux", reason="fork is Linux's way to start workers")
def test_forked_workers_do_not_hang():
    """The parent has used OpenMP threads; a forked child would wait for threads that fork did not copy."""
    want = _run_kernels(0)
    code = (
        "import torch, sure_fast, multiprocessing as mp; from tests.test_backends import _run_kernels; "
        "_run_kernels(0); p = mp.get_context('fork').Pool(2); print(*p.map(_run_kernels, range(4)))"
    )
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert [float(v) for v in done.stdout.split()] == [want] * 4
