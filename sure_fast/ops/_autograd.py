"""An operator's inputs and gradients by the names of its parameters."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

from torch import Tensor


class Parameters:
    """The parameters of an operator that `torch.library.custom_op` made, in their order."""

    def __init__(self, op: Any) -> None:
        self.names = tuple(inspect.signature(op._init_fn).parameters)

    def named(self, inputs: tuple[Any, ...]) -> SimpleNamespace:
        """The `inputs` of a `setup_context`."""
        return SimpleNamespace(**dict(zip(self.names, inputs, strict=True)))

    def gradients(self, **of: Tensor | None) -> tuple[Tensor | None, ...]:
        """What a backward returns: the gradients of these inputs, None for the others."""
        unknown = set(of).difference(self.names)
        if unknown:
            raise TypeError(f"gradients: expected names among {self.names}, got {sorted(unknown)}")
        return tuple(of.get(name) for name in self.names)
