"""Finding the cases of a data set: the three layouts, and which of them a folder has."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from sure_fast.data.cases import NIFTI_SUFFIXES, Case, CaseList, DatasetInfo, is_picture, stem
from sure_fast.data.classes import checked_map, classes_of, values_in
from sure_fast.data.errors import DataError, Fault
from sure_fast.data.folders import IMAGE_FOLDERS, holds_images, list_folders, subfolder
from sure_fast.data.listing import Listing, tell
from sure_fast.data.msd_nnunet import list_msd_nnunet
from sure_fast.data.reading import read_image
from sure_fast.data.refuge import LABEL_MAP, is_refuge, list_refuge

LAYOUTS = ("msd_nnunet", "acdc", "refuge", "folders")
PARTS = ("training", "test", "all")
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
    like: Mapping[int, str] | None = None,
    require_labels: bool = True,
    faults: list[Fault] | None = None,
) -> CaseList:
    """List the cases of a data set.

    Layouts:
        `msd_nnunet`: a `dataset.json`, of the Medical Segmentation Decathlon or nnU-Net v1 (pairs under "training") or
        of nnU-Net v2 (`channel_names`, `file_ending`, imagesTr/NAME_0000…, labelsTr/NAME). The cases of MONAI's
        "validation" list are there too, to validate (`Case.part`).
        `acdc`: `patientNNN/patientNNN_frameNN.nii.gz` with `…_gt.nii.gz`, also under training/ and testing/.
        `refuge`: `Training400/` with `Annotation-Training400/Disc_Cup_Masks/`, and the parts for validation and test
        with `…-GT/Disc_Cup_Masks/` (`Case.part`); grey levels 255, 128 and 0 are background, disc rim and cup.
        `folders`: `images/` beside `masks/` or `labels/`, files paired by name (a mask may end in _mask, _label, _seg,
        _gt); NIfTI or PNG/JPEG/BMP/TIFF. Channels may be files of their own, NAME_0000, NAME_0001, … of a label NAME.
        With `require_labels=False`, a folder that only holds images, or one image file, is `folders` too.

    Args:
        root: the folder.
        layout: one of `LAYOUTS`, or "auto".
        part: "training", "test" (MSD's "test", nnU-Net's imagesTs, ACDC's testing/) or "all".
        label_map: stored label value to class number, such as {0: 2, 128: 1, 255: 0} for REFUGE's grey levels; to
            -1 what is not annotated.
        class_names: names of the classes 0 … C−1, where the layout has none or `label_map` changes them; without them
            a class of the map is called as the stored values that become it.
        like: names of the classes of a network that the cases are for. Where the layout has none they are taken, if the
            labels hold no other classes, be it not all of them.
        images, labels: the two folders of layout `folders`, absolute or below `root`.
        require_labels: refuse an image without label ("test" parts excepted).
        faults: where a list is given, a case with a file that is missing, outside the folder or unreadable is left out
            and told there, rather than refused.

    Returns:
        The cases sorted by name, with `.info`, and `.notes` on what lies beside them.

    Raises:
        DataError: nothing found, or what was found does not fit together (names the file), such as a label without
            image, a file of another ending or another number of cases than dataset.json says; an unknown option.

    Notes:
        Files starting with a dot are passed over. Layout `folders` reads every mask once to learn the classes, unless
        `label_map` tells them; two values of which one is 0, such as 0 and 255, are background and a class.
    """
    root, mapping = Path(root), checked_map(label_map)
    chosen, listing = _list(root, layout, part, images, labels, require_labels, faults)
    cases = sorted(listing.cases, key=lambda case: case.name)
    if not cases and faults:
        raise DataError(f"{faults[0].reason} (and no sound case beside {len(faults)} faulty)")
    if not cases:
        raise DataError(f"{root}: expected at least one case of layout {chosen} ({part}), got none")
    cases = _sound(cases, _check_name, faults)
    for first, second in pairwise(cases):
        if first.name == second.name:
            raise DataError(f"{second.image}: expected one case named {second.name!r}, got also {first.image}")
    if require_labels and part != "test":
        cases = _sound(cases, _need_label, faults)
    if chosen == "refuge" and mapping is None:
        mapping = LABEL_MAP
    classes = classes_of(
        listing, mapping, class_names, like, lambda: values_in(lambda look: _read(cases, look, faults))
    )
    left_out = {fault.case for fault in faults or ()}
    cases = [case for case in cases if case.name not in left_out]
    if listing.num_channels is None:
        cases = _sound(cases, _count_channels, faults, one=True)
    pictures = {is_picture(case.image) for case in cases}
    if len(pictures) > 1 and require_labels:
        raise DataError(f"{root}: expected NIfTI or pictures, whose spacing is in mm or pixels, got both")
    info = DatasetInfo(
        layout=chosen,
        class_names=classes.names,
        num_channels=listing.num_channels or _count_channels(cases[0]),
        ignore_index=classes.ignore_index,
        label_map=classes.label_map,
        spacing_unit="px" if True in pictures else "mm",
        channel_names=listing.channel_names,
    )
    notes = [Fault("data set", note) for note in listing.notes]
    return CaseList([replace(case, info=info) for case in cases], info, notes)


def _list(
    root: Path,
    layout: str,
    part: str,
    images: str | os.PathLike[str] | None,
    labels: str | os.PathLike[str] | None,
    require_labels: bool,
    faults: list[Fault] | None,
) -> tuple[str, Listing]:
    """The layout of the folder and what it lists."""
    if layout != "auto" and layout not in LAYOUTS:
        raise DataError(f"layout: expected 'auto' or one of {', '.join(LAYOUTS)}, got {layout!r}")
    if part not in PARTS:
        raise DataError(f"part: expected one of {', '.join(PARTS)}, got {part!r}")
    if not root.exists():
        raise DataError(f"{root}: expected a folder with a data set, got nothing there")
    if not root.is_dir() and (require_labels or not root.is_file()):
        raise DataError(f"{root}: expected a folder with a data set, got a file")
    of_folders = images is not None or labels is not None
    chosen = _find_layout(root, of_folders, require_labels) if layout == "auto" else layout
    if chosen != "folders" and of_folders:
        raise DataError(f"images, labels: expected only with layout 'folders', got them with {chosen!r}")
    if chosen == "msd_nnunet":
        return chosen, list_msd_nnunet(root, part, faults)
    if chosen == "acdc":
        return chosen, _list_acdc(root, part, faults)
    if chosen == "refuge":
        return chosen, list_refuge(root, part, faults)
    return chosen, list_folders(root, images, labels, faults)


def _read(cases: Sequence[Case], look: Callable[[Case], object], faults: list[Fault] | None) -> list[Case]:
    """The labelled cases whose label can be read."""
    labelled = [case for case in cases if case.label is not None]
    return _sound(labelled, look, faults) if labelled else []


def _check_name(case: Case) -> None:
    """What is written of a case is called as it is, so a name must not lead to another folder."""
    if not case.name.strip() or re.search(r"[/\\\x00-\x1f]", case.name):
        raise DataError(f"{case.image}: expected a name of the case that can be one of a file, got {case.name!r}")


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
        return "folders"
    if (root / "dataset.json").is_file():
        return "msd_nnunet"
    if any(_acdc_patients(folder) for folder in (root, root / "training", root / "testing")):
        return "acdc"
    if subfolder(root, IMAGE_FOLDERS) is not None:
        return "folders"
    if is_refuge(root):
        return "refuge"
    if not require_labels and holds_images(root):
        return "folders"
    entries = sorted(path.name for path in root.iterdir())
    held = "an empty folder" if not entries else ", ".join(entries[:5]) + (", …" if len(entries) > 5 else "")
    raise DataError(
        f"{root}: expected dataset.json, patientNNN/ folders (ACDC), Disc_Cup_Masks/ (REFUGE), or images/ with masks/ "
        f"or labels/, got {held}"
    )


def _acdc_patients(folder: Path) -> list[Path]:
    """Folders of patients; those of which none holds a frame are no data set of this layout."""
    if not folder.is_dir():
        return []
    patients = sorted(p for p in folder.iterdir() if p.is_dir() and re.match(r"patient\d+$", p.name))
    return patients if any(_is_frame(file) for patient in patients for file in patient.iterdir()) else []


def _is_frame(file: Path) -> bool:
    return file.name.lower().endswith(NIFTI_SUFFIXES) and ACDC_FRAME.match(stem(file)) is not None


def _list_acdc(root: Path, part: str, faults: list[Fault] | None) -> Listing:
    wanted = {"training": ("training",), "test": ("testing",), "all": ("training", "testing")}[part]
    folders = [root / name for name in wanted if (root / name).is_dir()]
    if not folders and not (part == "test" or (root / "testing").is_dir()):
        folders = [root]  # the patients lie in root itself
    cases: list[Case] = []
    for folder in folders:
        for patient in _acdc_patients(folder):
            files: dict[str, Path] = {}
            for path in sorted(patient.iterdir()):
                if path.name.lower().endswith(NIFTI_SUFFIXES) and not path.name.startswith("."):
                    if stem(path) in files:
                        raise DataError(f"{path}: expected one file of that name, got also {files[stem(path)].name}")
                    files[stem(path)] = path
            frames = {name: path for name, path in files.items() if ACDC_FRAME.match(name)}
            if not frames:
                tell(
                    DataError(f"{patient}: expected {patient.name}_frameNN.nii.gz in it, got none"),
                    patient.name,
                    faults,
                )
            for name, path in frames.items():
                cases.append(Case(name, patient.name, path, files.get(f"{name}_gt")))
            for name in sorted(name for name in files if name.endswith("_gt") and name[:-3] not in frames):
                tell(DataError(f"{files[name]}: expected the image {name[:-3]} beside it, got none"), name, faults)
    return Listing(cases, ACDC_CLASSES, num_channels=1)


def _count_channels(case: Case) -> int:
    return sum(read_image(path)[0].shape[0] for path in case.channel_files)
