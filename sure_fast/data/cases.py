"""What a data set is made of: cases, and what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sure_fast.data.errors import Fault
from sure_fast.data.normalize import Window

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
NIFTI_SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class DatasetInfo:
    """What all cases of a data set share.

    Args:
        layout: name of the layout it was found in.
        class_names: class number to name, 0 … C−1.
        num_channels: image channels K.
        ignore_index: label value that means "not annotated", or None.
        label_map: stored label value to class number, applied when a label is read; None: as stored.
        channel_names: of the image channels, such as "CT", where the layout has them.
        orientation: axis codes such as "LPS" to which cases are brought when they are read; None: as stored.
        spacing: in mm, per axis, to which images are resampled for a network; None: as stored.
        resize: voxels per axis to which images are resampled for a network, without the axis of slices; None: not.
        foreground_crop: a network sees the box of what is not 0.
        windows: per channel how it is normalised, None by its own values; None: each by its own values.
        slice_axis: of volumes that a network sees slice by slice; None: whole.
        spacing_unit: of distances: "mm", or "px" where the images are pictures, which name no spacing.
    """

    layout: str
    class_names: dict[int, str]
    num_channels: int
    ignore_index: int | None = None
    label_map: Mapping[int, int] | None = None
    orientation: str | None = None
    spacing_unit: str = "mm"
    channel_names: tuple[str, ...] | None = None
    spacing: tuple[float, ...] | None = None
    resize: tuple[int, ...] | None = None
    foreground_crop: bool = False
    windows: tuple[Window | None, ...] | None = None
    slice_axis: int | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


@dataclass(frozen=True)
class Case:
    """One image with its label.

    Args:
        name: unique in its data set.
        group: what a split must keep together: the patient where the layout names one, else `name`.
        image: the image file (its first channel where channels are files of their own).
        label: the label file; None when there is none.
        extra_images: files of the other channels, in order.
        info: what the data set says of all its cases; reading checks against it.
        part: "val" or "test" where the data set names the case for it; None: for training, or as a split says.
    """

    name: str
    group: str
    image: Path
    label: Path | None = None
    extra_images: tuple[Path, ...] = ()
    info: DatasetInfo | None = field(default=None, compare=False, repr=False)
    part: str | None = None

    @property
    def channel_files(self) -> tuple[Path, ...]:
        return (self.image, *self.extra_images)


class CaseList(list[Case]):
    """A list of cases, sorted by name, that also knows its `info`, and notes on what was found beside them."""

    def __init__(self, cases: Iterable[Case], info: DatasetInfo, notes: Iterable[Fault] = ()) -> None:
        super().__init__(cases)
        self.info = info
        self.notes = list(notes)

    def with_info(self, **changes: Any) -> CaseList:
        """The same cases with another `info`, such as another `orientation` to which they are brought."""
        info = replace(self.info, **changes)
        return CaseList([replace(case, info=info) for case in self], info, self.notes)


def is_image_file(path: Path) -> bool:
    """A NIfTI or picture file that is not hidden (archives made on a Mac carry `._` twins of every file)."""
    return not path.name.startswith(".") and path.name.lower().endswith(IMAGE_SUFFIXES + NIFTI_SUFFIXES)


def is_picture(path: Path) -> bool:
    return path.name.lower().endswith(IMAGE_SUFFIXES)


def stem(path: Path) -> str:
    """File name without its suffix, `.nii.gz` being one suffix.

    Example:
        >>> stem(Path("a/heart_01.nii.gz")), stem(Path("g0001.jpg"))
        ('heart_01', 'g0001')
    """
    name = path.name
    for suffix in NIFTI_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem
