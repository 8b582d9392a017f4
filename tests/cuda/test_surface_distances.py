"""The CUDA kernels of surface_distances, emulated, against the reference."""

from __future__ import annotations

import importlib

import pytest
import torch

import sure_fast
from tests.cuda.conftest import ORDERS
from tests.ops.test_surface_distances import assert_same, blobs

op = importlib.import_module("sure_fast.ops.surface_distances")
pytestmark = pytest.mark.usefixtures("emulation")


def far_apart():
    one = torch.ones(1, 3, 4, 5, dtype=torch.long)
    return torch.nn.functional.pad(one, (0, 20) * 3), torch.nn.functional.pad(one, (20, 0) * 3)


CASES = {
    "2d": lambda: blobs((3, 33, 70)),
    "3d": lambda: blobs((2, 9, 13, 41)),
    "far apart": far_apart,
    "one voxel": lambda: torch.ones(2, 2, 1, 1, dtype=torch.long),
    "empty batch": lambda: torch.ones(2, 0, 4, 4, dtype=torch.long),
    "empty axis": lambda: torch.ones(2, 2, 0, 4, dtype=torch.long),
    "many classes": lambda: torch.randint(0, 40, (2, 1, 12, 20), generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("percentile", [0, 95, 100])
@pytest.mark.parametrize("at_once", [op.VOXELS_AT_ONCE, 1000], ids=["together", "in rounds"])
def test_agree_with_the_reference(case, percentile, at_once, monkeypatch):
    monkeypatch.setattr(op, "VOXELS_AT_ONCE", at_once)
    p, t = CASES[case]()
    classes = 40 if case == "many classes" else 3
    options = {"spacing": [0.5, 1.25, 2.0][: p.dim() - 1], "percentile": percentile, "tolerance": 1.25}
    got = sure_fast.surface_distances(p, t, classes, backend="cuda", **options)
    assert_same(got, sure_fast.surface_distances(p, t, classes, backend="reference", **options), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_dtypes_and_ignored_voxels(dtype):
    p, t = (x.to(dtype) for x in blobs((2, 20, 24)))
    options = {"ignore_index": 1, "tolerance": 1.1}
    got = sure_fast.surface_distances(p, t, 3, backend="cuda", **options)
    assert_same(got, sure_fast.surface_distances(p, t, 3, backend="reference", **options), rtol=1e-6, atol=1e-6)


def test_labels_outside_are_named():
    p, t = blobs((2, 8, 9))
    with pytest.raises(ValueError, match=r"^target: expected labels in \[0, 3\), got 3$"):
        sure_fast.surface_distances(p, torch.full_like(t, 3), 3, backend="cuda")
    with pytest.raises(ValueError, match=r"^prediction: expected labels in \[0, 3\), got -1$"):
        sure_fast.surface_distances(torch.full_like(p, -1), t, 3, backend="cuda")


def test_every_order_gives_the_same_bits(library):
    p, t = blobs((2, 30, 40))
    want = sure_fast.surface_distances(p, t, 3, backend="cuda")
    for order in ORDERS.values():
        library.set_order(*order)
        assert_same(sure_fast.surface_distances(p, t, 3, backend="cuda"), want, rtol=0, atol=0)


def test_operator_is_registered_properly():
    p, t = blobs((2, 12, 15))
    torch.library.opcheck(torch.ops.sure_fast.surface_distances.default, (p, t, 3, [1.0, 1.0], 95.0, 1.0, None, "cuda"))
