"""Reading every case before training begins, so that no fault shows, or hides, in the middle of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sure_fast.data.cases import Case
from sure_fast.data.errors import DataError, Fault
from sure_fast.data.reading import load_case

OBLIQUE_DEGREES = 1.0
"""From which tilt on a case is noted."""


class Screening(NamedTuple):
    """What reading the cases showed."""

    shapes: dict[str, tuple[int, ...]]
    """[K, *S] of every sound case, by name."""
    faults: list[Fault]
    """Cases that cannot be used."""
    notes: list[Fault]
    """Cases that are used, and what is to be known of them."""


def screen(cases: Iterable[Case]) -> Screening:
    """Reads the cases one by one and keeps none of them in memory."""
    found = Screening({}, [], [])
    for case in cases:
        try:
            sample = load_case(case)
        except DataError as error:
            found.faults.append(Fault(case.name, str(error)))
            continue
        found.shapes[case.name] = tuple(sample.image.shape)
        if sample.tilt_degrees > OBLIQUE_DEGREES:
            found.notes.append(
                Fault(
                    case.name,
                    f"{case.image}: oblique affine, {sample.tilt_degrees:.1f} degrees off the axes of the scanner; "
                    "used in the order of its voxels",
                )
            )
    return found
