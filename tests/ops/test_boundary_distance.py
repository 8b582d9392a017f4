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
from sure_fast import _cpu
from sure_fast.ops.boundary_distance import boundary_squares
from sure_fast.reference.boundary_distance import boundary_mask
from tests._golden import GOLDEN, load
from tests.ops.backends import assert_same_bits, drawn, on

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


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


@on("cpu", "reference")
@pytest.mark.parametrize("shape", [(2, 30, 41), (2, 17, 18, 19), (1, 1, 25), (3, 5, 1, 22)], ids=str)
@pytest.mark.parametrize("spacing", [None, (1.2, 0.7, 5.0), (0.7, 0.7, 0.7)])
def test_agrees_with_skimage_and_scipy(shape, spacing, backend):
    label = labels(shape)
    spacing = spacing and spacing[: len(shape) - 1]
    want = np.stack([scipy_distance(image, spacing) for image in label.numpy()])
    got = backend(label, spacing=spacing)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-6)
    for limit in (0.0, 1.0, 2.1, 4.0, 5.5, 30.0):
        near = backend(label, spacing=spacing, max_distance=limit).numpy()
        inside = want <= limit * (1 + 1e-9)
        np.testing.assert_allclose(near[inside], want[inside], rtol=1e-6)
        assert np.isinf(near[~inside]).all()


def check(kernel, label, **options):
    got = kernel(label, **options)
    want = sure_fast.boundary_distance(label, backend="reference", **options)
    assert got.dtype == torch.float32
    kernel.agree(got, want, "boundary_distance")
    return got


@pytest.mark.parametrize("shape", [(2, 13, 31), (1, 6, 7, 9), (1, 1, 25), (1, 2, 1, 22), (1, 18, 2, 3)], ids=str)
@pytest.mark.parametrize("spacing", [(1.2, 0.7, 5.0), (0.7, 0.7, 0.7)])
def test_kernel_agrees_with_the_reference(shape, spacing, variant):
    label = labels(shape)
    spacing = spacing[: len(shape) - 1]
    for limit in (None, 0.0, 4.0, 30.0):
        check(variant, label, spacing=spacing, max_distance=limit)
    check(variant, label, max_distance=2.1, ignore_index=1)
    check(variant, label, ignore_index=0)


@on("cpu")
@settings(drawn, max_examples=60)
@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=3),
    st.integers(0, 2**31),
    st.sampled_from([2, 3, 300]),
    st.sampled_from([None, 0.0, 0.5, 1.0, 2.0, 3.3, 40.0]),
    st.sampled_from([None, (1.0, 1.0, 1.0), (0.5, 0.5, 0.5), (3.0, 1.1, 0.8)]),
    st.sampled_from([None, 0, 1, -1]),
    st.sampled_from([torch.uint8, torch.int16, torch.int64]),
)
def test_any_labels(kernel, shape, seed, classes, limit, spacing, ignore_index, dtype):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, classes, (2, *shape), generator=generator) // (1 + seed % 3)
    if seed % 2:  # large uniform parts
        label[:, : shape[0] // 2 + 1] = 1
    if dtype == torch.int64 and classes == 300:
        label = label * 2**33 - 7
    if dtype == torch.uint8:
        label, ignore_index = label % 256, ignore_index and ignore_index % 256
    options = {"spacing": spacing and spacing[: len(shape)], "max_distance": limit, "ignore_index": ignore_index}
    check(kernel, label.to(dtype), **options)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("options", [{"max_distance": 4.0}, {"max_distance": 15.5}, {}, {"spacing": 0.3}], ids=str)
def test_same_bits_however_it_runs(large, options, variant):
    shape = (2, 20, 33, 67) if large else (1, 70, 65)
    if variant.interpreted:
        shape = (1, 9, 10, 11) if large else (2, 13, 31)
    label = labels(shape)
    assert_same_bits([check(variant, label, **options), *(variant(label, **options) for _ in variant.ways())])


@on("cpu")
@pytest.mark.parametrize("shape", [(40, 70, 66), (90, 30, 25), (1, 90, 130)], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"spacing": (2.0, 0.9, 1.3)}, {"max_distance": 20.0}, {"max_distance": 4.0}], ids=str
)
def test_small_objects_in_large_images(shape, options, kernel):
    """Most planes and rows hold no boundary."""
    axes = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
    for center in ((shape[0] // 2, 20, 15), (shape[0] - 1, 3, 20)):
        radius = sum((x - c) ** 2 for x, c in zip(axes, center, strict=True)).sqrt()
        label = torch.bucketize(radius, torch.tensor([3.0, 8.0]))[None]
        got = check(kernel, label, **options)
        want = scipy_distance(label[0].numpy(), options.get("spacing"))
        want = np.where(want <= options.get("max_distance", np.inf) * (1 + 1e-9), want, np.inf)
        np.testing.assert_allclose(got[0].numpy(), want, rtol=1e-6)


@on("cpu")
@pytest.mark.parametrize("shape", [(2, 7, 34, 5), (2, 8, 65, 3), (2, 9, 16, 33), (2, 40, 17, 9), (4, 26, 70)], ids=str)
@pytest.mark.parametrize("limit", [None, 16.0, 23.0])
def test_nearest_rows_that_differ_between_columns(shape, limit, variant):
    """Every eighth row of a line tells the ones between where to look, for 32 columns at once."""
    generator = torch.Generator().manual_seed(shape[1])
    for share in (0.001, 0.01, 0.1):
        label = (torch.rand(shape, generator=generator) < share).long()
        label[0] = 0
        label[0, shape[1] // 2, ::5] = 1  # a comb
        got = check(variant, label, max_distance=limit)
        for found, volume in zip(got, label, strict=True):
            want = scipy_distance(volume.numpy(), None)
            want = want if limit is None else np.where(want <= limit * (1 + 1e-9), want, np.inf)
            np.testing.assert_allclose(found.numpy(), want, rtol=1e-6)


@on("cpu")
@pytest.mark.parametrize("shape", [(1, 255, 9), (1, 256, 9), (7, 5, 254), (180, 181, 1), (181, 182, 3)], ids=str)
@pytest.mark.parametrize("limit", [None, 16.0, 200.0, 254.9, 255.0, 300.0])
def test_squares_up_to_16_bits(shape, limit, kernel):
    """One boundary in a corner: distances in steps on both sides of what 16 bits hold."""
    label = torch.zeros(shape, dtype=torch.uint8)
    label[0, 0, 0] = 1
    for step in (1.0, 0.7):
        want = scipy_distance(label.numpy(), (step,) * 3)
        far = None if limit is None else limit * step
        want = want if far is None else np.where(want <= far * (1 + 1e-9), want, np.inf)
        got = kernel(label[None], spacing=step, max_distance=far)
        np.testing.assert_allclose(got[0].numpy(), want, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 9, 60), (1, 12, 3, 4)], ids=str)
def test_one_voxel_and_none(shape, kernel):
    label = torch.zeros(shape, dtype=torch.int64)
    assert check(kernel, label).isinf().all()
    label.flatten()[label.numel() // 2 + 3] = 1
    for options in ({"spacing": 0.3}, {"max_distance": 20.0}, {"max_distance": 15.5}):
        check(kernel, label, **options)


@on("cpu")
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_long_axes_take_the_envelope_of_parabolas(axis, kernel):
    shape = [1, 3, 5, 4]
    shape[axis] = 900
    generator = torch.Generator().manual_seed(axis)
    dense = (torch.rand(shape, generator=generator) < 0.02).long()
    sparse = torch.zeros_like(dense)
    sparse.view(-1)[[700, -3]] = 1
    for label in (dense, sparse, torch.zeros_like(dense)):
        check(kernel, label)
        check(kernel, label, spacing=(0.7, 1.3, 2.0))


def test_boundaries_among_ignored_voxels_are_at_0(variant):
    """More than 256 rows with a boundary, the last of which have none above them."""
    label = torch.zeros(1, 269, 40, dtype=torch.int64)
    label[:, :, 1:], label[0, 268, 30:], label[0, 267, 20:] = 1, 2, 255
    got = check(variant, label, spacing=(0.3, 0.31), ignore_index=255)
    assert torch.equal(got[0, 268, 28:32], torch.tensor([0.31, 0.0, 0.0, 0.31]))


def test_by_hand(backend):
    label = torch.tensor([[[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]])
    want = torch.tensor([[[5.0**0.5, 2**0.5, 1, 1], [2.0, 1, 0, 0], [2, 1, 0, 0]]])
    torch.testing.assert_close(backend(label), want)
    near = backend(label, max_distance=1.5)
    torch.testing.assert_close(near, want.masked_fill(want > 1.5, torch.inf))
    # 3 mm a row, 1 mm a column
    want = torch.tensor([[[13.0**0.5, 10**0.5, 3, 3], [2.0, 1, 0, 0], [2, 1, 0, 0]]])
    torch.testing.assert_close(backend(label, spacing=(3, 1)), want)


def test_no_boundary_is_infinite(backend):
    label = torch.zeros(2, 4, 5, dtype=torch.uint8)
    label[1, 2:] = 1
    for limit in (None, 9.0, 99.0):
        distance = backend(label, max_distance=limit)
        assert distance[0].isinf().all()
        assert distance[1].isfinite().all()


def test_ignored_voxels_are_neither_boundary_nor_neighbours(backend):
    label = torch.tensor([[[0, 0, 9, 1, 1, 0], [0, 0, 9, 1, 1, 0]]])
    distance = backend(label, ignore_index=9)
    assert distance[0, 0].tolist() == [4.0, 3.0, 2.0, 1.0, 0.0, 0.0]
    assert backend(label).eq(0).sum() == 10


def test_no_ignored_voxel_is_on_the_references_boundary():
    label = torch.tensor([[[0, 0, 9, 1, 1, 0], [0, 0, 9, 1, 1, 0]]])
    assert not boundary_mask(label, 9)[label == 9].any()


@on("cpu", "reference")
@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, backend):
    golden = load(name)
    got = backend(torch.from_numpy(golden["label"]).long())
    np.testing.assert_allclose(got.numpy(), golden["boundary_distance"], rtol=1e-6)


@pytest.mark.parametrize("integer", INTEGERS, ids=str)
def test_dtypes_strides_and_far_labels(integer, kernel):
    label = labels((1, 5, 6, 7))
    limits = torch.iinfo(integer)
    values = torch.tensor([limits.min, 1, limits.max], dtype=integer)[label]
    for ignore in (None, limits.max, limits.min):
        want = check(kernel, label, max_distance=3.0, ignore_index={limits.max: 2, limits.min: 0}.get(ignore))
        views = [values, values.transpose(1, 3).contiguous().transpose(1, 3), values.repeat(1, 1, 1, 2)[..., :7]]
        for view in views:
            assert torch.equal(check(kernel, view, max_distance=3.0, ignore_index=ignore), want)


def test_channel_axis_and_empty(backend):
    label = labels((2, 6, 7, 8))
    assert torch.equal(backend(label[:, None]), backend(label))
    for shape in ((0, 4, 5), (2, 0, 5), (2, 3, 0, 5)):
        assert backend(torch.zeros(shape, dtype=torch.long)).shape == shape
        assert backend(torch.zeros(shape, dtype=torch.long), max_distance=2).shape == shape


def test_squared_distances_in_bytes(kernel):
    """As a training step keeps them, and the distances beside them."""
    for shape in ((2, 21, 40), (1, 9, 10, 11), (1, 5, 16, 80)):
        label = labels(shape)
        for limit, ignore in ((4.0, None), (1.0, 2), (15.8, 1)):
            squares, distances = (t.cpu() for t in boundary_squares(kernel.put(label), limit, ignore, kernel.name))
            volume = label[:, None] if len(shape) == 4 else label
            want = sure_fast.boundary_distance(volume, max_distance=limit, ignore_index=ignore, backend="reference")
            if ignore is not None:
                want = want.masked_fill(label == ignore, torch.nan)
            torch.testing.assert_close(distances, want, rtol=1e-6, atol=0, equal_nan=True)
            in_bytes = want.square().round().nan_to_num(nan=_cpu.IGNORED, posinf=_cpu.BEYOND)
            assert torch.equal(squares, in_bytes.to(torch.uint8))
    torch.library.opcheck(boundary_squares, (kernel.put(labels((1, 6, 7, 8))), 4.0, None, kernel.name))


def test_operator_is_registered_properly_and_compiles_whole(kernel):
    label = kernel.put(labels((1, 6, 7, 8)))
    for limit in (None, 3.0):
        torch.library.opcheck(
            torch.ops.sure_fast.boundary_distance.default, (label, [1.0, 1.0, 2.0], limit, None, kernel.name)
        )

    def near(x):
        return sure_fast.boundary_distance(x, max_distance=4.0, backend=kernel.requested)

    assert torch.equal(torch.compile(near, fullgraph=True, backend="aot_eager")(label), near(label))


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


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"label": torch.zeros(1, 4, 4, dtype=torch.complex64)}, TypeError, "label: expected an integer tensor"),
        ({"label": torch.zeros(4, 4, dtype=torch.long)}, ValueError, "label: expected"),
        ({"spacing": (1.0,)}, ValueError, "spacing: expected one number from 1e-12 to 1e12 or 2 of them"),
        ({"spacing": 1e39}, ValueError, "spacing: expected one number from 1e-12 to 1e12 or 2 of them, got 1e\\+39"),
        ({"max_distance": -1}, ValueError, "max_distance: expected a finite number >= 0"),
    ],
)
def test_errors_name_the_argument(arguments, error, text, backend):
    with pytest.raises(error, match=text):
        backend(**{"label": torch.zeros(1, 4, 4, dtype=torch.long), **arguments})


def test_a_backend_that_it_has_not_is_refused():
    with pytest.raises(ValueError, match="boundary_distance: backend 'cuda' was requested"):
        sure_fast.boundary_distance(torch.zeros(1, 4, 4, dtype=torch.long), backend="cuda")
