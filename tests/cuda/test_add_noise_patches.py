"""The CUDA kernel of add_noise_patches, emulated: the same bits as the reference."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from tests.cuda.conftest import ORDERS
from tests.ops.test_add_noise_patches import case

pytestmark = pytest.mark.usefixtures("emulation")


@pytest.mark.parametrize("shape", [(3, 2, 20, 22), (2, 1, 9, 10, 11), (0, 1, 6, 6)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [3, 5])
def test_is_the_reference(shape, dtype, size):
    arguments = case(shape, dtype, size)
    got, want = (sure_fast.add_noise_patches(*arguments, backend=backend) for backend in ("cuda", "reference"))
    assert torch.equal(got, want)


def test_every_order_writes_the_same(library):
    arguments = case((2, 2, 30, 31))
    want = sure_fast.add_noise_patches(*arguments, backend="reference")
    for order in ORDERS.values():
        library.set_order(*order)
        assert torch.equal(sure_fast.add_noise_patches(*arguments, backend="cuda"), want)


def test_the_operator_is_registered_properly():
    torch.library.opcheck(torch.ops.sure_fast.add_noise_patches.default, (*case((1, 1, 5, 5)), "cuda"))
