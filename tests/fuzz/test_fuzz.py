"""Some drawn calls of every op; `make fuzz` goes on for minutes."""

from __future__ import annotations

import pytest
from torch._subclasses import CrossRefFakeMode

from sure_fast import _backends
from tests.fuzz.__main__ import main, run_case
from tests.fuzz.checks import CHECKS

CASES, EMULATED_CASES = 25, 6


def test_every_op_has_an_oracle():
    assert set(CHECKS) == set(_backends.registered())


@pytest.mark.parametrize("op", CHECKS)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_drawn_calls(op, backend):
    for seed in range(CASES):
        run_case(op, seed, backend)


class Promises(CrossRefFakeMode):
    """Beside each of our kernels its fake runs: what it says of shapes, dtypes and strides has to come."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace != "sure_fast":
            return func(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)


@pytest.mark.parametrize("op", CHECKS)
def test_fake_kernels_tell_what_comes(op):
    with Promises():
        for seed in range(2 * CASES):
            run_case(op, seed, "cpu")


@pytest.mark.parametrize("op", [op for op in CHECKS if "cuda" in _backends.registered()[op]])
def test_drawn_calls_of_emulated_kernels(op, emulation):
    for seed in range(EMULATED_CASES):
        run_case(op, seed, "cuda")


def test_the_command_tells_what_failed(monkeypatch, capsys):
    def check(rng, backend):
        assert rng.random() < 0.5, "expected less, got more"

    monkeypatch.setitem(CHECKS, "spearman", check)
    assert main(["spearman", "--seconds", "5", "--backend", "cpu"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("spearman, cpu, --case ")
    case = told.split("--case ")[1].split(":")[0]
    assert main(["spearman", "--case", case, "--backend", "cpu"]) == 1
    assert "expected less, got more" in capsys.readouterr().err
    assert main(["dirichlet_uncertainty", "--case", "0", "--backend", "cpu"]) == 0
