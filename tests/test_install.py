"""The first minute: the checkout imports after a build, and says in one line what is missing where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def python(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.fixture
def checkout(tmp_path):
    """The sources alone, as a clone has them."""
    for name in ("sure_fast", "kernels"):
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=ignored)
    return tmp_path


def test_without_the_library_one_line_says_what_to_do(checkout):
    done = python("-c", "import sure_fast", cwd=checkout, PYTHONPATH="")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: sure_fast: the package in {checkout / 'sure_fast'} has no compiled kernels")
    assert last.endswith("run in it: pip install -c constraints.txt .")


def test_with_the_library_in_place_all_imports_from_the_checkout(checkout):
    for library in (ROOT / "sure_fast").glob("*.so"):
        shutil.copy(library, checkout / "sure_fast")
    code = "import sure_fast, sure_fast.kernels, sure_fast.engine.config as c; print(sure_fast.__file__, c.__file__)"
    done = python("-c", code, cwd=checkout, PYTHONPATH=".")
    assert done.returncode == 0, done.stderr
    assert all(path.startswith(str(checkout)) for path in done.stdout.split())


@pytest.mark.parametrize(
    ("compiler", "text"),
    [
        ("no-such-compiler", "a C++17 compiler is needed to build the CPU kernels, found no-such-compiler"),
        ("false", "a C++17 compiler with _Float16 is needed to build the CPU kernels (g++ 12, clang++ 15), false is"),
    ],
)
def test_without_a_compiler_one_line_is_all(tmp_path, compiler, text):
    shutil.copy(ROOT / "setup.py", tmp_path)
    done = python("setup.py", "-q", "dist_info", cwd=tmp_path, CXX=compiler, SURE_FAST_CUDA="0")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "Warning" not in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"sure_fast: {text}")


def test_a_source_distribution_needs_no_compiler(tmp_path):
    shutil.copy(ROOT / "setup.py", tmp_path)
    done = python("setup.py", "-q", "--version", cwd=tmp_path, CXX="no-such-compiler", SURE_FAST_CUDA="0")
    assert done.returncode == 0, done.stderr
