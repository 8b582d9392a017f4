"""The training configuration: one dataclass that the YAML file, the presets and the flags all fill."""

from __future__ import annotations

import argparse
import difflib
import math
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..losses.schedule import ANNEALING_EPOCHS, start_of
from ..losses.supervised import BETA, GAMMA
from ..models import NORMS
from ..ops.noise_uncertainty_loss import DISTANCE_WEIGHT, FAR_WEIGHT, ORDER_WEIGHT
from ..ops.sample_hard_patches import NUM_PATCHES, PATCH_SIZE
from .files import write_text

_PLAIN: dict[str, Any] = {"loss": "evidential", "inference": "evidential", "beta": 0.0, "gamma": 0.0,
                          "dropout": 0.0, "members": 1}  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    "softmax": {**_PLAIN, "loss": "softmax", "inference": "softmax"},
    "mc-dropout": {**_PLAIN, "loss": "softmax", "inference": "mc-dropout", "dropout": 0.2},
    "ensemble": {**_PLAIN, "loss": "softmax", "inference": "ensemble", "members": 3},
    "tta": {**_PLAIN, "loss": "softmax", "inference": "tta"},
    "evidential": _PLAIN,
    "devis": {**_PLAIN, "loss": "devis"},
    "sure": {**_PLAIN, "beta": BETA, "gamma": GAMMA},
    "prius": {**_PLAIN, "loss": "prius"},
}
PHANTOM: dict[str, Any] = {"epochs": 30, "batch_size": 2}
QUICK: dict[str, Any] = {"epochs": 3, "start_epoch": 1, "batch_size": 2, "phantom_cases": 8, "channels": [4, 8, 16]}


CACHES = ("memory", "disk", "none")
SCHEDULES = ("constant", "poly")
LOSSES = ("evidential", "softmax", "devis", "prius")
PRIUS_WEIGHTS = ("contrast_weight", "corruption_weight", "geometry_weight")
READERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("kind", "total", "evidence", "annealing_epochs"), ("evidential", "devis", "prius")),
    **dict.fromkeys(("pairs", "blur_sigma"), ("beta",)),
    **dict.fromkeys(("order_weight", "distance_weight", "far_weight"), ("gamma",)),
    **dict.fromkeys(("noise", "noise_patch_size", "num_patches", "mining_every"), ("gamma",)),
    "operator": ("beta", "prius"),
    "start_epoch": ("beta", "gamma", "prius"),
    **dict.fromkeys((*PRIUS_WEIGHTS, "prius_distance"), ("prius",)),
}
"""Options that only some losses read: the loss, or the weight without which its term is not computed."""
LOGGERS = ("mlflow", "wandb")
INDEPENDENT = ("device", "num_workers", "cache", "cache_folder", "checkpoint_every", "loggers")
"""Keys that change nothing of what is trained: a run goes on with others, and may be compared with others."""
INFERENCE = ("evidential", "softmax", "mc-dropout", "ensemble", "tta")


class ConfigError(ValueError):
    """A wrong configuration: one line that names the key, what was expected and what came."""


def option(default: Any, text: str, choices: tuple[str, ...] | None = None) -> Any:
    metadata = {"help": text, "choices": choices}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class TrainConfig:
    """Everything a training run depends on. Flags carry the same names with dashes."""

    data: str | None = option(None, "data folder (default: a phantom set, written into the output folder)")
    layout: str = option("auto", "data layout", ("auto", "msd_nnunet", "acdc", "folders"))
    label_map: dict[int, int] = option({}, "grey level of a mask -> class, for example 0:2,128:1,255:0")
    fractions: list[float] = option([0.7, 0.1, 0.2], "shares of the cases for training, validation and test")
    group: str | None = option(
        None,
        "regular expression that finds the patient in a case's name (its first group, or "
        "all of it), so that no patient is in two parts, for example '^(patient[0-9]+)_'",
    )
    split: str | None = option(
        None,
        "file of the split, JSON or YAML with lists train, val and test of names; or "
        "nnU-Net's splits_final.json, with --fold (default: by the fractions)",
    )
    fold: str | None = option(
        None,
        "K/N: the K-th of N folds validates, the others train, and none tests unless "
        "--fractions sets a share of the cases aside for it; with --split the K-th entry",
    )
    phantom_cases: int = option(32, "cases of the phantom set")
    preset: str = option("sure", "method; sets the options named after it", tuple(PRESETS))
    loss: str = option("evidential", "training loss (preset)", LOSSES)
    inference: str = option("evidential", "where the uncertainty comes from (preset)", INFERENCE)
    dropout: float = option(0.0, "dropout probability of the network (preset)")
    members: int = option(1, "networks of an ensemble, trained one after the other (preset)")
    device: str = option("auto", "torch device; auto: cuda where there is one, else cpu")
    seed: int = option(0, "seed of the split, the network, the crops and the noise")
    split_seed: int | None = option(None, "seed of the split (default: seed)")
    epochs: int = option(40, "number of epochs")
    batch_size: int = option(4, "volumes per step")
    patch_size: list[int] = option([], "crop in voxels (default: from the smallest training cases)")
    channels: list[int] = option([16, 32, 64], "feature channels per level of the U-Net")
    norm: str = option("instance", "normalisation of the network", NORMS)
    init_from: str | None = option(None, "run or checkpoint whose weights training starts from")
    learning_rate: float = option(1e-3, "learning rate of Adam")
    schedule: str = option("constant", "learning rate over the epochs; poly: (1 - epoch/epochs)^0.9", SCHEDULES)
    amp: str = option("none", "precision of the network (autocast); fp16 with a loss scaler", ("none", "bf16", "fp16"))
    accumulate: int = option(1, "batches whose gradients make one step of the optimizer")
    clip_norm: float = option(0.0, "largest norm of the gradient (0: any)")
    compile: bool = option(False, "run the network through torch.compile")
    channels_last: bool = option(False, "memory format of the network and its images")
    ema: float = option(0.0, "decay of the averaged weights that are validated and kept, for example 0.999 (0: none)")
    patience: int = option(0, "validations without a better Dice after which training ends (0: never)")
    cache: str = option("memory", "where normalised cases wait for their crops; none: read anew for each", CACHES)
    cache_folder: str | None = option(None, "folder of cache disk (default: cache in the output folder)")
    skip_bad: bool = option(False, "leave out cases that cannot be used, and list them")
    num_workers: int = option(0, "worker processes of the data loader")
    augment: bool = option(True, "random flips of the training crops")
    kind: str = option("digamma", "data term of the evidential loss", ("digamma", "log", "mse"))
    total: str = option("weighted", "how its terms are weighted", ("weighted", "annealed"))
    evidence: str = option("softplus", "evidence of a logit", ("softplus", "relu", "exp"))
    annealing_epochs: int = option(ANNEALING_EPOCHS, "epochs until the KL term has its full weight")
    start_epoch: int | None = option(None, "first epoch with supervised uncertainty (default: 30 %% of the epochs)")
    beta: float = option(PRESETS["sure"]["beta"], "weight of the gradient-uncertainty loss (preset)")
    gamma: float = option(PRESETS["sure"]["gamma"], "weight of the noise-uncertainty loss (preset)")
    order_weight: float = option(ORDER_WEIGHT, "weight of its order term")
    distance_weight: float = option(DISTANCE_WEIGHT, "weight of its distance term")
    far_weight: float = option(FAR_WEIGHT, "weight of its far term")
    noise: str = option("mean", "what the noise levels are: the mean, or the standard deviation", ("mean", "std"))
    mining_every: int = option(1, "steps between searches for hard samples; between them random places get noise")
    noise_patch_size: list[int] = option([PATCH_SIZE], "odd edge of the noise patches in voxels, one or one per axis")
    num_patches: int = option(NUM_PATCHES, "noise patches per class and image")
    pairs: str = option("exact", "pairs of the gradient-uncertainty loss", ("exact", "sampled"))
    operator: str = option("sobel", "image gradient operator", ("sobel", "central"))
    blur_sigma: float = option(0.0, "Gaussian blur before the image gradient, in voxels")
    contrast_weight: float | None = option(None, "weight of the contrast term of PriUS (default: as published)")
    corruption_weight: float | None = option(None, "weight of its corruption term (default: as published)")
    geometry_weight: float | None = option(None, "weight of its geometry term (default: as published)")
    prius_distance: str = option("region", "distance of the PriUS terms", ("region", "boundary"))
    validate_every: int = option(5, "epochs between validations")
    weights: str = option("last", "weights that are evaluated and predicted with: of the last epoch, or of the best "
                          "validation", ("last", "best"))  # fmt: skip
    checkpoint_every: int = option(0, "steps between checkpoints within an epoch (0: one at its end)")
    loggers: list[str] = option([], "trackers beside TensorBoard, JSONL and CSV: mlflow, wandb, where installed")
    quick: bool = option(False, "a run of under a minute: few small cases, few epochs")

    def __post_init__(self) -> None:
        if self.start_epoch is None and self.reads("start_epoch"):
            self.start_epoch = start_of(self.epochs) if self.epochs > 0 else 0
        for name in ("epochs", "batch_size", "validate_every", "num_patches", "members", "accumulate", "mining_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.split_seed is not None and self.split_seed < 0:
            raise ConfigError(f"split_seed: expected a number >= 0, got {self.split_seed}")
        if self.start_epoch is not None and not 0 <= self.start_epoch < self.epochs:
            raise ConfigError(
                f"start_epoch: expected 0 <= start_epoch < epochs ({self.epochs}), got {self.start_epoch}"
            )
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate: expected a finite number > 0, got {self.learning_rate}")
        weights = ("beta", "gamma", "order_weight", "distance_weight", "far_weight", "blur_sigma", "clip_norm")
        for name in (*weights, "num_workers", "checkpoint_every", "seed", "patience"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}: expected a finite number >= 0, got {getattr(self, name)}")
        for name in PRIUS_WEIGHTS:
            weight = getattr(self, name)
            if weight is not None and not 0 <= weight < math.inf:
                raise ConfigError(f"{name}: expected a finite number >= 0, got {weight}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout: expected a number in [0, 1), got {self.dropout}")
        if self.cache_folder is not None and self.cache != "disk":
            raise ConfigError(f"cache_folder: expected with cache disk only, got it with {self.cache}")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema: expected a number in [0, 1), got {self.ema}")
        if not set(self.loggers) <= set(LOGGERS) or len(set(self.loggers)) != len(self.loggers):
            raise ConfigError(f"loggers: expected any of {', '.join(LOGGERS)}, each once, got {self.loggers}")
        self._check_method()
        if not self.noise_patch_size or any(size < 1 or size % 2 == 0 for size in self.noise_patch_size):
            raise ConfigError(f"noise_patch_size: expected an odd number >= 1, or one per axis, "
                              f"got {self.noise_patch_size}")  # fmt: skip
        self._check_split()
        if self.quick and self.data is None and len(self.channels) > 3:
            raise ConfigError(f"channels: expected at most 3 levels with quick, got {len(self.channels)}")
        if not self.channels or min(self.channels) < 1:
            raise ConfigError(f"channels: expected one number >= 1 per level, got {self.channels}")

    def _check_split(self) -> None:
        """What names the parts of the data can be read."""
        from ..data.groups import compiled
        from ..data.split_file import parse_fold

        try:
            if self.group is not None:
                compiled(self.group)
            if self.fold is not None:
                parse_fold(self.fold)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def _check_method(self) -> None:
        """Loss, inference and network belong together."""
        softmax = self.inference != "evidential"
        if softmax != (self.loss == "softmax"):
            wanted = "softmax" if softmax else "evidential, devis or prius"
            raise ConfigError(f"loss: expected {wanted} with inference {self.inference}, got {self.loss!r}")
        if self.loss != "evidential" and (self.beta or self.gamma):
            raise ConfigError(f"beta, gamma: expected 0 with loss {self.loss}, got {self.beta}, {self.gamma}")
        if (self.inference == "ensemble") != (self.members > 1):
            wanted = "at least 2" if self.inference == "ensemble" else "1"
            raise ConfigError(f"members: expected {wanted} with inference {self.inference}, got {self.members}")
        if self.inference == "mc-dropout" and not self.dropout:
            raise ConfigError("dropout: expected a number > 0 with inference mc-dropout, got 0")
        if self.init_from is not None and self.members > 1:
            raise ConfigError("init_from: expected none with an ensemble, whose networks have to differ")
        for entry in fields(self):
            value = getattr(self, entry.name)
            default = entry.default if entry.default_factory is MISSING else entry.default_factory()
            if not self.reads(entry.name) and value != default:
                readers = " or ".join(name if name in LOSSES else f"{name} > 0" for name in READERS[entry.name])
                raise ConfigError(f"{entry.name}: expected with {readers} only, which this run has not, got {value!r}")

    def reads(self, name: str) -> bool:
        """Whether this method reads an option at all."""
        readers = READERS.get(name)
        return readers is None or any(self.loss == r if r in LOSSES else bool(getattr(self, r)) for r in readers)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


_TYPES = typing.get_type_hints(TrainConfig)


def convert(name: str, value: Any) -> Any:
    """A value of the file or of a flag as the type of its key; ConfigError where it is none."""
    kind = _TYPES[name]
    optional = isinstance(kind, types.UnionType)
    if optional:
        if value is None:
            return None
        kind = next(t for t in typing.get_args(kind) if t is not type(None))
    choices = next(f for f in fields(TrainConfig) if f.name == name).metadata["choices"]
    try:
        converted = _converted(kind, value)
    except (TypeError, ValueError, OverflowError):
        expected = getattr(kind, "__name__", str(kind)) if typing.get_origin(kind) is None else str(kind)
        raise ConfigError(f"{name}: expected {expected}, got {value!r}") from None
    if choices and converted not in choices:
        raise ConfigError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    return converted


def _converted(kind: Any, value: Any) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        items = value.replace("x", ",").split(",") if isinstance(value, str) else value
        if inner[0] is int and isinstance(items, int) and not isinstance(items, bool):
            items = [items]
        if not isinstance(items, (list, tuple)):
            raise TypeError
        return [_converted(inner[0], item) for item in items]
    if origin is dict:
        if isinstance(value, str):
            value = dict(pair.split(":") for pair in value.split(",") if pair)
        if not isinstance(value, dict):
            raise TypeError
        return {_converted(inner[0], k): _converted(inner[1], v) for k, v in value.items()}
    if kind is bool:
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


def load_file(path: str) -> dict[str, Any]:
    """The keys of a YAML file, checked."""
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path}: not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:  # an empty file, or comments only
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"config {path}: expected keys and values, got {type(content).__name__}")
    for name in content:
        if name not in _TYPES:
            raise ConfigError(f"config {path}: unknown key {name!r}{suggestion(str(name), _TYPES)}")
    return {name: convert(name, value) for name, value in content.items()}


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
    alias = ALIASES.get(name.lstrip("-").replace("-", "_"), "")
    wanted = [n for n in names if alias and n.lstrip("-").replace("-", "_") == alias]
    near = wanted or difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def make(flags: dict[str, Any], file: dict[str, Any] | None = None) -> TrainConfig:
    """Flags over the file over the preset over the defaults; the phantom and `quick` have some of their own."""
    given = {**(file or {}), **{name: convert(name, value) for name, value in flags.items()}}
    base: dict[str, Any] = {} if given.get("data") else dict(PHANTOM)
    if given.get("quick"):
        base.update(QUICK)
        if "epochs" in given and "start_epoch" not in given:
            del base["start_epoch"]
    base.update(PRESETS[given.get("preset", "sure")])
    if given.get("fold") and not given.get("split"):
        base["fractions"] = _fractions_of_fold(given["fold"])
    if "start_epoch" in base and not TrainConfig(**{**base, **given, "start_epoch": None}).reads("start_epoch"):
        del base["start_epoch"]
    return TrainConfig(**{**base, **given})


def _fractions_of_fold(fold: str) -> list[float]:
    """Those that --fold has without --fractions: no test cases."""
    from ..data.split_file import parse_fold

    try:
        folds = parse_fold(fold)[1]
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return [1.0 - 1.0 / folds, 1.0 / folds, 0.0]


def unread(preset: str, values: dict[str, Any]) -> set[str]:
    """Those of these options that the method of a preset does not read."""
    options = dict(PRESETS[preset])
    if preset == "sure":
        options.update({name: convert(name, values[name]) for name in ("beta", "gamma") if name in values})
    config = TrainConfig(**options)
    return {name for name in values if not config.reads(name)}


def add_flags(parser: argparse.ArgumentParser, without: Sequence[str] = ()) -> None:
    """One flag per key of TrainConfig; those not given are absent from the namespace."""
    for entry in fields(TrainConfig):
        if entry.name in without:
            continue
        flag, text = "--" + entry.name.replace("_", "-"), entry.metadata["help"]
        if _TYPES[entry.name] is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            parser.add_argument(
                flag,
                default=argparse.SUPPRESS,
                choices=entry.metadata["choices"],
                metavar=None if entry.metadata["choices"] else entry.name.upper(),
                help=text,
            )


def save(config: TrainConfig, path: Path) -> None:
    import yaml

    write_text(path, yaml.safe_dump(config.to_dict(), sort_keys=False))
