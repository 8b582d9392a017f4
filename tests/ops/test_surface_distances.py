from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sure_fast
from tests._tolerances import tolerance
from tests.ops.backends import Backend, assert_same_bits, drawn, on

VARIANTS = {"cuda": {"together": {}, "in rounds": {"VOXELS_AT_ONCE": 1000}}}
"""Of the CUDA kernels: boxes of classes beyond so many voxels are measured one round after the other."""
REFERENCE = Backend("surface_distances", "reference")


def blobs(shape, classes=3, seed=0):
    """Two label maps of smooth structures that differ a little."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((2, shape[0], 1, *shape[1:]), generator=generator)
    noise[1] = noise[0] + 0.6 * noise[1]
    pool = torch.nn.functional.avg_pool3d if len(shape) == 4 else torch.nn.functional.avg_pool2d
    maps = [pool(n, 5, 1, 2, count_include_pad=False)[:, 0] for n in noise]
    edges = maps[0].quantile(torch.linspace(0.4, 0.8, classes - 1))
    return [torch.bucketize(m, edges) for m in maps]


def far_apart(size=40):
    p, t = torch.zeros(2, 1, size, size, size, dtype=torch.long)
    p[:, :4, :5, :6] = 1
    t[:, -5:, -4:, -5:] = 1
    t[:, 20:22, 20:22, 20:22] = 2
    p[:, 20:22, 20:22, 21:24] = 2
    return p, t


def assert_near(got, want, **bounds):
    """Records that agree, NaN where the other has it."""
    bounds = bounds or tolerance(torch.float64, "surface_distances")
    for name, a, b in zip(want._fields, got, want, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, equal_nan=True, msg=name, **bounds)


def test_by_hand(backend):
    # P: a row of three voxels, 2 mm apart; T: its first voxel, a row of 3 mm away. From P: 3, sqrt(13), 5; from T: 3
    p, t = torch.zeros(2, 1, 4, 5, dtype=torch.long)
    p[0, 1, 1:4] = 1
    t[0, 2, 1] = 1
    s = backend(p, t, 3, spacing=(3.0, 2.0), percentile=50, tolerance=3.0)
    assert s.voxels.tolist() == [[[3, 1], [0, 0]]]
    np.testing.assert_allclose(s.hausdorff[0], [5.0, math.nan], rtol=1e-6)
    np.testing.assert_allclose(s.percentile[0], [math.sqrt(13), math.nan], rtol=1e-6)
    np.testing.assert_allclose(s.average[0], [(3 + math.sqrt(13) + 5 + 3) / 4, math.nan], rtol=1e-6)
    np.testing.assert_allclose(s.within[0], [2 / 4, math.nan], rtol=1e-6)


def test_the_surface_is_where_a_face_is_open(backend):
    solid = torch.ones(1, 5, 6, 7, dtype=torch.long)
    assert backend(solid, solid, 2).voxels.tolist() == [[[150, 150]]]
    # one axis of one voxel: in a volume all of it is open, in an image nothing lies along it
    assert backend(solid[:, None, :1], solid[:, None, :1], 2).voxels[0, 0, 0] == 42
    assert backend(solid[:, 0], solid[:, 0], 2).voxels[0, 0, 0] == 22
    assert backend(solid[:, :1], solid[:, :1], 2).voxels[0, 0, 0] == 22  # a channel axis, as metrics take it


@pytest.mark.parametrize("shape", [(2, 24, 31), (1, 14, 17, 21), (1, 70, 12, 9), (1, 9, 12, 71)], ids=str)
@pytest.mark.parametrize("spacing", [1.0, 0.7, "mixed"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_is_monais(shape, spacing, kernel):
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
    from monai.networks.utils import one_hot

    p, t = blobs(shape, 4)
    steps = [0.8, 1.5, 2.5][: len(shape) - 1] if spacing == "mixed" else [spacing] * (len(shape) - 1)
    hot = [one_hot(x[:, None], 4) for x in (p, t)]
    got = kernel(p, t, 4, spacing=steps, tolerance=1.6)
    wanted = {
        "hausdorff": compute_hausdorff_distance(*hot, spacing=steps),
        "percentile": compute_hausdorff_distance(*hot, percentile=95, spacing=steps),
        "average": compute_average_surface_distance(*hot, symmetric=True, spacing=steps),
        "within": compute_surface_dice(*hot, class_thresholds=[1.6] * 3, spacing=steps),
    }
    for name, want in wanted.items():
        assert want.isfinite().all()
        torch.testing.assert_close(getattr(got, name).float(), want.float(), rtol=1e-5, atol=1e-5, msg=name)


CASES = {
    "2d": lambda: blobs((3, 33, 70)),
    "3d": lambda: blobs((2, 9, 13, 41)),
    "far apart": lambda: far_apart(24),
    "one voxel": lambda: torch.ones(2, 2, 1, 1, dtype=torch.long),
    "empty batch": lambda: torch.ones(2, 0, 4, 4, dtype=torch.long),
    "empty axis": lambda: torch.ones(2, 2, 0, 4, dtype=torch.long),
    "many classes": lambda: torch.randint(0, 40, (2, 1, 12, 20), generator=torch.Generator().manual_seed(0)),
}
LARGE = {
    "2d": lambda: blobs((5, 33, 70)),
    "far apart": far_apart,
    "many classes": lambda: torch.randint(0, 300, (2, 1, 40, 60), generator=torch.Generator().manual_seed(0)),
}


def check(kernel, p, t, percentile):
    classes = max(3, int(max(p.max(), t.max())) + 1) if p.numel() else 3
    options = {"spacing": [0.5, 1.25, 2.0][: p.dim() - 1], "percentile": percentile, "tolerance": 1.25}
    want = REFERENCE(p, t, classes, **options)
    got = kernel(p, t, classes, **options)
    assert_near(got, want)
    return got


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("percentile", [0, 50, 95, 100])
def test_kernel_agrees_with_the_reference(case, percentile, variant):
    check(variant, *CASES[case](), percentile)


@pytest.mark.slow
@on("cpu")
@pytest.mark.parametrize("case", LARGE)
@pytest.mark.parametrize("percentile", [0, 50, 95, 100])
def test_large_labels_agree_with_the_reference(case, percentile, variant):
    p, t = LARGE[case]()
    assert_same_bits(check(variant, p, t, percentile) for _ in variant.ways())


@pytest.mark.parametrize("case", CASES)
def test_same_bits_however_it_runs(case, variant):
    p, t = CASES[case]()
    assert_same_bits(variant(p, t, 40) for _ in variant.ways())


@pytest.mark.parametrize("integer", [torch.uint8, torch.int8, torch.int16, torch.int32], ids=str)
def test_dtypes_and_ignored_voxels(integer, kernel):
    p, t = (x.to(integer) for x in blobs((2, 20, 24)))
    options = {"ignore_index": 1, "tolerance": 1.1}
    assert_near(kernel(p, t, 3, **options), REFERENCE(p, t, 3, **options))


@on("cpu")
@settings(drawn, max_examples=60)
@given(st.data())
def test_any_labels(kernel, data):
    dims = data.draw(st.integers(2, 3))
    shape = [data.draw(st.integers(1, 3)), *(data.draw(st.integers(1, 70 if dims == 2 else 12)) for _ in range(dims))]
    classes = data.draw(st.integers(2, 5))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    sparse = data.draw(st.sampled_from([0.0, 0.9, 0.99]))
    dtype = data.draw(st.sampled_from([torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]))
    maps = []
    for _ in range(2):
        label = torch.randint(0, classes, shape, generator=generator)
        label = label.masked_fill(torch.rand(shape, generator=generator) < sparse, 0).to(dtype)
        label = label.transpose(-1, -2).contiguous().transpose(-1, -2) if data.draw(st.booleans()) else label
        maps.append(label if dims == 2 else label[:, None])  # without a channel axis planes may be taken for classes
    spacing = [data.draw(st.floats(0.1, 10)) for _ in range(dims)]
    # between attainable distances, where no rounding decides
    options = {
        "spacing": spacing,
        "tolerance": 0.9 * min(spacing),
        "ignore_index": data.draw(st.sampled_from([None, 1])),
    }
    assert_near(kernel(*maps, classes, **options), REFERENCE(*maps, classes, **options), rtol=1e-5, atol=1e-6)


def test_ignored_voxels_are_background_in_both(backend):
    p, t = blobs((2, 20, 24))
    ignored = torch.zeros_like(t, dtype=torch.bool)
    ignored[:, 5:9] = True
    got = backend(p, t.masked_fill(ignored, -1), 3, ignore_index=-1)
    assert_same_bits([got, backend(p.masked_fill(ignored, 0), t.masked_fill(ignored, 0), 3)])


def test_channel_axis_of_volumes(backend):
    p, t = blobs((2, 6, 7, 8))
    assert_same_bits([backend(p[:, None], t[:, None], 3), backend(p, t, 3)])


def test_operator_is_registered_properly_and_compiles_whole(kernel):
    p, t = kernel.put(blobs((2, 12, 15)))
    op = torch.ops.sure_fast.surface_distances.default
    torch.library.opcheck(op, (p, t, 3, [1.0, 1.0], 95.0, 1.0, None, kernel.name))

    def step(p, t):
        return sure_fast.surface_distances(p, t, 3, backend=kernel.requested)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert_near(compiled(p, t), step(p, t), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"target": torch.full((2, 8, 9), 3)}, r"^target: expected labels in \[0, 3\), got 3$"),
        ({"prediction": torch.full((2, 8, 9), -1)}, r"^prediction: expected labels in \[0, 3\), got -1$"),
        (
            {"prediction": torch.zeros(2, 8, 8, dtype=torch.long)},
            r"^prediction: expected the shape of target \[2, 8, 9\]",
        ),
        ({"num_classes": 1}, "^num_classes: expected 2 to 65536, the background included, got 1$"),
        ({"percentile": 101.0}, r"^percentile: expected a number in \[0, 100\], got 101.0$"),
        ({"tolerance": -1.0}, "^tolerance: expected a finite number >= 0"),
        ({"spacing": (1.0, 1.0, 1.0)}, "^spacing: expected one number from 1e-12 to 1e12 or 2 of them"),
    ],
)
def test_errors_name_the_argument(arguments, text, backend):
    p, t = blobs((2, 8, 9))
    with pytest.raises(ValueError, match=text):
        backend(**{"prediction": p, "target": t, "num_classes": 3, **arguments})
    with pytest.raises(TypeError, match=r"^target: expected an integer tensor"):
        backend(p, t.to(torch.complex64), 3)
