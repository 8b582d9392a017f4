"""From the evidence on nnU-Net's grid to files in the geometry of the image."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

import sure_fast
from sure_fast.data import save_nifti
from sure_fast.data.cases import NIFTI_SUFFIXES
from sure_fast.data.orientation import reorient
from sure_fast.data.writing import HEADERS
from sure_fast.ops.dirichlet_uncertainty import evidence_of

if TYPE_CHECKING:
    from .predictor import Files

PICTURE = ".png"


def check_ending(ending: str) -> None:
    if ending not in (*NIFTI_SUFFIXES, PICTURE):
        raise ValueError(
            f"file_ending: expected a data set of {', '.join((*NIFTI_SUFFIXES, PICTURE))} files, got {ending}"
        )


def ending_of_probabilities(ending: str) -> str:
    return ".npz" if ending == PICTURE else ending


def export(
    log_evidence: np.ndarray, properties: dict[str, Any], plans: Any, configuration: Any, dataset: dict, files: Files
) -> str:
    """Writes the results of a case, its segmentation last; returns its name.

    Args:
        log_evidence: [C, *S], of regions [2R, *S], on the grid of the network. properties: of the case, nnU-Net's.
    """
    labels = plans.get_label_manager(dataset)
    spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
    shape = properties["shape_after_cropping_and_before_resampling"]
    # a network of slices leaves the first axis as it is
    own = [*spacing[: len(shape) - len(configuration.spacing)], *configuration.spacing]
    resampled = configuration.resampling_fn_probabilities(log_evidence, shape, own, spacing)
    segmentation, u, p = _read_off(torch.as_tensor(resampled).float(), labels)
    back = plans.transpose_backward
    box, whole = (properties[key] for key in ("bbox_used_for_cropping", "shape_before_cropping"))
    last = np.uint8 if len(labels.foreground_labels) < 255 else np.uint16
    segmentation = _uncropped(segmentation.astype(last), box, whole).transpose(back)
    folded = [0, *(axis + 1 for axis in back)]
    u = np.stack([_uncropped(x, box, whole) for x in u]).transpose(folded)
    partial = files.segmentation.parent / ".writing" / files.segmentation.name
    partial.parent.mkdir(exist_ok=True)
    try:
        writer = plans.image_reader_writer_class()
        writer.write_seg(segmentation, str(partial), properties)
        _write(files.uncertainty, u, "uncertainty", partial, writer)
        if files.probabilities is not None and files.exported is not None:
            around = labels.revert_cropping_on_probabilities(torch.from_numpy(p), box, whole)
            p = around.numpy().transpose(folded)
            _write(files.probabilities, p, "probabilities", partial, writer)
            _save_npz(files.exported, p)
            with open(files.exported.with_suffix(".pkl"), "wb") as file:
                pickle.dump(properties, file)
        os.replace(partial, files.segmentation)
    finally:
        partial.unlink(missing_ok=True)
        if not any(partial.parent.iterdir()):
            partial.parent.rmdir()
    return files.name


def _read_off(log_evidence: Tensor, labels: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Segmentation [*S], u [1, *S] or of regions [R, *S], and p [C, *S] or [R, *S]."""
    if labels.has_regions:
        absent, present = log_evidence.chunk(2)
        pairs = torch.stack([absent, present], 1)
        alpha = evidence_of(pairs) + 1.0
        p = alpha[:, 1] / alpha.sum(1)
        u = sure_fast.dirichlet_uncertainty(pairs)[:, 0]
        # half the difference is the logit of one fold, of which nnU-Net takes the sigmoid
        segmentation = labels.convert_logits_to_segmentation((present - absent) / 2)
    else:
        alpha = evidence_of(log_evidence) + 1.0
        p = alpha / alpha.sum(0)
        u = sure_fast.dirichlet_uncertainty(log_evidence[None])[0]
        segmentation = labels.convert_logits_to_segmentation(log_evidence)
    return np.asarray(segmentation), u.numpy(), p.numpy()


def _uncropped(array: np.ndarray, box: Any, shape: Any) -> np.ndarray:
    """In the whole image, 0 where nnU-Net did not look."""
    whole = np.zeros(tuple(shape), dtype=array.dtype)
    whole[tuple(slice(*ends) for ends in box)] = array
    return whole


def _write(path: Path, array: np.ndarray, kind: str, segmentation: Path, writer: Any) -> None:
    """Maps [K, z, y, x] beside the segmentation of the case, with its voxels; a single one without its axis."""
    path.parent.mkdir(exist_ok=True)
    if path.name.endswith(PICTURE):
        from PIL import Image

        partial = path.with_name(f"{path.name}.partial")
        # of several regions the most uncertain one is shown
        pixels = (array.max(0)[0].clip(0, 1) * 65535).round().astype(np.uint16)
        Image.fromarray(pixels).save(partial, format="PNG")
        os.replace(partial, path)
        return
    if path.suffix == ".npz":
        _save_npz(path, array)
        return
    import nibabel

    template: Any = nibabel.load(segmentation)
    stored = array.transpose(0, 3, 2, 1)  # as NIfTI has them
    if len(template.shape) == 2:
        stored = stored[..., 0]
    if "Reorient" in type(writer).__name__:
        stored = reorient(stored, "RAS", "".join(nibabel.aff2axcodes(template.affine)))
    stored = stored[0] if len(stored) == 1 else np.moveaxis(stored, 0, -1)
    code = max(int(template.header["sform_code"]), int(template.header["qform_code"]))
    save_nifti(path, np.ascontiguousarray(stored), template.affine, form_code=code, **HEADERS[kind])


def _save_npz(path: Path, probabilities: np.ndarray) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "wb") as file:
        np.savez_compressed(file, probabilities=probabilities)
    os.replace(partial, path)
