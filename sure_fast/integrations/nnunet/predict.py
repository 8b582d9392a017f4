"""Predicts with nnU-Net's networks of evidence: python -m sure_fast.integrations.nnunet predict -i … -o … -d … -c …

The options are those of nnUNetv2_predict and of nnUNetv2_predict_from_modelfolder. It writes segmentations as nnU-Net
does, OUTPUT/uncertainty/CASE and, with --save_probabilities, OUTPUT/probabilities/CASE and nnU-Net's OUTPUT/CASE.npz.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import TRAINERS

if TYPE_CHECKING:
    from .predictor import Files

PROGRAM = "sure_fast.integrations.nnunet predict"
EXTERNAL, RESULTS = "nnUNet_extTrainer", "nnUNet_results"
"""Environment variables of nnU-Net's."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """nnU-Net's own names."""
    parser.add_argument("-i", required=True, type=Path, help="folder of images as nnU-Net names them")
    parser.add_argument("-o", required=True, type=Path, help="output folder")
    parser.add_argument("-m", type=Path, help="folder of the trained model; or -d, -c, -tr and -p")
    parser.add_argument("-d", help="data set, by name or number")
    parser.add_argument("-p", help="plans (default: nnUNetPlans)")
    parser.add_argument("-tr", help="trainer (default: nnUNetTrainerSURE)")
    parser.add_argument("-c", help="configuration, for example 3d_fullres")
    parser.add_argument("-f", nargs="+", help="folds, averaged in evidence (default: all that are there)")
    parser.add_argument("-step_size", type=float, default=0.5, help="of the sliding window (default: 0.5)")
    parser.add_argument("--disable_tta", action="store_true", help="no mirroring")
    parser.add_argument("--save_probabilities", action="store_true", help="write α / A too")
    parser.add_argument(
        "--continue_prediction", "--c", action="store_true", help="leave cases as they are of which all is there"
    )
    parser.add_argument("-chk", default="checkpoint_final.pth", help="checkpoint (default: checkpoint_final.pth)")
    parser.add_argument("-npp", type=int, default=3, help="processes that preprocess (default: 3; with -nps 0 none)")
    parser.add_argument("-nps", type=int, default=3, help="processes that write (default: 3)")
    parser.add_argument("-prev_stage_predictions", type=Path, help="of a cascade: segmentations of the stage before")
    parser.add_argument("-num_parts", type=int, default=1, help="number of calls that share the cases (default: 1)")
    parser.add_argument("-part_id", type=int, default=0, help="which of them this is, from 0 on")
    parser.add_argument("-device", default="cuda", choices=("cuda", "cpu", "mps"), help="default: cuda")
    parser.add_argument("--disable_progress_bar", action="store_true", help="no progress bar")
    parser.add_argument("--not_on_device", action="store_true", help="put windows together in main memory")
    parser.add_argument("--verbose", action="store_true", help="what nnU-Net prints, too")


def predict(options: argparse.Namespace, bar: Callable[[int], Any]) -> tuple[list[Files], int]:
    """The files of all cases, and how many were there already; `bar` as of `EvidentialPredictor.predict_folder`.

    Raises:
        ValueError: a wrong option, or what `EvidentialPredictor` refuses.
    """
    _check(options)
    # before nnU-Net is imported, which looks for trainers there
    folders = [folder for folder in os.environ.get(EXTERNAL, "").split(os.pathsep) if folder]
    os.environ[EXTERNAL] = os.pathsep.join([*folders, *({str(TRAINERS)} - set(folders))])
    silent: Any = contextlib.nullcontext() if options.verbose else contextlib.redirect_stdout(io.StringIO())
    with silent:
        import torch

        from .predictor import EvidentialPredictor

        device = torch.device(options.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: expected cpu or mps where torch finds no GPU, got cuda")
        predictor = EvidentialPredictor(
            tile_step_size=options.step_size,
            use_mirroring=not options.disable_tta,
            perform_everything_on_device=not options.not_on_device,
            device=device,
            verbose=options.verbose,
            allow_tqdm=False,
        )
        folds = None if options.f is None else tuple(fold if fold == "all" else int(fold) for fold in options.f)
        predictor.initialize_from_trained_model_folder(str(_model_folder(options)), folds, options.chk)
        return predictor.predict_folder(
            options.i,
            options.o,
            save_probabilities=options.save_probabilities,
            overwrite=not options.continue_prediction,
            previous=options.prev_stage_predictions,
            num_processes_preprocessing=options.npp,
            num_processes_export=options.nps,
            num_parts=options.num_parts,
            part_id=options.part_id,
            bar=bar,
        )


def _check(options: argparse.Namespace) -> None:
    for fold in options.f or ():
        if fold != "all" and not fold.isdigit():
            raise ValueError(f"f: expected numbers of folds, or all, got {fold!r}")
    if not 0 < options.step_size <= 1:
        raise ValueError(f"step_size: expected more than 0 and at most 1, got {options.step_size}")
    if min(options.npp, options.nps) < 0 or (options.npp == 0) != (options.nps == 0):
        raise ValueError(f"npp, nps: expected numbers of processes, or both 0, got {options.npp} and {options.nps}")
    if options.num_parts < 1:
        raise ValueError(f"num_parts: expected at least 1, got {options.num_parts}")
    if not 0 <= options.part_id < options.num_parts:
        raise ValueError(f"part_id: expected 0 to {options.num_parts - 1}, got {options.part_id}")
    if options.m is None and (options.d is None or options.c is None):
        raise ValueError("model: expected -m FOLDER, or -d DATASET and -c CONFIGURATION, got neither")
    if options.m is not None and any(getattr(options, name) is not None for name in ("d", "c", "tr", "p")):
        raise ValueError("model: expected -m FOLDER, or -d DATASET and -c CONFIGURATION, got both")
    if options.m is None and not os.environ.get(RESULTS):
        raise ValueError(f"{RESULTS}: expected the environment variable with -d, got none; or give -m FOLDER")


def _model_folder(options: argparse.Namespace) -> Path:
    if options.m is not None:
        return options.m
    from nnunetv2.utilities.file_path_utilities import get_output_folder

    try:
        return Path(
            get_output_folder(options.d, options.tr or "nnUNetTrainerSURE", options.p or "nnUNetPlans", options.c)
        )
    except RuntimeError as error:  # no such data set
        raise ValueError(f"d: expected a data set of nnU-Net's, got {options.d}: {error}") from None
