"""Segments images and writes their uncertainty: python -m sure_fast.predict --checkpoint RUN --input PATH --output DIR

NIfTI images give NAME_segmentation.nii.gz and NAME_uncertainty.nii.gz with the input's affine and spacing; PNG and JPEG
images give NAME_segmentation.png (class numbers) and NAME_uncertainty.png (16 bit, 65535 is an uncertainty of 1).
"""

from __future__ import annotations

from pathlib import Path

from .train import Parser

PROGRAM = "sure_fast.predict"


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(prog=PROGRAM, description=str(__doc__).splitlines()[0])
    parser.add_argument("--checkpoint", required=True, type=Path, help="a run's folder (its best.pt) or a checkpoint")
    parser.add_argument("--input", required=True, type=Path, help="an image, a folder of images, or a data folder")
    parser.add_argument("--output", required=True, type=Path, help="new or empty folder for the results")
    parser.add_argument("--layout", default="auto", help="data layout of the input (default: found by itself)")
    parser.add_argument("--device", default="auto", help="torch device")
    options = parser.parse_args(arguments)

    from tqdm import tqdm

    from .data import discover, load_case
    from .engine import checkpoint, cli, distributed
    from .engine.prediction import home

    distributed.refuse_ranks(PROGRAM)
    cli.new_folder(options.output)
    device = cli.choose_device(options.device)
    predictor, content = checkpoint.load_predictor(options.checkpoint, device)
    plan = content["plan"]
    cases = discover(options.input, options.layout, part="all", require_labels=False)
    with tqdm(cases, desc="predict", unit="case") as bar:
        for case in bar:
            sample = load_case(case, normalized=True)
            if sample.image.shape[0] != plan.in_channels or sample.image.dim() != plan.dims + 1:
                raise ValueError(
                    f"{case.image}: expected {plan.in_channels} channels and {plan.dims} spatial axes as in training, "
                    f"got {list(sample.image.shape)}"
                )
            place = home(device, sample.image.shape[1:], plan.num_classes)
            prediction = predictor(sample.image[None].to(place))
            uncertainty = prediction.uncertainty[0].cpu().numpy()
            segmentation = prediction.labels[0].cpu().numpy().astype("uint8" if plan.num_classes <= 256 else "uint16")
            options.output.mkdir(parents=True, exist_ok=True)
            write(options.output, sample, segmentation, uncertainty)


def write(folder: Path, sample, segmentation, uncertainty) -> None:
    """Both results in the kind of file the image came from."""
    if sample.affine is not None:
        from .data import save_nifti

        for name, array in (("segmentation", segmentation), ("uncertainty", uncertainty.astype("float32"))):
            save_nifti(folder / f"{sample.name}_{name}.nii.gz", array, sample.affine, sample.spacing_mm)
        return
    from PIL import Image

    sixteen = (uncertainty.clip(0, 1) * 65535).round().astype("uint16")
    for name, array in (("segmentation", segmentation), ("uncertainty", sixteen)):
        path = folder / f"{sample.name}_{name}.png"
        partial = path.with_name(path.name + ".partial")
        Image.fromarray(array).save(partial, format="PNG")
        partial.replace(path)


if __name__ == "__main__":
    from .engine.cli import run

    run(PROGRAM, main)
