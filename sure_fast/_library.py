"""Loads the compiled kernels first of all, so that a missing or unfit library is told in one line."""

from __future__ import annotations

import importlib
from pathlib import Path

FOLDER = Path(__file__).parent

try:
    _found = Path(str(importlib.import_module("sure_fast._cpu").__file__))
    if _found.parent.resolve() != FOLDER.resolve():  # an editable install of another checkout answers for this one too
        raise ImportError(f"those in {_found.parent} are of another one")
except ImportError as error:
    raise ImportError(
        f"sure_fast: the package in {FOLDER} has no compiled kernels for this Python ({error}); "
        "where that is a checkout, run in it: pip install -c constraints.txt ."
    ) from None
