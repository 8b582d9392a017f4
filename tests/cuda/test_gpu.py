"""Every op with a GPU kernel, on a GPU. Skipped where there is none."""

from __future__ import annotations

import importlib

import pytest
import torch

import sure_fast
from sure_fast.ops import _calls
from tests.cuda.gpu_cases import CASES, SYNCHRONISES, assert_near, available, inputs_of, run

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


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_the_reference(name, backend, shape, dtype):
    case = CASES[name]
    got = run(case, inputs_of(case, shape, "cuda", dtype=dtype), backend)
    assert all(t.is_cuda for t in got)
    want = run(case, inputs_of(case, shape, "cpu", dtype=dtype), "reference")
    if dtype == torch.bfloat16 and name.startswith(("gradient_uncertainty_loss", "uncertainty_supervision")):
        # which pairs of rounded u are out of order is another matter than how much
        number = len(got) - len(case.differentiated)
        assert_near(name, got[:number], want[:number], gradients=False)
        return
    assert_near(name, got, want)


@pytest.mark.parametrize("name", ["dirichlet_uncertainty", "gradient_magnitude"])
def test_more_elements_than_32_bits_count(name):
    """Offsets beyond 2^31, in a tensor of 4.3 GB; the last values are those of the same voxels alone."""
    if torch.cuda.get_device_properties(0).total_memory < 20 * 2**30:
        pytest.skip("needs 20 GB of device memory")
    size = (1, 1, 1032, 1032, 2048)
    assert torch.Size(size).numel() > 2**31
    x = torch.zeros(size, dtype=torch.bfloat16, device="cuda")
    corner = torch.randn(1, 1, 8, 8, 8).to(x)
    x[..., -8:, -8:, -8:] = corner
    if name == "dirichlet_uncertainty":
        got, want = sure_fast.dirichlet_uncertainty(x), sure_fast.dirichlet_uncertainty(corner)
    else:
        got, want = sure_fast.gradient_magnitude(x), sure_fast.gradient_magnitude(corner)
        got, want = got[..., 1:, 1:, 1:], want[..., 1:, 1:, 1:]  # inside the corner
    assert torch.equal(got[..., -6:, -6:, -6:], want[..., -6:, -6:, -6:])


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
    assert_near(name, captured, run(case, other, backend))


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
    assert_near(name, got, want)


@every_case
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="this machine has one GPU")
def test_runs_on_the_device_of_its_arguments(name, backend):
    case = CASES[name]
    torch.cuda.set_device(0)
    got = run(case, inputs_of(case, SHAPES[0], "cuda:1"), backend)
    assert {t.device.index for t in got} == {1}
    assert torch.cuda.current_device() == 0
    assert_near(name, got, run(case, inputs_of(case, SHAPES[0], "cpu"), "reference"))


@every_loss
def test_compiles_whole(name, backend):
    case = CASES[name]
    if name == "sample_hard_patches":
        pytest.skip("torch.compile does not trace generators")
    tensors = inputs_of(case, SHAPES[0], "cuda")
    compiled = torch.compile(lambda **t: case.call(**t, backend=backend), fullgraph=True)
    got, want = compiled(**tensors), case.call(**tensors, backend=backend)
    flat = [[x] if isinstance(x, torch.Tensor) else list(x) for x in (got, want)]
    assert_near(name, *([t.detach() for t in x] for x in flat), gradients=False)


@pytest.mark.parametrize("form", [{}, {"support": "patch", "noise": "mean", "patch_size": 3}], ids=["image", "patch"])
def test_the_whole_loss_agrees_with_the_cpus(form):
    losses = []
    for device in ("cuda", "cpu"):
        torch.manual_seed(0)
        model = torch.nn.Conv3d(1, 3, 3, padding=1).to(device)
        generator = torch.Generator().manual_seed(1)
        image = torch.randn((2, 1, 16, 18, 20), generator=generator).to(device)
        label = torch.randint(0, 3, (2, 16, 18, 20), generator=generator).to(device)
        loss_fn = sure_fast.UncertaintySupervisedLoss(num_epochs=4, start_epoch=2, beta=10.0, **form)
        generator = torch.Generator().manual_seed(2)  # the CPU's: the same noise on both
        out = loss_fn(model(image), label, image, epoch=3, model=model, generator=generator)
        assert out.noise > 0
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
