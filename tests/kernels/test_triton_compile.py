"""Every Triton kernel compiles for GPUs that need not be there, and no register is spilled."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sure_fast.ops import _triton

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / "kernels").glob("*.py"))
OPS = [file.stem for file in FILES if re.search(r"^ +_\w+\[", file.read_text(), re.M)]
"""That launch kernels."""


@pytest.fixture(scope="module")
def compiled() -> list[list]:
    if _triton.MISSING is not None:
        pytest.skip(_triton.MISSING)
    # in its own process: where Triton interprets, it cannot compile
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.kernels.ahead_of_time", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("op", OPS)
def test_every_kernel_compiles_without_spills(op, compiled):
    from tests.kernels.ahead_of_time import ARCHITECTURES, wrong

    rows = [row for row in compiled if row[0].split(".")[0] == op]
    assert {row[2] for row in rows} == set(ARCHITECTURES)
    source = (ROOT / "kernels" / f"{op}.py").read_text()
    assert {row[0].split(".")[1] for row in rows} == set(re.findall(r"^ +_(\w+)\[", source, re.M))
    assert not wrong(rows)
