"""Reading every case before training begins, so that no fault shows, or hides, in the middle of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from sure_fast.data.cases import Case, DatasetInfo
from sure_fast.data.errors import DataError, Fault
from sure_fast.data.orientation import reorder
from sure_fast.data.reading import Sample, load_case
from sure_fast.data.resampling import inside

OBLIQUE_DEGREES = 1.0
"""From which tilt on a case is noted."""
MIXED_SPACING = 1.1
"""From which ratio of the largest to the smallest spacing along an axis on a data set is noted."""
SAMPLED, SAMPLED_FOREGROUND = 100_000, 10_000
"""Voxels of a case that are looked at for percentiles, of a channel and of its foreground."""
DATA_SET = "data set"
"""In the place of a case, in what is noted of all of them."""
KIND = re.compile(r"\.[A-Za-z]+: ([^,;]*)")
"""What a note says before its numbers, after the file."""


class Facts(NamedTuple):
    """What planning takes of a case, whose voxels are not kept."""

    size: tuple[int, ...]
    """[*S] of what the network is shown, as stored: all, or the box of what is not 0."""
    voxels: tuple[int, ...]
    """Of each class; empty without a label."""
    quantiles: tuple[tuple[float, float, float], ...]
    """Of each channel its 0.5, 50 and 99.5 percentiles, of evenly spaced voxels."""
    foreground: np.ndarray
    """[K, n]: grey values at evenly spaced voxels of the classes above 0."""


def facts_of(sample: Sample, num_classes: int) -> Facts:
    shown = inside(sample.box, sample.image[0])
    values = sample.image.reshape(len(sample.image), -1).numpy()
    every = max(values.shape[1] // SAMPLED, 1)
    quantiles = np.percentile(values[:, ::every], (0.5, 50.0, 99.5), axis=1).T
    voxels: tuple[int, ...] = ()
    foreground = np.empty((len(values), 0), np.float32)
    if sample.label is not None:
        label = sample.label.numpy().ravel()
        known = (label >= 0) & (label < num_classes)
        voxels = tuple(int(n) for n in np.bincount(label[known], minlength=num_classes))
        places = np.flatnonzero(known & (label > 0))
        foreground = values[:, places[:: max(len(places) // SAMPLED_FOREGROUND, 1)]]
    return Facts(tuple(shown.shape), voxels, tuple((float(a), float(b), float(c)) for a, b, c in quantiles), foreground)


class Screening(NamedTuple):
    """What reading the cases showed."""

    shapes: dict[str, tuple[int, ...]]
    """[K, *S] of every sound case, by name, as stored."""
    faults: list[Fault]
    """Cases that cannot be used."""
    notes: list[Fault]
    """Cases that are used, and what is to be known of them."""
    orientations: dict[str, str | None]
    """Axis codes of every sound case, as stored; None of pictures."""
    spacings: dict[str, tuple[float, ...]]
    """Voxel size of every sound case, as stored."""
    facts: dict[str, Facts]
    """Of every sound case."""

    def shown(self, name: str, orientation: str | None) -> tuple[int, ...]:
        """Shape [*S] of what the network is shown of a case that is brought to an orientation."""
        stored, size = self.orientations[name], self.facts[name].size
        if orientation is None or stored is None or stored == orientation:
            return size
        return tuple(int(n) for n in reorder(size, stored, orientation))

    def oriented(self, name: str, orientation: str | None) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Shape [*S] and spacing of a case that is brought to an orientation."""
        shape, spacing, stored = self.shapes[name][1:], self.spacings[name], self.orientations[name]
        if orientation is None or stored is None or stored == orientation:
            return shape, spacing
        return tuple(int(n) for n in reorder(shape, stored, orientation)), reorder(spacing, stored, orientation)


def screen(cases: Iterable[Case]) -> Screening:
    """Reads the cases one by one and keeps none of them in memory."""
    screening = Screening({}, [], [], {}, {}, {})
    for case in cases:
        try:
            sample = load_case(case)
        except DataError as error:
            screening.faults.append(Fault(case.name, str(error)))
            continue
        screening.shapes[case.name] = tuple(sample.image.shape)
        screening.orientations[case.name] = sample.orientation
        screening.spacings[case.name] = sample.spacing_mm
        screening.facts[case.name] = facts_of(sample, 0 if case.info is None else case.info.num_classes)
        screening.notes.extend(Fault(case.name, f"{case.image}: {note}") for note in sample.notes)
        if sample.tilt_degrees > OBLIQUE_DEGREES:
            screening.notes.append(
                Fault(
                    case.name,
                    f"{case.image}: oblique affine, {sample.tilt_degrees:.1f} degrees off the axes of the scanner; "
                    "used in the order of its voxels",
                )
            )
    return screening


def together(parts: Sequence[Screening], faults: Iterable[Fault] = (), notes: Iterable[Fault] = ()) -> Screening:
    """Several screenings as one, with faults and notes of the listing, sorted by case."""
    whole = Screening({}, [*faults], [*notes], {}, {}, {})
    for part in parts:
        whole.shapes.update(part.shapes)
        whole.orientations.update(part.orientations)
        whole.spacings.update(part.spacings)
        whole.facts.update(part.facts)
        whole.faults.extend(part.faults)
        whole.notes.extend(part.notes)
    whole.faults.sort()
    whole.notes.sort()
    return whole


def spacing_ranges(screening: Screening, names: Sequence[str], orientation: str | None) -> list[tuple[float, float]]:
    """Smallest and largest voxel size of the named cases per axis of an orientation."""
    spacings = [screening.oriented(name, orientation)[1] for name in names]
    return [(min(values), max(values)) for values in zip(*spacings, strict=True)]


def notes_of_all(screening: Screening, names: Sequence[str], info: DatasetInfo) -> list[Fault]:
    """What is to be known of the named cases together: orientations and spacings that are mixed.

    Args:
        info: to whose orientation, None of pictures, and spacing the cases are brought.
    """
    orientation = info.orientation
    notes = []
    stored = Counter(screening.orientations[name] or "none" for name in names)
    others = {other: number for other, number in sorted(stored.items()) if other != orientation}
    if orientation is not None and others:
        kinds = ", ".join(f"{other} {number}" for other, number in others.items())
        notes.append(
            f"{sum(others.values())} of {len(names)} cases are stored in another orientation ({kinds}) and are brought "
            f"to {orientation}, in which the network is trained; predictions are written as the input is stored"
        )
    ranges = spacing_ranges(screening, names, orientation)
    mixed = [f"{low:.4g} to {high:.4g} mm along axis {axis}" for axis, (low, high) in enumerate(ranges)
             if high > low * MIXED_SPACING and axis != info.slice_axis]  # fmt: skip
    if mixed and info.spacing is None and info.resize is None:
        notes.append(
            f"the voxel size differs among the cases, {', '.join(mixed)}; they are not resampled, so the network "
            "sees structures of different size"
        )
    elif mixed:
        size = "x".join(f"{s:.4g}" for axis, s in enumerate(info.spacing or ()) if axis != info.slice_axis)
        to = f"{size} mm" if size else f"{'x'.join(map(str, info.resize or ()))} voxels"
        notes.append(
            f"the voxel size differs among the cases, {', '.join(mixed)}; they are resampled to {to} for the network, "
            "and predictions to the grid of the input"
        )
    return [Fault(DATA_SET, note) for note in notes]


def told(notes: Iterable[Fault], kept_in: str | None = "split.json") -> list[str]:
    """The notes as lines, each kind once: the first of it, and how many cases more (`kept_in` has them all)."""
    kinds: dict[str, list[str]] = {}
    for note in notes:
        match = KIND.search(note.reason)
        kinds.setdefault(match.group(1) if match else note.reason, []).append(note.reason)
    where = "" if kept_in is None else f", in {kept_in}"
    return [
        reasons[0] + (f" (and {len(reasons) - 1} more cases{where})" if len(reasons) > 1 else "")
        for reasons in kinds.values()
    ]
