"""boundary_distance: plain PyTorch, and scikit-image's find_boundaries with SciPy's exact transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sure_fast
from benchmarks.common import row


def spheres(size: int) -> torch.Tensor:
    """Three nested shells in a cube, int64 [1, size, size, size]."""
    axis = torch.linspace(-1, 1, size)
    radius = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis**2).sqrt()
    return torch.bucketize(radius, torch.tensor([0.3, 0.5, 0.7]))[None]


def skimage_and_scipy(label, max_distance):
    from scipy.ndimage import distance_transform_edt
    from skimage.segmentation import find_boundaries

    volume = label[0].numpy()
    boundary = np.zeros(volume.shape, dtype=bool)
    for value in range(1, 4):
        boundary |= find_boundaries(volume == value, connectivity=3, mode="thick")
    distance = torch.from_numpy(distance_transform_edt(~boundary)).float()[None]
    return distance if max_distance is None else distance.masked_fill(distance > max_distance, torch.inf)


@pytest.mark.parametrize("max_distance", [4.0, None])
@pytest.mark.parametrize("name", ["sure_fast", "scikit-image + SciPy"])
def test_boundary_distance(benchmark, name, max_distance):
    label = spheres(96)

    def ours():
        return sure_fast.boundary_distance(label, max_distance=max_distance)

    row(
        benchmark,
        f"boundary_distance {list(label.shape)} max_distance={max_distance}",
        name,
        ours if name == "sure_fast" else lambda: skimage_and_scipy(label, max_distance),
        ours(),
        rounds="slow",
    )
