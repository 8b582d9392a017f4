"""Every op with a GPU kernel, on a GPU. Skipped where there is none."""

from __future__ import annotations

import importlib

import pytest
import torch

import sure_fast
from sure_fast.ops import _calls
from tests.cuda.gpu_cases import CASES, SYNCHRONISES, available, inputs_of, run

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU"),
]
SHAPES = ((2, 33, 34), (1, 11, 23, 17), (1, 1, 1), (2, 300, 310))
every_case = pytest.mark.parametrize(("name", "backend"), available())
every_loss = pytest.mark.parametrize(("name", "backend"), [c for c in available() if c[0] not in SYNCHRONISES])


@pytest.fixture(autouse=True)
def _sorted(monkeypatch):
    """Small images too take the way of large ones."""
    monkeypatch.setattr(importlib.import_module("sure_fast.ops.gradient_uncertainty_loss"), "COMPARED", 100)


def assert_near(got, want):
    for x, y in zip(got, want, strict=True):
        assert x.dtype == y.dtype
        x, y = x.cpu(), y.cpu()
        scale = float(y.abs().max()) if y.is_floating_point() and y.numel() else 1.0
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5 * scale if scale < float("inf") else 1e-5, equal_nan=True)


@every_case
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_the_reference(name, backend, shape):
    case = CASES[name]
    if any(s < 3 for s in shape) and name == "boundary_distance":
        pytest.skip("blocks of labels need room")
    got = run(case, inputs_of(case, shape, "cuda"), backend)
    assert all(t.is_cuda for t in got)
    assert_near(got, run(case, inputs_of(case, shape, "cpu"), "reference"))


@every_case
def test_is_chosen_without_asking(name, backend):
    tensors = inputs_of(CASES[name], SHAPES[0], "cuda")
    got = run(CASES[name], tensors, None)
    if next(b for n, b in available() if n == name) == backend:
        assert all(torch.equal(x, y) for x, y in zip(got, run(CASES[name], tensors, backend), strict=True))


@every_case
def test_two_runs_are_bit_equal(name, backend):
    tensors = inputs_of(CASES[name], SHAPES[3], "cuda")
    first, second = (run(CASES[name], tensors, backend) for _ in range(2))
    for x, y in zip(first, second, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)


@every_loss
def test_does_not_wait_for_the_device(name, backend):
    tensors = inputs_of(CASES[name], SHAPES[3], "cuda")
    run(CASES[name], tensors, backend)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(CASES[name], tensors, backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@every_loss
def test_is_captured_by_a_graph(name, backend):
    case = CASES[name]
    if name == "sample_hard_patches":
        pytest.skip("a generator of one's own has to be registered with the graph")
    tensors = inputs_of(case, SHAPES[3], "cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            run(case, tensors, backend)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(case, tensors, backend)
    other = inputs_of(case, SHAPES[3], "cuda", seed=1)
    with torch.no_grad():
        for key, t in tensors.items():
            t.copy_(other[key])
    graph.replay()
    torch.cuda.synchronize()
    assert_near(captured, run(case, other, backend))


@every_case
def test_runs_on_the_current_stream(name, backend):
    case = CASES[name]
    want = run(case, inputs_of(case, SHAPES[3], "cuda", seed=1), backend)
    tensors = inputs_of(case, SHAPES[3], "cuda")
    other = inputs_of(case, SHAPES[3], "cuda", seed=1)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(20_000_000)  # what comes before on this stream has not been done when the op is called
        with torch.no_grad():
            for key, t in tensors.items():
                t.copy_(other[key])
        got = run(case, tensors, backend)
    torch.cuda.current_stream().wait_stream(side)
    assert_near(got, want)


@every_case
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="this machine has one GPU")
def test_runs_on_the_device_of_its_arguments(name, backend):
    case = CASES[name]
    torch.cuda.set_device(0)
    got = run(case, inputs_of(case, SHAPES[0], "cuda:1"), backend)
    assert {t.device.index for t in got} == {1}
    assert torch.cuda.current_device() == 0
    assert_near(got, run(case, inputs_of(case, SHAPES[0], "cpu"), "reference"))


@every_loss
def test_compiles_whole(name, backend):
    case = CASES[name]
    if name == "sample_hard_patches":
        pytest.skip("torch.compile does not trace generators")
    tensors = inputs_of(case, SHAPES[0], "cuda")
    compiled = torch.compile(lambda **t: case.call(**t, backend=backend), fullgraph=True)
    got, want = compiled(**tensors), case.call(**tensors, backend=backend)
    flat = [[x] if isinstance(x, torch.Tensor) else list(x) for x in (got, want)]
    assert_near(*([t.detach() for t in x] for x in flat))


def test_the_whole_loss_agrees_with_the_cpus():
    losses = []
    for device in ("cuda", "cpu"):
        torch.manual_seed(0)
        model = torch.nn.Conv3d(1, 3, 3, padding=1).to(device)
        generator = torch.Generator().manual_seed(1)
        image = torch.randn((2, 1, 16, 18, 20), generator=generator).to(device)
        label = torch.randint(0, 3, (2, 16, 18, 20), generator=generator).to(device)
        loss_fn = sure_fast.UncertaintySupervisedLoss(num_epochs=4, start_epoch=2, beta=10.0, gamma=0.0)
        out = loss_fn(model(image), label, image, epoch=3, model=model)
        out.total.backward()
        losses.append((out.total.detach().cpu(), model.weight.grad.cpu()))
    torch.testing.assert_close(*losses, rtol=2e-2, atol=1e-2)


def test_bad_input_is_named(monkeypatch):
    u = torch.rand(1, 8, 8)
    with pytest.raises(ValueError, match=r"gradient: expected the device of uncertainty \(cuda:0\), got cpu"):
        sure_fast.gradient_uncertainty_loss(u.cuda(), u, u.cuda())
    with pytest.raises(ValueError, match="backend 'cuda' was requested, but the uncertainty is on cpu"):
        sure_fast.gradient_uncertainty_loss(u, u, u, backend="cuda")
    with pytest.raises(ValueError, match="backend 'cpu' was requested, but the uncertainty is on cuda:0"):
        sure_fast.gradient_uncertainty_loss(u.cuda(), u.cuda(), u.cuda(), backend="cpu")
    monkeypatch.setattr(_calls, "missing", "the CUDA library is missing: sure_fast was built without nvcc (test)")
    with pytest.raises(ValueError, match="but the CUDA library is missing: sure_fast was built without nvcc"):
        sure_fast.gradient_uncertainty_loss(u.cuda(), u.cuda(), u.cuda(), backend="cuda")
