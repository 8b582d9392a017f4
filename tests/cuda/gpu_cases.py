"""One call of every op with a GPU kernel, on inputs of a given device: what the tests and the benchmarks on a GPU run.

`python -m tests.cuda.gpu_cases` runs all of them once, small, for compute-sanitizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

import sure_fast
from sure_fast import _backends

GPU_BACKENDS = ("triton", "cuda")
SYNCHRONISES = ("surface_distances",)
"""Ops whose sizes depend on the data; metrics, not losses."""

PAIRS = 2e-3
"""Tolerance of gradients of pairs: rounding decides the order of those whose u, of the logits, is nearly the same."""

Tensors = dict[str, Tensor]


class Case(NamedTuple):
    make: Callable[[tuple[int, ...], torch.Generator], Tensors]
    """Inputs from (N, *S), on the CPU."""
    call: Callable[..., object]
    """The op, from these inputs by name and `backend`."""
    differentiated: tuple[str, ...] = ()
    tolerance: float = 1e-5
    """Of the largest value of every gradient; of other results 1e-5."""


def _logits(shape: tuple[int, ...], generator: torch.Generator, classes: int = 4) -> Tensor:
    return torch.randn((shape[0], classes, *shape[1:]), generator=generator) * 3


def _label(shape: tuple[int, ...], generator: torch.Generator, classes: int = 4) -> Tensor:
    """Blocks of one label, so that most voxels are far from a boundary."""
    coarse = [shape[0], *(-(-s // 8) for s in shape[1:])]
    label = torch.randint(0, classes, coarse, generator=generator)
    for axis, size in enumerate(shape[1:], 1):
        label = label.repeat_interleave(8, axis).narrow(axis, 0, size)
    return label.contiguous()


def _maps(shape: tuple[int, ...], generator: torch.Generator) -> Tensors:
    u, g, noise = torch.rand((3, *shape), generator=generator)
    distance = (torch.rand(shape, generator=generator) * 30).floor()  # one voxel of fifteen is near
    return {"u": u, "g": g, "noisy": u + noise - 0.5, "distance": distance, "label": _label(shape, generator)}


def _rankings(shape: tuple[int, ...], generator: torch.Generator) -> Tensors:
    a, b = torch.randn((2, shape[0], torch.Size(shape[1:]).numel()), generator=generator)
    return {"a": a, "b": (a + b).round(decimals=1), "mask": torch.rand(a.shape, generator=generator) < 0.7}


def _noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensors:
    return {
        "logits": _logits(shape, generator),
        "noisy1": _logits(shape, generator),
        "noisy2": _logits(shape, generator),
        "distance": torch.rand(shape, generator=generator) * 9,
        "centers": torch.stack([torch.randint(0, s, (shape[0], 12), generator=generator) for s in shape[1:]], -1),
        "levels": torch.tensor([0.3, 0.8]),
        "valid": torch.rand((shape[0], 12), generator=generator) < 0.8,
    }


def _changes(shape: tuple[int, ...], generator: torch.Generator) -> Tensors:
    u, one, two, distance = torch.rand((4, *shape), generator=generator)
    distance = (distance * 80).floor().sqrt()  # one voxel of five is near
    return {"uncertainty": u, "noisy1": u + one - 0.4, "noisy2": u + two - 0.3, "distance": distance,
            "levels": torch.tensor([0.3, 0.8])}  # fmt: skip


def _labelled(shape: tuple[int, ...], generator: torch.Generator) -> Tensors:
    return {"logits": _logits(shape, generator), "label": _label(shape, generator)}


def _two_labels(shape: tuple[int, ...], generator: torch.Generator) -> Tensors:
    label = _label(shape, generator)
    return {"prediction": label.roll(1, 1), "target": label}


def _patches(shape: tuple[int, ...], generator: torch.Generator) -> Tensors:
    """Two patches an image, apart."""
    centers = torch.tensor([[1] * len(shape[1:]), [size - 2 for size in shape[1:]]]).repeat(shape[0], 1, 1)
    return {
        "image": torch.randn((shape[0], 2, *shape[1:]), generator=generator),
        "centers": centers,
        "valid": torch.rand(centers.shape[:2], generator=generator) < 0.8,
        "noise": torch.randn((2, *[3] * len(shape[1:])), generator=generator),
    }


def _draw(u, g, noisy, distance, label, backend):
    generator = torch.Generator().manual_seed(3)  # the CPU's: the same draws on every device
    return sure_fast.sample_hard_patches(
        u, noisy, label, distance, num_classes=4, patch_size=3, generator=generator, backend=backend
    )[:2]


def _pairs(**options):
    def call(u, g, noisy, distance, label, backend):
        groups = {"label": label} if "per_class" in options else {}
        rest = {k: v for k, v in options.items() if k != "per_class"}
        return sure_fast.gradient_uncertainty_loss(u, g, distance, backend=backend, **groups, **rest)

    return call


def _supervised(shape: tuple[int, ...], generator: torch.Generator) -> Tensors:
    """A whole step with noise over the images, of one copy."""
    return {
        "logits": _logits(shape, generator),
        "label": _label(shape, generator),
        "image": torch.randn((shape[0], 1, *shape[1:]), generator=generator),
        "noisy_logits": _logits(shape, generator),
        "levels": torch.tensor([0.6]),
    }


def _supervised_patches(shape: tuple[int, ...], generator: torch.Generator) -> Tensors:
    """A whole step of the paper's form, with two noisy copies."""
    of_noise = _noise(shape, generator)
    return {
        **_supervised(shape, generator),
        "noisy_logits": torch.cat([of_noise["noisy1"], of_noise["noisy2"]]),
        **{name: of_noise[name] for name in ("centers", "levels", "valid")},
    }


def _supervision(**options):
    def call(backend, **inputs):
        out = sure_fast.uncertainty_supervision(**inputs, **options, backend=backend)
        return (sum(out), *out)  # the gradients are those of every term

    return call


CASES: dict[str, Case] = {
    "dirichlet_uncertainty": Case(
        _labelled, lambda logits, label, backend: sure_fast.dirichlet_uncertainty(logits, backend=backend), ("logits",)
    ),
    "gradient_magnitude": Case(
        lambda shape, generator: {"image": torch.randn((shape[0], 1, *shape[1:]), generator=generator)},
        lambda image, backend: sure_fast.gradient_magnitude(image, backend=backend),
    ),
    "evidential_loss": Case(
        _labelled,
        lambda logits, label, backend: sure_fast.evidential_loss(logits, label, backend=backend)[:3],
        ("logits",),
    ),
    "dense_noise_uncertainty_loss": Case(
        _changes,
        lambda backend, **inputs: sure_fast.dense_noise_uncertainty_loss(**inputs, margin=0.01, backend=backend),
        ("uncertainty", "noisy1", "noisy2"),
    ),
    "noise_uncertainty_loss": Case(
        _noise,
        lambda backend, **inputs: sure_fast.noise_uncertainty_loss(**inputs, backend=backend),
        ("logits", "noisy1", "noisy2"),
    ),
    "segmentation_stats": Case(
        _labelled, lambda logits, label, backend: sure_fast.segmentation_stats(logits, label, backend=backend)
    ),
    "boundary_distance": Case(
        lambda shape, generator: {"label": _label(shape, generator)},
        lambda label, backend: sure_fast.boundary_distance(label, max_distance=4.0, backend=backend),
    ),
    "gradient_uncertainty_loss": Case(_maps, _pairs(), ("u",)),
    "gradient_uncertainty_loss per_class": Case(_maps, _pairs(per_class=True), ("u",)),
    "gradient_uncertainty_loss normalized": Case(_maps, _pairs(normalize="band"), ("u",)),
    "gradient_uncertainty_loss sampled": Case(_maps, _pairs(pairs="sampled"), ("u",)),
    "pair_concordance": Case(
        _rankings, lambda a, b, mask, backend: sure_fast.pair_concordance(a, b, mask=mask, backend=backend)
    ),
    "spearman": Case(_rankings, lambda a, b, mask, backend: sure_fast.spearman(a, b, mask=mask, backend=backend)),
    "sample_hard_patches": Case(_maps, _draw),
    "add_noise_patches": Case(
        _patches, lambda backend, **inputs: sure_fast.add_noise_patches(**inputs, backend=backend)
    ),
    "uncertainty_supervision": Case(
        _supervised,
        _supervision(normalize="band", noisy_segmentation=True, margin=0.01),
        ("logits", "noisy_logits"),
        PAIRS,
    ),
    "uncertainty_supervision patches": Case(
        _supervised_patches, _supervision(evidence="softplus"), ("logits", "noisy_logits"), PAIRS
    ),
    "surface_distances": Case(
        _two_labels,
        lambda prediction, target, backend: sure_fast.surface_distances(prediction, target, 4, backend=backend),
    ),
}


def available() -> list[tuple[str, str]]:
    """(case, backend) of every op that has a GPU kernel."""
    found = _backends.registered()
    pairs = ((name, backend) for name in CASES for backend in GPU_BACKENDS)
    return [(name, backend) for name, backend in pairs if backend in found[name.split()[0]]]


def inputs_of(
    case: Case, shape: tuple[int, ...], device: str, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Tensors:
    """`dtype` is that of the large floating inputs; levels of noise stay in float32."""
    made = case.make(shape, torch.Generator().manual_seed(seed))
    tensors = {
        name: t.to(device, dtype) if t.is_floating_point() and name != "levels" else t.to(device)
        for name, t in made.items()
    }
    for name in case.differentiated:
        tensors[name].requires_grad_()
    return tensors


def run(case: Case, tensors: Tensors, backend: str | None) -> list[Tensor]:
    """What the op gives, and the gradients of its first result."""
    result = case.call(**tensors, backend=backend)
    outputs = [result] if isinstance(result, Tensor) else [t for t in result if isinstance(t, Tensor)]  # type: ignore[attr-defined]
    if not case.differentiated:
        return outputs
    gradients = torch.autograd.grad(outputs[0].sum(), [tensors[name] for name in case.differentiated])
    return [t.detach() for t in outputs] + list(gradients)


HALF = {torch.bfloat16: 2e-2, torch.float16: 3e-3}


def assert_near(name: str, got: list[Tensor], want: list[Tensor], gradients: bool = True) -> None:
    """What `run` gave of a case, or its results without gradients, within rounding of the largest value.

    Of the gradients of pairs, which have another tolerance, at most 2 % use it.
    """
    case = CASES[name]
    results = len(got) - (len(case.differentiated) if gradients else 0)
    for k, (x, y) in enumerate(zip(got, want, strict=True)):
        assert x.dtype == y.dtype
        x, y = x.cpu(), y.cpu()
        if name == "segmentation_stats" and not x.is_floating_point():  # a value on an edge may fall into the next bin
            assert (x - y).abs().sum() <= max(2, 1e-4 * y.abs().sum())
            continue
        rtol = max(HALF.get(y.dtype, 1e-5), case.tolerance if k >= results else 0.0)
        finite = y[y.isfinite()].abs() if y.is_floating_point() else y[:0].float()
        scale = float(finite.max()) if finite.numel() else 1.0
        torch.testing.assert_close(x, y, rtol=rtol, atol=rtol * scale, equal_nan=True)
        if rtol == PAIRS:
            apart = (x - y).abs() > 1e-5 * scale + 1e-5 * y.abs()
            assert apart.double().mean() < 0.02


if __name__ == "__main__":
    for name, backend in available():
        for shape in ((2, 33, 34), (1, 11, 23, 17), (1, 200, 210)):
            run(CASES[name], inputs_of(CASES[name], shape, "cuda"), backend)
        torch.cuda.synchronize()
        print(name, backend, flush=True)
