from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sure_fast
from sure_fast.metrics import compute_dice, compute_ece

BACKENDS = ("cpu", "reference")


def case(shape=(2, 3, 20, 21), dtype=torch.float64, ignore=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = (torch.randn(shape, generator=generator, dtype=torch.float64) * 4).to(dtype)
    y = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    if ignore is not None:
        y[torch.rand(y.shape, generator=generator) < 0.2] = ignore
    return z, y


@pytest.mark.parametrize("backend", BACKENDS)
def test_by_hand(backend):
    # relu evidence: alpha (4, 1), (1, 1), (2, 3); p = (.8, .2), (.5, .5), (.4, .6); u = .4, 1, .4
    z = torch.tensor([[3.0, 0, 1], [0, 0, 2]], dtype=torch.float64).reshape(1, 2, 1, 3)
    y = torch.tensor([[[0, 1, 1]]])
    s = sure_fast.segmentation_stats(z, y, evidence="relu", bins=5, levels=5, backend=backend)
    assert s.confusion.tolist() == [[[1, 0], [1, 1]]]  # of the tie, class 0 is predicted
    assert s.number[0, 0].tolist() == [0, 0, 2, 0, 1]
    assert s.number[0, 1].tolist() == [0, 1, 1, 1, 0]
    assert s.number[0, 2].tolist() == [0, 0, 1, 1, 1]
    np.testing.assert_allclose(s.confidence[0, 0], [0, 0, 0.9, 0, 0.8])
    np.testing.assert_allclose(s.confidence[0, 2], [0, 0, 0.5, 0.6, 0.8])
    assert s.hits[0].tolist() == [[0, 0, 0, 0, 1], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    assert s.uncertainty[0].tolist() == [0, 2, 0, 0, 1]
    assert s.errors[0].tolist() == [[0, 0, 0, 0, 1]] * 3


@pytest.mark.parametrize(
    "shape", [(2, 3, 20, 21), (1, 4, 9, 70, 61), (3, 2, 1, 1), (0, 3, 4, 5), (2, 140, 5, 5)], ids=str
)
@pytest.mark.parametrize("ignore", [None, -1])
@pytest.mark.parametrize("evidence", ["softplus", "relu", "exp"])
def test_kernel_agrees_with_the_reference(shape, ignore, evidence, threads):
    z, y = case(shape, ignore=ignore)
    options = {"evidence": evidence, "bins": 7, "levels": 33, "ignore_index": ignore}
    want = sure_fast.segmentation_stats(z, y, backend="reference", **options)
    runs = []
    for count in (1, 2, 5):
        threads(count)
        runs.append(sure_fast.segmentation_stats(z, y, backend="cpu", **options))
    for name, got, wanted in zip(want._fields, runs[0], want, strict=True):
        assert got.dtype == wanted.dtype, name
        if name == "confidence":  # a probability is rounded to 2^-40
            assert bool(((got - wanted).abs() <= 2**-41 * want.number + 1e-12 * wanted).all())
        else:
            assert torch.equal(got, wanted), name
    for again in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(again, runs[0], strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_other_dtypes_and_strides(dtype, layout, isa):
    z, y = case((2, 4, 33, 70), dtype)
    if layout == "channels_last":
        z = z.to(memory_format=torch.channels_last)
    got = sure_fast.segmentation_stats(z, y.to(torch.uint8), backend="cpu")
    want = sure_fast.segmentation_stats(z, y, backend="reference")
    assert torch.equal(got.confusion, want.confusion)
    # a probability within a rounding of a bin's edge may fall on either side
    for name in ("number", "hits", "uncertainty", "errors"):
        moved = (getattr(got, name) - getattr(want, name)).abs().sum()
        assert int(moved) <= 4, name
        assert torch.equal(getattr(got, name).sum(-1), getattr(want, name).sum(-1)), name
    torch.testing.assert_close(got.confidence.sum(-1), want.confidence.sum(-1), rtol=1e-5, atol=1e-5)


def test_metrics_follow():
    z, y = case((2, 3, 30, 31))
    s = sure_fast.segmentation_stats(z, y)
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


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_shows(backend):
    z, y = case()
    z[0, 1, 0, 0] = math.nan
    s = sure_fast.segmentation_stats(z, y, backend=backend)
    assert bool(s.confidence[0].isnan().any())
    assert not s.confidence[1].isnan().any()
    assert int(s.confusion.sum()) == y.numel()


def test_operator_is_registered_properly_and_compiles_whole():
    z, y = case(dtype=torch.float32)
    torch.library.opcheck(torch.ops.sure_fast.segmentation_stats.default, (z, y, "softplus", 10, 100, None, "cpu"))
    compiled = torch.compile(sure_fast.segmentation_stats, fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(compiled(z, y), sure_fast.segmentation_stats(z, y), strict=True))


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
def test_errors_name_the_argument(arguments, text):
    z, y = case()
    with pytest.raises(ValueError, match=text):
        sure_fast.segmentation_stats(**{"logits": z, "target": y, **arguments})
