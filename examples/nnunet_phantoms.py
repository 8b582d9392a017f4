"""nnU-Net's own commands with nnUNetTrainerSURE, on 2D slices of phantoms: python examples/nnunet_phantoms.py

A real run is `nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerSURE`; this one trains two epochs of two steps.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import nibabel
import numpy as np

from sure_fast.data import phantom
from sure_fast.integrations.nnunet import TRAINERS

SHORT = """
from sure_fast.integrations.nnunet import nnUNetTrainerSURE

class nnUNetTrainerSUREDemo(nnUNetTrainerSURE):
    start = 0.5

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 2, 1
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = phantom.write(folder / "raw" / "Dataset001_Phantom", 6, shape=(32, 32, 8), spacing_mm=(3, 3, 10))
        for image in sorted((raw / "imagesTr").iterdir()):  # nnU-Net's names: one file a channel
            image.rename(image.with_name(image.name.replace(".nii.gz", "_0000.nii.gz")))
        labels = {name: number for number, name in phantom.CLASS_NAMES.items()}
        description = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 6, "file_ending": ".nii.gz"}
        (raw / "dataset.json").write_text(json.dumps(description))
        (folder / "trainers").mkdir()
        (folder / "trainers" / "demo.py").write_text(SHORT)
        places = {f"nnUNet_{part}": str(folder / part) for part in ("raw", "preprocessed", "results")}
        places["nnUNet_extTrainer"] = f"{TRAINERS}{os.pathsep}{folder / 'trainers'}"

        trained = "-tr nnUNetTrainerSUREDemo -device cpu"
        for command in (
            "nnUNetv2_plan_and_preprocess -d 1 -c 2d -np 1",
            f"nnUNetv2_train 1 2d 0 {trained}",
            f"nnUNetv2_predict -i {raw}/imagesTr -o {folder}/out -d 1 -c 2d -f 0 --disable_tta {trained}",
        ):
            subprocess.run(command.split(), check=True, env={**os.environ, **places})
        for file in sorted((folder / "out").glob("*.nii.gz")):
            print(file.name, np.bincount(np.asarray(nibabel.load(file).dataobj, dtype=int).ravel(), minlength=4))


if __name__ == "__main__":
    main()
