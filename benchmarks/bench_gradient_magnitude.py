"""gradient_magnitude: fused, the eager reference, torch.compile of it, and MONAI's SobelGradients."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks.common import row

SHAPES = [(1, 1, 128, 128, 128), (24, 1, 128, 128)]


def reference(image):
    return sure_fast.gradient_magnitude(image, backend="reference")


def monai_magnitude(image):
    """MONAI gives the axes' derivatives; the magnitude is their norm. Its own scaling is kept by normalize_kernels."""
    from monai.transforms import SobelGradients

    transform = SobelGradients(kernel_size=3, normalize_kernels=True, padding_mode="replicate")
    return torch.stack([transform(x).square().sum(0, keepdim=True).sqrt().as_tensor() for x in image])


IMPLEMENTATIONS = {
    "sure_fast": lambda: sure_fast.gradient_magnitude,
    "eager reference": lambda: reference,
    "torch.compile(reference)": lambda: torch.compile(reference),
    "MONAI SobelGradients + norm": lambda: monai_magnitude,
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_gradient_magnitude(benchmark, name, shape):
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    run = IMPLEMENTATIONS[name]()
    row(
        benchmark,
        f"gradient_magnitude {list(shape)}",
        name,
        lambda: run(image),
        sure_fast.gradient_magnitude(image.double(), backend="reference").float(),
    )
