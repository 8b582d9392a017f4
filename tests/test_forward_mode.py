"""Kernels have no forward-mode derivative: a tangent is refused, never dropped. The reference has one."""

from __future__ import annotations

import pytest
import torch
import torch.autograd.forward_ad as forward_ad

import sure_fast

Z = torch.randn(1, 3, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.zeros(1, 5, 6, dtype=torch.long)
Y[:, 2:] = 1
D = sure_fast.boundary_distance(Y)
X = torch.rand(1, 1, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
CENTERS, LEVELS = torch.tensor([[[1, 1], [3, 4]]]), torch.tensor([0.2, 0.9])
CALLS = {
    "dirichlet_uncertainty": lambda z, **o: sure_fast.dirichlet_uncertainty(z, **o).sum(),
    "evidential_loss": lambda z, **o: sum(sure_fast.evidential_loss(z, Y, **o)[:3]),
    "gradient_uncertainty_loss": lambda z, **o: sure_fast.gradient_uncertainty_loss(z[:, :1], X, D, **o),
    "noise_uncertainty_loss": lambda z, **o: (
        sure_fast.noise_uncertainty_loss(Z * 0.7, z, Z * 1.4, D, CENTERS, LEVELS, **o).total
    ),
    "uncertainty_supervision": lambda z, **o: sum(sure_fast.uncertainty_supervision(z, Y, X, **o)[:4]),
    "uncertainty_supervision of noisy answers": lambda z, **o: (
        sure_fast.uncertainty_supervision(
            Z, Y, noisy_logits=torch.cat([z, Z * 1.4]), centers=CENTERS, levels=LEVELS, **o
        ).far
    ),
    "gradient_magnitude": lambda z, **o: sure_fast.gradient_magnitude(z[:, :1], **o).sum(),
}


@pytest.mark.parametrize("name", CALLS)
def test_tangents(name):
    call, v = CALLS[name], torch.ones_like(Z).cumsum(-1)
    text = rf"^{name.split()[0]}: backend 'cpu' has no forward-mode derivative; use backward\(\)"
    with pytest.raises(ValueError, match=text):
        torch.func.jvp(call, (Z,), (v,))
    with forward_ad.dual_level(), pytest.raises(ValueError, match=text):
        call(forward_ad.make_dual(Z, v))
    with forward_ad.dual_level():
        assert call(Z).isfinite()  # no tangent is lost
    slope = torch.func.jvp(lambda z: call(z, backend="reference"), (Z,), (v,))[1]
    step = 1e-6
    difference = (call(Z + step * v, backend="reference") - call(Z - step * v, backend="reference")) / (2 * step)
    torch.testing.assert_close(slope, difference, rtol=1e-4, atol=1e-6, check_dtype=False)
