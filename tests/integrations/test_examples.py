"""The scripts of examples/ run as they stand."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from tests.integrations.programs import run

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {
    "pytorch_loop": (None, r"mean Dice \d\.\d+ mean uncertainty 0\.\d+"),
    "monai_trainer": ("ignite", r"mean uncertainty 0\.\d+"),
    "lightning_module": ("lightning", r"'val/uncertainty': 0\.\d+"),
    "nnunet_phantoms": ("nnunetv2", r"(phantom_\d\d\d\.nii\.gz \[.*\]\n){6}"),
}
EXTRAS = {"ignite": "monai", "lightning": "lightning", "nnunetv2": "nnunet"}


def test_every_example_is_listed():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(NEEDS)
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 60, path


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_example(name):
    package, ends_with = NEEDS[name]
    if package and not importlib.util.find_spec(package):
        pytest.skip(f"needs the extra [{EXTRAS[package]}]: pip install sure_fast[{EXTRAS[package]}]")
    said = run(sys.executable, EXAMPLES / f"{name}.py", torchvision=True, nnUNet_n_proc_DA="1", nnUNet_def_n_proc="2")
    assert re.search(rf"{ends_with}\s*\Z", said) or re.search(ends_with, said.splitlines()[-1]), said[-2000:]
