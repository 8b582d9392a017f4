"""The CPU kernels on 64-bit ARM: they compile, use its vectors, and give there what they give here."""

from __future__ import annotations

import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
CROSS, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
RUN = ("special_functions", "evidential_loss", "pair_concordance", "spearman")
OPTIMIZED = (*RUN, "dirichlet_uncertainty")
FLAGS = ["-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra", "-Werror", "-fopenmp",
         "-DSURE_FAST_HAVE_BASELINE", "-DSURE_FAST_ISA=baseline", f"-I{ROOT / 'csrc'}"]  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which(CROSS), reason=f"needs {CROSS}"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="compares with another processor"),
]


def build(compiler, folder, *more):
    """The driver, and the objects of every CPU kernel; those that it does not run are compiled without optimisation."""
    folder.mkdir(parents=True, exist_ok=True)

    def compile_one(source):
        out = folder / f"{source.stem}.o"
        level = "-O3" if source.stem in OPTIMIZED else "-O0"
        subprocess.run([compiler, *FLAGS, level, "-c", source, "-o", out], check=True)
        return out

    sources = sorted((ROOT / "csrc/cpu").glob("*.cpp"))
    wanted = sources if compiler == CROSS else [source for source in sources if source.stem in RUN]
    with ThreadPoolExecutor(2) as pool:
        objects = {out.stem: out for out in pool.map(compile_one, wanted)}
    driver = folder / "driver"
    command = [compiler, *FLAGS, "-O1", *more, ROOT / "tests/aarch64/driver.cpp", *(objects[name] for name in RUN)]
    subprocess.run([*command, "-o", driver], check=True, capture_output=True)
    return driver, objects


@pytest.fixture(scope="module")
def drivers(tmp_path_factory):
    root = tmp_path_factory.mktemp("aarch64")
    there, objects = build(CROSS, root / "there", "-static")
    here, _ = build("g++", root / "here")
    return there, here, objects


def test_every_kernel_compiles_to_its_vectors(drivers):
    *_, objects = drivers
    assert set(objects) == {path.stem for path in (ROOT / "csrc/cpu").glob("*.cpp")}
    for name in ("special_functions", "evidential_loss", "dirichlet_uncertainty"):
        command = ["aarch64-linux-gnu-objdump", "-d", objects[name]]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert sum("fmla" in line and (".4s" in line or ".2d" in line) for line in listing.splitlines()) > 20


@pytest.mark.skipif(not shutil.which(EMULATOR), reason=f"needs {EMULATOR}")
@pytest.mark.parametrize(("dtype", "tolerance"), [("f32", 2e-5), ("f64", 1e-12), ("f16", 2e-3), ("bf16", 1e-2)])
def test_results_are_those_of_this_processor(drivers, dtype, tolerance):
    there, here, _ = drivers
    found, wanted = (
        np.frombuffer(subprocess.run([*command, dtype], capture_output=True, check=True).stdout)
        for command in ([EMULATOR, there], [here])
    )
    assert found.shape == wanted.shape
    assert len(found) > 10**6
    assert np.isfinite(wanted).all()
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)
    # half precision rounds the same number the same way; where the numbers differ it may be the next one
    assert np.isclose(found, wanted, rtol=2e-5, atol=2e-5).mean() > (0.999 if tolerance > 1e-3 else 1 - 1e-12)
    if tolerance > 1e-3:
        return
    rankings = slice(-21, None)  # of three rows six numbers of pairs each, then Spearman's correlation
    assert (wanted[rankings][:18] > 0).sum() >= 12
    assert np.array_equal(found[rankings], wanted[rankings])
