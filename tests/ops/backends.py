"""An op as its tests run it: on its reference or on a kernel, wherever this machine can run that.

A test takes one of three fixtures, whose parameters are what the op of its file registers: `backend`, the reference and
every kernel; `kernel`, every kernel; `variant`, every kernel in each of its variants, which are the instruction sets of
the CPU and those that the file gives as VARIANTS = {backend: {name: constants of the op's module}}. A parameter `dtype`
beside them takes the dtypes that the backend computes with. `@on("cpu")` narrows a fixture to the backends that a
test is about. Triton's kernels run on the GPU or else in Triton's interpreter, those in CUDA C++ on the GPU or else in
the emulator.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor
from torch.utils import _pytree as pytree

import sure_fast
from sure_fast import _backends, _cpu
from sure_fast.ops import _calls, _triton
from tests._tolerances import tolerance

ISAS = ("baseline", "avx2", "avx512")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
HALVES = DTYPES[2:]
NO_DOUBLE = ("triton",)
"""Backends that compute in float32 at most."""

on = pytest.mark.on
drawn = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""Of hypothesis: a backend is the same for every example."""


class Backend:
    """Calls the op: `kernel(*arguments, **options)` takes and returns tensors of the CPU, wherever it runs."""

    def __init__(self, op: str, name: str, variant: str = "") -> None:
        self.op, self.name, self.variant = op, name, variant
        self.module = importlib.import_module(f"sure_fast.ops.{op}")
        gpu = torch.cuda.is_available() and (name == "triton" or (name == "cuda" and _calls.missing is None))
        self.device = torch.device("cuda" if gpu else "cpu")
        self.emulated, self.interpreted = name == "cuda" and not gpu, name == "triton" and not gpu
        self.library: Any = None

    def __repr__(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name

    @property
    def requested(self) -> str | None:
        """What a caller says: nothing for the CPU's kernels, which need not be asked for."""
        return None if self.name == "cpu" else self.name

    @property
    def widest(self) -> torch.dtype:
        return torch.float32 if self.name in NO_DOUBLE else torch.float64

    def put(self, tree: Any) -> Any:
        """The same on the device; the strides stay, and what lies between the elements."""
        return pytree.tree_map_only(Tensor, self._put, tree) if self.device.type != "cpu" else tree

    def _put(self, t: Tensor) -> Tensor:
        if t.device == self.device or t.requires_grad or t.numel() == 0:
            return t.to(self.device)
        storage = torch.tensor([], dtype=t.dtype).set_(t.untyped_storage()).to(self.device)  # type: ignore[call-overload]
        return storage.as_strided(t.shape, t.stride(), t.storage_offset())

    def leaf(self, t: Tensor) -> Tensor:
        """The same on the device, to be differentiated by."""
        return self.put(t.detach()).detach().requires_grad_()

    def __call__(self, *args: Any, **options: Any) -> Any:
        result = getattr(sure_fast, self.op)(*self.put(args), backend=self.name, **self.put(options))
        return pytree.tree_map_only(Tensor, self._back, result) if self.device.type != "cpu" else result

    def _back(self, t: Tensor) -> Tensor:
        assert t.device.type == self.device.type
        return t.cpu()

    def agree(self, got: Tensor, want: Tensor, what: str = "", *, scaled: bool = False) -> None:
        """What it computed is what the float64 reference did, within `what`; `scaled`: relative to the largest."""
        bounds = tolerance(got.dtype, what, interpreted=self.interpreted)
        got, want = got.detach().cpu().double(), want.detach().double()
        scale = want.abs().max().clamp(min=1e-30) if scaled and want.numel() else 1.0
        torch.testing.assert_close(got / scale, want / scale, equal_nan=True, **bounds)

    def ways(self) -> Iterator[object]:
        """Runs that may not differ by a bit: other numbers of threads, other orders of them, or only again."""
        if self.name == "cpu":
            for count in (1, 2, 5):
                torch.set_num_threads(count)
                yield count
        elif self.emulated:
            from tests.cuda.emulated import ORDERS

            stream = self.library.Stream
            with pytest.MonkeyPatch.context() as patch:
                for order, multiprocessors in zip(ORDERS.values(), (2, 1, 5, 2), strict=True):
                    self.library.set_order(*order)
                    patch.setattr(self.library, "Stream", lambda handle, _, m=multiprocessors: stream(handle, m))
                    yield order
        else:
            yield from range(2)

    @contextmanager
    def running(self, fixture: Callable[[str], Any]) -> Iterator[None]:
        """Within the block it can be called."""
        isa, threads = _cpu.isa(), torch.get_num_threads()
        if self.emulated:
            self.library = fixture("emulation")
        if self.name == "cpu" and self.variant:
            _cpu.set_isa(self.variant)
        try:
            yield
        finally:
            _cpu.set_isa(isa)
            torch.set_num_threads(threads)


def assert_same_bits(results: Iterable[Any]) -> None:
    first, *others = [pytree.tree_leaves(result) for result in results]
    assert others
    for other in others:
        for got, want in zip(other, first, strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


def op_of(module: ModuleType) -> str:
    """test_X.py and test_X_<subject>.py test op X."""
    stem = module.__name__.rsplit(".", 1)[-1].removeprefix("test_")
    return max((op for op in _backends.registered() if f"{stem}_".startswith(f"{op}_")), key=len)


def variants(module: ModuleType, name: str) -> dict[str, dict[str, object]]:
    if name == "cpu":
        return {isa: {} for isa in ISAS}
    return getattr(module, "VARIANTS", {}).get(name, {"": {}})


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Gives `backend`, `kernel` and `variant` of a test, and `dtype`, what the op registers."""
    for fixture in {"backend", "kernel", "variant"}.intersection(metafunc.fixturenames):
        module = metafunc.module
        op, parameters = op_of(module), []
        names = [name for name in _backends.registered()[op] if fixture == "backend" or name != "reference"]
        narrowed = next((mark.args for mark in metafunc.definition.iter_markers("on")), names)
        assert set(narrowed) <= set(names), f"{op} has no {narrowed}"
        drawn_dtype = "dtype" in metafunc.fixturenames and not _given(metafunc, "dtype")
        for name in narrowed:
            for variant, constants in (variants(module, name) if fixture == "variant" else {"": {}}).items():
                given = Backend(op, name, variant), constants
                marks = _why_skipped(name, variant)
                if not drawn_dtype:
                    parameters.append(pytest.param(given, id=repr(given[0]), marks=marks))
                    continue
                for dtype in DTYPES[name in NO_DOUBLE :]:
                    # the interpreter takes its time, and tests of single cases have half precision too
                    slow = [pytest.mark.slow] if given[0].interpreted and dtype in HALVES else []
                    parameters.append(pytest.param(given, dtype, id=f"{given[0]}-{str(dtype)[6:]}", marks=marks + slow))
        metafunc.parametrize([fixture, "dtype"] if drawn_dtype else fixture, parameters, indirect=[fixture])


def _given(metafunc: pytest.Metafunc, name: str) -> bool:
    marks = metafunc.definition.iter_markers("parametrize")
    names = [mark.args[0] if isinstance(mark.args[0], str) else ",".join(mark.args[0]) for mark in marks]
    return name in [part.strip() for part in ",".join(names).split(",")]


def _why_skipped(name: str, variant: str) -> list[pytest.MarkDecorator]:
    if name == "triton" and _triton.MISSING is not None:
        return [pytest.mark.skip(reason=_triton.MISSING)]
    if name == "cpu" and variant and ISAS.index(variant) > ISAS.index(_cpu.best_isa()):
        return [pytest.mark.skip(reason=f"this machine has no {variant}")]
    return []
