"""Compiles csrc/ with ninja. Neither torch nor a GPU is needed: the kernels take raw pointers.

SURE_FAST_CUDA=auto|0|1       the CUDA library: where nvcc is found (auto, the default), never, or required
SURE_FAST_CUDA_ARCHS="80;90"  compute capabilities to build for, with PTX of the oldest one, which the driver of
                              any later GPU compiles; without it DEFAULT_ARCHITECTURES
SURE_FAST_SANITIZE=1          build with AddressSanitizer and UndefinedBehaviorSanitizer
CXX, NVCC                     the compilers
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
X86_LEVELS = {  # one object per kernel and level; the best one is chosen when the library is loaded
    "baseline": [],
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}
DEFAULT_ARCHITECTURES = ("80", "90", "100", "120")  # of these the ones that nvcc knows: from 12.8 on all

PROBE = """#include <type_traits>
#if defined(__ARM_FP16_FORMAT_IEEE)
using half_t = __fp16;
#else
using half_t = _Float16;
#endif
int main() { half_t x = 1; if constexpr (std::is_void_v<void>) return int(x) - 1; }
"""
COMPILING = {"dist_info", "bdist_wheel", "editable_wheel", "build", "build_ext", "develop", "install"}
"""Commands of setuptools that end in compiling; those of a source distribution do not."""


class NinjaBuild(build_ext):
    """Builds `sure_fast._cpu`, and `sure_fast._cuda` where nvcc is."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        objects = Path(self.build_temp).resolve() / ext.name
        target.parent.mkdir(parents=True, exist_ok=True)
        objects.mkdir(parents=True, exist_ok=True)
        rules = self.cuda_rules if ext.name.endswith("_cuda") else self.cpu_rules
        (objects / "build.ninja").write_text(rules(objects, target))
        import ninja

        command = [str(Path(ninja.BIN_DIR) / "ninja"), "-C", str(objects)]
        if subprocess.run(command + (["-v"] if self.verbose else [])).returncode:
            raise SystemExit(f"sure_fast: compiling {ext.name} failed; the compiler's message is above")
        copy_into_checkout(target)

    def common(self) -> tuple[str, str]:
        import pybind11

        cxx = find_compiler()
        include = (
            f"-I{quote(ROOT / 'csrc')} -I{quote(pybind11.get_include())} -I{quote(sysconfig.get_paths()['include'])}"
        )
        flags = "-std=c++17 -O3 -fPIC -fvisibility=hidden -fno-math-errno -fno-trapping-math -Wall -Wextra -Wno-psabi"
        if os.environ.get("SURE_FAST_SANITIZE") == "1":
            flags = flags.replace("-O3", "-O1")
            flags += " -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
        return cxx, f"{flags} {include}"

    def cpu_rules(self, objects: Path, target: Path) -> str:
        cxx, flags = self.common()
        openmp = "-fopenmp" if accepts(cxx, "-fopenmp") else ""
        if not openmp:
            print("sure_fast: the compiler has no OpenMP (-fopenmp); kernels will use one thread", file=sys.stderr)
        levels = X86_LEVELS if platform.machine().lower() in ("x86_64", "amd64") else {"baseline": []}
        levels = {name: options for name, options in levels.items() if accepts(cxx, *options)}
        dispatch = " ".join(f"-DSURE_FAST_HAVE_{name.upper()}" for name in levels)
        lines = [
            f"cxx = {cxx}",
            f"flags = {flags} {openmp} {dispatch}",
            "rule cxx\n  command = $cxx $flags $isa -MD -MF $out.d -c $in -o $out\n  depfile = $out.d\n  deps = gcc",
            f"rule link\n  command = $cxx -shared $in -o $out {openmp} {link_flags()}",
        ]
        outputs = []
        for source in sorted((ROOT / "csrc" / "cpu").glob("*.cpp")):
            for name, options in levels.items():
                out = f"{source.stem}.{name}.o"
                lines.append(f"build {out}: cxx {escape(source)}\n  isa = -DSURE_FAST_ISA={name} {' '.join(options)}")
                outputs.append(out)
        for source in binding_sources("cpu"):
            lines.append(f"build binding.{source.stem}.o: cxx {escape(source)}")
            outputs.append(f"binding.{source.stem}.o")
        lines.append(f"build {escape(target)}: link {' '.join(outputs)}")
        return "\n".join(lines) + "\n"

    def cuda_rules(self, objects: Path, target: Path) -> str:
        cxx, flags = self.common()
        nvcc = find_nvcc() or "nvcc"
        architectures = cuda_architectures(nvcc)
        codes = [f"-gencode arch=compute_{number},code=sm_{number}" for number in architectures]
        codes.append(f"-gencode arch=compute_{architectures[0]},code=compute_{architectures[0]}")
        built_for = f"-DSURE_FAST_CUDA_SASS={','.join(architectures)} -DSURE_FAST_CUDA_PTX={architectures[0]}"
        lines = [
            f"cxx = {cxx}",
            f"flags = {flags} {built_for}",
            f"nvcc = {quote(nvcc)}",
            f"cuda = -std=c++17 -O3 -Xcompiler -fPIC,-fvisibility=hidden -Xptxas -v,--warn-on-spills "
            f"-I{quote(ROOT / 'csrc')} -cudart static {' '.join(codes)}",
            "rule cxx\n  command = $cxx $flags -MD -MF $out.d -c $in -o $out\n  depfile = $out.d\n  deps = gcc",
            "rule nvcc\n  command = $nvcc $cuda -MD -MF $out.d -c $in -o $out\n  depfile = $out.d\n  deps = gcc",
            "rule link\n  command = $nvcc -shared -cudart static $in -o $out",
        ]
        outputs = []
        for source in sorted((ROOT / "csrc" / "cuda").glob("*.cu")):
            lines.append(f"build {source.stem}.cu.o: nvcc {escape(source)}")
            outputs.append(f"{source.stem}.cu.o")
        for source in binding_sources("cuda"):
            lines.append(f"build binding.{source.stem}.o: cxx {escape(source)}")
            outputs.append(f"binding.{source.stem}.o")
        lines.append(f"build {escape(target)}: link {' '.join(outputs)}")
        return "\n".join(lines) + "\n"


def binding_sources(module: str) -> list[Path]:
    """What both modules share, and the files of one of them, "cpu" or "cuda"."""
    folder = ROOT / "csrc" / "bindings"
    return [*sorted(folder.glob("*.cpp")), *sorted((folder / module).glob("*.cpp"))]


def copy_into_checkout(library: Path) -> None:
    """Python started in the checkout finds the package there, not the installed one: it needs the library too."""
    beside = ROOT / "sure_fast" / library.name
    if beside == library:
        return
    partial = beside.with_name(f"{beside.name}.partial")
    try:
        shutil.copyfile(library, partial)
        os.replace(partial, beside)  # a process that has the old one loaded keeps it
    except OSError as error:
        print(f"sure_fast: {beside} cannot be written ({error}): import sure_fast from other folders", file=sys.stderr)


def quote(path: str | Path) -> str:
    return shlex.quote(str(path)).replace("$", "$$")


def escape(path: str | Path) -> str:
    """A path in a ninja build line."""
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def link_flags() -> str:
    if sys.platform == "darwin":
        return "-undefined dynamic_lookup"
    return "-fsanitize=address,undefined" if os.environ.get("SURE_FAST_SANITIZE") == "1" else "-Wl,-O1"


def find_compiler() -> str:
    name = os.environ.get("CXX") or next((c for c in ("g++", "c++", "clang++") if shutil.which(c)), "")
    if not name or not shutil.which(shlex.split(name)[0]):
        raise SystemExit(
            f"sure_fast: a C++17 compiler is needed to build the CPU kernels, found {name or 'none'}: "
            "install g++ (Debian: apt-get install g++) or set CXX"
        )
    return name


def check_compiler() -> None:
    """Ends with one line where the kernels cannot be compiled, before setuptools has printed pages of its own."""
    name = find_compiler()
    if not accepts(name, "-std=c++17", program=PROBE):
        raise SystemExit(
            f"sure_fast: a C++17 compiler with _Float16 is needed to build the CPU kernels (g++ 12, clang++ 15), "
            f"{name} is none: install one or set CXX to it"
        )
    headers = Path(sysconfig.get_paths()["include"])
    if not (headers / "Python.h").is_file():
        raise SystemExit(
            f"sure_fast: Python's C headers are needed to build the kernels, {headers} has no Python.h: "
            "install them (Debian: apt-get install python3-dev)"
        )


def accepts(cxx: str, *options: str, program: str = "int main() { return 0; }") -> bool:
    """Whether the compiler builds a small program with these options."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cpp"
        source.write_text(f"{program}\n")
        command = [*shlex.split(cxx), *options, "-c", str(source), "-o", str(Path(folder) / "probe.o")]
        return subprocess.run(command, capture_output=True).returncode == 0


def find_nvcc() -> str | None:
    return shutil.which(os.environ.get("NVCC") or "nvcc")


def known_architectures(nvcc: str) -> list[str]:
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True)
    return re.findall(r"^compute_(\d+)$", listed.stdout, re.MULTILINE)


def cuda_architectures(nvcc: str) -> list[str]:
    """What to build for, the oldest first; ends with one line where SURE_FAST_CUDA_ARCHS names what nvcc cannot."""
    known = known_architectures(nvcc)
    given = os.environ.get("SURE_FAST_CUDA_ARCHS", "")
    wanted = [number.strip() for number in given.replace(",", ";").split(";") if number.strip()]
    wrong = [number for number in wanted if number not in known]
    if wrong:
        raise SystemExit(
            f"sure_fast: SURE_FAST_CUDA_ARCHS: expected compute capabilities such as 80;90, got {given!r}, "
            f"of which {nvcc} does not know {', '.join(map(repr, wrong))}; it knows {', '.join(known)}"
        )
    usable = sorted(set(wanted), key=int) or [number for number in DEFAULT_ARCHITECTURES if number in known]
    return usable or known[-1:]


def extensions() -> list[Extension]:
    modules = [Extension("sure_fast._cpu", sources=[])]
    wanted = os.environ.get("SURE_FAST_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        raise SystemExit(f"sure_fast: SURE_FAST_CUDA must be auto, 0 or 1, got {wanted!r}")
    if wanted == "1" and not find_nvcc():
        raise SystemExit("sure_fast: SURE_FAST_CUDA=1 needs nvcc on PATH (or NVCC set to it); none was found")
    nvcc = find_nvcc()
    if wanted != "0" and nvcc and any((ROOT / "csrc" / "cuda").glob("*.cu")):
        if COMPILING & set(sys.argv):  # before minutes of compiling
            if not known_architectures(nvcc):
                message = f"sure_fast: {nvcc} --list-gpu-arch lists no architecture such as compute_80"
                if wanted == "1":
                    raise SystemExit(message)
                print(f"{message}; the CUDA library is not built", file=sys.stderr)
                return modules
            cuda_architectures(nvcc)
        modules.append(Extension("sure_fast._cuda", sources=[]))
    return modules


if COMPILING & set(sys.argv):
    check_compiler()
setup(ext_modules=extensions(), cmdclass={"build_ext": NinjaBuild})
