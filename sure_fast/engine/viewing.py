"""A folder with a page that shows cases with their prediction and uncertainty in a browser."""

from __future__ import annotations

import base64
import gzip
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import Case, DataError, Fault, discover, load_case, read_label
from ..data.inputs import list_inputs
from ..data.reading import Sample
from ..data.writing import MANIFEST
from ..metrics import compute_dice
from . import checkpoint, review, slices
from .cases import check_classes, evaluated_part
from .files import write_text
from .maps import SEGMENTATION, UNCERTAINTY, MapFolders, load
from .prediction import Prediction, home

PAGE = ("index.html", "viewer.css", "viewer.js", "niivue.js", "NIIVUE-LICENSE.txt")
STEPS = {"uncertainty": np.dtype(np.uint8), "image": np.dtype(np.uint16)}
"""As what values that are no class numbers are stored."""
SHOWN = (0.5, 99.5)
"""Percentiles of an image that are black and white."""


@dataclass
class Shown:
    """A case as the page has it; arrays [*S] in one voxel order."""

    name: str
    image: np.ndarray
    prediction: np.ndarray
    uncertainty: np.ndarray
    label: np.ndarray | None
    affine: np.ndarray | None
    row: review.Row
    dice: float = math.nan


Report = Callable[[str], object]
"""Takes what is to be known of the cases, a line each."""


def of_run(
    folder: Path, weights: str | None, device: torch.device, report: Report
) -> tuple[list[Any], dict[int, str], Any]:
    """The evaluated cases of a run, its classes, and what predicts a case.

    Raises:
        ValueError: no run, or its data are not there any more.
    """
    path = checkpoint.find(folder, weights)
    predictor, content = checkpoint.load_predictor(path, device)
    plan, config = content["plan"], content["config"]
    run = checkpoint.run_folder(path)
    data = Path(config.data.folder or run / "phantom")
    faults: list[Any] | None = [] if config.data.skip_bad else None
    label_map = config.data.label_map or None
    cases = discover(data, config.data.layout, label_map=label_map, like=plan.class_names, faults=faults)
    for note in check_classes(data, cases.info.class_names, plan.class_names):
        report(note)
    cases = cases.with_info(**plan.preparation)
    _, chosen = evaluated_part(cases, data, run, None)
    known, _ = review.read(run, checkpoint.fingerprint(path))

    def shown(case: Case) -> Shown:
        sample = load_case(case, normalized=True)
        where = home(device, sample.image.shape[1:], plan.num_classes)
        prediction = predictor(sample.image[None].to(where), sample.place)
        return _shown(case, load_case(case), prediction, plan.num_classes, known)

    return list(chosen), dict(plan.class_names), shown


def of_predictions(
    folder: Path, images: Path | None, data: Path | None, report: Report
) -> tuple[list[Any], dict[int, str], Any]:
    """The cases of a folder of segmentations and uncertainty maps, with their images where these are found.

    Args:
        images: of them; None: those that were predicted on, as the folder says. data: a data folder with images and
            labels, instead.

    Raises:
        ValueError: no maps, or no image of any of them.
    """
    folders = MapFolders.found_in(folder)
    if folders.uncertainty is None:
        raise DataError(f"{folder}: expected uncertainty maps beside the segmentations, got none")
    if data is not None:
        cases = discover(data, part="all", require_labels=False)
        listed, names = list(cases), dict(cases.info.class_names)
    else:
        source = images or _recorded(folder)
        faults: list[Fault] = []
        listed, names = list_inputs(source, _channels(folder), faults=faults), _names(folder)
        for fault in faults:
            report(f"left out: {fault.reason}")
    chosen = [case for case in listed if folders.file(case.name, SEGMENTATION) and folders.file(case.name, UNCERTAINTY)]
    if not chosen:
        raise DataError(
            f"{folder}: expected segmentations and maps of the images in {data or source}, got none of them"
        )
    if len(chosen) < len(listed):
        report(f"{len(listed) - len(chosen)} of {len(listed)} images have no prediction here and are left out")
    known, _ = review.read(folder, str(_manifest(folder, MANIFEST).get("checkpoint")))

    def shown(case: Case) -> Shown:
        sample = load_case(case)
        classes = len(names) or 256
        prediction, _ = load(folders, case, sample, classes)
        return _shown(case, sample, prediction, classes, known)

    if not names:
        seen = sorted({int(c) for case in chosen for c in np.unique(_segmentation(folders, case))})
        names = {c: "background" if c == 0 else f"class {c}" for c in range(max(seen, default=0) + 1)}
    return chosen, names, shown


def _manifest(folder: Path, name: str) -> dict[str, Any]:
    """predictions.json, or nnU-Net's dataset.json; nothing where it is not there, or damaged."""
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _recorded(folder: Path) -> Path:
    """Where the images lie that were predicted on."""
    source = _manifest(folder, MANIFEST).get("input")
    if not isinstance(source, str):
        raise DataError(f"images: expected the folder of the images of {folder} (--images), got none")
    if not Path(source).exists():
        raise DataError(f"images: expected {source}, on which {folder} was predicted, got nothing there; give --images")
    return Path(source)


def _names(folder: Path) -> dict[int, str]:
    """Classes by what lies beside predictions; none where nothing tells."""
    names = _manifest(folder, MANIFEST).get("class_names")
    if isinstance(names, dict):
        return {int(number): str(name) for number, name in names.items()}
    labels = _manifest(folder, "dataset.json").get("labels")
    found = labels.items() if isinstance(labels, dict) else ()
    return {number: name for name, number in found if isinstance(number, int)}


def _channels(folder: Path) -> int:
    """Of the images, where a dataset.json tells; their files are named by channel then."""
    return len(_manifest(folder, "dataset.json").get("channel_names") or [0])


def _segmentation(folders: MapFolders, case: Case) -> np.ndarray:
    path = folders.file(case.name, SEGMENTATION)
    assert path is not None
    return read_label(path)[0]


def _shown(case: Case, sample: Sample, prediction: Prediction, classes: int, known: review.Validation) -> Shown:
    labels = prediction.labels[0].cpu()
    u = prediction.uncertainty[0].float().cpu().numpy()
    dice, ignore = math.nan, None if case.info is None else case.info.ignore_index
    if sample.label is not None:
        dice = float(compute_dice(labels[None], sample.label[None], classes, ignore_index=ignore)[0].mean())
    row = review.row_of(case.name, labels.numpy(), u, sample.affine, known)
    grey = sample.image.mean(0).numpy()  # of colours and channels one image
    label = None if sample.label is None else sample.label.numpy()
    return Shown(case.name, grey, labels.numpy(), u, label, sample.affine, row, dice)


def write(output: Path, title: str, class_names: dict[int, str], shown: Iterable[Shown]) -> int:
    """The page and a script a case, index.html last; returns the number of bytes. An earlier page stays until all cases
    of the new one are there.

    Args:
        shown: in any order; the page has the most uncertain first.
    """
    cases, partial = output / "cases", output / "cases.partial"
    shutil.rmtree(partial, ignore_errors=True)
    told: list[dict[str, Any]] = []
    try:
        for number, case in enumerate(shown):
            write_text(partial / f"{number}.js", f"sureFastCase({number}, {json.dumps(_voxels(case))});\n")
            told.append(_told(number, case))
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if cases.is_dir():
        shutil.rmtree(cases)
    if partial.is_dir():
        os.replace(partial, cases)
    told.sort(key=lambda one: (-one["uncertainty"], one["name"]))
    content = {"title": title, "classes": _classes(class_names), "scale": _scale(), "cases": told}
    write_text(output / "cases.js", f"window.sureFastCases = {json.dumps(content)};\n")
    source = resources.files("sure_fast") / "viewer"
    for name in reversed(PAGE):
        (output / name).write_bytes((source / name).read_bytes())
    return sum(path.stat().st_size for path in output.rglob("*") if path.is_file())


def _told(number: int, case: Shown) -> dict[str, Any]:
    window = [float(x) for x in np.percentile(case.image, SHOWN)]
    if window[0] == window[1]:
        window[1] = window[0] + 1.0
    place: list[float] = list(case.row.place)
    if case.affine is None:  # column and row, in the page's mm
        place = [place[0], case.prediction.shape[0] - 1 - place[1], 0.0]
    return {
        "number": number,
        "name": case.name,
        "uncertainty": case.row.case_uncertainty,
        "percentile": None if math.isnan(case.row.percentile) else case.row.percentile,
        "dice": None if math.isnan(case.dice) else case.dice,
        "place": place,
        "window": window,
        "flat": case.prediction.ndim == 2 or 1 in case.prediction.shape,
    }


def _voxels(case: Shown) -> dict[str, str]:
    """By layer, a NIfTI file in base64."""
    layers = {"image": case.image, "prediction": case.prediction, "uncertainty": case.uncertainty, "label": case.label}
    return {name: _nifti(name, array, case.affine) for name, array in layers.items() if array is not None}


def _nifti(layer: str, array: np.ndarray, affine: np.ndarray | None) -> str:
    """Class numbers as they are, u in 256 steps and an image in 65536 between its extremes, which nibabel scales."""
    import nibabel

    if affine is None:  # a picture: x to the right, y up
        affine = np.diag([1.0, 1.0, 1.0, 1.0])
        array = array[::-1].T
    array = array[..., None] if array.ndim == 2 else array
    if layer in STEPS:
        array, stored = array.astype(np.float32), STEPS[layer]
    else:
        stored = np.dtype(np.uint8 if array.max(initial=0) < 256 else np.uint16)
        array = np.maximum(array, 0).astype(stored)
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_data_dtype(stored)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode()


def _classes(names: dict[int, str]) -> list[dict[str, Any]]:
    palette = slices.palette(max(names, default=0) + 1)
    return [{"number": c, "name": names[c], "colour": [round(255 * float(v)) for v in palette[c]]}
            for c in sorted(names) if c > 0]  # fmt: skip


def _scale() -> dict[str, list[int]]:
    """The colours of u in the pictures of the project, as NiiVue takes them; u = 0 is transparent."""
    from matplotlib import colormaps

    steps = np.linspace(0, 1, 17)
    colours = np.rint(255 * colormaps[slices.UNCERTAINTY](steps)[:, :3]).astype(int)
    at = np.rint(255 * steps ** (1 / slices.UNCERTAINTY_POWER)).astype(int)
    alpha = np.rint(255 * np.minimum(1, steps * 3)).astype(int)
    return {**{name: colours[:, k].tolist() for k, name in enumerate("RGB")}, "A": alpha.tolist(), "I": at.tolist()}
