"""The options of the metrics and what they may be: looked at by the functions, and by the accumulators when made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Check = Callable[[str, Any], object]
"""Takes the option's name and value; raises TypeError or ValueError."""


def options(**checks: Check) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a metric: at every call its options are checked before its maps."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            given = _named(function, lambda: signature.bind(*args, **kwargs)).arguments
            _run(checks, given)
            return function(*args, **kwargs)

        checked.checks = checks  # type: ignore[attr-defined]
        return checked

    return decorate


def check_options(function: Callable[..., Any], given: dict[str, Any]) -> None:
    """Options that are known before the maps."""
    signature = inspect.signature(function)
    _named(function, lambda: signature.bind_partial(**given))
    _run(getattr(function, "checks", {}), given)


def _named(function: Callable[..., Any], bind: Callable[[], inspect.BoundArguments]) -> inspect.BoundArguments:
    """The TypeError of a missing or unknown argument names it; so that one knows of what, the function too."""
    try:
        return bind()
    except TypeError as error:
        raise TypeError(f"{getattr(function, '__name__', 'function')}: {error}") from None


def _run(checks: dict[str, Check], given: dict[str, Any]) -> None:
    for name, value in given.items():
        if name in checks:
            checks[name](name, value)
