"""Every op once, small, against the reference on the CPU: python -m benchmarks.gpu.smoke ROWS.jsonl [FIRST]

`FIRST` is the number of the op to begin with. Where the device answers no more, the process ends with the code AGAIN
and the number of the next op, with which it can be started again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.cuda.gpu_cases import CASES, available, inputs_of, run

from .check import AGAIN
from .device import DEVICE, is_lost, poisoned, rehearse, said, tell
from .ops import difference

SHAPE = (2, 17, 18)


def main(file: Path, first: int) -> int:
    failed = 0
    for number, (name, backend) in list(enumerate(available()))[first:]:
        try:
            with poisoned():
                got = run(CASES[name], inputs_of(CASES[name], SHAPE, DEVICE.name), backend)
                got = [t.cpu() for t in got]
            want = run(CASES[name], inputs_of(CASES[name], SHAPE, "cpu"), "reference")
            tolerance, counts = max(1e-4, CASES[name].tolerance), name == "segmentation_stats"
            problem = difference(got, want, tolerance, counts)
        except Exception as error:
            problem = said(error)
        tell(file, kind="smoke", case=name, backend=backend, problem=problem)
        if problem is not None and is_lost():
            return AGAIN + number + 1
        failed += problem is not None
    return min(failed, 1)


if __name__ == "__main__":
    with rehearse():
        sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
