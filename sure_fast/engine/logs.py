"""What a training run says of itself: metrics.jsonl, metrics.csv, TensorBoard events, and the trackers asked for."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from torch.utils.tensorboard import SummaryWriter

from . import trackers
from .config import TrainConfig
from .files import replacing

PLACE = ("kind", "epoch", "step")
"""Keys of a step's row that are not loss terms."""


class MetricsLog:
    """The files of one network, continued after `step` steps and `epoch` epochs; what they hold beyond is cut off.

    Args:
        classes: names of the foreground classes, for the columns of metrics.csv.
        member: of an ensemble; its files carry the number.
    """

    def __init__(
        self,
        config: TrainConfig,
        output: Path,
        classes: Sequence[str],
        *,
        member: int = 0,
        epoch: int = 0,
        step: int = 0,
    ) -> None:
        suffix = f"-{member}" if member else ""
        path, table = output / f"metrics{suffix}.jsonl", output / f"metrics{suffix}.csv"
        self._table_file: TextIO = open(table, "w", encoding="utf-8", newline="")  # noqa: SIM115
        self._table = EpochTable(self._table_file, classes)
        _cut(path, epoch, step, self._table.add)
        self._log: TextIO = open(path, "a", encoding="utf-8")  # noqa: SIM115
        board = output / "tensorboard" / suffix[1:]
        self._board = SummaryWriter(str(board), purge_step=step if any(board.glob("events.*")) else None)
        self._trackers = trackers.start(config, output, member)

    def step(self, epoch: int, step: int, values: dict[str, float]) -> None:
        """`epoch` is counted from 1, as everywhere in the files; `step` are the steps before this one."""
        self._row({"kind": "step", "epoch": epoch, "step": step, **values})
        scalars = {f"train/{name}": value for name, value in values.items()}
        self._scalars(scalars, step)

    def epoch(self, row: dict[str, Any]) -> dict[str, Any]:
        """`row` has the keys "epoch", "step" (steps so far), "val_dice" (None where not validated), and numbers.

        Returns:
            The line of metrics.csv, which also has the means of the loss terms over the epoch.
        """
        line = self._row({"kind": "epoch", **row})
        scalars = {name: row[name] for name in ("lr", "volumes_per_second")}
        if row["val_dice"] is not None:
            scalars["validation/dice"] = row["val_dice"]
        self._scalars(scalars, row["step"] - 1)
        return line

    def sync(self) -> None:
        """Everything so far is on the disk: a checkpoint must not be newer than its rows."""
        for file in (self._log, self._table_file):
            with _naming(file.name):
                file.flush()
                os.fsync(file.fileno())
        with _naming(self._board.log_dir):
            self._board.flush()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            for tracker in self._trackers:
                tracker.close(failed=kind is not None)
        finally:
            with _naming(self._board.log_dir):
                self._board.close()
            for file in (self._log, self._table_file):
                with _naming(file.name):
                    file.close()

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        with _naming(self._log.name):
            self._log.write(json.dumps(row) + "\n")
        with _naming(self._table_file.name):
            return self._table.add(row)

    def _scalars(self, scalars: dict[str, float], step: int) -> None:
        with _naming(self._board.log_dir):
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)
        for tracker in self._trackers:
            tracker.log(scalars, step)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Says which file cannot be written, for example on a full disk."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


class EpochTable:
    """metrics.csv: of an epoch the means of the loss terms, the validation, speed and learning rate."""

    def __init__(self, file: TextIO, classes: Sequence[str]) -> None:
        self.file, self.classes = file, classes
        self._terms: dict[str, list[float]] = {}
        self._writer: csv.DictWriter[str] | None = None

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        """Takes a row of metrics.jsonl; that of an epoch ends with a line, which is returned."""
        if row["kind"] == "step":
            for name, value in row.items():
                if name not in PLACE:
                    self._terms.setdefault(name, []).append(value)
            return {}
        own = {name: value for name, value in row.items() if name not in ("kind", "val_dice", "val_dice_per_class")}
        terms = {name: math.fsum(values) / len(values) for name, values in self._terms.items()}
        per_class = row.get("val_dice_per_class", {})
        dice = {"val_dice": row["val_dice"], **{f"val_dice/{name}": per_class.get(name) for name in self.classes}}
        line = {**own, **terms, **dice}
        if self._writer is None:
            self._writer = csv.DictWriter(self.file, list(line), lineterminator="\n")
            self._writer.writeheader()
        self._writer.writerow(line)
        self._terms.clear()
        return line


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of metrics.jsonl up to the first that is not whole, as a killed run may leave one at the end."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                return
            if not line.endswith("\n"):
                return
            yield row


def _cut(path: Path, epoch: int, step: int, keep: Callable[[dict[str, Any]], object]) -> None:
    """Leaves in metrics.jsonl the rows of the first `step` steps and `epoch` epochs, and hands them to `keep`."""
    limits, kept = {"step": step, "epoch": epoch}, {"step": 0, "epoch": 0}
    with replacing(path) as file:
        for row in read_rows(path):
            kind = row["kind"]
            if row[kind] < limits[kind] + (kind == "epoch"):  # epochs are counted from 1
                kept[kind] += 1
                file.write((json.dumps(row) + "\n").encode())
                keep(row)
    if kept != limits:
        print(f"{path}: expected the rows of {step} steps and {epoch} epochs before the checkpoint, got those of "
              f"{kept['step']} and {kept['epoch']}; the others are lost", file=sys.stderr)  # fmt: skip
