"""The accumulator behind every metric: rows of cases, gathered from all processes, summarized per column."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, distributed

from .. import _checks
from ._options import check_options


class PerClass(NamedTuple):
    """A metric of every image and foreground class, both [N, C - 1]."""

    values: Tensor
    absent: Tensor
    """bool: in neither label nor prediction, where the value is perfect without merit."""


class Statistics(NamedTuple):
    """Of the defined values; NaN where there are too few."""

    mean: float
    std: float
    """Sample standard deviation."""
    low: float
    """Lower end of the bootstrap confidence interval of the mean."""
    high: float
    number: int
    """How many values are defined."""
    undefined: int
    """How many are NaN."""


def summarize(values: Iterable[float], *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Statistics:
    r"""Mean, standard deviation and percentile bootstrap interval (Efron, 1979) of what is not NaN.

    Args:
        values: one per case. level: of the interval. resamples: of the cases, with replacement. seed: of the resamples.

    Returns:
        Statistics; the order of the values changes no bit of it.

    Raises:
        TypeError, ValueError: a level outside (0, 1), or no resample.

    Example:
        >>> from sure_fast.metrics import summarize
        >>> summarize([0.5, 0.7, float("nan")])[-2:]
        (2, 1)
    """
    _check_bootstrap(level, resamples, seed)
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"values: expected numbers, one per case, got {values!r}")
    every = []
    for v in values:
        if not isinstance(v, Tensor) or v.numel() != 1:
            _checks.real("values", v, "numbers, one per case")
        try:
            every.append(float(v))
        except OverflowError:
            raise ValueError("values: expected numbers that a double holds, got a larger integer") from None
    defined = sorted(v for v in every if not math.isnan(v))
    n, undefined = len(defined), len(every) - len(defined)
    unit = _unit(defined)
    defined = [v / unit for v in defined]
    mean = _mean(defined)
    if n < 2 or math.isinf(mean):
        return Statistics(mean * unit, math.nan, math.nan, math.nan, n, undefined)
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in defined) / (n - 1))
    generator = torch.Generator().manual_seed(seed)
    table = torch.tensor(defined, dtype=torch.float64)
    # blocks of at most some 10⁶ draws at a time; their size follows from n, so that the draws do too
    block = max(1, 1_000_000 // n)
    means = torch.cat(
        [
            table[torch.randint(n, (min(block, resamples - done), n), generator=generator)].mean(1)
            for done in range(0, resamples, block)
        ]
    )
    tail = (1.0 - level) / 2.0
    low, high = means.quantile(torch.tensor([tail, 1.0 - tail], dtype=torch.float64)).tolist()
    return Statistics(mean * unit, std * unit, low * unit, high * unit, n, undefined)


def _check_bootstrap(level: float, resamples: int, seed: int) -> None:
    if not 0.0 < _checks.finite("level", level) < 1.0:
        raise ValueError(f"level: expected 0 < level < 1, got {level}")
    _checks.count("resamples", resamples, most=10_000_000)
    _checks.seed("seed", seed)


def _names(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(v, str) for v in value):
        raise TypeError(f"{name}: expected a list of names, got {value!r}")
    return tuple(value)


def _columns(value: object) -> tuple[str, ...]:
    names = _names("columns", value)
    if len(set(names)) != len(names):
        raise ValueError(f"columns: expected names that differ, got {list(names)}")
    return names


def _unit(values: Sequence[float]) -> float:
    """A power of two; squares and sums of the values in it neither leave the range of a double nor vanish."""
    largest = max((abs(v) for v in values if not math.isinf(v)), default=0.0)
    if 2.0**-400 < largest < 2.0**400 or largest == 0.0:
        return 1.0
    return 2.0**600 if largest > 1.0 else 2.0**-600


def _mean(values: Sequence[float]) -> float:
    if not values:
        return math.nan
    return sum(values) / len(values) if any(map(math.isinf, values)) else math.fsum(values) / len(values)


@dataclass(frozen=True)
class Summary:
    """A metric over all cases."""

    columns: tuple[str, ...]
    """Class names, the names of several results, or the one name "value"."""
    names: tuple[str | None, ...]
    """Of the cases, where they were given."""
    values: Tensor
    """float64 [cases, columns]; NaN: undefined."""
    absent: Tensor
    """int64 [columns]: cases with the class in neither label nor prediction."""
    statistics: tuple[Statistics, ...]
    """One a column."""

    def _column(self, field: str) -> Tensor:
        return torch.tensor([getattr(s, field) for s in self.statistics], dtype=torch.float64)

    @property
    def mean(self) -> Tensor:
        """float64 [columns]."""
        return self._column("mean")

    @property
    def std(self) -> Tensor:
        """float64 [columns]: sample standard deviation over the cases."""
        return self._column("std")

    @property
    def interval(self) -> Tensor:
        """float64 [columns, 2]: bootstrap confidence interval of the mean."""
        return torch.stack([self._column("low"), self._column("high")], 1)

    @property
    def undefined(self) -> Tensor:
        """int64 [columns]."""
        return self._column("undefined").long()

    def to_json(self) -> dict[str, Any]:
        """Plain data by column; an undefined number is null."""
        return {
            column: {
                **{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in statistics._asdict().items()},
                "absent": int(absent),
            }
            for column, statistics, absent in zip(self.columns, self.statistics, self.absent, strict=True)
        }


def _result(name: str, value: object, *axes: int) -> Tensor:
    """What a user's function returned: one row a case."""
    if not isinstance(value, Tensor) or value.dim() not in axes:
        wanted = " or ".join("[N]" if n == 1 else "[N, K]" for n in axes)
        came = _checks.shape_text(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name}: expected a tensor {wanted}, one row a case, as its result, got {came}")
    return value


Result = Tensor | PerClass | Mapping[str, Tensor]


class CaseMetric:
    """Accumulates a function of a batch that returns one row a case.

    Args:
        function: returns [N] or [N, K], `PerClass`, or a mapping of names to [N].
        columns: names of the K columns, such as class names; None: their numbers, for `PerClass` from 1 on.
        level, resamples, seed: of the bootstrap, as of `summarize`.
        options: passed to the function at every update.

    Raises:
        TypeError, ValueError: an option that the function has not, or a wrong one.

    Notes:
        `update` takes what the function takes and returns what it returns, and so does a call of the metric, as with
        torchmetrics and MONAI. `compute` (MONAI's `aggregate`) is the `Summary` of the cases of all processes of
        torch.distributed (with NCCL the current device must be set); how they were batched, ordered or spread changes
        nothing. With `names`, a case that comes twice, as a DistributedSampler repeats some to fill its last round,
        counts once.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import DiceMetric
        >>> dice = DiceMetric(num_classes=2)
        >>> for case in range(3):
        ...     _ = dice(torch.tensor([[[1, 1, 0]]]), torch.tensor([[[1, 0, 0]]]))
        >>> dice.compute().mean
        tensor([0.6667], dtype=torch.float64)
    """

    function: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        function: Callable[..., Any] | None = None,
        *,
        columns: Sequence[str] | None = None,
        level: float = 0.95,
        resamples: int = 2000,
        seed: int = 0,
        **options: Any,
    ) -> None:
        chosen = getattr(type(self), "function", None) if function is None else function
        if not callable(chosen):
            raise TypeError(f"function: expected a function of a batch, got {function!r}")
        self._function: Callable[..., Any] = chosen
        check_options(chosen, options)
        _check_bootstrap(level, resamples, seed)
        self.options = options
        self._given = None if columns is None else _columns(columns)
        self._bootstrap: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
        self.reset()

    def reset(self) -> None:
        """Forgets every case."""
        self._rows: list[tuple[str | None, tuple[float, ...], tuple[bool, ...]]] = []
        self._columns: tuple[str, ...] | None = None

    def update(self, *args: Any, names: Sequence[str] | None = None, **kwargs: Any) -> Any:
        """Adds the cases of a batch; returns the function's result for them."""
        if names is not None:
            _names("names", names)
        result: Result = self._function(*args, **{**self.options, **kwargs})
        columns, values, absent = self._table(result)
        if names is not None and len(names) != len(values):
            raise ValueError(f"names: expected one for each of the {len(values)} cases, got {len(names)}")
        if self._columns not in (None, columns):
            raise ValueError(f"update: expected the columns {self._columns} as before, got {columns}")
        self._columns = columns
        for k, (row, flags) in enumerate(zip(values.tolist(), absent.tolist(), strict=True)):
            self._rows.append((None if names is None else names[k], tuple(row), tuple(flags)))
        return result

    __call__ = update

    def _table(self, result: Result) -> tuple[tuple[str, ...], Tensor, Tensor]:
        """Column names, values [N, K] and absent [N, K]."""
        names: tuple[str, ...] = ()
        absent, first = None, 0
        if isinstance(result, Mapping):
            parts = [_result(f"function's {name!r}", part, 1) for name, part in result.items()]
            if not parts or len({len(part) for part in parts}) != 1:
                raise ValueError(f"function: expected results of the same cases, got {[len(part) for part in parts]}")
            names, values = tuple(result), torch.stack(parts, 1)
        elif isinstance(result, PerClass):
            values, absent, first = result.values, result.absent.cpu(), 1
        elif _result("function", result, 1, 2).dim() == 1:
            names, values = ("value",), result[:, None]
        else:
            values = result
        values = values.detach().double().cpu()
        names = self._given or names or tuple(str(first + k) for k in range(values.shape[1]))
        if len(names) != values.shape[1]:
            raise ValueError(f"columns: expected {values.shape[1]} names, got {list(names)}")
        return names, values, torch.zeros(values.shape, dtype=torch.bool) if absent is None else absent

    def compute(self) -> Summary:
        """The summary of all cases; under torch.distributed every process must call it, and gets the same.

        Raises:
            ValueError: no case yet, or processes with different columns.
        """
        states = [(self._columns, self._rows)]
        if distributed.is_available() and distributed.is_initialized():
            states = [states[0]] * distributed.get_world_size()
            distributed.all_gather_object(states, (self._columns, self._rows))
        columns = {names for names, _ in states if names is not None}
        if len(columns) != 1 or not any(part for _, part in states):
            several = f"{len(columns)} different ones: {sorted(columns)}" if len(columns) > 1 else "no case"
            raise ValueError(f"compute: expected cases with one set of columns, got {several}")
        rows, seen = [], set()
        for _, part in states:
            for row in part:
                if row[0] is None or row[0] not in seen:
                    rows.append(row)
                    seen.add(row[0])
        values = torch.tensor([row[1] for row in rows], dtype=torch.float64)
        return Summary(
            columns.pop(),
            tuple(row[0] for row in rows),
            values,
            torch.tensor([row[2] for row in rows]).sum(0),
            tuple(summarize(column, **self._bootstrap) for column in values.T.tolist()),
        )

    aggregate = compute
