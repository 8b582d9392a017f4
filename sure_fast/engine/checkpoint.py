"""Checkpoints: written atomically, read as plain data only."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import models
from ..data import DatasetInfo
from ..data.normalize import Window
from . import config as configuration
from . import earlier
from .files import replacing
from .prediction import Predictor

FORMAT = "sure_fast checkpoint 1"


@dataclass
class ModelPlan:
    """What is needed to build the network again and to feed it."""

    dims: int
    in_channels: int
    num_classes: int
    channels: list[int]
    strides: list[list[int]]
    patch_size: list[int]
    class_names: dict[int, str]
    evidence: str
    dropout: float = 0.0
    norm: str | None = "instance"
    orientation: str | None = None
    """Axis codes to which images are brought; None: pictures, or as they are stored."""
    network: str = "unet"
    """With the defaults of what follows it is the network of checkpoints that name none."""
    kernels: list[list[int]] = field(default_factory=list)
    upsample: str = "transposed"
    deep_supervision: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    slice_axis: int | None = None
    """Of volumes that are cut into slices for a network of two dims."""
    spacing: list[float] | None = None
    """In mm, to which volumes are resampled; None: as stored."""
    resize: list[int] | None = None
    """Voxels per axis to which images are resampled; None: not."""
    foreground_crop: bool = False
    windows: list[Any] | None = None
    """Of each channel None or its `Window`, as a list; None: every channel is normalised by its own values."""
    latent: int = 0
    """Of a probabilistic U-Net; 0: none."""

    @property
    def image_dims(self) -> int:
        """Axes of an image, which is cut into slices or not."""
        return self.dims + (self.slice_axis is not None)

    @property
    def description(self) -> models.Description:
        return models.Description(
            self.network, self.dims, self.in_channels, self.num_classes, self.patch_size, self.channels, self.strides,
            self.kernels, self.dropout, self.norm, self.upsample, self.deep_supervision, self.parameters, self.latent,
        )  # fmt: skip

    def build(self) -> nn.Module:
        """The network, untrained; ValueError where it cannot be built."""
        return models.build(self.description)

    @property
    def preparation(self) -> dict[str, Any]:
        """How an image is brought to the network: keywords of `DatasetInfo`."""
        return {
            "orientation": self.orientation,
            "spacing": None if self.spacing is None else tuple(self.spacing),
            "resize": None if self.resize is None else tuple(self.resize),
            "foreground_crop": self.foreground_crop,
            "windows": None if self.windows is None else tuple(w and Window(*w) for w in self.windows),
            "slice_axis": self.slice_axis,
        }


def member_name(name: str, member: int) -> str:
    """File of a member of an ensemble: last.pt, last-1.pt, …"""
    return name if member == 0 else f"{name.removesuffix('.pt')}-{member}.pt"


def save(
    path: Path,
    states: Mapping[str, Any],
    plan: ModelPlan,
    epoch: int,
    config: dict[str, Any],
    *,
    keep_previous: bool = False,
) -> None:
    """Writes a checkpoint so that no other moment than a whole one is seen.

    Args:
        states: plain data by name: "model", the weights to predict with, and whatever else the run goes on from.
        keep_previous: the checkpoint that is there becomes `previous(path)`.

    Raises:
        OSError: naming the file, for example on a full disk. What was there before is as it was.
    """
    content = {"format": FORMAT, "plan": vars(plan), "epoch": epoch, "config": config, **states}
    try:
        with replacing(path, previous(path) if keep_previous else None) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        # torch hides the cause of a failed write behind an error of its own
        cause = next((e for e in (error, error.__cause__, error.__context__) if isinstance(e, OSError)), None)
        reason = error if cause is None else cause.strerror or cause
        raise OSError(f"checkpoint {path}: cannot be written: {reason}") from error


def previous(path: Path) -> Path:
    """Where the checkpoint before it is kept: last.pt, last.previous.pt."""
    return path.with_name(f"{path.stem}.previous.pt")


def load_latest(path: Path, report: Callable[[str], object]) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint, or the one before it where it cannot be read, with its file; None where there is neither.

    A file that cannot be read is reported in one line and renamed to last.broken.pt, so that the next checkpoint does
    not push out the one before it.

    Raises:
        ValueError: neither can be read.
    """
    files = [file for file in (path, previous(path)) if file.exists()]
    for file in files:
        try:
            content = load(file)
        except ValueError as error:
            if file == files[-1]:
                raise
            broken = path.with_name(f"{path.stem}.broken.pt")
            os.replace(file, broken)
            report(f"{error}; it is now {broken.name}, and {files[-1].name}, the one before it, is used")
        else:
            return file, content
    return None


WEIGHTS = ("last", "best")


def find(path: Path, weights: str | None = None) -> Path:
    """The checkpoint file of a run's folder, or the file itself.

    Args:
        weights: "last", of the last epoch, or "best", of the best validation; None: those that the run was evaluated
            with, as its configuration says.
    """
    if not path.exists():
        raise ValueError(f"checkpoint {path}: no such file or folder")
    if path.is_file():
        if weights is not None and path.stem not in (weights, f"{weights}.previous"):
            raise ValueError(f"weights: expected with a run's folder only, got {weights} with the file {path}")
        return path
    wanted = weights or _own_weights(path)
    for file in (path / "checkpoints" / f"{wanted}.pt", path / f"{wanted}.pt"):
        if file.is_file():
            return file
    raise ValueError(f"checkpoint {path}: expected a run's folder with checkpoints/{wanted}.pt, got none")


def run_folder(file: Path) -> Path:
    """The run that a checkpoint file is of, by where it lies."""
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent


def _own_weights(folder: Path) -> str:
    file = folder / "config.yaml"
    return configuration.load_file(str(file)).get("run.weights", "last") if file.is_file() else "last"


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The content of a checkpoint, `plan` as ModelPlan and `config` as TrainConfig; ValueError where it is none."""
    path = find(path)
    try:
        with zipfile.ZipFile(path) as archive:  # torch checks no checksums
            if archive.testzip() is not None:
                raise zipfile.BadZipFile
        content = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile, pickle.UnpicklingError, KeyError, ValueError):
        raise ValueError(f"checkpoint {path}: truncated, or not a checkpoint of sure_fast") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"checkpoint {path}: expected a {FORMAT!r} file, got another one")
    missing = {"plan", "epoch", "config", "model"} - content.keys()
    if missing:
        raise ValueError(f"checkpoint {path}: expected the key {min(missing)!r}, got none")
    try:
        content["plan"] = ModelPlan(**content["plan"])
    except TypeError:
        raise ValueError(f"checkpoint {path}: the plan of its network is not complete") from None
    try:
        content["config"] = configuration.make({}, earlier.as_made(configuration.parse(content["config"])))
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {error}") from None
    return content


def load_model(path: Path, device: torch.device | str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """The network in evaluation mode, and the checkpoint's content."""
    content = load(path, device)
    try:
        model = content["plan"].build().to(device)
    except ValueError as error:
        raise ValueError(f"checkpoint {find(path)}: its network cannot be built: {error}") from None
    try:
        model.load_state_dict(content["model"])
    except RuntimeError:
        raise ValueError(f"checkpoint {find(path)}: its weights do not fit the network it describes") from None
    return model.eval(), content


def load_weights(path: Path, plan: ModelPlan) -> dict[str, Any]:
    """The weights of a checkpoint; ValueError where they are not those of the network that `plan` describes."""
    content = load(path)
    of_network = ("network", "dims", "in_channels", "num_classes", "channels", "strides", "kernels", "norm", "upsample",
                  "parameters")  # fmt: skip
    differ = [name for name in of_network if getattr(content["plan"], name) != getattr(plan, name)]
    if differ:
        name = differ[0]
        raise ValueError(
            f"checkpoint {find(path)}: expected {name} {getattr(plan, name)}, got {getattr(content['plan'], name)}"
        )
    return content["model"]


def load_predictor(path: Path, device: torch.device | str = "cpu") -> tuple[Predictor, dict[str, Any]]:
    """Predicts as the run was trained to, an ensemble from the checkpoints beside; and the checkpoint's content."""
    model, content = load_model(path, device)
    networks = [model, *(load_model(member, device)[0] for member in _members(path, content)[1:])]
    plan, config = content["plan"], content["config"]
    inference, seed = config.method.record.inference, config.run.seed
    info = DatasetInfo("folders", plan.class_names, plan.in_channels, **plan.preparation)
    predictor = Predictor(networks, plan.patch_size, inference=inference, evidence=plan.evidence, seed=seed, info=info)
    return predictor, content


def _members(path: Path, content: dict[str, Any]) -> list[Path]:
    first = find(path)
    return [first.with_name(member_name(first.name, k)) for k in range(content["config"].method.members)]


def fingerprint(path: Path) -> str:
    """SHA-256 of a checkpoint's file, or of those of an ensemble: whose results these are."""
    digest = hashlib.sha256()
    for member in _members(path, load(path)):
        digest.update(member.read_bytes())
    return digest.hexdigest()
