"""nnU-Net v2 (2.8 or newer): `nnUNetTrainerSURE` for `nnUNetv2_train -tr`.

export nnUNet_extTrainer="$(python -m sure_fast.integrations.nnunet)"
nnUNetv2_train 4 3d_fullres 0 -tr nnUNetTrainerSURE
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .trainer import nnUNetTrainerSURE

__all__ = ["TRAINERS", "nnUNetTrainerSURE"]

TRAINERS = Path(__file__).resolve().parent / "trainers"
"""The folder for the environment variable nnUNet_extTrainer."""


def __getattr__(name: str) -> Any:
    if name == "nnUNetTrainerSURE":  # at first use: printing the folder should need no nnU-Net
        from .trainer import nnUNetTrainerSURE

        return nnUNetTrainerSURE
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
