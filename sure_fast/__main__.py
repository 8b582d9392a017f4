"""Lists the commands: python -m sure_fast"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from .engine import console

COMMANDS = ("train", "evaluate", "predict", "view", "compare", "info")


def summary(command: str) -> str:
    """The first line of a command's own description, without loading it."""
    source = Path(__file__).with_name(f"{command}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0].split(": python -m")[0]


if __name__ == "__main__":
    console.make_lasting()
    if len(sys.argv) > 1:
        meant = f"; did you mean python -m sure_fast.{sys.argv[1]}?" if sys.argv[1] in COMMANDS else ""
        print(f"sure_fast: error: expected no arguments, got {' '.join(sys.argv[1:])}{meant}", file=sys.stderr)
        sys.exit(2)
    print("Commands of sure_fast; each has --help:\n")
    for command in COMMANDS:
        print(f"  python -m sure_fast.{command:<9} {summary(command)}")
