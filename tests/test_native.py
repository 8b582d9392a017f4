"""The boundary of the compiled modules: their stubs, and that no wrong memory crosses it."""

from __future__ import annotations

import ast
import gc
import importlib
import importlib.util
import re
import weakref
from pathlib import Path

import pytest
import torch

from sure_fast import _cpu

PACKAGE = Path(_cpu.__file__).parent


def in_stub(name: str) -> dict[str, list[str]]:
    """Parameters by function; those of a class are its constructor's."""
    found = {}
    for node in ast.parse((PACKAGE / f"{name}.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            found |= {a.name: in_stub(str(node.module))[a.name] for a in node.names}
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            function = node.body[0] if isinstance(node, ast.ClassDef) else node
            found[node.name] = [a.arg for a in function.args.args if a.arg != "self"]
    return found


def in_module(module: object) -> dict[str, list[str]]:
    """The same from the signatures that pybind11 writes."""
    found = {}
    for name, value in vars(module).items():
        if callable(value):
            text = (value.__init__.__doc__ if isinstance(value, type) else value.__doc__) or ""
            assert "::" not in text, text  # a C++ type that Python does not know
            found[name] = [p for p in re.findall(r"[(,] ?(\w+): ", text.splitlines()[0]) if p != "self"]
    return found


@pytest.mark.parametrize("name", ["_cpu", "_cuda"])
def test_stub_is_the_module(name):
    if importlib.util.find_spec(f"sure_fast.{name}") is None:
        pytest.skip("sure_fast was built without nvcc")
    assert in_stub(name) == in_module(importlib.import_module(f"sure_fast.{name}"))


def pair_args(**changes: object) -> _cpu.PairArgs:
    maps = {key: torch.rand(2, 40) for key in ("uncertainty", "gradient", "distance")}
    return _cpu.PairArgs(
        **(maps | {"label": None, "threshold": 1.0, "num_pairs": 0, "seed": 0, "normalize": False} | changes)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gradient": torch.rand(2, 40).double()}, "gradient: the kernel expects 80 contiguous elements of float32"),
        ({"distance": torch.rand(2, 39)}, r"distance: the kernel expects 80 .* got float32 \[2, 39\]"),
        ({"label": torch.rand(2, 40)}, "label: .* of uint8 or int8 or int16 or int32 or int64, got float32"),
        ({"gradient": torch.rand(40, 2).T}, "gradient: the kernel expects 80 contiguous"),
        ({"uncertainty": torch.zeros(2, 40, dtype=torch.complex64)}, "no kernel reads a tensor of torch.complex64"),
    ],
)
def test_a_wrong_tensor_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        pair_args(**changes)


def test_swapped_tensors_are_refused():
    args = pair_args()
    counts = torch.empty((2, _cpu.compact_chunks(40)), dtype=torch.int64)
    _cpu.gradient_uncertainty_count(args, counts)
    scratch = torch.empty(_cpu.gradient_uncertainty_workspace(args, 40), dtype=torch.uint8)
    loss, slope = torch.empty(2, dtype=torch.float64), torch.empty(2, 40)
    _cpu.gradient_uncertainty_forward(args, counts, 40, scratch, loss, slope)
    with pytest.raises(ValueError, match=r"(loss|slope): the kernel expects"):
        _cpu.gradient_uncertainty_forward(args, counts, 40, scratch, slope, loss)
    with pytest.raises(ValueError, match="scratch: the kernel expects"):
        _cpu.gradient_uncertainty_forward(args, counts, 40, scratch[1:], loss, slope)
    with pytest.raises(TypeError):
        _cpu.gradient_uncertainty_forward(args, counts, 40, scratch.data_ptr(), loss, slope)


def test_arguments_keep_their_tensors_alive():
    u = torch.rand(2, 40)
    alive = weakref.ref(u)
    args = pair_args(uncertainty=u)
    del u
    gc.collect()
    assert alive() is not None
    del args
    gc.collect()
    assert alive() is None


def test_memory_of_another_device_never_reaches_a_kernel():
    with pytest.raises(ValueError, match="expected a tensor on the CPU for its kernels, got one on meta"):
        pair_args(uncertainty=torch.zeros(2, 40, device="meta"))


def test_choices_have_one_source():
    z, u = torch.randn(1, 3, 2, 2), torch.empty(1, 1, 2, 2)
    for evidence in _cpu.EVIDENCE:
        _cpu.dirichlet_uncertainty_forward(z, evidence, 1, u)
    with pytest.raises(ValueError, match="expected one of softplus, relu, exp, got digamma"):
        _cpu.dirichlet_uncertainty_forward(z, "digamma", 1, u)


def test_one_stride():
    volume = torch.rand(2, 3, 4, 5, 6)
    for t, single in [
        (volume, True),
        (volume.to(memory_format=torch.channels_last_3d), True),
        (volume[:, 1:], True),
        (volume[..., 1:], False),
        (volume.transpose(2, 3), False),
        (volume[:, :, :1, :, :1], True),
        (torch.rand(2, 3, 1, 1).expand(2, 3, 4, 5), True),
        (torch.rand(2, 3, 4, 1).expand(2, 3, 4, 5), False),
        (torch.rand(2, 3, 1, 5).expand(2, 3, 4, 5), False),
        (volume[:0], True),
    ]:
        assert _cpu.has_one_stride(t) == single
