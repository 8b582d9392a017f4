from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sure_fast
from sure_fast.metrics import compute_dice, compute_ece
from tests.ops.backends import DTYPES, Backend, assert_same_bits, on
from tests.ops.inputs import SHAPES, strided

REFERENCE = Backend("segmentation_stats", "reference")


def case(shape=(2, 3, 20, 21), dtype=torch.float64, ignore=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = (torch.randn(shape, generator=generator, dtype=torch.float64) * 4).to(dtype)
    y = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    if ignore is not None:
        y[torch.rand(y.shape, generator=generator) < 0.2] = ignore
    return z, y


def test_by_hand(backend):
    # relu evidence: alpha (4, 1), (1, 1), (2, 3); p = (.8, .2), (.5, .5), (.4, .6); u = .4, 1, .4
    z = torch.tensor([[3.0, 0, 1], [0, 0, 2]], dtype=backend.widest).reshape(1, 2, 1, 3)
    y = torch.tensor([[[0, 1, 1]]])
    s = backend(z, y, evidence="relu", bins=5, levels=5)
    assert s.confusion.tolist() == [[[1, 0], [1, 1]]]  # of the tie, class 0 is predicted
    assert s.number[0, 0].tolist() == [0, 0, 2, 0, 1]
    assert s.number[0, 1].tolist() == [0, 1, 1, 1, 0]
    assert s.number[0, 2].tolist() == [0, 0, 1, 1, 1]
    np.testing.assert_allclose(s.confidence[0, 0], [0, 0, 0.9, 0, 0.8], rtol=1e-6)
    np.testing.assert_allclose(s.confidence[0, 2], [0, 0, 0.5, 0.6, 0.8], rtol=1e-6)
    assert s.hits[0].tolist() == [[0, 0, 0, 0, 1], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    assert s.uncertainty[0].tolist() == [0, 2, 0, 0, 1]
    assert s.errors[0].tolist() == [[0, 0, 0, 0, 1]] * 3


@on("cpu")
@pytest.mark.parametrize(
    "shape", [(2, 3, 20, 21), (1, 4, 9, 70, 61), (3, 2, 1, 1), (0, 3, 4, 5), (2, 140, 5, 5)], ids=str
)
@pytest.mark.parametrize("ignore", [None, -1])
@pytest.mark.parametrize("evidence", ["softplus", "relu", "exp"])
def test_every_bin_of_float64_is_the_references(shape, ignore, evidence, kernel):
    z, y = case(shape, ignore=ignore)
    options = {"evidence": evidence, "bins": 7, "levels": 33, "ignore_index": ignore}
    want = REFERENCE(z, y, **options)
    runs = [kernel(z, y, **options) for _ in kernel.ways()]
    for name, got, wanted in zip(want._fields, runs[0], want, strict=True):
        assert got.dtype == wanted.dtype, name
        if name == "confidence":  # a probability is rounded to 2^-40
            assert bool(((got - wanted).abs() <= 2**-41 * want.number + 1e-12 * wanted).all())
        else:
            assert torch.equal(got, wanted), name
    assert_same_bits(runs)


def check(kernel, z, y, moved=4, **options):
    """Of float32 a probability within a rounding of a bin's edge may fall on either side: `moved` of them."""
    got, want = kernel(z, y, **options), REFERENCE(z.float(), y, **options)
    assert torch.equal(got.confusion, want.confusion)
    for name in ("number", "hits", "uncertainty", "errors"):
        a, b = getattr(got, name), getattr(want, name)
        assert a.dtype == b.dtype
        assert torch.equal(a.sum(-1), b.sum(-1)), name
        assert int((a - b).abs().sum()) <= moved, name
    bounds = 1e-6 if kernel.name == "triton" else 1e-5
    torch.testing.assert_close(got.confidence.sum(-1), want.confidence.sum(-1), rtol=bounds, atol=bounds)
    assert_same_bits([got, kernel(z, y, **options)])
    return got, want


@pytest.mark.parametrize("shape", [*SHAPES.values(), (1, 3, 5, 17, 16)], ids=str)
@pytest.mark.parametrize("evidence", ["softplus", "relu", "exp"])
def test_kernel_agrees_with_the_reference(shape, evidence, kernel):
    z, y = case(shape, torch.float32, ignore=-1)
    check(kernel, z, y, evidence=evidence, bins=7, levels=33, ignore_index=-1)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_other_dtypes_and_strides(dtype, layout, variant):
    z, y = case((2, 4, 9, 31) if variant.interpreted else (2, 4, 33, 70), dtype)
    check(variant, strided(z, layout), y.to(torch.uint8))
    check(variant, strided(z, layout), y.to(torch.uint8), levels=1, bins=1)


def test_exact_probabilities(kernel):
    # halves, ties and the edges of bins: alpha = 1 + e is exact
    generator = torch.Generator().manual_seed(0)
    z = torch.randint(0, 2, (1, 2, 20, 60), generator=generator).float() * 2
    y = torch.randint(0, 2, (1, 20, 60), generator=generator)
    got, want = check(kernel, z, y, moved=0, evidence="relu", bins=4, levels=3)
    torch.testing.assert_close(got.confidence, want.confidence, rtol=1e-9, atol=0)


@pytest.mark.parametrize("bins", [2, 3, 7, 10, 100, 255, 997])
def test_a_probability_on_an_edge_is_in_the_bin_above(bins, backend):
    k = torch.arange(1, bins, dtype=backend.widest)
    z = torch.stack([k, bins - k])[None, :, None] - 1  # alpha of relu: p = k / bins
    s = backend(z, torch.zeros(1, 1, bins - 1, dtype=torch.int64), evidence="relu", bins=bins)
    assert s.number[0, :2].tolist() == [[0] + [1] * (bins - 1)] * 2


def test_evidence_without_end(backend):
    largest = torch.finfo(backend.widest).max
    z = torch.tensor([[largest, largest, largest / 2**60], [0, largest, largest]], dtype=backend.widest)[None, :, None]
    s = backend(z, torch.zeros(1, 1, 3, dtype=torch.int64), evidence="relu", bins=10)
    # A of the second overflows
    assert s.number[0].tolist() == [[2] + [0] * 8 + [1], [2] + [0] * 8 + [1], [1] + [0] * 8 + [2]]
    assert s.confidence[0].sum(1) == pytest.approx([1, 1, 2])
    assert s.uncertainty[0].tolist() == [3] + [0] * 99


def test_same_bits_however_it_runs(variant):
    z, y = case((2, 3, 20, 61), torch.float32)
    assert_same_bits(variant(z, y) for _ in variant.ways())


def test_metrics_follow():
    z, y = case((2, 3, 30, 31))
    s = sure_fast.segmentation_stats(z, y, evidence="softplus")
    alpha = torch.nn.functional.softplus(z) + 1
    p = alpha / alpha.sum(1, keepdim=True)
    prediction = p.argmax(1)
    right = s.confusion.diagonal(dim1=1, dim2=2)
    dice = 2 * right / (s.confusion.sum(1) + s.confusion.sum(2))
    torch.testing.assert_close(dice[:, 1:].double(), compute_dice(prediction, y, 3).values, rtol=1e-6, atol=0)
    gaps = (s.hits - s.confidence).abs().sum(-1) / y[0].numel()
    ece = torch.cat([compute_ece(p, y), compute_ece(p, y, top_label=True)[:, None]], 1)
    torch.testing.assert_close(gaps, ece, rtol=1e-10, atol=1e-12)
    u, wrong = 3 / alpha.sum(1), prediction != y
    for tau in (0.1, 0.25, 0.5, 0.8):
        uncertain = u > tau
        above = s.uncertainty[:, round(100 * tau) :].sum(), s.errors[:, -1, round(100 * tau) :].sum()
        assert [int(v) for v in above] == [int(uncertain.sum()), int((uncertain & wrong).sum())]


def test_nan_shows(backend):
    z, y = case((2, 3, 9, 11), torch.float32, ignore=-1)
    z[0, 1, 0, 0], y[0, 0, 0] = math.nan, 0
    s = backend(z, y, ignore_index=-1)
    assert bool(s.confidence[0].isnan().any())
    assert not s.confidence[1].isnan().any()
    assert int(s.confusion.sum()) == int((y >= 0).sum())


@on("triton")
def test_nan_is_in_the_first_bin_and_labels_out_of_range_are_counted(kernel):
    """Where nobody waits to look at the labels; on the CPU the op says so."""
    from sure_fast.kernels import segmentation_stats as kernels

    z, y = case((2, 3, 9, 11), torch.float32, ignore=-1)
    z[0, 1, 0, 0], y[0, 0, 0] = math.nan, 0
    s = kernel(z, y, ignore_index=-1)
    assert bool(s.confidence[0, :, 0].isnan().all())
    assert not s.confidence[0, :, 1:].isnan().any()
    y[1, 2, 3] = 2**33
    records = kernels.forward(*kernel.put((z, y)), "softplus", 10, 100, -1)
    assert records[:, -1].tolist() == [0, 1]
    assert int(records[:, :9].sum()) == int((y >= 0).sum()) - 1
    if kernel.interpreted:
        with pytest.raises(ValueError, match="target: expected labels in"):
            kernel(z, y, ignore_index=-1)


def test_operator_is_registered_properly_and_compiles_whole(kernel):
    z, y = kernel.put(case((2, 3, 6, 7), torch.float32))
    op = torch.ops.sure_fast.segmentation_stats.default
    torch.library.opcheck(op, (z, y, "softplus", 10, 100, None, kernel.name))

    def step(z, y):
        return sure_fast.segmentation_stats(z, y, backend=kernel.requested)

    assert_same_bits(f(z, y) for f in (torch.compile(step, fullgraph=True, backend="aot_eager"), step))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"target": torch.full((2, 20, 21), 3)}, r"target: expected labels in \[0, 3\), got 3"),
        ({"target": torch.zeros(2, 20, 22, dtype=torch.long)}, "target: expected"),
        ({"bins": 0}, "bins: expected at least 1, got 0"),
        ({"levels": 0}, "levels: expected at least 1, got 0"),
        ({"evidence": "x"}, "evidence: expected one of"),
    ],
)
def test_errors_name_the_argument(arguments, text, backend):
    z, y = case(dtype=backend.widest)
    if "expected labels" in text and backend.device.type == "cuda":
        return  # nobody waits for the GPU to look at labels
    with pytest.raises(ValueError, match=text):
        backend(**{"logits": z, "target": y, **arguments})
