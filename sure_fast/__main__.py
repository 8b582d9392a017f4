"""Lists the commands, and runs one: python -m sure_fast, sure-fast train --quick"""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

from .engine import cli, console
from .engine.config import suggestion

COMMANDS = ("train", "evaluate", "predict", "view", "compare", "info")


def summary(command: str) -> str:
    """The first line of a command's own description, without loading it."""
    source = Path(__file__).with_name(f"{command}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0].split(": python -m")[0]


def main(arguments: list[str] | None = None) -> None:
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ("",)
    if command in COMMANDS:
        module = importlib.import_module(f".{command}", __package__)
        cli.run(module.PROGRAM, lambda: module.main(rest))
        return
    console.make_lasting()
    if command not in ("", "-h", "--help"):
        cli.fail("sure_fast", f"expected one of {', '.join(COMMANDS)}, got {command}{suggestion(command, COMMANDS)}", 2)
    print("Commands of sure_fast; each has --help:\n")
    for name in COMMANDS:
        print(f"  python -m sure_fast.{name:<9} {summary(name)}")
    print("\nThe same as sure-fast COMMAND.")


if __name__ == "__main__":
    main()
