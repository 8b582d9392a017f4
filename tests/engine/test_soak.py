"""Memory over many steps; `python -m benchmarks.soak --minutes 60` is the long form."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from benchmarks.soak import FLAT, soak

SECONDS = float(os.environ.get("SURE_FAST_SOAK_SECONDS", "12"))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]


def test_memory_is_flat(tmp_path):
    found = soak(SECONDS, tmp_path, torch.device("cpu"))
    assert found["steps"] >= 12
    assert abs(found["growth"]) < FLAT, found


def test_a_leak_is_seen(tmp_path):
    leaked = []
    found = soak(SECONDS / 2, tmp_path, torch.device("cpu"), lambda: leaked.append(torch.ones(2**20)))
    assert found["growth"] > FLAT, found
