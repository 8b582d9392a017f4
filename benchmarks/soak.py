"""Does a long run hold its memory? Training steps for a given time: python -m benchmarks.soak --minutes 60

Exit code 1 where the memory of the process, or of the GPU, is not flat within 2 %.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sure_fast.data import SegmentationDataset, discover, phantom
from sure_fast.engine import distributed, loop
from sure_fast.engine.cases import plan_for
from sure_fast.engine.config import make

FLAT = 0.02
WARM_UP = 0.2
"""Share of the time in which memory may still grow: allocators fill their pools, files are imported."""


def held_bytes(device: torch.device) -> int:
    """Resident memory of the process, with that of the GPU."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    gpu = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    return pages * 4096 + gpu


def soak(
    seconds: float,
    folder: Path,
    device: torch.device,
    after_step: Callable[[], object] = lambda: None,
    least_steps: int = 12,
    **options: Any,
) -> dict[str, Any]:
    """Steps with every term of the loss for so long, epoch after epoch; the growth of the memory in its last third.

    Args:
        seconds: from the first step on. folder: for the phantom cases. after_step: called between steps.
        least_steps: however long they take, on a machine that does other work too. options: of the configuration.

    Returns:
        steps, seconds, the mebibytes held in the first and the last third after the warm-up (medians), and growth,
        their relative difference.
    """
    phantom.write(folder, 4, 0, shape=(32, 32, 16))
    cases = discover(folder)
    config = make(
        {"data": str(folder), "epochs": "2", "start_epoch": "0", "batch_size": "2", "channels": "4,8,16", **options}
    )
    plan = plan_for(config, [(32, 32, 16)] * 4, 1, cases.info)
    dataset = SegmentationDataset(list(cases), tuple(plan.patch_size))
    trainer = loop.Trainer(config, plan, dataset, [], cases.info, device, folder)
    started, held, epoch = time.perf_counter(), [], 0
    trainer.model.train()
    while time.perf_counter() - started < seconds or len(held) < least_steps:
        dataset.set_epoch(epoch)
        epoch += 1
        for number, batch in enumerate(trainer.loader):
            trainer.step(1, number, batch["image"].to(device), batch["label"].to(device))
            after_step()
            held.append(held_bytes(device))
    settled = held[int(WARM_UP * len(held)) :]
    third = max(len(settled) // 3, 1)
    first, last = statistics.median(settled[:third]), statistics.median(settled[-third:])
    return {
        "steps": len(held),
        "seconds": time.perf_counter() - started,
        "mebibytes": [first / 2**20, last / 2**20],
        "growth": last / first - 1.0,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=str(__doc__).splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = soak(60.0 * options.minutes, Path(folder), distributed.choose_device(options.device))
    print(json.dumps(found, indent=1))
    return int(abs(found["growth"]) > FLAT)


if __name__ == "__main__":
    sys.exit(main())
