from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from skimage.segmentation import find_boundaries

import sure_fast
from sure_fast.reference.boundary_distance import boundary_mask
from tests._golden import GOLDEN, load


def labels(shape, classes=3, seed=0):
    """Blobs, so that distances beyond one voxel occur."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = np.stack([scipy.ndimage.gaussian_filter(n, 2.0) for n in noise])
    cuts = np.quantile(smooth, np.linspace(0, 1, classes + 1)[1:-1])
    return torch.from_numpy(np.digitize(smooth, cuts))


def scipy_distance(label: np.ndarray, spacing=None) -> np.ndarray:
    """Per image: the union over the foreground classes of thick boundaries, then SciPy's exact transform."""
    boundary = np.zeros(label.shape, dtype=bool)
    for value in np.unique(label):
        boundary |= find_boundaries(label == value, connectivity=label.ndim, mode="thick")
    if not boundary.any():
        return np.full(label.shape, np.inf)
    return scipy.ndimage.distance_transform_edt(~boundary, sampling=spacing)


@pytest.mark.parametrize("shape", [(2, 30, 41), (2, 17, 18, 19), (1, 1, 25), (3, 5, 1, 22)], ids=str)
@pytest.mark.parametrize("spacing", [None, (1.2, 0.7, 5.0)])
def test_agrees_with_skimage_and_scipy(shape, spacing):
    label = labels(shape)
    spacing = spacing and spacing[: len(shape) - 1]
    want = np.stack([scipy_distance(image, spacing) for image in label.numpy()])
    got = sure_fast.boundary_distance(label, spacing=spacing)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-6)
    for limit in (0.0, 1.0, 4.0, 5.5):
        near = sure_fast.boundary_distance(label, spacing=spacing, max_distance=limit).numpy()
        inside = want <= limit * (1 + 1e-9)
        np.testing.assert_allclose(near[inside], want[inside], rtol=1e-6)
        assert np.isinf(near[~inside]).all()


def test_by_hand():
    label = torch.tensor([[[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]])
    want = torch.tensor([[[5.0**0.5, 2**0.5, 1, 1], [2.0, 1, 0, 0], [2, 1, 0, 0]]])
    torch.testing.assert_close(sure_fast.boundary_distance(label), want)
    near = sure_fast.boundary_distance(label, max_distance=1.5)
    torch.testing.assert_close(near, want.masked_fill(want > 1.5, torch.inf))
    # 3 mm a row, 1 mm a column
    want = torch.tensor([[[13.0**0.5, 10**0.5, 3, 3], [2.0, 1, 0, 0], [2, 1, 0, 0]]])
    torch.testing.assert_close(sure_fast.boundary_distance(label, spacing=(3, 1)), want)


def test_no_boundary_is_infinite():
    label = torch.zeros(2, 4, 5, dtype=torch.uint8)
    label[1, 2:] = 1
    distance = sure_fast.boundary_distance(label)
    assert distance[0].isinf().all()
    assert distance[1].isfinite().all()


def test_ignored_voxels_are_neither_boundary_nor_neighbours():
    label = torch.tensor([[[0, 0, 9, 1, 1, 0], [0, 0, 9, 1, 1, 0]]])
    distance = sure_fast.boundary_distance(label, ignore_index=9)
    assert distance[0, 0].tolist() == [4.0, 3.0, 2.0, 1.0, 0.0, 0.0]
    assert not boundary_mask(label, 9)[label == 9].any()
    assert sure_fast.boundary_distance(label).eq(0).sum() == 10


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name):
    golden = load(name)
    got = sure_fast.boundary_distance(torch.from_numpy(golden["label"]).long())
    np.testing.assert_allclose(got.numpy(), golden["boundary_distance"], rtol=1e-6)


def test_shapes_dtypes_strides_and_empty():
    label = labels((2, 6, 7, 8))
    want = sure_fast.boundary_distance(label)
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        assert torch.equal(sure_fast.boundary_distance(label.to(dtype)), want)
    assert torch.equal(sure_fast.boundary_distance(label[:, None]), want)
    assert torch.equal(sure_fast.boundary_distance(label.transpose(1, 3).contiguous().transpose(1, 3)), want)
    for shape in ((0, 4, 5), (2, 0, 5), (2, 3, 0, 5)):
        assert sure_fast.boundary_distance(torch.zeros(shape, dtype=torch.long)).shape == shape
        assert sure_fast.boundary_distance(torch.zeros(shape, dtype=torch.long), max_distance=2).shape == shape


def test_compiles_whole():
    label = labels((2, 6, 7, 8))
    compiled = torch.compile(
        lambda x: sure_fast.boundary_distance(x, max_distance=4.0), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(label), sure_fast.boundary_distance(label, max_distance=4.0))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"label": torch.zeros(1, 4, 4)}, TypeError, "label: expected an integer tensor"),
        ({"label": torch.zeros(4, 4, dtype=torch.long)}, ValueError, "label: expected"),
        ({"spacing": (1.0,)}, ValueError, "spacing: expected one number > 0 or 2 of them"),
        ({"max_distance": -1}, ValueError, "max_distance: expected a finite number >= 0"),
        ({"backend": "triton"}, ValueError, "boundary_distance: backend 'triton' was requested"),
    ],
)
def test_errors_name_the_argument(arguments, error, text):
    with pytest.raises(error, match=text):
        sure_fast.boundary_distance(**{"label": torch.zeros(1, 4, 4, dtype=torch.long), **arguments})
