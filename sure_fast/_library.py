"""Loads the compiled kernels first of all, so that a missing or unfit library is told in one line."""

from __future__ import annotations

import importlib
from pathlib import Path

try:
    importlib.import_module("sure_fast._cpu")
except ImportError as error:
    raise ImportError(
        f"sure_fast: the package in {Path(__file__).parent} has no compiled kernels for this Python ({error}); "
        "where that is a checkout, run in it: pip install -c constraints.txt ."
    ) from None
