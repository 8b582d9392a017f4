"""Numbers that kernels, operators and the reference share: csrc has them once, and the reference's own are the same."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
import torch

import sure_fast
from sure_fast import _cpu, kernels
from sure_fast.ops import dirichlet_uncertainty, gradient_magnitude
from sure_fast.reference import boundary_distance as reference_distance
from sure_fast.reference import dirichlet_uncertainty as reference_uncertainty
from sure_fast.reference import gradient_magnitude as reference_magnitude
from sure_fast.reference import gradient_uncertainty_loss as reference_pairs


def test_evidence():
    assert _cpu.EXP_CLAMP == reference_uncertainty.EXP_EVIDENCE_CLAMP
    assert dirichlet_uncertainty.LINEAR_FROM == reference_uncertainty.LINEAR_FROM


def test_channel_weights():
    assert gradient_magnitude.LUMA == reference_magnitude.LUMA


def test_polynomials_are_those_of_the_cpu():
    """Horner's rule over the numbers that Triton reads gives what the compiled function gives."""
    i = torch.linspace(0.01, 1.0, 100)
    out = torch.empty_like(i)
    _cpu.special_function("log_one_plus", i, out)
    q = torch.zeros_like(i, dtype=torch.float64)
    for coefficient in _cpu.COEFFICIENTS["log_one_plus"]:
        q = q * i.double() + coefficient
    torch.testing.assert_close(out.double(), q * i.double() ** 2 + i.double(), rtol=3e-7, atol=0.0)
    assert all(len(numbers) > 2 for numbers in _cpu.COEFFICIENTS.values())
    assert math.isclose(sum(_cpu.LN2), math.log(2), rel_tol=1e-7)


def test_limits_of_distances():
    assert reference_distance.SLACK == _cpu.SLACK
    assert math.floor(_cpu.BYTE_REACH**2) < _cpu.IGNORED < _cpu.BEYOND == 255
    for squared in range(253):
        assert _cpu.squared_steps_within(math.sqrt(squared)) == squared
        assert _cpu.squared_steps_within(math.sqrt(squared) * (1 - 1e-5)) == max(squared - 1, 0)
    assert _cpu.squared_steps_within(1e30) == _cpu.BEYOND
    assert [_cpu.steps_within(distance, 9) for distance in (0.3 / 0.1, 2.99, 8.5, 9.0, 1e30)] == [3, 2, 8, 9, 9]


@pytest.mark.parametrize("share", [1 - 2e-6, 1 - 5e-7, 1.0])
def test_thresholds_next_to_what_bytes_reach(share):
    label = torch.zeros(1, 9, 40, dtype=torch.int64)
    label[:, :, 20:] = 1
    threshold = _cpu.BYTE_REACH * share
    generator = torch.Generator().manual_seed(0)
    logits, image = (torch.randn(1, c, 9, 40, generator=generator) for c in (2, 1))
    got, want = (
        sure_fast.uncertainty_supervision(logits, label, image, gradient_threshold=threshold, backend=backend).gradient
        for backend in ("cpu", "reference")
    )
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_random_numbers_are_splitmix64():
    """Steele, Lea, Flood, OOPSLA 2014: the first numbers of the generator that starts with 1234567."""
    state, got = torch.tensor(1234567), []
    for _ in range(3):
        got.append(int(reference_pairs._mix(state)) % 2**64)
        state = state + reference_pairs._GOLDEN
    assert got == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize(("excess", "within"), [(0.5e-6, 1.0), (2e-6, 0.0)])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_tolerance_of_surfaces(backend, excess, within):
    """A distance larger than the tolerance by 1e-6 of it still counts."""
    prediction, target = torch.zeros(2, 1, 3, 3, dtype=torch.int64)
    prediction[0, 1, 0] = target[0, 1, 1] = 1
    got = sure_fast.surface_distances(prediction, target, 2, tolerance=1 / (1 + excess), backend=backend)
    assert got.within.item() == within


@pytest.mark.parametrize("file", sorted(Path(kernels.__file__).parent.glob("*.py")), ids=lambda file: file.stem)
def test_every_argument_of_a_kernel_is_described(file):
    """Of a function that is launched each argument has a line of its own, which says what it is."""
    text = file.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.decorator_list and f" {node.name}[" in text:
            lines = [text.splitlines()[argument.lineno - 1] for argument in node.args.args]
            assert len(set(lines)) == len(lines), node.name
            assert all(",  # " in line for line in lines), node.name
