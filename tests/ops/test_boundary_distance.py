from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
@pytest.mark.parametrize("spacing", [None, (1.2, 0.7, 5.0), (0.7, 0.7, 0.7)])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_agrees_with_skimage_and_scipy(shape, spacing, backend):
    label = labels(shape)
    spacing = spacing and spacing[: len(shape) - 1]
    want = np.stack([scipy_distance(image, spacing) for image in label.numpy()])
    got = sure_fast.boundary_distance(label, spacing=spacing, backend=backend)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-6)
    for limit in (0.0, 1.0, 2.1, 4.0, 5.5, 30.0):
        near = sure_fast.boundary_distance(label, spacing=spacing, max_distance=limit, backend=backend).numpy()
        inside = want <= limit * (1 + 1e-9)
        np.testing.assert_allclose(near[inside], want[inside], rtol=1e-6)
        assert np.isinf(near[~inside]).all()


def agree(label, **options):
    got = sure_fast.boundary_distance(label, backend="cpu", **options)
    want = sure_fast.boundary_distance(label, backend="reference", **options)
    torch.testing.assert_close(got, want, rtol=3e-7, atol=0)
    return got


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=3),
    st.integers(0, 2**31),
    st.sampled_from([2, 3, 300]),
    st.sampled_from([None, 0.0, 0.5, 1.0, 2.0, 3.3, 40.0]),
    st.sampled_from([None, (1.0, 1.0, 1.0), (0.5, 0.5, 0.5), (3.0, 1.1, 0.8)]),
    st.sampled_from([None, 0, 1, -1]),
    st.sampled_from([torch.uint8, torch.int16, torch.int64]),
)
def test_any_labels(shape, seed, classes, limit, spacing, ignore_index, dtype):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, classes, (2, *shape), generator=generator) // (1 + seed % 3)
    if seed % 2:  # large uniform parts
        label[:, : shape[0] // 2 + 1] = 1
    if dtype == torch.int64 and classes == 300:
        label = label * 2**33 - 7
    if dtype == torch.uint8:
        label, ignore_index = label % 256, ignore_index and ignore_index % 256
    options = {"spacing": spacing and spacing[: len(shape)], "max_distance": limit, "ignore_index": ignore_index}
    agree(label.to(dtype), **options)


@pytest.mark.parametrize("shape", [(1, 70, 65), (2, 20, 33, 67)], ids=str)
@pytest.mark.parametrize("options", [{"max_distance": 4.0}, {"max_distance": 15.5}, {}, {"spacing": 0.3}], ids=str)
def test_every_instruction_set_and_number_of_threads(shape, options, isa, threads):
    label = labels(shape)
    got = agree(label, **options)
    for count in (1, 5):
        threads(count)
        assert torch.equal(sure_fast.boundary_distance(label, **options), got)


@pytest.mark.parametrize("shape", [(40, 70, 66), (90, 30, 25), (1, 90, 130)], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"spacing": (2.0, 0.9, 1.3)}, {"max_distance": 20.0}, {"max_distance": 4.0}], ids=str
)
def test_small_objects_in_large_images(shape, options):
    """Most planes and rows hold no boundary."""
    axes = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
    for center in ((shape[0] // 2, 20, 15), (shape[0] - 1, 3, 20)):
        radius = sum((x - c) ** 2 for x, c in zip(axes, center, strict=True)).sqrt()
        label = torch.bucketize(radius, torch.tensor([3.0, 8.0]))[None]
        got = agree(label, **options)
        want = scipy_distance(label[0].numpy(), options.get("spacing"))
        want = np.where(want <= options.get("max_distance", np.inf) * (1 + 1e-9), want, np.inf)
        np.testing.assert_allclose(got[0].numpy(), want, rtol=1e-6)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_long_axes_take_the_envelope_of_parabolas(axis):
    shape = [1, 3, 5, 4]
    shape[axis] = 900
    generator = torch.Generator().manual_seed(axis)
    dense = (torch.rand(shape, generator=generator) < 0.02).long()
    sparse = torch.zeros_like(dense)
    sparse.view(-1)[[700, -3]] = 1
    for label in (dense, sparse, torch.zeros_like(dense)):
        agree(label)
        agree(label, spacing=(0.7, 1.3, 2.0))


def test_by_hand():
    label = torch.tensor([[[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]])
    want = torch.tensor([[[5.0**0.5, 2**0.5, 1, 1], [2.0, 1, 0, 0], [2, 1, 0, 0]]])
    torch.testing.assert_close(sure_fast.boundary_distance(label), want)
    near = sure_fast.boundary_distance(label, max_distance=1.5)
    torch.testing.assert_close(near, want.masked_fill(want > 1.5, torch.inf))
    # 3 mm a row, 1 mm a column
    want = torch.tensor([[[13.0**0.5, 10**0.5, 3, 3], [2.0, 1, 0, 0], [2, 1, 0, 0]]])
    torch.testing.assert_close(sure_fast.boundary_distance(label, spacing=(3, 1)), want)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_no_boundary_is_infinite(backend):
    label = torch.zeros(2, 4, 5, dtype=torch.uint8)
    label[1, 2:] = 1
    for limit in (None, 9.0, 99.0):
        distance = sure_fast.boundary_distance(label, max_distance=limit, backend=backend)
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


def test_operator_is_registered_properly():
    label = labels((1, 6, 7, 8))
    for limit in (None, 3.0):
        torch.library.opcheck(
            torch.ops.sure_fast.boundary_distance.default, (label, [1.0, 1.0, 2.0], limit, None, "cpu")
        )


class Distances(torch.utils.data.Dataset):
    def __init__(self, label):
        self.label = label

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return sure_fast.boundary_distance(self.label[index : index + 1], max_distance=4.0)


def test_forked_workers_do_not_hang():
    """The parent has used its OpenMP threads; a forked worker has none of them."""
    data = Distances(labels((4, 30, 31, 32)))
    want = [data[i] for i in range(4)]
    loader = torch.utils.data.DataLoader(
        data, batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    assert all(torch.equal(g, w) for g, w in zip(loader, want, strict=True))


def test_a_forked_process_uses_one_thread():
    """Without a DataLoader nobody tells torch so; the kernel finds out itself."""
    program = """
import os, torch, sure_fast
torch.set_num_threads(2)
label = torch.randint(0, 3, (2, 20, 20, 20))
want = sure_fast.boundary_distance(label)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(sure_fast.boundary_distance(label), want) else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0


def test_concurrent_calls_agree_with_serial_ones():
    batches = [labels((1, 20, 21, 22), seed=seed) for seed in range(8)]
    want = [sure_fast.boundary_distance(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(sure_fast.boundary_distance, batches * 4))
    assert all(torch.equal(g, w) for g, w in zip(got, want * 4, strict=True))


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
        ({"backend": "cuda"}, ValueError, "boundary_distance: backend 'cuda' was requested"),
    ],
)
def test_errors_name_the_argument(arguments, error, text):
    with pytest.raises(error, match=text):
        sure_fast.boundary_distance(**{"label": torch.zeros(1, 4, 4, dtype=torch.long), **arguments})
