"""Checkpoints: written atomically, read as plain data only."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..models import build_model
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
    norm: str = "instance"

    def build(self) -> nn.Module:
        return build_model(
            self.dims,
            self.in_channels,
            self.num_classes,
            self.channels,
            self.strides,
            dropout=self.dropout,
            norm=self.norm,
        )


def member_name(name: str, member: int) -> str:
    """File of a member of an ensemble: last.pt, last-1.pt, …"""
    return name if member == 0 else f"{name.removesuffix('.pt')}-{member}.pt"


def save(
    path: Path,
    model_state: dict[str, Any],
    optimizer_state: dict[str, Any],
    plan: ModelPlan,
    epoch: int,
    config: dict[str, Any],
) -> None:
    """Writes beside the file and renames: at any moment `path` is the old checkpoint or the new one."""
    content = {
        "format": FORMAT,
        "plan": vars(plan),
        "epoch": epoch,
        "config": config,
        "model": model_state,
        "optimizer": optimizer_state,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def find(path: Path) -> Path:
    """The checkpoint file of a run's folder (best, else last), or the file itself."""
    if not path.exists():
        raise ValueError(f"checkpoint {path}: no such file or folder")
    if path.is_file():
        return path
    for name in ("checkpoints/best.pt", "checkpoints/last.pt", "best.pt", "last.pt"):
        if (path / name).is_file():
            return path / name
    raise ValueError(f"checkpoint {path}: expected a run's folder with checkpoints/best.pt or checkpoints/last.pt")


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The content of a checkpoint, `plan` as ModelPlan; ValueError naming the file where it is none."""
    path = find(path)
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile, pickle.UnpicklingError, KeyError, ValueError):
        raise ValueError(f"checkpoint {path}: truncated, or not a checkpoint of sure_fast") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"checkpoint {path}: expected a {FORMAT!r} file, got another one")
    missing = {"plan", "epoch", "config", "model", "optimizer"} - content.keys()
    if missing:
        raise ValueError(f"checkpoint {path}: expected the key {min(missing)!r}, got none")
    try:
        content["plan"] = ModelPlan(**content["plan"])
    except TypeError:
        raise ValueError(f"checkpoint {path}: the plan of its network is not complete") from None
    return content


def load_model(path: Path, device: torch.device | str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """The network in evaluation mode, and the checkpoint's content."""
    content = load(path, device)
    model = content["plan"].build().to(device)
    try:
        model.load_state_dict(content["model"])
    except RuntimeError:
        raise ValueError(f"checkpoint {find(path)}: its weights do not fit the network it describes") from None
    return model.eval(), content


def load_predictor(path: Path, device: torch.device | str = "cpu") -> tuple[Predictor, dict[str, Any]]:
    """Predicts as the run was trained to, an ensemble from the checkpoints beside; and the checkpoint's content."""
    model, content = load_model(path, device)
    models = [model, *(load_model(member, device)[0] for member in _members(path, content)[1:])]
    plan, inference = content["plan"], content["config"].get("inference", "evidential")
    seed = content["config"].get("seed", 0)
    return Predictor(models, plan.patch_size, inference=inference, evidence=plan.evidence, seed=seed), content


def _members(path: Path, content: dict[str, Any]) -> list[Path]:
    first = find(path)
    return [first.with_name(member_name(first.name, k)) for k in range(content["config"].get("members", 1))]


def fingerprint(path: Path) -> str:
    """SHA-256 of a checkpoint's file, or of those of an ensemble: whose results these are."""
    digest = hashlib.sha256()
    for member in _members(path, load(path)):
        digest.update(member.read_bytes())
    return digest.hexdigest()
