from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sure_fast
from tests._golden import GOLDEN, load


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name):
    golden = load(name)
    for logits, want in (("logits", "uncertainty"), ("logits_noise1", "uncertainty_noise1")):
        got = sure_fast.dirichlet_uncertainty(torch.from_numpy(golden[logits]).double())
        np.testing.assert_allclose(got[:, 0].numpy(), golden[want], rtol=1e-6)


def test_by_hand():
    z = torch.tensor([0.0, 2.0, -1.0], dtype=torch.float64).reshape(1, 3, 1, 1)
    soft = 3 / (3 + math.log(2) + math.log1p(math.exp(2)) + math.log1p(math.exp(-1)))
    for evidence, want in (("softplus", soft), ("relu", 3 / 5), ("exp", 3 / (4 + math.exp(2) + math.exp(-1)))):
        assert float(sure_fast.dirichlet_uncertainty(z, evidence=evidence)) == pytest.approx(want, rel=1e-12)
    assert float(sure_fast.dirichlet_uncertainty(z + 100, evidence="exp")) == pytest.approx(1 / (1 + math.exp(10)))


@pytest.mark.parametrize("evidence", ["softplus", "exp"])
def test_gradcheck(evidence):
    z = torch.randn(1, 3, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sure_fast.dirichlet_uncertainty(x, evidence=evidence), (z,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_once(dtype):
    z = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    got = sure_fast.dirichlet_uncertainty(z)
    assert got.dtype == dtype
    assert torch.equal(got, sure_fast.dirichlet_uncertainty(z.float()).to(dtype))


def test_range_empty_and_nan():
    z = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 10
    u = sure_fast.dirichlet_uncertainty(z)
    assert bool(((u > 0) & (u <= 1)).all())
    assert sure_fast.dirichlet_uncertainty(torch.zeros(0, 3, 4, 5)).shape == (0, 1, 4, 5)
    z[0, 0, 0, 0] = math.nan
    assert sure_fast.dirichlet_uncertainty(z).isnan().sum() == 1


def test_errors_name_the_argument():
    with pytest.raises(TypeError, match="logits: expected float32"):
        sure_fast.dirichlet_uncertainty(torch.zeros(1, 2, 3, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least 2 classes"):
        sure_fast.dirichlet_uncertainty(torch.zeros(1, 1, 3, 3))
    with pytest.raises(ValueError, match="evidence: expected one of"):
        sure_fast.dirichlet_uncertainty(torch.zeros(1, 2, 3, 3), evidence="sigmoid")
