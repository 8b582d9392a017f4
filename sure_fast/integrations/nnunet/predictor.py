"""nnU-Net's predictor for networks whose outputs are evidence: segmentation, uncertainty and probabilities."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from torch import Tensor
from tqdm import tqdm

import sure_fast
from sure_fast.data.writing import MANIFEST
from sure_fast.ops.dirichlet_uncertainty import EXP_CLAMP

from . import maps
from .trainer import nnUNetTrainerSURE


@dataclass(frozen=True)
class Files:
    """Where the results of a case go."""

    name: str
    segmentation: Path
    uncertainty: Path
    probabilities: Path | None
    exported: Path | None
    """nnU-Net's own file of probabilities, for nnUNetv2_ensemble."""

    @property
    def are_there(self) -> bool:
        wanted = (self.segmentation, self.uncertainty, self.probabilities, self.exported)
        return all(path.is_file() for path in wanted if path is not None)


def _cases_bar(number: int) -> Any:
    return tqdm(total=number, desc="predict", unit="case")


class EvidentialPredictor(nnUNetPredictor):
    """nnU-Net's sliding window, mirroring and resampling, with the folds averaged in evidence.

    Math:
        e = mean over the folds f of e(z_f), z_f nnU-Net's logits of a fold, averaged over windows and mirrored images,
        e(z) = exp(clamp(z, −10, 10)); α = e + 1, A = Σ α, u = C / A and p = α / A. Of regions, each has the evidence
        e(z) of presence and e(−z) of absence, C = 2. Resampled to the image's grid is ln e.

    Args:
        as of nnUNetPredictor.
    """

    list_of_parameters: list[dict]

    def initialize_from_trained_model_folder(
        self,
        model_training_output_dir: str,
        use_folds: tuple[int | str, ...] | None,
        checkpoint_name: str = "checkpoint_final.pth",
    ) -> None:
        """As nnU-Net's.

        Raises:
            ValueError: a fold that is not there, or a network of a trainer that is no nnUNetTrainerSURE.
        """
        folder = Path(model_training_output_dir)
        if not (folder / "plans.json").is_file():
            raise ValueError(f"model {folder}: expected the folder of a trained model, with plans.json, got none")
        there = sorted(path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{checkpoint_name}"))
        if use_folds is None:  # as nnU-Net, a network of all cases is no fold
            use_folds = tuple(fold for fold in there if fold != "all") or tuple(there)
        for fold in use_folds or (None,):
            if str(fold) not in there:
                wanted = "one fold" if fold is None else f"fold {fold}"
                raise ValueError(
                    f"model {folder}: expected {wanted} with {checkpoint_name}, got {', '.join(there) or 'none'}"
                )
        self.checkpoints = [folder / f"fold_{fold}" / checkpoint_name for fold in use_folds]
        super().initialize_from_trained_model_folder(str(folder), use_folds, checkpoint_name)
        if not issubclass(recursive_find_trainer_class_by_name(self.trainer_name), nnUNetTrainerSURE):
            raise ValueError(
                f"model {folder}: expected the network of an nnUNetTrainerSURE, whose outputs are evidence, got that "
                f"of {self.trainer_name}"
            )

    @torch.inference_mode()
    def predict_logits_from_preprocessed_data(self, data: Tensor) -> Tensor:
        """ln e, float32: [C, *S], of one fold its logits; of R regions [2R, *S], of absence and then of presence."""
        every: list[dict] = self.list_of_parameters
        total: Tensor | float = -math.inf
        try:
            for parameters in every:
                self.list_of_parameters = [parameters]
                logits = super().predict_logits_from_preprocessed_data(data).float()
                if self.label_manager.has_regions:
                    logits = torch.cat([-logits, logits])
                if len(every) > 1:
                    logits = logits.clamp(-EXP_CLAMP, EXP_CLAMP)
                total = torch.logaddexp(torch.as_tensor(total), logits)
        finally:
            self.list_of_parameters = every
        return torch.as_tensor(total) - math.log(len(every))

    def files(self, output: Path, name: str, save_probabilities: bool) -> Files:
        ending = self.dataset_json["file_ending"]
        return Files(
            name,
            output / f"{name}{ending}",
            output / "uncertainty" / f"{name}{ending}",
            output / "probabilities" / f"{name}{maps.ending_of_probabilities(ending)}" if save_probabilities else None,
            output / f"{name}.npz" if save_probabilities else None,
        )

    def predict_folder(
        self,
        source: Path,
        output: Path,
        *,
        save_probabilities: bool = False,
        overwrite: bool = True,
        previous: Path | None = None,
        num_processes_preprocessing: int = 3,
        num_processes_export: int = 3,
        num_parts: int = 1,
        part_id: int = 0,
        bar: Callable[[int], Any] = _cases_bar,
    ) -> tuple[list[Files], int]:
        """Predicts the images of a folder: OUTPUT/CASE as nnU-Net writes it, OUTPUT/uncertainty/CASE with u, and with
        `save_probabilities` OUTPUT/probabilities/CASE and, for nnUNetv2_ensemble, OUTPUT/CASE.npz, of p.

        Args:
            source: images as nnU-Net names them, a file a channel. output: is made where it is not there.
            overwrite: False: cases of which all is there are left as they are.
            previous: of a cascade, the folder with the segmentations of the stage before.
            num_processes_preprocessing, num_processes_export: both 0: all is done in this process, case after case.
            num_parts, part_id: this call predicts every num_parts-th case, from part_id on.
            bar: makes the progress bar of so many cases, a context whose value has update().

        Returns:
            The files of all cases that are there, of other parts too, and how many of this part were there before.

        Raises:
            ValueError: no images; another file ending than NIfTI's or PNG; predictions of another model in the folder.
        """
        ending = self.dataset_json["file_ending"]
        maps.check_ending(ending)
        before = self.configuration_manager.previous_stage_name
        if before is not None and previous is None:
            raise ValueError(f"prev_stage_predictions: expected the folder of the segmentations of {before}, got none")
        images, names, stages = self._listed(source, output, previous)
        every = [self.files(output, Path(name).name, save_probabilities) for name in names]
        part = range(part_id, len(every), num_parts)
        todo = [k for k in part if overwrite or not every[k].are_there]
        self._take(source, output, overwrite)
        if todo:
            chosen: Any = [[column[k] for k in todo] for column in (images, stages, names)]
            if num_processes_preprocessing == 0:
                inputs: Any = self._preprocessed(*chosen)
            else:
                inputs = self._internal_get_data_iterator_from_lists_of_filenames(*chosen, num_processes_preprocessing)
            self._predict(inputs, {every[k].name: every[k] for k in todo}, num_processes_export, bar)
        return [files for files in every if files.are_there], len(part) - len(todo)

    def _listed(
        self, source: Path, output: Path, previous: Path | None
    ) -> tuple[list[list[str]], list[str], list[str | None]]:
        """Per case its files of channels, its output without ending, and the segmentation of the stage before."""
        ending = self.dataset_json["file_ending"]
        if not source.is_dir():
            raise ValueError(f"input {source}: expected a folder of images, got nothing there")
        if not any(source.glob(f"*_0000{ending}")):
            raise ValueError(f"input {source}: expected images CASE_0000{ending} as nnU-Net names them, got none")
        images, names, stages = self._manage_input_and_output_lists(
            str(source), str(output), None if previous is None else str(previous)
        )
        missing = next((stage for stage in stages if stage is not None and not Path(stage).is_file()), None)
        if missing is not None:
            raise ValueError(f"prev_stage_predictions: expected {missing}, got nothing there")
        return images, names, stages

    def _take(self, source: Path, output: Path, overwrite: bool) -> None:
        """Leaves what nnU-Net leaves beside predictions, and whose these are."""
        digest = hashlib.sha256()
        for path in self.checkpoints:
            digest.update(path.read_bytes())
        owner = {
            "checkpoint": digest.hexdigest(),
            "step_size": self.tile_step_size,
            "mirroring": self.use_mirroring,
            "sure_fast": sure_fast.__version__,
            "input": str(source.resolve()),
        }
        file = output / MANIFEST
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            stored = None
        predicted = any(output.glob(f"*{self.dataset_json['file_ending']}"))
        same = isinstance(stored, dict) and {key: stored.get(key) for key in owner} == owner
        if not overwrite and predicted and not same:
            raise ValueError(
                f"output {output}: holds predictions of another model or input, or of other settings; choose another "
                "output, or leave out --continue_prediction"
            )
        output.mkdir(parents=True, exist_ok=True)
        contents = {"dataset.json": self.dataset_json, "plans.json": self.plans_manager.plans, MANIFEST: owner}
        for name, content in contents.items():
            partial = output / f"{name}.partial"
            partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
            os.replace(partial, output / name)

    def _preprocessed(self, images: list[Any], stages: list[Any], names: list[str]) -> Iterator[dict[str, Any]]:
        """One case after the other, as nnU-Net's iterator gives them."""
        preprocessor = self.configuration_manager.preprocessor_class(verbose=self.verbose_preprocessing)
        manager = (self.plans_manager, self.configuration_manager, self.dataset_json)
        for files, stage, name in zip(images, stages, names, strict=True):
            data, segmentation, properties = preprocessor.run_case(files, stage, *manager)
            if stage is not None:
                one_hot = convert_labelmap_to_one_hot(segmentation[0], self.label_manager.foreground_labels, data.dtype)
                data = np.vstack((data, one_hot))
            yield {"data": torch.from_numpy(data).float(), "data_properties": properties, "ofile": name}

    def _predict(self, inputs: Any, todo: dict[str, Files], processes: int, bar: Callable[[int], Any]) -> None:
        """Other processes resample and write cases while the network goes on with the next."""
        manager = (self.plans_manager, self.configuration_manager, self.dataset_json)
        if processes == 0:
            with bar(len(todo)) as shown:
                for item in inputs:
                    logits = self.predict_logits_from_preprocessed_data(item["data"]).cpu().numpy()
                    maps.export(logits, item["data_properties"], *manager, todo[Path(item["ofile"]).name])
                    shown.update()
            return
        context = multiprocessing.get_context("spawn")
        with bar(len(todo)) as shown, ProcessPoolExecutor(min(processes, len(todo)), mp_context=context) as pool:
            under_way: set[Future[str]] = set()
            for item in inputs:
                logits = self.predict_logits_from_preprocessed_data(_data_of(item)).cpu().numpy()
                files = todo[Path(item["ofile"]).name]
                under_way.add(pool.submit(maps.export, logits, item["data_properties"], *manager, files))
                while len(under_way) > 2 * processes:  # whose logits are all in memory
                    _finish(under_way, shown)
            while under_way:
                _finish(under_way, shown)


def _finish(under_way: set[Future[str]], bar: Any) -> None:
    """Waits for a case to be written; what went wrong in the other process is raised here."""
    done, _ = wait(under_way, return_when=FIRST_COMPLETED)
    under_way -= done
    for future in done:
        future.result()
        bar.update()


def _data_of(item: dict[str, Any]) -> Tensor:
    """Of a preprocessed case; nnU-Net hands over what is too large for a pipe in a file."""
    data = item["data"]
    if isinstance(data, str):
        path, data = data, torch.from_numpy(np.load(data))
        os.remove(path)
    return data
