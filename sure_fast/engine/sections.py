"""The sections of a run's configuration: what each option is, its default, and what is wrong by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from .. import _checks
from ..data import LAYOUTS
from ..data.augment import PRESETS
from ..data.dataset import CACHES
from ..models import NETWORKS, NORMS, UPSAMPLING, own_function
from .options import ConfigError

SLICE_AXES = ("auto", "axial", "coronal", "sagittal", "0", "1", "2")
SCHEDULES = ("constant", "poly", "cosine")
LEARNING_RATES = {"adam": 1e-3, "adamw": 1e-3, "sgd": 1e-2}
"""Optimizers, and the learning rate each begins with where none is given."""
LOGGERS = ("mlflow", "wandb")


def option(default: Any, text: str, choices: tuple[str, ...] | None = None) -> Any:
    metadata = {"help": text, "choices": choices}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class DataConfig:
    """Where the cases are, which part of the work each has, and what of them a step sees."""

    folder: str | None = option(None, "data folder (default: a phantom set, written into the output folder)")
    layout: str = option("auto", "how the folder is laid out", ("auto", *LAYOUTS))
    label_map: dict[int, int] = option(
        {}, "label value -> class, -1 for what is not annotated, for example 0:2,128:1,255:-1"
    )
    fractions: list[float] = option([0.7, 0.1, 0.2], "shares of the cases for training, validation and test")
    group: str | None = option(
        None,
        "regular expression that finds the patient in a case's name (its first group, or all of it), so that no "
        "patient is in two parts, for example '^(patient[0-9]+)_'",
    )
    split: str | None = option(
        None,
        "file of the split, JSON or YAML with lists train, val and test of names; or nnU-Net's splits_final.json, with "
        "--fold (default: by data.fractions)",
    )
    fold: str | None = option(
        None,
        "K/N: the K-th of N folds validates, the others train, and none tests unless data.fractions sets a share of "
        "the cases aside for it; with --split the K-th entry",
    )
    split_seed: int | None = option(None, "seed of the split (default: run.seed)")
    phantom_cases: int = option(32, "cases of the phantom set")
    skip_bad: bool = option(False, "leave out cases that cannot be used, and list them")
    dims: int | None = option(None, "2: volumes are cut into slices, for a 2D network (default: as the images are)")
    slice_axis: str = option("auto", "of the slices: a plane, or the number of an axis; auto: of the largest spacing",
                             SLICE_AXES)  # fmt: skip
    empty_slices: float = option(0.25, "share of the training slices without foreground that an epoch goes over")
    spacing: list[float] | str = option("auto", "voxel size in mm to which volumes are resampled, one number or one "
                                        "per axis; auto: the median where sizes differ by more than 10 %; none: as "
                                        "they are stored")  # fmt: skip
    resize: list[int] = option([], "voxels per axis to which every image is resampled, for pictures of several sizes")
    foreground_crop: bool = option(False, "leave out the margin of zeros around what an image shows")
    patch_size: list[int] = option([], "crop in voxels (default: from the smallest training cases)")
    augment: list[Any] | str = option("nnunet", "nnunet: affine, mirror and grey values as nnU-Net has them; mirror; "
                                      "none; or a list of MONAI's dictionary transforms, each {NAME: {KEYWORD: VALUE}}"
                                      )  # fmt: skip
    foreground_share: float | None = option(None, "share of the crops that are centered in the foreground, the others "
                                            "anywhere (default: on a class drawn of those that are there)")  # fmt: skip
    cache: str = option("memory", "where normalised cases wait for their crops; none: read anew for each", CACHES)
    cache_folder: str | None = option(None, "folder of cache disk (default: cache in the output folder)")
    num_workers: int = option(0, "worker processes of the data loader")

    def __post_init__(self) -> None:
        from ..data.groups import compiled
        from ..data.split_file import parse_fold

        _at_least(1, self, "data", "phantom_cases")
        _at_least(0, self, "data", "num_workers")
        _shares(self, "data", "empty_slices", "foreground_share")
        _check_geometry(self)
        if isinstance(self.augment, bool) or (isinstance(self.augment, str) and self.augment not in PRESETS):
            raise ConfigError(
                f"data.augment: expected {', '.join(PRESETS)}, or a list of transforms, got {self.augment!r}"
            )
        if self.split_seed is not None:
            _seed("data.split_seed", self.split_seed)
        if self.cache_folder is not None and self.cache != "disk":
            raise ConfigError(f"data.cache_folder: expected with cache disk only, got it with {self.cache}")
        try:
            if self.group is not None:
                compiled(self.group)
            if self.fold is not None:
                parse_fold(self.fold)
        except ValueError as error:
            raise ConfigError(str(error)) from None


@dataclass
class NetworkConfig:
    """The network, and how it computes."""

    name: str = option("dynunet", f"{', '.join(NETWORKS)} of MONAI, or package.module:function of your own, called "
                       "with dims, in_channels, num_classes, patch_size and network.parameters")  # fmt: skip
    channels: list[int] = option([], "feature channels per level (default: 16, doubled at each level of the patch)")
    norm: str | None = option(None, "normalisation (default: the network's own, instance for most)", NORMS)
    dropout: float = option(0.0, "dropout probability (default: the method's)")
    upsample: str = option("interpolate", "how coarse features become finer; transposed: by strided convolutions, "
                           "which leave a grid in logits and uncertainty", UPSAMPLING)  # fmt: skip
    deep_supervision: bool | None = option(None, "a loss at the coarser levels too (default: where the network has it)")
    parameters: dict[str, Any] = option({}, "further keywords of the network, as feature_size:48")
    init_from: str | None = option(None, "run or checkpoint whose weights training starts from")
    amp: str = option("none", "precision (autocast); fp16 with a loss scaler", ("none", "bf16", "fp16"))
    compile: bool = option(False, "run it through torch.compile")
    channels_last: bool = option(False, "memory format of the network and its images")

    def __post_init__(self) -> None:
        if min(self.channels, default=1) < 1:
            raise ConfigError(f"network.channels: expected one number >= 1 per level, got {self.channels}")
        kind = NETWORKS.get(self.name)
        if kind is None:
            try:
                own_function(self.name)
            except ValueError as error:
                raise ConfigError(f"network.name: {error}") from None
            unread = [("channels", bool(self.channels)), ("norm", self.norm is not None),
                      ("upsample", self.upsample != NetworkConfig.upsample)]  # fmt: skip
        else:
            unread = [("channels", bool(self.channels) and not kind.levels)]
        unread.append(("deep_supervision", bool(self.deep_supervision) and not (kind and kind.heads)))
        for option_name, given in unread:
            if given:
                raise ConfigError(
                    f"network.{option_name}: is no option of {self.name}, got {getattr(self, option_name)}; "
                    "what else it takes goes into network.parameters"
                )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"network.dropout: expected a number in [0, 1), got {self.dropout}")


@dataclass
class OptimizerConfig:
    """What a step takes in, and how it changes the weights."""

    batch_size: int = option(4, "volumes per step")
    name: str = option("adam", "sgd: with Nesterov momentum", tuple(LEARNING_RATES))
    learning_rate: float | None = option(None, "at the beginning (default: 1e-3, of sgd 1e-2)")
    schedule: str = option("poly", "learning rate over the epochs; poly: (1 - epoch/epochs)^0.9", SCHEDULES)
    warmup: int = option(0, "epochs in which the learning rate rises to that of the schedule")
    weight_decay: float = option(0.0, "of adam and sgd added to the gradient, of adamw taken off the weights")
    momentum: float = option(0.99, "of sgd")
    accumulate: int = option(1, "batches whose gradients make one step of the optimizer")
    clip_norm: float = option(0.0, "largest norm of the gradient (0: any)")
    ema: float = option(0.0, "decay of the averaged weights that are validated and kept, for example 0.999 (0: none)")

    def __post_init__(self) -> None:
        _at_least(1, self, "optimizer", "batch_size", "accumulate")
        _at_least(0, self, "optimizer", "clip_norm", "warmup", "weight_decay")
        if self.momentum != OptimizerConfig.momentum and self.name != "sgd":
            raise ConfigError(f"optimizer.momentum: expected with optimizer.name sgd only, got {self.momentum}")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"optimizer.momentum: expected a number in [0, 1), got {self.momentum}")
        if self.learning_rate is None:
            self.learning_rate = LEARNING_RATES[self.name]
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"optimizer.learning_rate: expected a finite number > 0, got {self.learning_rate}")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"optimizer.ema: expected a number in [0, 1), got {self.ema}")


@dataclass
class RunConfig:
    """How long, where, and what is kept and told."""

    epochs: int = option(40, "number of epochs")
    seed: int = option(0, "seed of the split, the network, the crops and the noise")
    device: str = option("auto", "torch device; auto: cuda where there is one, else cpu")
    validate_every: int = option(5, "epochs between validations")
    patience: int = option(0, "validations without a better Dice after which training ends (0: never)")
    weights: str = option("last", "weights that are evaluated and predicted with: of the last epoch, or of the best "
                          "validation", ("last", "best"))  # fmt: skip
    checkpoint_every: int = option(0, "steps between checkpoints within an epoch (0: one at its end)")
    loggers: list[str] = option([], "trackers beside TensorBoard, JSONL and CSV: mlflow, wandb, where installed")
    quick: bool = option(False, "a run of under a minute: few small cases, few epochs")

    def __post_init__(self) -> None:
        _at_least(1, self, "run", "epochs", "validate_every")
        _at_least(0, self, "run", "seed", "patience", "checkpoint_every")
        _seed("run.seed", self.seed)
        if not set(self.loggers) <= set(LOGGERS) or len(set(self.loggers)) != len(self.loggers):
            raise ConfigError(f"run.loggers: expected any of {', '.join(LOGGERS)}, each once, got {self.loggers}")


def _at_least(least: int, section: Any, title: str, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        if not least <= value < math.inf:
            wanted = f"at least {least}" if least else "a finite number >= 0"
            raise ConfigError(f"{title}.{name}: expected {wanted}, got {value}")


def _seed(name: str, value: int) -> None:
    """What the generators of torch and NumPy both take."""
    if not 0 <= value < 2**63:
        raise ConfigError(f"{name}: expected a number from 0 to 2^63 - 1, got {value}")


def _shares(section: Any, title: str, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(f"{title}.{name}: expected a share in [0, 1], got {value}")


def _check_geometry(data: DataConfig) -> None:
    """Options of grids and slices that can be wrong without an image."""
    if data.dims not in (None, 2, 3):
        raise ConfigError(f"data.dims: expected 2 or 3, got {data.dims}")
    if data.slice_axis != "auto" and data.dims != 2:
        raise ConfigError(f"data.slice_axis: expected with data.dims 2 only, got {data.slice_axis!r}")
    if isinstance(data.spacing, str) and data.spacing not in ("auto", "none"):
        raise ConfigError(f"data.spacing: expected auto, none, or sizes in mm, got {data.spacing!r}")
    sizes = [data.spacing] if isinstance(data.spacing, (int, float)) else data.spacing
    if not isinstance(sizes, str) and (len(sizes) not in (1, 2, 3) or not _checks.are_sizes(sizes)):
        shown = ",".join(f"{size:g}" for size in sizes)
        raise ConfigError(f"data.spacing: expected sizes from 1e-12 to 1e12 mm, one or one per axis, got {shown}")
    if data.resize and (len(data.resize) not in (2, 3) or min(data.resize) < 1):
        raise ConfigError(f"data.resize: expected 2 or 3 numbers >= 1, got {data.resize}")
    if data.resize and not isinstance(data.spacing, str):
        raise ConfigError(f"data.resize: expected without data.spacing, which sets the size too, got {data.resize}")
