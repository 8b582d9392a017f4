"""The CUDA kernels of sample_hard_patches, emulated: the same draws as on the CPU."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from tests.cuda.conftest import ORDERS

pytestmark = pytest.mark.usefixtures("emulation")


def draw(shape, share, dtype=torch.float32, label_dtype=torch.int64, seed=0, backend="cuda", classes=3, **options):
    generator = torch.Generator().manual_seed(seed)
    hard = torch.rand(shape, generator=generator) < share
    label = torch.randint(0, classes, shape, generator=generator).to(label_dtype)
    distance = torch.rand(shape, generator=generator) * 8
    noisy = torch.where(hard, -0.1, 0.1).to(dtype)
    options = {"num_classes": classes, "patch_size": 3, "num_patches": 4, **options}
    generator = torch.Generator().manual_seed(seed)
    return sure_fast.sample_hard_patches(
        torch.zeros(shape, dtype=dtype), noisy, label, distance, generator=generator, backend=backend, **options
    )


def assert_same(*arguments, **options):
    got, want = (draw(*arguments, backend=backend, **options) for backend in ("cuda", "cpu"))
    assert torch.equal(got.valid, want.valid)
    assert torch.equal(got.centers, want.centers)
    return got


@pytest.mark.parametrize(
    "shape", [(3, 20, 22), (2, 9, 10, 11), (2, 5, 40), (1, 2, 9), (1, 1, 1), (0, 4, 4), (2, 90, 100)], ids=str
)
@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_agree_with_the_cpu(shape, size, share):
    assert_same(shape, share, patch_size=size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("label_dtype", [torch.uint8, torch.int16, torch.int32])
def test_dtypes(dtype, label_dtype):
    assert_same((2, 30, 31), 0.5, dtype, label_dtype)


def test_a_list_that_runs_out_is_followed_by_a_search():
    """Patches of 21 x 21 leave few of the listed voxels free, and not all of 60 are found room for."""
    got = assert_same((1, 100, 120), 1.0, patch_size=21, num_patches=30, classes=2)
    assert 0 < int(got.valid.sum()) < 60


def test_many_classes_and_too_many():
    assert_same((1, 60, 60), 1.0, classes=254, num_patches=1, patch_size=1)
    with pytest.raises(ValueError, match="backend 'cuda' was requested, but there are 255 classes, more than 254"):
        draw((1, 6, 6), 1.0, classes=255)


def test_every_order_draws_the_same(library):
    want = draw((2, 95, 100), 0.9, backend="cpu")
    for order in ORDERS.values():
        library.set_order(*order)
        got = draw((2, 95, 100), 0.9)
        assert torch.equal(got.centers, want.centers)


def test_the_operator_is_registered_properly():
    u, label = torch.rand(1, 9, 9), torch.zeros(1, 9, 9, dtype=torch.long)
    op = torch.ops.sure_fast.sample_hard_patches.default
    torch.library.opcheck(op, (u, u, label, u, torch.tensor(5), [3, 3], 2, 2, 4.0, "cuda"))
