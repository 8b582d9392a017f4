"""Data: discovery of layouts, reading, normalisation, splitting, random crops, and an embedded phantom.

Importing this room loads torch and NumPy only; nibabel and Pillow are loaded when a file is read.
"""

from __future__ import annotations

from sure_fast.data import phantom
from sure_fast.data.assigning import assign
from sure_fast.data.cases import Case, CaseList, DatasetInfo
from sure_fast.data.corruptions import CORRUPTIONS, corrupt
from sure_fast.data.dataset import SegmentationDataset
from sure_fast.data.errors import DataError, Fault
from sure_fast.data.groups import group_cases, suspect_groups
from sure_fast.data.layouts import LAYOUTS, discover
from sure_fast.data.normalize import normalize
from sure_fast.data.reading import Sample, load_case, read_image, read_label
from sure_fast.data.split import Split, fold_cases, split_cases
from sure_fast.data.split_file import read_split
from sure_fast.data.writing import save_nifti

__all__ = [
    "CORRUPTIONS",
    "LAYOUTS",
    "Case",
    "CaseList",
    "DataError",
    "DatasetInfo",
    "Fault",
    "Sample",
    "SegmentationDataset",
    "Split",
    "assign",
    "corrupt",
    "discover",
    "fold_cases",
    "group_cases",
    "load_case",
    "normalize",
    "phantom",
    "read_image",
    "read_label",
    "read_split",
    "save_nifti",
    "split_cases",
    "suspect_groups",
]
