"""Options as text and as values: their types, their names, and what an error says of them."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any

import yaml


class ConfigError(ValueError):
    """A wrong configuration: one line that names the key, what was expected and what came."""


ALIASES = {
    "lr": "learning_rate", "bs": "batch_size", "batch": "batch_size", "num_epochs": "epochs", "max_epochs": "epochs",
    "out": "output", "output_dir": "output", "out_dir": "output", "gpu": "device", "workers": "num_workers",
    "dataset": "data", "data_dir": "data", "method": "preset", "roi_size": "patch_size", "crop_size": "patch_size",
    "precision": "amp", "model": "checkpoint", "weight": "weights",
}  # fmt: skip
"""What other programs call an option, and what it is called here."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of an error about a mistyped name."""
    names = list(known)
    bare = name.lstrip("-").replace("-", "_").split(".")[-1]
    alias = ALIASES.get(bare, "")
    wanted = [n for n in names if n.lstrip("-").replace("-", "_").split(".")[-1] in (bare, alias)]
    near = wanted or difflib.get_close_matches(name, names, 1)
    if not near:  # the right key behind a wrong section, or behind none
        by_key = {n.split(".")[-1]: n for n in names}
        near = [by_key[key] for key in difflib.get_close_matches(bare, by_key, 1)]
    return f"; did you mean {near[0]!r}?" if near else ""


def convert(name: str, value: Any, kind: Any, choices: Sequence[str] | None = None) -> Any:
    """A value of a file, or the text of a flag, as the type of its option; ConfigError where it is none."""
    kinds = _alternatives(kind)
    if type(None) in kinds and (value is None or value == "null"):
        return None
    kinds = [one for one in kinds if one is not type(None)]
    for one in kinds:
        try:
            converted = _converted(one, value)
        except (TypeError, ValueError, OverflowError, yaml.YAMLError):
            continue
        if choices and converted not in choices:
            raise ConfigError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
        return _single(converted) if len(kinds) > 1 else converted
    expected = " or ".join(one.__name__ if typing.get_origin(one) is None else str(one) for one in kinds)
    raise ConfigError(f"{name}: expected {expected}, got {value!r}")


def _alternatives(kind: Any) -> list[Any]:
    """The types of a union that can be written in a file, numbers before lists."""
    members = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)
    plain = [list[typing.get_args(one)] if _is_sequence(one) else one for one in members]  # type: ignore[misc]
    known = [one for one in plain if typing.get_origin(one) is not None or one in (bool, int, float, str, type(None))]
    return sorted(known, key=lambda one: (one is str, typing.get_origin(one) is not None))


def _is_sequence(kind: Any) -> bool:
    return isinstance(typing.get_origin(kind), type) and issubclass(typing.get_origin(kind), Sequence)


def _single(value: Any) -> Any:
    """Of an option that is one number or one per axis: a list of one as the number."""
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], (int, float)) else value


def _converted(kind: Any, value: Any) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        items = value
        if isinstance(value, str) and (inner[0] is Any or value.lstrip().startswith("[")):
            items = yaml.safe_load(value)
        elif isinstance(value, str):
            items = value.replace("x", ",").split(",")
        if inner[0] is int and isinstance(items, int) and not isinstance(items, bool):
            items = [items]
        if not isinstance(items, (list, tuple)):
            raise TypeError
        return [_converted(inner[0], item) for item in items]
    if kind is Any:
        return yaml.safe_load(value) if isinstance(value, str) else value
    if origin is dict:
        if isinstance(value, str) and value.lstrip().startswith("{"):
            value = yaml.safe_load(value)
        if isinstance(value, str):
            value = dict(pair.split(":", 1) for pair in value.split(",") if pair)
        if not isinstance(value, dict):
            raise TypeError
        return {_converted(inner[0], k): _converted(inner[1], v) for k, v in value.items()}
    if kind is bool:
        value = {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
        if not isinstance(value, bool):
            raise TypeError
        return value
    if kind is str:
        if not isinstance(value, str):
            raise TypeError
        return value
    if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
        raise TypeError
    return kind(value)
