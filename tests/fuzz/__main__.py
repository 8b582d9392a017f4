"""Drawn calls of every op against its oracle until the time is over: python -m tests.fuzz --seconds 60 [op ...]

A case is the op's name and its seed, which is printed when it fails; `--case SEED` with the op's name repeats it.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import zlib

import numpy as np

from sure_fast import _backends
from tests.fuzz.checks import CHECKS


def run_case(op: str, seed: int, backend: str) -> None:
    CHECKS[op](np.random.default_rng([zlib.crc32(op.encode()), seed]), backend)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("ops", nargs="*", choices=[[], *CHECKS], help="which ops (default: all)")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first case; the next ones count up")
    parser.add_argument("--case", type=int, help="this case alone")
    parser.add_argument("--backend", nargs="+", default=["cpu", "reference"])
    options = parser.parse_args(arguments)
    ops = options.ops or sorted(CHECKS)
    pairs = [(op, b) for op in ops for b in options.backend if b in _backends.registered()[op]]
    done, failed = dict.fromkeys(pairs, 0), []
    stop = time.monotonic() + options.seconds
    seed = options.seed if options.case is None else options.case
    while pairs and time.monotonic() < stop:
        for op, backend in list(pairs):
            try:
                run_case(op, seed, backend)
            except Exception as error:  # every kind is a finding
                failed.append((op, backend, seed))
                pairs.remove((op, backend))
                if not isinstance(error, AssertionError):
                    traceback.print_exc()
                print(f"{op}, {backend}, --case {seed}: {error}", file=sys.stderr, flush=True)
            done[op, backend] += 1
        seed += 1
        if options.case is not None:
            break
    for (op, backend), number in done.items():
        print(f"{op:28} {backend:10} {number:6} cases")
    print(f"{sum(done.values())} cases, {len(failed)} ops failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
