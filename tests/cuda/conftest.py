from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _poisoned(poisoned_memory):
    """Every test of a kernel sees what was not written."""
