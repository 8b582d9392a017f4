"""Labels mean the same in every type, integer, bool and floating, whatever `ignore_index` is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sure_fast
from sure_fast import losses, metrics
from sure_fast._checks import equals

LOGITS = torch.randn(1, 2, 6, 7, generator=torch.Generator().manual_seed(0))
IMAGE = torch.rand(1, 1, 6, 7, generator=torch.Generator().manual_seed(1))
CALLS = {
    "evidential_loss": lambda y, **o: sure_fast.evidential_loss(LOGITS, y, **o)[:3],
    "boundary_distance": lambda y, **o: [sure_fast.boundary_distance(y, **o)],
    "segmentation_stats": lambda y, **o: sure_fast.segmentation_stats(LOGITS, y, **o),
    "uncertainty_supervision": lambda y, **o: sure_fast.uncertainty_supervision(LOGITS, y, IMAGE, **o),
    "surface_distances": lambda y, **o: sure_fast.surface_distances(LOGITS.argmax(1), y, 2, **o),
    "EvidentialLoss": lambda y, **o: losses.EvidentialLoss(**o)(LOGITS, y)[:1],
    "region_distance": lambda y, **o: [losses.region_distance(y, 2, **o)],
    "compute_dice": lambda y, **o: metrics.compute_dice(LOGITS.argmax(1), y, 2, **o),
    "compute_ece": lambda y, **o: [metrics.compute_ece(LOGITS.softmax(1), y, **o)],
    "compute_hd95": lambda y, **o: metrics.compute_hd95(LOGITS.argmax(1), y, 2, (1.0, 1.0), **o),
}
TYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.bool, torch.float16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_labels_of_every_type(name, dtype):
    y = (torch.arange(42).reshape(1, 6, 7) % 7 > 3).long()
    for got, want in zip(CALLS[name](y.to(dtype)), CALLS[name](y), strict=True):
        assert torch.equal(got.nan_to_num(-1.0), want.nan_to_num(-1.0))


@pytest.mark.parametrize("name", CALLS)
def test_a_label_that_is_no_whole_number(name):
    for wrong in (0.5, float("nan"), float("inf"), 1e12):
        y = torch.zeros(1, 6, 7)
        y[0, 2, 3] = wrong
        with pytest.raises(ValueError, match=r"^(target|label): expected whole numbers as labels, got"):
            CALLS[name](y)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_255_is_not_minus_1(name, dtype):
    y = torch.zeros(1, 6, 7, dtype=dtype)
    y[0, 2, 3], ignore = (255, -1) if dtype == torch.uint8 else (-1, 255)
    if name == "boundary_distance":  # labels of any number
        want = CALLS[name](y.long(), ignore_index=ignore)[0]
        assert torch.equal(CALLS[name](y, ignore_index=ignore)[0], want)
        return
    with pytest.raises(
        ValueError, match=r"^(target|label): expected labels in \[0, 2\) or ignore_index=-?\d+, got -?\d+$"
    ):
        CALLS[name](y, ignore_index=ignore)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(2**62), 2**62), st.sampled_from([torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]))
def test_comparison_with_any_number(number, dtype):
    limits = torch.iinfo(dtype)
    values = torch.tensor([limits.min, -1 if limits.min < 0 else 0, 0, 1, limits.max], dtype=dtype)
    assert equals(values, number).tolist() == [int(v) == number for v in values.tolist()]


def test_many_classes_in_few_bits():
    logits = torch.randn(1, 300, 4, 5, generator=torch.Generator().manual_seed(0))
    y = torch.arange(20).reshape(1, 4, 5) + 200
    for label in (y.to(torch.uint8), y.to(torch.int16)):
        got = sure_fast.evidential_loss(logits, label)
        assert all(torch.equal(a, b) for a, b in zip(got[:3], sure_fast.evidential_loss(logits, y)[:3], strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_a_compiled_step_tells_what_is_no_whole_number(dtype):
    step = torch.compile(lambda z, y: sure_fast.evidential_loss(z, y).data, fullgraph=True, backend="aot_eager")
    y = torch.zeros(1, 6, 7, dtype=dtype)
    assert torch.equal(step(LOGITS, y), sure_fast.evidential_loss(LOGITS, y).data)
    y[0, 2, 3] = 0.5
    with pytest.raises(ValueError, match=r"^target: expected whole numbers as labels, got one that is none"):
        step(LOGITS, y)
