"""The cases that run on a GPU, in the emulator: that they can be trusted there."""

from __future__ import annotations

import pytest
import torch

from tests.cuda.gpu_cases import CASES, available, inputs_of, run


@pytest.mark.parametrize("name", [name for name, backend in available() if backend == "cuda"])
@pytest.mark.parametrize("shape", [(2, 33, 34), (1, 11, 23, 17)], ids=str)
@pytest.mark.usefixtures("emulation")
def test_agrees_with_the_reference(name, shape):
    got, want = (run(CASES[name], inputs_of(CASES[name], shape, "cpu"), backend) for backend in ("cuda", "reference"))
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6, equal_nan=True)
        assert x.numel() == 0 or not x.is_floating_point() or bool(x.isfinite().any())
