"""Which threads of a grid race, whatever order they take: python -m tests.cuda.races [FAULT]

Runs every op with a CUDA kernel once, small, or a kernel of emulation/faulty.cpp, in the emulator under ThreadSanitizer
(emulation/races.h), which reports on stderr; exits with 66 when it found anything.
"""

from __future__ import annotations

import os
import subprocess
import sys

FOUND = 66


def runtime() -> str:
    """ThreadSanitizer's library, which has to be loaded before everything else."""
    compiler = os.environ.get("CXX", "g++").split()
    return subprocess.check_output([*compiler, "-print-file-name=libtsan.so"], text=True).strip()


def call_everything() -> None:
    from sure_fast.ops import gradient_uncertainty_loss
    from tests.cuda import emulated
    from tests.cuda.gpu_cases import CASES, available, inputs_of, run

    shape = (2, 33, 34)
    gradient_uncertainty_loss.COMPARED = 64  # so that pairs are sorted
    with emulated.emulate(emulated.load(emulated.build(emulated.FOLDER))):
        for name in (name for name, backend in available() if backend == "cuda"):
            print(name, flush=True)
            run(CASES[name], inputs_of(CASES[name], shape, "cpu"), "cuda")


def main(arguments: list[str]) -> None:
    if os.environ.get("SURE_FAST_SANITIZE") != "races":
        command = [sys.executable, "-m", "tests.cuda.races"]
        environment = {**os.environ, "SURE_FAST_SANITIZE": "races"}
        subprocess.run([*command, "build"], env=environment, check=True)
        environment |= {"LD_PRELOAD": runtime(), "TSAN_OPTIONS": f"exitcode={FOUND}"}
        os.execve(sys.executable, [*command, *arguments], environment)
    from tests.cuda import emulated

    if arguments == ["build"]:
        emulated.build(emulated.FOLDER)
        emulated.build_faulty()
    elif arguments:
        emulated.load(emulated.build_faulty(), "faulty").run(arguments[0])
    else:
        call_everything()


if __name__ == "__main__":
    main(sys.argv[1:])
