"""Prints the folder for nnUNet_extTrainer; or predicts: python -m sure_fast.integrations.nnunet predict --help"""

from __future__ import annotations

import sys
from typing import Any

from sure_fast.engine import cli, console, review

from . import TRAINERS
from .predict import PROGRAM, add_options, predict


def main(arguments: list[str] | None = None) -> None:
    parser = cli.Parser(prog=PROGRAM, description="Predicts with nnU-Net's networks of evidence; its options.")
    add_options(parser)
    options = parser.parse_args(arguments)

    def bar(number: int) -> Any:
        return console.bar(None, "predict", "case", total=number, shown=not options.disable_progress_bar)

    every, there = predict(options, bar)
    known, _ = review.read(options.o, "")  # nnU-Net keeps no uncertainty of its validation cases
    with console.bar(every, "review", "case", shown=not options.disable_progress_bar) as cases:
        rows = [review.row_of_files(files.name, files.segmentation, files.uncertainty, known) for files in cases]
    before = f" ({there} were there already)" if there else ""
    print(f"{PROGRAM}: {len(every)} cases{before} in {options.o}, their uncertainty in {options.o / 'uncertainty'}")
    print(f"{PROGRAM}: {review.describe(options.o, review.write(options.o, rows))}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == []:
        print(TRAINERS)
    elif sys.argv[1] == "predict":
        cli.run(PROGRAM, lambda: main(sys.argv[2:]))
    else:
        cli.fail("sure_fast.integrations.nnunet", f"expected predict, or nothing, got {sys.argv[1]}", 2)
