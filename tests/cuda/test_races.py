"""No threads of a grid race; ThreadSanitizer finds those that do in any order, and where nothing comes of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.cuda import emulated, races

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.isabs(races.runtime()), reason="the compiler has no ThreadSanitizer"),
]


def run(*arguments):
    command = [sys.executable, "-m", "tests.cuda.races", *arguments]
    return subprocess.run(command, cwd=emulated.ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("fault", ["none", "none together", "fences"])
def test_sound_kernels_pass(fault):
    done = run(fault)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "fault", ["race", "race of a warp", "race of blocks", "race of blocks together", "lost update", "no fence"]
)
def test_races_are_reported(fault):
    done = run(fault)
    assert done.returncode == races.FOUND
    assert "ThreadSanitizer: data race" in done.stderr


def test_no_kernel_races():
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr[:5000]
