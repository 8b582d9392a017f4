"""Some drawn calls of every op on every backend; `make fuzz` goes on for minutes."""

from __future__ import annotations

import pytest

from sure_fast import _backends
from tests.fuzz.__main__ import main, run_case
from tests.fuzz.checks import CHECKS

CASES = {"cpu": 25, "reference": 25, "cuda": 5, "triton": 2}


def test_every_op_has_an_oracle():
    assert set(CHECKS) == set(_backends.registered())


@pytest.mark.parametrize("op", CHECKS)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_drawn_calls(op, backend):
    for seed in range(CASES[backend]):
        run_case(op, seed, backend)


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
