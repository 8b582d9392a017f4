"""Segments images and writes their uncertainty: python -m sure_fast.predict --checkpoint RUN --input PATH --output DIR

NIfTI images give NAME_segmentation.nii.gz and NAME_uncertainty.nii.gz with the input's affine and spacing; PNG and JPEG
images give NAME_segmentation.png (class numbers) and NAME_uncertainty.png (16 bit, 65535 is an uncertainty of 1). With
--probabilities also NAME_probabilities, [*S, C] as NIfTI or [C, H, W] as .npz. Started again, it does what is missing
or of another image. An image that cannot be used leaves the others as they are; it is listed at the end, and the exit
code is 1.
review.csv lists the images in the order in which a person should look at them, the most uncertain first, with the place
where each is the most uncertain.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from .engine.cli import Parser

PROGRAM = "sure_fast.predict"


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(prog=PROGRAM, description=str(__doc__).splitlines()[0])
    parser.add_argument("--checkpoint", required=True, type=Path, help="a run's folder or a checkpoint")
    parser.add_argument("--weights", choices=("last", "best"), help="of a run (default: those it was evaluated with)")
    parser.add_argument("--input", required=True, type=Path, help="an image, a folder of images, or a data folder")
    parser.add_argument("--output", required=True, type=Path, help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="predict anew what is there already")
    parser.add_argument("--probabilities", action="store_true", help="write the classes' probabilities too")
    parser.add_argument("--layout", default="auto", help="data layout of the input (default: found by itself)")
    parser.add_argument("--device", default="auto", help="torch device")
    options = parser.parse_args(arguments)

    from .data import Fault
    from .data.inputs import list_inputs
    from .data.screening import told
    from .engine import checkpoint, console, distributed, lock, review
    from .engine.config import ConfigError
    from .engine.predictions import Folder, describe
    from .engine.signals import RunFailure

    distributed.refuse_ranks(PROGRAM)
    device = distributed.choose_device(options.device)
    path = checkpoint.find(options.checkpoint, options.weights)
    predictor, content = checkpoint.load_predictor(path, device)
    faults: list[Fault] = []
    cases = list_inputs(options.input, content["plan"].in_channels, layout=options.layout, faults=faults)
    if options.input.is_dir() and any(case.image.parent.resolve() == options.output.resolve() for case in cases):
        # Started again it would take its own segmentations for images; --overwrite could replace an image.
        raise ConfigError(f"output {options.output}: expected another folder than that of the images")
    weights = checkpoint.fingerprint(path)
    manifest = {"input": str(options.input.resolve()), "class_names": content["plan"].class_names}
    folder = Folder(options.output, weights, options.probabilities, **manifest)
    validation, missing = review.read(checkpoint.run_folder(path), weights)
    number, there, written = len(cases) + len(faults), 0, 0
    with lock.held(options.output):
        folder.take(cases, options.overwrite)
        with console.bar(cases, "predict", "case") as bar:
            for case in bar:
                if not options.overwrite and folder.is_done(case):
                    there += 1
                    continue
                try:
                    _predict(case, predictor, content["plan"], device, folder)
                    written += 1
                except (ValueError, OSError) as error:
                    if options.input.is_file():
                        raise
                    faults.append(Fault(case.name, " ".join(str(error).split())))
        failed = {fault.case for fault in faults}
        done = [(case.name, folder.files(case)) for case in cases if case.name not in failed]
        with console.bar(done, "review", "case") as shown:
            rows = [review.row_of_files(name, f["segmentation"], f["uncertainty"], validation) for name, f in shown]
        ordered = review.write(options.output, rows, validation) if rows else []
    for line in told(folder.notes, kept_in=None):
        print(f"{PROGRAM}: note: {line}", file=sys.stderr, flush=True)
    print(f"{PROGRAM}: {describe(folder, cases, written, there)}; weights: {path}", flush=True)
    if missing:
        print(f"{PROGRAM}: note: no percentile among the validation cases: {missing}", file=sys.stderr, flush=True)
    if ordered:
        print(f"{PROGRAM}: {review.describe(options.output, ordered)}", flush=True)
    if faults:
        for fault in faults:
            print(f"{PROGRAM}: not segmented: {fault.reason}", flush=True)
        raise RunFailure(f"{len(faults)} of {number} images could not be segmented")


def _predict(case: Any, predictor: Any, plan: Any, device: Any, folder: Any) -> None:
    from .data import DatasetInfo, load_case
    from .engine.prediction import home

    like = DatasetInfo("folders", plan.class_names, plan.in_channels, **plan.preparation)
    # Without a label only the channels and the orientation of the run are held against the image.
    sample = load_case(replace(case, label=None, info=like), normalized=True)
    if sample.image.shape[0] != plan.in_channels or sample.image.dim() != plan.image_dims + 1:
        raise ValueError(
            f"{case.image}: expected {plan.in_channels} channels and {plan.image_dims} spatial axes as in training, "
            f"got {list(sample.image.shape)}"
        )
    image = sample.image[None].to(home(device, sample.image.shape[1:], plan.num_classes))
    prediction = predictor(image, sample.place)
    if prediction.spoiled:
        raise ValueError(f"{case.image}: the network's answer holds NaN or infinity")
    segmentation, uncertainty, probabilities = (
        x[0].cpu().numpy() for x in (prediction.labels, prediction.uncertainty, prediction.probabilities)
    )
    kind = "uint8" if plan.num_classes <= 256 else "uint16"
    folder.write(case, sample, segmentation.astype(kind), uncertainty, probabilities)


if __name__ == "__main__":
    from .engine import cli

    cli.run(PROGRAM, main)
