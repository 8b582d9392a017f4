"""Calls of every launcher, with the dtypes and settings that make kernels differ; see ahead_of_time."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sure_fast._cpu import EVIDENCE, KINDS
from sure_fast.kernels import (
    _terms,
    boundary_distance,
    dense_noise_uncertainty_loss,
    dirichlet_uncertainty,
    evidential_loss,
    gradient_magnitude,
    noise_uncertainty_loss,
    segmentation_stats,
)
from sure_fast.ops._weighted import Weights

HALF, SINGLE = torch.bfloat16, torch.float32
CASES: dict[str, Callable[[], object]] = {}


def logits(dtype: torch.dtype, classes: int = 4, layout: str = "") -> torch.Tensor:
    z = torch.zeros(2, classes, 32, 32, dtype=dtype)
    return z.to(memory_format=torch.channels_last) if layout == "channels_last" else z


def add(name: str, launcher: Callable, *arguments: object, **options: object) -> None:
    CASES[name] = lambda: launcher(*arguments, **options)


for dtype in (SINGLE, HALF, torch.float16):
    short = str(dtype).removeprefix("torch.")
    for evidence in EVIDENCE if dtype == SINGLE else ("softplus",):
        z = logits(dtype)
        add(f"dirichlet_uncertainty forward {short} {evidence}", dirichlet_uncertainty.forward, z, evidence, z[:, :1])
        add(f"dirichlet_uncertainty backward {short} {evidence}", dirichlet_uncertainty.backward, z[:, 0], z, evidence)
for classes, layout in ((2, ""), (3, "channels_last"), (64, "")):
    z = logits(HALF, classes, layout)
    add(f"dirichlet_uncertainty forward {classes} {layout}", dirichlet_uncertainty.forward, z, "softplus", z[:, :1])
    add(f"dirichlet_uncertainty backward {classes} {layout}", dirichlet_uncertainty.backward, z[:, 0], z, "softplus")

for dtype in (SINGLE, HALF):
    for shape in ((2, 1, 32, 32), (2, 1, 16, 32, 32), (2, 3, 16, 32, 32)):
        for sobel in (True, False):
            weights = (1 / 3,) * shape[1]
            image, out = torch.zeros(shape, dtype=dtype), torch.zeros(2, 1, *shape[2:], dtype=dtype)
            name = f"gradient_magnitude {str(dtype)[6:]} {list(shape[1:])} {'sobel' if sobel else 'central'}"
            add(name, gradient_magnitude.forward, image, sobel, (1.0,) * (len(shape) - 2), weights, out)


def evidential(name: str, z: torch.Tensor, labels: torch.dtype, kind: str, evidence: str, *, regions: bool = False,
               full: bool = False) -> None:  # fmt: skip
    """`full`: every optional input and output."""
    y = torch.zeros(z.shape if regions else z[:, 0].shape, dtype=labels)
    weights = torch.zeros(z.shape[1], dtype=torch.float64) if full and not regions else None
    per_voxel = torch.zeros(y.shape)
    maps = {"uncertainty": per_voxel, "data": per_voxel, "kl": per_voxel} if full else {}
    far = {"squared": torch.zeros(y.shape, dtype=torch.uint8), "far_above": 16} if full and not regions else {}
    groups, classes = (z.shape[1], 2) if regions else (1, z.shape[1])
    coefficients = torch.zeros(groups, 4 + 3 * classes, dtype=torch.float64)
    settings = (z, y, kind, evidence, 255 if full else None, weights, regions)
    scale = {"scale": torch.zeros(2, dtype=torch.float64)} if full else {}
    add(f"evidential_loss forward {name}", evidential_loss.forward, *settings, **maps, **far)
    add(f"evidential_loss backward {name}", evidential_loss.backward, coefficients, *settings, **maps, **far, **scale)


for kind in KINDS:
    evidential(f"float32 {kind}", logits(SINGLE), torch.int64, kind, "softplus")
    evidential(f"bfloat16 {kind} regions full", logits(HALF), torch.uint8, kind, "softplus", regions=True, full=True)
evidential("float32 full", logits(SINGLE), torch.int64, "digamma", "softplus", full=True)
evidential("bfloat16 full", logits(HALF), torch.int64, "digamma", "softplus", full=True)
evidential("bfloat16 exp", logits(HALF), torch.int64, "digamma", "exp")
evidential("float16", logits(torch.float16), torch.int64, "digamma", "softplus")
evidential("bfloat16 2 classes", logits(HALF, 2), torch.int64, "digamma", "softplus")
evidential("float32 3 classes channels_last", logits(SINGLE, 3, "channels_last"), torch.int64, "digamma", "softplus")
evidential("bfloat16 8 classes", logits(HALF, 8), torch.int64, "digamma", "softplus", full=True)
evidential("bfloat16 64 classes", logits(HALF, 64), torch.int64, "digamma", "softplus", full=True)


def noise(name: str, z: torch.Tensor, evidence: str, *, in_bytes: bool) -> None:
    centers, valid = torch.zeros(2, 3, 2, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.bool)
    far = {"squared": torch.zeros(z[:, 0].shape, dtype=torch.uint8), "clean_far": False} if in_bytes else {
        "distance": torch.zeros(z[:, 0].shape)
    }  # fmt: skip
    arguments = noise_uncertainty_loss.Arguments((z, z, z), centers, torch.zeros(2), valid, 4.0, evidence, **far)
    sizes = ((2,), (2 if in_bytes else 4,), (2, 2, 6))
    terms, sums, slopes = (torch.zeros(size, dtype=torch.float64) for size in sizes)
    add(f"noise_uncertainty_loss forward {name}", noise_uncertainty_loss.forward, arguments, terms, sums, slopes)
    gradients = [None if in_bytes else z.flatten(2), z.flatten(2), z.flatten(2)]
    backward = (arguments, sums, terms, slopes, gradients)
    add(f"noise_uncertainty_loss backward {name}", noise_uncertainty_loss.backward, *backward)


for dtype in (SINGLE, HALF, torch.float16):
    noise(str(dtype)[6:], logits(dtype), "softplus", in_bytes=False)
noise("bfloat16 bytes", logits(HALF), "softplus", in_bytes=True)
noise("float32 3 classes channels_last exp", logits(SINGLE, 3, "channels_last"), "exp", in_bytes=False)
noise("bfloat16 64 classes", logits(HALF, 64), "softplus", in_bytes=True)

flat = torch.zeros(2, 32, 32)
sums = torch.zeros(11, dtype=torch.float64)
for copies in (1, 2):
    maps = (flat, flat, flat if copies == 2 else None, flat, torch.zeros(copies), 4.0, 0.1)
    add(f"dense_noise_uncertainty_loss forward {copies}", dense_noise_uncertainty_loss.forward, *maps, sums)
    for detach in (False, True):
        gradients = (detach, flat, flat, flat)
        add(
            f"dense_noise_uncertainty_loss backward {copies} {detach}",
            dense_noise_uncertainty_loss.backward,
            sums,
            *maps,
            *gradients,
        )

for name, z, labels, ignore in (
    ("float32", logits(SINGLE), torch.int64, None),
    ("bfloat16", logits(HALF), torch.uint8, 255),
    ("float16 2 classes", logits(torch.float16, 2), torch.uint8, None),
    ("bfloat16 64 classes", logits(HALF, 64), torch.int64, None),
):
    y = torch.zeros(z[:, 0].shape, dtype=labels)
    add(f"segmentation_stats {name}", segmentation_stats.forward, z, y, "softplus", 10, 100, ignore)

for shape in ((2, 32, 32), (2, 16, 32, 32)):
    unit, out = [1.0] * (len(shape) - 1), torch.zeros(shape)
    for labels in (torch.int64, torch.uint8):
        for limit, ignore in ((4.0, None), (None, 255)):
            name = f"boundary_distance {list(shape[1:])} {str(labels)[6:]} limit {limit} ignore {ignore}"
            add(name, boundary_distance.forward, torch.zeros(shape, dtype=labels), unit, limit, ignore, out)
    name = f"boundary_distance {list(shape[1:])} in bytes"
    add(name, boundary_distance.forward, torch.zeros(shape, dtype=torch.int64), unit, 4.0, 255, out.to(torch.uint8))

DOUBLE = torch.float64
numbers = [torch.zeros((), dtype=DOUBLE) for _ in range(11)]
for classes, rows, regions, far, number in (
    (4, 1, False, True, 4),
    (64, 2, False, False, None),
    (2, 3, True, False, 3),
):
    of_terms = torch.zeros(rows, 2 + 3 * classes + 4 * far, dtype=DOUBLE)
    settings = (None if number is None else torch.zeros(number, dtype=DOUBLE), classes, regions)
    name = f"terms of sums {classes} classes {rows} rows{' regions' * regions}"
    add(name, _terms.evidential, of_terms, *settings, numbers[:4])
    for grads in (numbers[:4], [*numbers[:3], None]):
        add(f"{name} backward", _terms.evidential_backward, grads, of_terms, *settings, of_terms)
for normalize in (False, True):
    add(f"terms of dense sums {normalize}", _terms.dense_noise, sums, sums, None, 2.0, normalize, numbers[:3])
    settings = (sums, 2.0, 2, normalize, torch.zeros(12, dtype=DOUBLE))
    add(f"terms of dense sums backward {normalize}", _terms.dense_noise_backward, numbers[:3], *settings)
WEIGHTS = Weights(10.0, 1.0, 10.0, 5.0, 0.3, 10.0, 0.5, 0.5, 0.3)
rounded = [torch.zeros(()) for _ in range(11)]
of_terms = torch.zeros(10, dtype=DOUBLE)
add("weighted terms", _terms.weighted, [*numbers[:3], sums[:2], *numbers[4:10]], WEIGHTS, rounded)
add("weighted terms without noise", _terms.weighted, [*numbers[:3], sums[:2], *[None] * 6], WEIGHTS, rounded)
add("weighted terms backward", _terms.weighted_backward, [rounded[0], *[None] * 10], WEIGHTS, 2, of_terms)
