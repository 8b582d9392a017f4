"""The configuration of a run, in sections: data, network, optimizer, run, and the method with its loss's options.

An option is called section.key: in the YAML file a key of the section's mapping, on the command line
`--set section.key=value`; those of `FLAGS` have a flag of their own.
"""

from __future__ import annotations

import argparse
import os
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..losses.schedule import start_of
from ..methods import DEFAULT, METHODS, Method
from ..models import NETWORKS
from . import earlier
from .files import write_text
from .options import ConfigError as ConfigError
from .options import convert as _convert
from .options import suggestion as suggestion
from .sections import DataConfig, NetworkConfig, OptimizerConfig, option
from .sections import RunConfig as RunConfig


@dataclass
class MethodConfig:
    """The method, and the options of its loss."""

    preset: str = option(DEFAULT, "method", tuple(METHODS))
    members: int = option(1, "networks of an ensemble, trained one after the other (default: the method's)")
    options: dict[str, Any] = field(default_factory=dict)
    """By the loss's own names; those not given get their defaults."""

    def __post_init__(self) -> None:
        for name in self.options:
            if name not in self.record.options:
                raise ConfigError(f"method.{name}: {_no_option(self.record, name)}")
        self.options = {**self.record.options, **self.options}
        if (self.record.members > 1) != (self.members > 1) or self.members < 1:
            wanted = "at least 2" if self.record.members > 1 else "1"
            raise ConfigError(f"method.members: expected {wanted} with {self.preset}, got {self.members}")
        for name, value in self.options.items():
            if value != self.record.options[name] and not self.record.reads(name, self.options):
                weights = " or ".join(f"method.{weight} > 0" for weight in self.record.needs[name])
                raise ConfigError(f"method.{name}: expected with {weights} only, which this run has not, got {value!r}")

    @property
    def record(self) -> Method:
        return METHODS[self.preset]


@dataclass
class TrainConfig:
    """Everything a training run depends on."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)
    method: MethodConfig = field(default_factory=MethodConfig)

    def __post_init__(self) -> None:
        method, epochs = self.method, self.run.epochs
        if method.options.get("start_epoch", 0) is None and method.record.reads("start_epoch", method.options):
            method.options["start_epoch"] = start_of(epochs)
        try:  # the loss checks its own options
            method.record.make_loss(method.options, num_epochs=epochs, dims=3, in_channels=1, ignore_index=None)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"method.{error}") from None
        if method.record.dropout and not self.network.dropout:
            raise ConfigError(f"network.dropout: expected a number > 0 with {method.preset}, got 0")
        if self.network.init_from is not None and method.members > 1:
            raise ConfigError("network.init_from: expected none with an ensemble, whose networks have to differ")
        if self.run.quick and self.data.folder is None and len(self.network.channels) > 3:
            raise ConfigError(
                f"network.channels: expected at most 3 levels with run.quick, got {len(self.network.channels)}"
            )
        if self.optimizer.warmup >= epochs:
            raise ConfigError(f"optimizer.warmup: expected less than the {epochs} epochs, got {self.optimizer.warmup}")

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain data by section, as the YAML file has it."""
        sections = {name: getattr(self, name) for name in SECTIONS}
        plain = {name: asdict(section) for name, section in sections.items()}
        plain["method"] |= plain["method"].pop("options")
        return plain

    def flat(self) -> dict[str, Any]:
        """Values by section.key."""
        return {f"{section}.{key}": v for section, values in self.to_dict().items() for key, v in values.items()}

    def with_values(self, values: Mapping[str, Any]) -> TrainConfig:
        """The same with other values of some section.key."""
        return _assemble({**self.flat(), **values})


SECTIONS: dict[str, Any] = {entry.name: entry.default_factory for entry in fields(TrainConfig)}
INDEPENDENT = ("run.device", "data.num_workers", "data.cache", "data.cache_folder", "run.checkpoint_every",
               "run.loggers")  # fmt: skip
"""Keys that change nothing of what is trained: a run goes on with others, and may be compared with others."""
FLAGS = {
    "data.folder": "--data", "method.preset": "--preset", "run.epochs": "--epochs",
    "optimizer.batch_size": "--batch-size", "data.patch_size": "--patch-size", "run.quick": "--quick",
    "data.dims": "--dims", "data.slice_axis": "--slice-axis", "data.spacing": "--spacing",
    "data.foreground_crop": "--foreground-crop", "data.augment": "--augment", "network.name": "--network",
    "network.norm": "--norm",
    "data.split": "--split", "data.fold": "--fold", "data.group": "--group", "data.label_map": "--label-map",
    "optimizer.learning_rate": "--learning-rate", "network.init_from": "--init-from", "network.amp": "--amp",
    "run.seed": "--seed", "run.device": "--device", "data.num_workers": "--num-workers",
}  # fmt: skip
"""Options with a flag of their own, most used first; all others are set by `--set`."""
_KEYS = {
    f"{section}.{entry.name}": entry
    for section, made in SECTIONS.items()
    for entry in fields(made)
    if entry.name != "options"
}
_TYPES = {f"{section}.{key}": kind for section, made in SECTIONS.items()
          for key, kind in typing.get_type_hints(made).items()}  # fmt: skip

PHANTOM: dict[str, Any] = {"run.epochs": 12, "method.start_epoch": 5, "optimizer.batch_size": 1,
                           "optimizer.learning_rate": 5e-3, "network.norm": "group"}  # fmt: skip
QUICK: dict[str, Any] = {"run.epochs": 3, "method.start_epoch": 1, "optimizer.batch_size": 2, "data.phantom_cases": 8,
                         "network.channels": [4, 8, 16]}  # fmt: skip


def keys(preset: str | None = None) -> list[str]:
    """Every section.key of a method; None: of any."""
    records = METHODS.values() if preset is None else [METHODS[preset]]
    return list(dict.fromkeys([*_KEYS, *(f"method.{name}" for record in records for name in record.options)]))


def full_name(name: str) -> str:
    """section.key of a key that is given with its section or, where only one has it, without; ConfigError if none."""
    known = keys()
    if name in known:
        return name
    alone = earlier.NAMES.get(name) or next((key for key in known if key.split(".")[1] == name), None)
    if alone is None or "." in name:
        raise ConfigError(f"unknown key {name!r}{suggestion(name, known)}")
    return alone


def convert(name: str, value: Any, preset: str | None = None) -> Any:
    """A value of a file or of a flag as the type of its key, section.key; ConfigError where it is none."""
    if name in _KEYS:
        return _convert(name, value, _TYPES[name], _KEYS[name].metadata["choices"])
    section, _, key = name.partition(".")
    records = METHODS.values() if preset is None else [METHODS[preset]]
    record = next((record for record in records if section == "method" and key in record.options), None)
    if record is None:
        reason = _no_option(METHODS[preset], key) if section == "method" and preset else suggestion(name, keys(preset))
        raise ConfigError(f"{name}: {reason.removeprefix('; ') or 'unknown key'}")
    kind = typing.get_type_hints(record.loss.__init__)[key]
    return _convert(name, value, kind | None if record.options[key] is None else kind)


def _no_option(record: Method, name: str) -> str:
    if name in record.fixed:
        return f"expected none, preset {record.name} is the method with {name} {record.fixed[name]:g}"
    return f"is no option of preset {record.name}{suggestion(name, record.options)}"


def load_file(path: str) -> dict[str, Any]:
    """The keys of a YAML file as section.key with their values, checked."""
    import yaml

    class Once(yaml.SafeLoader):
        """Refuses a key that is given twice, of which YAML takes the last."""

        def construct_mapping(self, node, deep=False):
            given = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = next((key for key in given if given.count(key) > 1), None)
            if twice is not None:
                raise ConfigError(f"config {path}: expected each key once, got {twice!r} twice")
            return super().construct_mapping(node, deep)

    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Once)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path}: not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:  # an empty file, or comments only
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"config {path}: expected keys and values, got {type(content).__name__}")
    try:
        return parse(content)
    except ConfigError as error:
        raise ConfigError(f"config {path}: {error}") from None


def load_stored(folder: Path) -> TrainConfig:
    """The configuration of a run, from its config.yaml; of one made before an option existed, as it was made."""
    return make({}, earlier.as_made(load_file(str(folder / "config.yaml"))))


def parse(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a file, or what a checkpoint holds, as section.key with checked values."""
    if earlier.is_flat(content, SECTIONS):
        content = earlier.in_sections(content, full_name)
    named: dict[str, Any] = {}
    for section, values in content.items():
        if section not in SECTIONS:
            hint = suggestion(str(section), SECTIONS)
            raise ConfigError(f"unknown section {section!r}, expected {', '.join(SECTIONS)}{hint}")
        if not isinstance(values, Mapping):
            raise ConfigError(f"{section}: expected keys and values, got {type(values).__name__}")
        named |= {f"{section}.{key}": value for key, value in values.items()}
    return converted(named)


def converted(named: Mapping[str, Any]) -> dict[str, Any]:
    """Values by section.key, or by a key that one section has, as section.key, each as its own type."""
    full = earlier.as_now({full_name(str(name)): value for name, value in named.items()})
    preset = convert("method.preset", full["method.preset"]) if "method.preset" in full else None
    found = {name: convert(name, value, preset) for name, value in full.items()}
    if found.get("data.folder"):
        found["data.folder"] = os.path.abspath(found["data.folder"])  # a run is looked at from other places too
    return found


def fitting_defaults(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Of some defaults those that go with what is given: others belong to a schedule or a network of their own."""
    without = {"run.epochs": "method.start_epoch", "network.name": "network.norm"}
    left_out = {own for name, own in without.items() if name in given}
    return {name: value for name, value in base.items() if name not in left_out}


def make(flags: Mapping[str, Any], file: Mapping[str, Any] | None = None) -> TrainConfig:
    """Flags over the file over the method's defaults; the phantom set and `quick` have some of their own.

    Args:
        flags: text or values by section.key, or by a key alone where only one section has it.
        file: of `load_file`.
    """
    given = {**(file or {}), **converted(flags)}
    base = {} if given.get("data.folder") else dict(PHANTOM)
    if given.get("run.quick"):
        base.update(QUICK)
    base = fitting_defaults(base, given)
    network = NETWORKS.get(given.get("network.name", NetworkConfig.name))
    if network is None or not network.levels:
        base.pop("network.channels", None)
    preset = given.get("method.preset", MethodConfig.preset)
    record = METHODS[preset]
    base |= {"method.members": record.members, "network.dropout": record.dropout}
    if given.get("data.fold") and not given.get("data.split"):
        base["data.fractions"] = _fractions_of_fold(given["data.fold"])
    options = {name.removeprefix("method."): value for name, value in given.items() if name.startswith("method.")}
    if not record.reads("start_epoch", {**record.options, **options}):
        base.pop("method.start_epoch", None)
    return _assemble({**base, **given})


def _assemble(values: Mapping[str, Any]) -> TrainConfig:
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for name, value in values.items():
        section, _, key = name.partition(".")
        sections[section][key] = value
    own = {entry.name for entry in fields(MethodConfig)}
    options = {key: sections["method"].pop(key) for key in list(sections["method"]) if key not in own}
    made = {name: SECTIONS[name](**content) for name, content in sections.items() if name != "method"}
    return TrainConfig(**made, method=MethodConfig(**sections["method"], options=options))


def _fractions_of_fold(fold: str) -> list[float]:
    """Those that data.fold has without data.fractions: no test cases."""
    from ..data.split_file import parse_fold

    try:
        folds = parse_fold(fold)[1]
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return [1.0 - 1.0 / folds, 1.0 / folds, 0.0]


def add_flags(parser: argparse.ArgumentParser, without: Iterable[str] = ()) -> None:
    """The flags of `FLAGS`, and --set; those not given are absent from the namespace."""
    group = parser.add_argument_group("options of the run (section.key in the file and for --set)")
    for name, flag in FLAGS.items():
        if name in without:
            continue
        entry = _KEYS[name]
        text = f"{entry.metadata['help']} ({name})"
        if _TYPES[name] is bool:
            group.add_argument(flag, dest=name, action="store_true", default=argparse.SUPPRESS, help=text)
            continue
        choices = entry.metadata["choices"]
        metavar = None if choices else flag.removeprefix("--").replace("-", "_").upper()
        group.add_argument(
            flag, dest=name, default=argparse.SUPPRESS, choices=choices, metavar=metavar, help=text.replace("%", "%%")
        )
    group.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
                       help="any other option, for example method.beta=30; of several for one option the last counts; "
                       "python -m sure_fast.train --options lists them")  # fmt: skip


def take_flags(flags: dict[str, Any]) -> dict[str, Any]:
    """Takes what `add_flags` added out of a parsed namespace, by section.key.

    Raises:
        ConfigError: no SECTION.KEY=VALUE, an unknown key, or one that has its own flag beside it.
    """
    given = {name: flags.pop(name) for name in list(flags) if name in _KEYS}
    own = set(given)
    for text in flags.pop("set"):
        name, equals, value = text.partition("=")
        if not equals or "." not in name:
            hint = "" if name in keys() else suggestion(name, keys())
            raise ConfigError(f"set: expected SECTION.KEY=VALUE, got {text!r}{hint}")
        if full_name(name) in own:
            raise ConfigError(f"set: expected no {name} beside {FLAGS[name]}, got {value!r}")
        given[name] = value
    return given


def listing(preset: str) -> str:
    """Every option of a method with its default and meaning, by section."""
    lines: list[str] = []
    of_loss = _arguments(METHODS[preset].loss)
    for name, value in make({"method.preset": preset}).flat().items():
        section = name.split(".")[0]
        if not lines or not any(line == f"{section}:" for line in lines):
            lines.append(f"{section}:")
        shown = "" if value is None else ",".join(map(str, value)) if isinstance(value, list) else str(value)
        described = _KEYS[name].metadata["help"] if name in _KEYS else of_loss.get(name.split(".")[1], "")
        lines.append(f"  {name} = {shown}".ljust(38) + f"  {described}")
    return "\n".join(lines)


def _arguments(loss: type) -> dict[str, str]:
    """What the documentation of a loss says of its keywords."""
    text = (loss.__doc__ or "").partition("Args:")[2].partition("\n\n")[0]
    texts: dict[str, str] = {}
    for entry in re.split(r"\n\s+(?=\w+(?:, \w+)*: )", text)[1:]:
        names, _, meaning = entry.partition(": ")
        texts |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return texts


def save(config: TrainConfig, path: Path) -> None:
    import yaml

    write_text(path, yaml.safe_dump(config.to_dict(), sort_keys=False))
