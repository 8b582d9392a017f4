"""The first minute: the checkout imports after a build, and says in one line what is missing where it cannot."""

from __future__ import annotations

import os
import re
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


@pytest.mark.parametrize(
    ("given", "unknown"),
    [("9.0", "'9.0'"), ("80;sm_90", "'sm_90'"), ("70,90", "'70'"), ("90a", "'90a'")],
)
def test_architectures_that_nvcc_does_not_know(tmp_path, given, unknown):
    done = with_nvcc(tmp_path, SURE_FAST_CUDA_ARCHS=given)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "Warning" not in line]
    assert len(lines) == 1, done.stderr
    assert lines[0] == (
        f"sure_fast: SURE_FAST_CUDA_ARCHS: expected compute capabilities such as 80;90, got {given!r}, of which "
        f"{tmp_path / 'nvcc'} does not know {unknown}; it knows 75, 80, 86, 90, 100"
    )


@pytest.mark.parametrize(
    ("environment", "built"),
    [
        ({}, ["80", "90", "100"]),  # of the default what nvcc knows
        ({"SURE_FAST_CUDA_ARCHS": "100, 86;86"}, ["86", "100"]),
        ({"SURE_FAST_CUDA_ARCHS": "75"}, ["75"]),
        ({"SURE_FAST_CUDA_ARCHS": ""}, ["80", "90", "100"]),
        ({"SURE_FAST_CUDA_ARCHS": "86;"}, ["86"]),
    ],
)
def test_architectures_of_a_build(tmp_path, environment, built):
    done = with_nvcc(tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    rules = python("-c", RULES, cwd=tmp_path, NVCC=str(tmp_path / "nvcc"), SURE_FAST_CUDA="1", **environment).stdout
    assert re.findall(r"code=(\w+)", rules) == [*(f"sm_{number}" for number in built), f"compute_{built[0]}"]
    assert f"-DSURE_FAST_CUDA_SASS={','.join(built)} -DSURE_FAST_CUDA_PTX={built[0]}" in rules


@pytest.mark.parametrize(("wanted", "code"), [("auto", 0), ("1", 1)])
def test_an_nvcc_that_lists_nothing(tmp_path, wanted, code):
    done = with_nvcc(tmp_path, "exit 1", SURE_FAST_CUDA=wanted)
    assert done.returncode == code
    lines = [line for line in done.stderr.splitlines() if line.startswith("sure_fast: ")]
    assert len(lines) == 1, done.stderr
    assert "--list-gpu-arch lists no architecture such as compute_80" in lines[0]


RULES = """import runpy, pathlib, setuptools
setuptools.setup = lambda **_: None
names = runpy.run_path("setup.py")
build = names["NinjaBuild"](setuptools.Distribution())
print(build.cuda_rules(pathlib.Path("."), pathlib.Path("out.so")))
"""


FIVE = "for number in 75 80 86 90 100; do echo compute_$number; done"


def with_nvcc(folder, script=FIVE, **environment):
    """What setup.py says with an nvcc that is this script."""
    shutil.copy(ROOT / "setup.py", folder)
    (folder / "csrc" / "cuda").mkdir(parents=True)
    (folder / "csrc" / "cuda" / "kernel.cu").touch()
    nvcc = folder / "nvcc"
    nvcc.write_text(f"#!/bin/sh\n{script}\n")
    nvcc.chmod(0o755)
    environment = {"SURE_FAST_CUDA": "1", "NVCC": str(nvcc), **environment}
    return python("setup.py", "-q", "dist_info", cwd=folder, **environment)


def test_a_source_distribution_needs_no_compiler(tmp_path):
    shutil.copy(ROOT / "setup.py", tmp_path)
    done = python("setup.py", "-q", "--version", cwd=tmp_path, CXX="no-such-compiler", SURE_FAST_CUDA="0")
    assert done.returncode == 0, done.stderr
