"""What two training runs have to have in common."""

from __future__ import annotations

import csv
import json

import torch

from sure_fast.engine import checkpoint

TIMES = ("seconds", "volumes_per_second")


def final(folder):
    """Everything of a run that does not depend on the clock."""
    found = {}
    for path in sorted((folder / "checkpoints").glob("*.pt")):
        if ".broken" not in path.name:
            content = checkpoint.load(path)
            for name in [name for name in content["progress"] if name.endswith("seconds")]:
                content["progress"].pop(name)
            found[path.name] = content
    for path in sorted(folder.glob("metrics*.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.name] = [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
    for path in sorted(folder.glob("metrics*.csv")):
        with open(path, newline="") as file:
            found[path.name] = [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
    for name in ("results.json", "config.yaml", "split.json"):
        found[name] = (folder / name).read_text()
    return found


def assert_equal(found, wanted):
    """Bit for bit."""
    if isinstance(wanted, torch.Tensor):
        assert torch.equal(found, wanted)
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            assert_equal(found[key], wanted[key])
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_equal(one, other)
    else:
        assert found == wanted
