"""Trains methods on the same data and puts them side by side: python -m sure_fast.compare [--data DIR] [--presets …]

The output folder holds a run per preset and seed, report.html (slices, tables and curves in one file), results.csv,
results.json, and the tables as results.md, tables.tex and tables.csv. Started again, it goes on where it stopped.
Without --data it uses a phantom set.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from .engine.cli import Parser

PROGRAM = "sure_fast.compare"


def main(arguments: list[str] | None = None) -> None:
    from .comparison.compare import compare
    from .engine.config import add_flags, take_flags
    from .engine.signals import Interrupted, StopRequest
    from .methods import METHODS

    parser = Parser(prog=PROGRAM, description=str(__doc__).splitlines()[0])
    parser.add_argument("--presets", default=",".join(METHODS), help="comma-separated (default: all)")
    parser.add_argument("--seeds", default="0", help="comma-separated (default: 0)")
    parser.add_argument("--output", type=Path, default=Path("runs/compare"), help="output folder")
    parser.add_argument("--severities", help="of the corruptions (default: 1,2,3,4,5; quick: 3)")
    parser.add_argument("--no-robustness", action="store_const", dest="severities", const="", help="no corruptions")
    parser.add_argument("--quick", action="store_true", help="a small phantom set, few epochs, one severity")
    parser.add_argument(
        "--add",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="segmentations and maps of another tool, beside ours",
    )
    add_flags(parser, without=("method.preset", "run.seed", "run.quick"))
    flags = vars(parser.parse_args(arguments))
    presets, seeds, output, severities, quick, add = (
        flags.pop(name) for name in ("presets", "seeds", "output", "severities", "quick", "add")
    )
    with StopRequest():
        try:
            compare(
                take_flags(flags), presets.split(","), seeds.split(","), output, severities, quick, arguments,
                added=_added(add),
            )  # fmt: skip
        except Interrupted as error:
            error.command = shlex.join(["python", "-m", PROGRAM, *(sys.argv[1:] if arguments is None else arguments)])
            raise


def _added(given: list[str]) -> dict[str, Path]:
    """Folders by name."""
    found: dict[str, Path] = {}
    for text in given:
        name, is_there, folder = text.partition("=")
        if not is_there or not name or not folder or name in found:
            raise ValueError(f"add: expected NAME=DIR, each name once, got {text!r}")
        found[name] = Path(folder)
    return found


if __name__ == "__main__":
    from .engine import cli

    cli.run(PROGRAM, main)
