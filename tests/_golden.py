"""Golden values: inputs and what the reference code of arXiv 2509.17098 returned for them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "golden"
GOLDEN = ("sure_2d_two_class", "sure_3d_three_class")


@cache
def load(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}
