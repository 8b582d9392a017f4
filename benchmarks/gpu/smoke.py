"""Every op once, small, against the reference on the CPU: python -m benchmarks.gpu.smoke ROWS.jsonl"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.cuda.gpu_cases import CASES, available, inputs_of, run

from .device import DEVICE, rehearse, tell
from .ops import difference

SHAPE = (2, 17, 18)


def main(file: Path) -> int:
    failed = 0
    for name, backend in available():
        try:
            got = run(CASES[name], inputs_of(CASES[name], SHAPE, DEVICE.name), backend)
            want = run(CASES[name], inputs_of(CASES[name], SHAPE, "cpu"), "reference")
            DEVICE.synchronize()
            tolerance, counts = max(1e-4, CASES[name].tolerance), name == "segmentation_stats"
            problem = difference([t.cpu() for t in got], want, tolerance, counts)
        except Exception as error:
            problem = f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"
        tell(file, kind="smoke", case=name, backend=backend, problem=problem)
        failed += problem is not None
    return failed


if __name__ == "__main__":
    with rehearse():
        sys.exit(min(main(Path(sys.argv[1])), 1))
