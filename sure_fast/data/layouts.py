"""Finding the cases of a data set: the three layouts, and which of them a folder has."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from sure_fast.data.cases import NIFTI_SUFFIXES, Case, CaseList, DatasetInfo, is_image_file, stem
from sure_fast.data.errors import DataError, Fault
from sure_fast.data.msd_nnunet import Listing, list_msd_nnunet
from sure_fast.data.reading import read_image, read_label

LAYOUTS = ("msd_nnunet", "acdc", "folders")
PARTS = ("training", "test", "all")
IMAGE_FOLDERS = ("images", "image", "imgs")
LABEL_FOLDERS = ("masks", "labels", "mask", "label", "annotations")
LABEL_ENDINGS = ("", "_mask", "_label", "_labels", "_seg", "_segmentation", "_gt")
ACDC_FRAME = re.compile(r"^(patient\d+)_frame\d+$")
ACDC_CLASSES = {0: "background", 1: "right ventricle", 2: "myocardium", 3: "left ventricle"}


def discover(
    root: str | os.PathLike[str],
    layout: str = "auto",
    *,
    part: str = "training",
    label_map: Mapping[int, int] | None = None,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    images: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    require_labels: bool = True,
    faults: list[Fault] | None = None,
) -> CaseList:
    """List the cases of a data set.

    Layouts:
        `msd_nnunet`: a `dataset.json`, of the Medical Segmentation Decathlon or nnU-Net v1 (pairs under "training") or
        of nnU-Net v2 (`channel_names`, `file_ending`, imagesTr/NAME_0000…, labelsTr/NAME).
        `acdc`: `patientNNN/patientNNN_frameNN.nii.gz` with `…_gt.nii.gz`, also under training/ and testing/.
        `folders`: `images/` beside `masks/` or `labels/`, files paired by name (a mask may end in _mask, _label, _seg,
        _gt); NIfTI or PNG/JPEG/BMP/TIFF.
        With `require_labels=False`, a folder that only holds images, or one image file, is `folders` too.

    Args:
        root: the folder.
        layout: one of `LAYOUTS`, or "auto".
        part: "training", "test" (MSD's "test", nnU-Net's imagesTs, ACDC's testing/) or "all".
        label_map: stored label value to class number, such as {0: 2, 128: 1, 255: 0} for REFUGE's grey levels.
        class_names: names of the classes 0 … C−1, where the layout has none or `label_map` changes them.
        images, labels: the two folders of layout `folders`, absolute or below `root`.
        require_labels: refuse an image without label ("test" parts excepted).
        faults: where a list is given, a case with a file that is missing, outside the folder or unreadable is left out
            and told there, rather than refused.

    Returns:
        The cases sorted by name, with `.info`.

    Raises:
        DataError: nothing found, or what was found does not fit together (names the file), or an unknown option.

    Notes:
        Files starting with a dot are passed over. Layout `folders` reads every mask once to learn the classes, unless
        `label_map` or `class_names` tells them.
    """
    root = Path(root)
    if layout != "auto" and layout not in LAYOUTS:
        raise DataError(f"layout: expected 'auto' or one of {', '.join(LAYOUTS)}, got {layout!r}")
    if part not in PARTS:
        raise DataError(f"part: expected one of {', '.join(PARTS)}, got {part!r}")
    if not root.exists():
        raise DataError(f"{root}: expected a folder with a data set, got nothing there")
    mapping = _checked_map(label_map)
    chosen = layout
    if layout == "auto":
        chosen = _find_layout(root, images is not None or labels is not None, require_labels)
    if chosen != "folders" and (images is not None or labels is not None):
        raise DataError(f"images, labels: expected only with layout 'folders', got them with {chosen!r}")
    if chosen == "msd_nnunet":
        listing = list_msd_nnunet(root, part, faults)
    elif chosen == "acdc":
        listing = _list_acdc(root, part)
    else:
        listing = _list_folders(root, images, labels, faults)
    cases = sorted(listing.cases, key=lambda case: case.name)
    if not cases and faults:
        raise DataError(f"{faults[0].reason} (and no sound case beside {len(faults)} faulty)")
    if not cases:
        raise DataError(f"{root}: expected at least one case of layout {chosen} ({part}), got none")
    for first, second in pairwise(cases):
        if first.name == second.name:
            raise DataError(f"{second.image}: expected one case named {second.name!r}, got also {first.image}")
    if require_labels and part != "test":
        cases = _sound(cases, _need_label, faults)
    names = _class_names(cases, listing, mapping, class_names, faults)
    left_out = {fault.case for fault in faults or ()}
    cases = [case for case in cases if case.name not in left_out]
    if listing.num_channels is None:
        cases = _sound(cases, _count_channels, faults, one=True)
    info = DatasetInfo(
        layout=chosen,
        class_names=names,
        num_channels=listing.num_channels or _count_channels(cases[0]),
        ignore_index=listing.ignore_index,
        label_map=mapping,
    )
    done = [Case(c.name, c.group, c.image, c.label, c.extra_images, info) for c in cases]
    return CaseList(done, info)


def _need_label(case: Case) -> None:
    if case.label is None:
        raise DataError(f"{case.image}: expected a label for it, got none")


def _sound(
    cases: Sequence[Case], check: Callable[[Case], object], faults: list[Fault] | None, one: bool = False
) -> list[Case]:
    """The cases without those that `check` finds faulty; with `one` only up to the first sound one."""
    sound: list[Case] = []
    for case in cases:
        try:
            if not (one and sound):
                check(case)
            sound.append(case)
        except DataError as error:
            if faults is None:
                raise
            faults.append(Fault(case.name, str(error)))
    if not sound and faults:
        raise DataError(f"{faults[-1].reason} (and no sound case beside {len(faults)} faulty)")
    return sound


def _find_layout(root: Path, folders_given: bool, require_labels: bool) -> str:
    if folders_given:
        return "folders"
    if root.is_file():
        if require_labels:
            raise DataError(f"{root}: expected a folder with a data set, got a file")
        return "folders"
    if (root / "dataset.json").is_file():
        return "msd_nnunet"
    if any(_acdc_patients(folder) for folder in (root, root / "training", root / "testing")):
        return "acdc"
    if _subfolder(root, IMAGE_FOLDERS) is not None:
        return "folders"
    if not require_labels and any(is_image_file(path) for path in root.iterdir()):
        return "folders"
    entries = sorted(path.name for path in root.iterdir())
    found = "an empty folder" if not entries else ", ".join(entries[:5]) + (", …" if len(entries) > 5 else "")
    raise DataError(
        f"{root}: expected dataset.json, patientNNN/ folders (ACDC), or images/ with masks/ or labels/, got {found}"
    )


def _acdc_patients(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.glob("patient*") if p.is_dir() and any(p.glob("patient*_frame*.nii*")))


def _list_acdc(root: Path, part: str) -> Listing:
    wanted = {"training": ("training",), "test": ("testing",), "all": ("training", "testing")}[part]
    folders = [root / name for name in wanted if (root / name).is_dir()]
    if not folders and not (part == "test" or (root / "testing").is_dir()):
        folders = [root]  # the patients lie in root itself
    cases = []
    for folder in folders:
        for patient in _acdc_patients(folder):
            files = {stem(p): p for p in sorted(patient.iterdir()) if p.name.lower().endswith(NIFTI_SUFFIXES)}
            for name, path in files.items():
                match = ACDC_FRAME.match(name)
                if match:
                    cases.append(Case(name, match.group(1), path, files.get(f"{name}_gt")))
    return Listing(cases, ACDC_CLASSES, num_channels=1)


def _subfolder(root: Path, names: Sequence[str]) -> Path | None:
    if not root.is_dir():
        return None
    present = {path.name.lower(): path for path in sorted(root.iterdir(), reverse=True) if path.is_dir()}
    return next((present[name] for name in names if name in present), None)


def _list_folders(
    root: Path,
    images: str | os.PathLike[str] | None,
    labels: str | os.PathLike[str] | None,
    faults: list[Fault] | None,
) -> Listing:
    if root.is_file() and images is None:
        return Listing([Case(stem(root), stem(root), root)], None)
    image_folder = root / images if images is not None else _subfolder(root, IMAGE_FOLDERS)
    label_folder = root / labels if labels is not None else _subfolder(root, LABEL_FOLDERS)
    if image_folder is None:
        if label_folder is not None:
            raise DataError(f"{root}: expected a folder images/ beside {label_folder.name}/, got none")
        image_folder = root
    for name, folder in (("images", image_folder), ("labels", label_folder)):
        if folder is not None and not folder.is_dir():
            raise DataError(f"{name}: expected a folder, got {folder}, which is none")
    by_stem = _by_stem(image_folder)
    if not by_stem:
        raise DataError(f"{image_folder}: expected NIfTI or PNG/JPEG images, got none in it")
    label_of = {} if label_folder is None else _by_stem(label_folder)
    cases = []
    used = set()
    for name, path in by_stem.items():
        found = [label_of[name + end] for end in LABEL_ENDINGS if name + end in label_of]
        if not found and name.endswith("_0000"):
            found = [label_of[name[:-5]]] if name[:-5] in label_of else []
        used.update(found)
        if len(found) > 1:
            error = DataError(f"{path}: expected one label, got {found[0].name} and {found[1].name}")
            if faults is None:
                raise error
            faults.append(Fault(name, str(error)))
            continue
        cases.append(Case(name, name, path, found[0] if found else None))
    for left in sorted(set(label_of.values()) - used):
        error = DataError(f"{left}: expected an image of its name in {image_folder}, got none")
        if faults is None:
            raise error
        faults.append(Fault(stem(left), str(error)))
    return Listing(cases, None)


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and is_image_file(path):
            name = stem(path)
            if name in files:
                raise DataError(f"{path}: expected one file of that name, got also {files[name].name}")
            files[name] = path
    return files


def _count_channels(case: Case) -> int:
    return sum(read_image(path)[0].shape[0] for path in case.channel_files)


def _checked_map(label_map: Mapping[int, int] | None) -> dict[int, int] | None:
    if label_map is None:
        return None
    try:
        mapping = {int(stored): int(number) for stored, number in label_map.items()}  # YAML may give text keys
    except (TypeError, ValueError, AttributeError):
        raise DataError(f"label_map: expected whole numbers to whole numbers, got {label_map!r}") from None
    numbers = sorted(set(mapping.values()))
    if numbers != list(range(len(numbers))) or len(numbers) < 2:
        raise DataError(f"label_map: expected class numbers 0, 1, … without a gap, at least two, got {numbers}")
    return mapping


def _class_names(
    cases: Sequence[Case],
    listing: Listing,
    mapping: Mapping[int, int] | None,
    given: Sequence[str] | Mapping[int, str] | None,
    faults: list[Fault] | None,
) -> dict[int, str]:
    if given is not None:
        names = dict(given.items()) if isinstance(given, Mapping) else dict(enumerate(given))
        try:
            names = {int(number): str(name) for number, name in names.items()}
        except (TypeError, ValueError):
            raise DataError(f"class_names: expected class numbers with names, got {given!r}") from None
        wanted = len(set(mapping.values())) if mapping is not None else len(listing.class_names or names)
        if sorted(names) != list(range(wanted)) or wanted < 2:
            raise DataError(f"class_names: expected names of the classes 0 … {max(wanted, 2) - 1}, got {names}")
        return dict(sorted(names.items()))
    if mapping is not None:
        return _plain_names(len(set(mapping.values())))
    if listing.class_names is not None:
        return listing.class_names
    return _plain_names(_scan_classes(cases, faults))


def _plain_names(count: int) -> dict[int, str]:
    return {0: "background"} | {c: f"class {c}" for c in range(1, count)}


def _scan_classes(cases: Sequence[Case], faults: list[Fault] | None) -> int:
    """Number of classes in the masks, whose values must be 0 … C−1."""
    values: set[int] = set()
    labelled = [case for case in cases if case.label is not None]
    if not labelled:
        return 2  # images alone, to predict on: the checkpoint knows its classes

    def look(case: Case) -> None:
        if case.label is not None and len(values) <= 256:
            values.update(int(v) for v in np.unique(read_label(case.label)[0]))

    files = [case.label for case in _sound(labelled, look, faults) if case.label is not None]
    found = sorted(values)
    if found != list(range(len(found))) or len(found) < 2:
        shown = ", ".join(map(str, found[:8])) + (", …" if len(found) > 8 else "")
        raise DataError(
            f"{files[0].parent}: expected masks of class numbers 0, 1, … without a gap, got the values {shown}; "
            "give label_map or class_names"
        )
    return len(found)
