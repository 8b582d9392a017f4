"""Which kernel runs: every op registers its backends here, in order of preference.

The choice follows from the arguments' device, dtype, shape and stride alone. A backend is asked for, in this order, by
the op's `backend=` argument, by `with use_backend(name)`, by the environment variable SURE_FAST_BACKEND (read when
sure_fast is imported), or else the first one that supports the arguments is taken.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import ContextDecorator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from . import _checks

BACKENDS = ("cpu", "triton", "cuda", "reference")

F = TypeVar("F", bound=Callable[..., Any])
Supports = Callable[..., str | None]
"""Takes the op's arguments; returns None when the backend can run them, else the reason why not."""


@dataclass(frozen=True)
class Choice:
    """One line of `explain`: a backend, whether it would run, and why or why not."""

    backend: str
    chosen: bool
    reason: str


class Explanation(list[Choice]):
    """What `explain` returns; prints as a small table."""

    def __init__(self, op: str, choices: list[Choice]):
        super().__init__(choices)
        self.op = op

    def __str__(self) -> str:
        lines = [f"{'->' if c.chosen else '  '} {c.backend:<10} {c.reason}" for c in self]
        return "\n".join([self.op, *lines])


_registry: dict[str, dict[str, Supports]] = {}
_warned: set[tuple[str, str]] = set()


def _checked(name: str | None, source: str) -> str | None:
    if name is not None and (not isinstance(name, str) or name not in BACKENDS):
        raise ValueError(f"{source}: expected one of {', '.join(BACKENDS)}, got {name!r}")
    return name


_requested: str | None = _checked(os.environ.get("SURE_FAST_BACKEND") or None, "SURE_FAST_BACKEND")


def always(*_: Any, **__: Any) -> str | None:
    """`supports` of the reference: it runs anything that passed the op's checks."""
    return None


def register(op: str, **backends: Supports) -> None:
    """Registers an op's backends by name, the preferred one first; the reference is always the last."""
    for name in backends:
        _checked(name, f"backend of {op}")
    _registry[op] = {**backends, "reference": always}


def registered() -> dict[str, tuple[str, ...]]:
    """Every op's name with its backends, preferred first."""
    return {op: tuple(backends) for op, backends in sorted(_registry.items())}


def requested() -> str | None:
    """The backend asked for by `use_backend` or SURE_FAST_BACKEND; None: chosen by the arguments."""
    return _requested


class use_backend(ContextDecorator):
    """From here on, or within a block, every op runs on this backend (`None`: automatic), or raises where it cannot.

    As with `torch.set_grad_enabled` a plain call holds until the next one. Applies to the whole process, so that it
    also holds in autograd's threads.

    Example:
        >>> import sure_fast, torch
        >>> with sure_fast.use_backend("reference"):
        ...     g = sure_fast.gradient_magnitude(torch.rand(1, 1, 8, 8))
    """

    def __init__(self, name: str | None) -> None:
        global _requested
        self.name = _checked(name, "use_backend")
        self.before = _requested
        _requested = self.name

    def __enter__(self) -> None:
        global _requested
        _requested = self.name

    def __exit__(self, *_: object) -> None:
        global _requested
        _requested = self.before

    def __call__(self, function: F) -> F:
        """As a decorator it holds while the function runs, not from where it is written."""
        self.__exit__()
        return super().__call__(function)

    def _recreate_cm(self) -> use_backend:
        return use_backend(self.name)


def choose(op: str, backend: str | None, *args: Any, **kwargs: Any) -> str:
    """The backend that runs this call; raises where a requested one cannot, or where a tangent would be lost.

    Args:
        args, kwargs: as `supports` takes them, every tensor of the call that could carry a tangent among them.
    """
    chosen = _chosen(op, backend, *args, **kwargs)
    if chosen != "reference" and any(map(_checks.has_tangent, (*args, *kwargs.values()))):
        raise ValueError(
            f"{op}: backend {chosen!r} has no forward-mode derivative; use backward(), or backend='reference'"
        )
    return chosen


def _chosen(op: str, backend: str | None, *args: Any, **kwargs: Any) -> str:
    wanted = _checked(backend, "backend") if backend is not None else _requested
    supported = _registry[op]
    if wanted is not None:
        if wanted not in supported:
            raise ValueError(f"{op}: backend {wanted!r} was requested, but the op has only {', '.join(supported)}")
        reason = supported[wanted](*args, **kwargs)
        if reason is not None:
            raise ValueError(f"{op}: backend {wanted!r} was requested, but {reason}")
        return wanted
    reasons: dict[str, str | None] = {}
    for name, supports in supported.items():
        reasons[name] = supports(*args, **kwargs)
        if reasons[name] is None:
            if name == "reference" and not torch.compiler.is_compiling():
                warn_of_reference(op, args, reasons)
            return name
    raise AssertionError("the reference supports everything")


def why_not(op: str, backend: str, *args: Any, **kwargs: Any) -> str | None:
    """Why a backend of an op cannot run these arguments, or None; for ops that are made of others."""
    supports = _registry[op].get(backend)
    return f"{op} has no {backend} backend" if supports is None else supports(*args, **kwargs)


def check(backend: str | None, *ops: str) -> None:
    """A backend that a module asks for is one of every op that it is made of; `use_backend` counts where none is."""
    wanted = _requested if backend is None else _checked(backend, "backend")
    for op in ops:
        if wanted is not None and wanted not in _registry[op]:
            common = [name for name in BACKENDS if all(name in _registry[other] for other in ops)]
            raise ValueError(
                f"backend: expected None, by which every op takes the best it has, or one that all of {', '.join(ops)} "
                f"have, {' or '.join(map(repr, common))}, got {wanted!r}, which {op} has not"
            )


def warn_of_reference(op: str, args: tuple[Any, ...], reasons: dict[str, str | None]) -> None:
    """Once for each op and kind of device, where kernels of this kind of device exist: the reference is many times
    slower."""
    for kind, names in (("cuda", ("triton", "cuda")), ("cpu", ("cpu",))):
        there = {name: reasons[name] for name in names if name in reasons}
        if (op, kind) in _warned or not there:
            continue
        if any(isinstance(a, torch.Tensor) and a.device.type == kind for a in args):
            _warned.add((op, kind))
            said = "; ".join(f"{name}: {reason}" for name, reason in there.items())
            warnings.warn(f"sure_fast.{op} runs its plain PyTorch reference on a {kind.upper()} tensor ({said})")


def explain(op: str | Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """Says which backend an op would run on these arguments, and why the others would not.

    Args:
        op: an op of sure_fast or its name.
        *args: the op's arguments, with its keyword arguments (`backend` included).

    Returns:
        A list of `Choice(backend, chosen, reason)`, preferred backend first, that prints as a table.

    Raises:
        ValueError: an unknown op or backend.

    Example:
        >>> import sure_fast, torch
        >>> sure_fast.explain("gradient_magnitude", torch.rand(1, 1, 8, 8))[0].backend
        'cpu'
    """
    name = op if isinstance(op, str) else getattr(op, "__name__", repr(op))
    if name not in _registry:
        raise ValueError(f"op: expected one of {', '.join(sorted(_registry))}, got {name!r}")
    wanted = _checked(kwargs.pop("backend", None), "backend") or _requested
    choices: list[Choice] = []
    decided = False
    for backend, supports in _registry[name].items():
        why_not = supports(*args, **kwargs)
        chosen = why_not is None and not decided and wanted in (None, backend)
        decided = decided or chosen
        if why_not is None:
            why_not = "chosen" if chosen else "supported"
            if chosen and wanted:
                why_not = "chosen: requested"
        choices.append(Choice(backend, chosen, why_not))
    return Explanation(name, choices)
