"""Configurations of runs that were made before there were sections: one level of keys."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..losses import CrossEntropyDiceLoss, DevisLoss, PriusLoss, UncertaintySupervisedLoss
from ..methods import METHODS, PAPER
from .options import ConfigError

NAMES = {"data": "data.folder", "noise_patch_size": "method.patch_size", "prius_distance": "method.distance"}
"""Keys that have another name in their section."""


LOSSES: dict[type, str] = {CrossEntropyDiceLoss: "softmax", UncertaintySupervisedLoss: "evidential",
                           DevisLoss: "devis", PriusLoss: "prius"}  # fmt: skip
"""What `loss` said."""


AS_MADE = {"network.name": "unet", "network.channels": [16, 32, 64], "network.norm": "instance",
           "network.upsample": "transposed", "data.augment": "mirror", "data.spacing": "none",
           "optimizer.schedule": "constant"}  # fmt: skip
"""What a run without a choice of networks did where it does not say otherwise."""
AUGMENT = {True: "mirror", False: "none", "true": "mirror", "false": "none"}
"""`data.augment` was whether crops are mirrored."""


def as_made(named: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a stored run, section.key, with those that it had before they could be chosen."""
    return dict(named) if "network.name" in named else {**AS_MADE, **named}


def as_now(named: dict[str, Any]) -> dict[str, Any]:
    """The same with values as they are called now."""
    value = named.get("data.augment")
    if isinstance(value, (bool, str)) and value in AUGMENT:
        named["data.augment"] = AUGMENT[value]
    return named


def is_flat(content: Mapping[str, Any], sections: Mapping[str, Any]) -> bool:
    """Whether it is of one level. `data` was a folder, and is a section."""
    return bool(content) and not any(name in sections and isinstance(v, Mapping) for name, v in content.items())


def in_sections(content: Mapping[str, Any], full_name: Callable[[str], str]) -> dict[str, dict[str, Any]]:
    """The same in sections, without the keys that its method does not read.

    Raises:
        ConfigError: an unknown key, or a loss or inference that is no longer to be had under this preset.
    """
    preset = content.get("preset", "sure")
    record = METHODS.get(preset) if isinstance(preset, str) else None
    sections: dict[str, dict[str, Any]] = {}
    for name, value in content.items():
        if name in ("loss", "inference"):
            wanted = record and {"loss": LOSSES.get(record.loss), "inference": record.inference}[name]
            if value != wanted:
                raise ConfigError(f"{name}: expected {wanted} with preset {preset}, got {value!r}")
            continue
        section, _, key = full_name(str(name)).partition(".")
        if section == "method" and key not in ("preset", "members") and record is not None:
            if key in record.fixed and value == record.fixed[key]:
                continue
            if value is None or (key not in record.options and value in _defaults(key)):
                continue
        sections.setdefault(section, {})[key] = value
    return sections


def _defaults(key: str) -> list[Any]:
    """What the losses that have this option do or did by themselves; runs of all methods wrote it down."""
    signatures = [inspect.signature(record.loss).parameters for record in METHODS.values()]
    values = [parameters[key].default for parameters in signatures if key in parameters]
    values += [PAPER[key]] if key in PAPER else []
    return values + [[value] for value in values] + ([0.0] if key in ("beta", "gamma") else [])
