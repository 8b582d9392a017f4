"""surface_distances: every surface metric of every class in one call, its eager reference, and MONAI's metrics."""

from __future__ import annotations

import warnings

import pytest
import torch

import sure_fast
from benchmarks.bench_boundary_distance import spheres
from benchmarks.common import row

SIZE, CLASSES = 128, 4
PEERS = {
    "sure_fast": None,
    "eager reference": None,
    "MONAI HausdorffDistanceMetric, HD95 alone": "hausdorff",
    "MONAI SurfaceDistanceMetric, ASSD alone": "average",
    "MONAI SurfaceDiceMetric, NSD alone": "within",
}


def moved_spheres(size: int) -> torch.Tensor:
    """The shells of `spheres`, moved, flattened and with a ripple."""
    axis = torch.linspace(-1, 1, size)
    x, y, z = axis[:, None, None] - 0.03, 1.05 * axis[None, :, None], axis
    radius = (x**2 + y**2 + z**2).sqrt() + 0.02 * torch.sin(20 * y)
    return torch.bucketize(radius, torch.tensor([0.3, 0.5, 0.7]))[None]


@pytest.mark.parametrize("name", PEERS)
def test_surface_distances(benchmark, name):
    from monai.metrics import HausdorffDistanceMetric, SurfaceDiceMetric, SurfaceDistanceMetric
    from monai.networks.utils import one_hot

    prediction, target = moved_spheres(SIZE), spheres(SIZE)
    metrics = {
        "hausdorff": HausdorffDistanceMetric(percentile=95, reduction="none"),
        "average": SurfaceDistanceMetric(symmetric=True, reduction="none"),
        "within": SurfaceDiceMetric(class_thresholds=[1.0] * (CLASSES - 1), reduction="none"),
    }

    def monai(metric):
        with warnings.catch_warnings():
            # MONAI 1.5 and 1.6 warn of an argument that they themselves pass.
            warnings.simplefilter("ignore", FutureWarning)
            return metrics[metric](one_hot(prediction[:, None], CLASSES), one_hot(target[:, None], CLASSES)).double()

    def fused(backend=None):
        s = sure_fast.surface_distances(prediction, target, CLASSES, backend=backend)
        return torch.stack([s.percentile, s.average, s.within])

    peer = PEERS[name]
    if peer is not None:
        expected = fused()[list(metrics).index(peer)]
        run = lambda: monai(peer)  # noqa: E731
    else:
        expected = torch.stack([monai(metric) for metric in metrics])
        run = lambda: fused("reference" if name == "eager reference" else "cpu")  # noqa: E731
    group = f"surface_distances {[1, SIZE, SIZE, SIZE]}, {CLASSES} classes"
    row(benchmark, group, name, run, expected, rtol=1e-5, atol=1e-5, rounds="fast" if name == "sure_fast" else "once")
