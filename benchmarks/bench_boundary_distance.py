"""boundary_distance: the plain PyTorch reference, scikit-image's find_boundaries with SciPy's exact transform, and two
peers that are given the boundary and compute the distance alone: the edt package and SimpleITK's Maurer filter.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sure_fast
from benchmarks.common import row
from sure_fast.reference.boundary_distance import boundary_mask


def spheres(size: int) -> torch.Tensor:
    """Three nested shells in a cube, int64 [1, size, size, size]."""
    axis = torch.linspace(-1, 1, size)
    radius = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis**2).sqrt()
    return torch.bucketize(radius, torch.tensor([0.3, 0.5, 0.7]))[None]


def skimage_and_scipy(label, _):
    from scipy.ndimage import distance_transform_edt
    from skimage.segmentation import find_boundaries

    volume = label[0].numpy()
    boundary = np.zeros(volume.shape, dtype=bool)
    for value in range(1, 4):
        boundary |= find_boundaries(volume == value, connectivity=3, mode="thick")
    return distance_transform_edt(~boundary)


def edt_package(_, boundary):
    import edt

    return edt.edt(~boundary, parallel=torch.get_num_threads())


def maurer(_, boundary):
    import SimpleITK

    image = SimpleITK.GetImageFromArray(boundary.astype(np.uint8))
    options = {"insideIsPositive": False, "squaredDistance": False, "useImageSpacing": False}
    return np.maximum(SimpleITK.GetArrayFromImage(SimpleITK.SignedMaurerDistanceMap(image, **options)), 0.0)


PEERS = {
    "scikit-image + SciPy": skimage_and_scipy,
    "edt, distance alone": edt_package,
    "SimpleITK Maurer, distance alone": maurer,
}


@pytest.mark.parametrize("max_distance", [4.0, None])
@pytest.mark.parametrize("name", ["sure_fast", "eager reference", *PEERS])
def test_boundary_distance(benchmark, name, max_distance):
    label = spheres(128)
    boundary = boundary_mask(label)[0].numpy()
    expected = sure_fast.boundary_distance(label, max_distance=max_distance)

    def peer():
        return PEERS[name](label, boundary)

    def ours():
        backend = "cpu" if name == "sure_fast" else "reference"
        return sure_fast.boundary_distance(label, max_distance=max_distance, backend=backend)

    if name in PEERS:  # exact everywhere, whatever the limit
        got = torch.from_numpy(np.array(peer())).float()[None]
        seen = expected.isfinite()
        torch.testing.assert_close(got[seen], expected[seen], rtol=1e-5, atol=1e-5)
        assert max_distance is None or float(got[~seen].min()) > max_distance
    row(
        benchmark,
        f"boundary_distance {list(label.shape)} max_distance={max_distance}",
        name,
        peer if name in PEERS else ours,
        None if name in PEERS else expected,
    )
