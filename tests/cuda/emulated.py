"""The CUDA library compiled for the CPU with tests/cuda/emulation, as a module like sure_fast._cuda."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pybind11

from sure_fast.ops import _calls

ROOT = Path(__file__).parent.parent.parent
CSRC = ROOT / "csrc"
EMULATION = ROOT / "tests" / "cuda" / "emulation"
SANITIZE = os.environ.get("SURE_FAST_SANITIZE", "")
"""1: memory and undefined behaviour, races: what threads of a grid do to each other (emulation/races.h)."""
FOLDER = ROOT / "build" / {"1": "emulation_sanitized", "races": "emulation_races"}.get(SANITIZE, "emulation")
ORDERS = {"forward": (0, 0), "reverse": (1, 0), "random": (2, 7), "random again": (2, 8)}
"""Of the threads of a block and of blocks: kind and seed, as set_order takes them."""

LIBRARY = (
    *sorted((CSRC / "cuda").glob("*.cu")),
    *sorted((CSRC / "bindings").glob("*.cpp")),
    *sorted((CSRC / "bindings" / "cuda").glob("*.cpp")),
    EMULATION / "emulation.cpp",
)


def build(folder: Path, name: str = "_cuda", sources: Sequence[Path] = LIBRARY) -> Path:
    """The extension module `name` of these files; compiles what changed since the folder was last used."""
    folder.mkdir(parents=True, exist_ok=True)
    includes = [CSRC, EMULATION, pybind11.get_include(), sysconfig.get_paths()["include"]]
    flags = ["-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-ipa-reference"]
    flags += ["-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-unused-function", "-DSURE_FAST_CUDA_EMULATION"]
    flags += [f"-I{path}" for path in includes]
    if SANITIZE == "races":
        flags += ["-g", "-DSURE_FAST_RACES", "-pthread"]
    elif SANITIZE:
        flags += ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    compiler = os.environ.get("CXX", "g++").split()

    def compile_one(source: Path) -> Path:
        out = folder / f"{source.parent.name}.{source.name}.o"
        witnessed = ["-fsanitize=thread", "--param=tsan-distinguish-volatile=1"]
        own = witnessed if SANITIZE == "races" and source.name != "emulation.cpp" else []
        if not _is_fresh(out):
            run([*compiler, *flags, *own, "-x", "c++", "-MMD", "-MF", f"{out}.d", "-c", str(source), "-o", str(out)])
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    target = folder / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not target.exists() or any(o.stat().st_mtime > target.stat().st_mtime for o in objects):
        shared = ["-shared", "-fsanitize=thread"] if SANITIZE == "races" else ["-shared"]
        run([*compiler, *flags, *shared, *map(str, objects), "-o", str(target)])
    return target


def build_faulty() -> Path:
    """Kernels with the faults that the emulator should find, as a module of its own."""
    return build(FOLDER, "faulty", (EMULATION / "faulty.cpp", EMULATION / "emulation.cpp"))


def _is_fresh(out: Path) -> bool:
    listing = Path(f"{out}.d")
    if not out.exists() or not listing.exists():
        return False
    sources = listing.read_text().replace("\\\n", " ").split(":", 1)[1].split()
    return all(Path(s).exists() and Path(s).stat().st_mtime <= out.stat().st_mtime for s in sources)


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


def load(target: Path, name: str = "_cuda") -> ModuleType:
    loader = importlib.machinery.ExtensionFileLoader(name, str(target))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@contextmanager
def emulate(module: ModuleType) -> Iterator[ModuleType]:
    """Within the block backend "cuda" runs the emulated kernels on CPU tensors."""
    before = _calls.library, _calls.missing, _calls.device_type
    _calls.library, _calls.missing, _calls.device_type = module, None, "cpu"
    try:
        yield module
    finally:
        module.set_order(0, 0)
        module.count_launches(False)
        _calls.library, _calls.missing, _calls.device_type = before
