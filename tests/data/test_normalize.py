"""Normalisation, with the two extremes seen in practice: a maximum of 1.7 million, and uint8."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sure_fast.data import DataError, normalize


def test_spikes_do_not_decide_the_scale():
    tissue = np.random.default_rng(0).normal(300, 60, (1, 40, 40, 20)).astype(np.float32)
    spiked = tissue.copy()
    spiked[0, 5, 5, :10] = 1.7e6
    out, clean = normalize(spiked), normalize(tissue)
    assert out.dtype == np.float32
    assert out.max() < 4
    assert abs(out.mean()) < 1e-5
    assert abs(out.std() - 1) < 1e-4
    assert np.abs(out - clean)[spiked == tissue].max() < 0.05


def test_scale_does_not_matter():
    image = np.random.default_rng(1).gamma(2.0, 1.0, (1, 30, 30, 10))
    large = normalize((image * 2e5).astype(np.float32))
    small = normalize((image * 1e-3 - 5).astype(np.float64))
    np.testing.assert_allclose(large, small, atol=2e-4)
    assert np.isfinite(large).all()


def test_uint8():
    image = np.random.default_rng(2).integers(0, 256, (2, 50, 60), dtype=np.uint8)
    out = normalize(image)
    assert out.dtype == np.float32
    low, high = np.percentile(image[1], (0.5, 99.5))
    clipped = np.clip(image[1].astype(float), low, high)
    np.testing.assert_allclose(out[1], (clipped - clipped.mean()) / clipped.std(), atol=1e-5)


def test_channels_apart_and_tensor():
    image = torch.stack([torch.linspace(0, 1, 400).reshape(20, 20), torch.linspace(500, 9000, 400).reshape(20, 20)])
    out = normalize(image)
    assert isinstance(out, torch.Tensor)
    torch.testing.assert_close(out[0], out[1], atol=1e-4, rtol=0)


def test_constant_and_nearly_constant():
    assert (normalize(np.full((1, 9, 9), 1.7e6, dtype=np.float32)) == 0).all()
    assert (normalize(np.full((1, 9, 9), 0.1, dtype=np.float32)) == 0).all()
    rare = np.zeros((1, 100, 100), dtype=np.float32)
    rare[0, 0, :5] = 10  # fewer than 0.5 %: both percentiles are 0
    assert normalize(rare).max() > 10


def test_bad_input():
    with pytest.raises(DataError, match="lower, upper"):
        normalize(np.zeros((1, 3, 3)), lower=60, upper=40)
    with pytest.raises(DataError, match="finite"):
        normalize(np.array([[[1.0, np.nan]]]))
