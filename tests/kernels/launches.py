"""Calls of every launcher, with the dtypes and settings that make kernels differ; see ahead_of_time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from sure_fast.kernels import dirichlet_uncertainty, gradient_magnitude

HALF, SINGLE = torch.bfloat16, torch.float32
CASES: dict[str, Callable[[], object]] = {}


def logits(dtype: torch.dtype, classes: int = 4, layout: str = "") -> torch.Tensor:
    z = torch.zeros(2, classes, 32, 32, dtype=dtype)
    return z.to(memory_format=torch.channels_last) if layout == "channels_last" else z


def add(name: str, launcher: Callable, *arguments: object, **options: object) -> None:
    CASES[name] = lambda: launcher(*arguments, **options)


for dtype in (SINGLE, HALF, torch.float16):
    short = str(dtype).removeprefix("torch.")
    for kind in range(3) if dtype == SINGLE else (0,):
        z = logits(dtype)
        add(f"dirichlet_uncertainty forward {short} evidence {kind}", dirichlet_uncertainty.forward, z, kind, z[:, :1])
        add(f"dirichlet_uncertainty backward {short} evidence {kind}", dirichlet_uncertainty.backward, z[:, 0], z, kind)
for classes, layout in ((2, ""), (3, "channels_last"), (64, "")):
    z = logits(HALF, classes, layout)
    add(f"dirichlet_uncertainty forward {classes} {layout}", dirichlet_uncertainty.forward, z, 0, z[:, :1])
    add(f"dirichlet_uncertainty backward {classes} {layout}", dirichlet_uncertainty.backward, z[:, 0], z, 0)

for dtype in (SINGLE, HALF):
    for shape in ((2, 1, 32, 32), (2, 1, 16, 32, 32), (2, 3, 16, 32, 32)):
        for sobel in (True, False):
            weights = (1 / 3,) * shape[1]
            image, out = torch.zeros(shape, dtype=dtype), torch.zeros(2, 1, *shape[2:], dtype=dtype)
            name = f"gradient_magnitude {str(dtype)[6:]} {list(shape[1:])} {'sobel' if sobel else 'central'}"
            add(name, gradient_magnitude.forward, image, sobel, (1.0,) * (len(shape) - 2), weights, out)
