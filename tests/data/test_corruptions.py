from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from sure_fast.data import CORRUPTIONS, DataError, corrupt, normalize, phantom

KINDS = list(CORRUPTIONS)


@pytest.fixture(scope="module")
def images():
    volumes = [phantom.generate(seed, shape=(32, 24, 8)).image[None].astype("float32") for seed in range(3)]
    return torch.stack([torch.from_numpy(normalize(volume)) for volume in volumes])


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_depends_on_its_own_seed_alone(kind, images):
    before = images.clone()
    together = corrupt(images, kind, 3, seeds=[5, 6, 7])
    alone = torch.cat([corrupt(images[k : k + 1], kind, 3, seeds=[5 + k]) for k in (2, 0, 1)])
    assert torch.equal(together, alone[[1, 2, 0]])
    assert torch.equal(images, before)
    assert together.shape == images.shape
    assert together.dtype == images.dtype
    assert type(together) is torch.Tensor
    state = torch.random.get_rng_state()
    assert torch.equal(corrupt(images, kind, 3, seeds=[5, 6, 7]), together)
    assert torch.equal(torch.random.get_rng_state(), state)
    if kind not in ("blur", "contrast"):  # these draw nothing
        seeds = [corrupt(images, kind, 3, seeds=[s] * 3) for s in range(6)]
        assert any(not torch.equal(seeds[0], other) for other in seeds[1:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dims", [2, 3])
def test_severity_moves_the_image_further(kind, dims, images):
    image = images if dims == 3 else images[..., 4].repeat(1, 3, 1, 1)  # also of several channels
    moved = [(corrupt(image, kind, k, seeds=[1, 2, 3]) - image).abs().mean().item() for k in range(1, 6)]
    assert all(a < b for a, b in pairwise(moved))
    assert moved[0] > 0.01


def test_noise_is_what_the_paper_adds(images):
    large = torch.zeros(1, 1, 200, 200)
    for severity, mean in enumerate((0.1, 0.3, 0.5, 0.7, 0.9), 1):
        added = corrupt(large, "noise", severity, seeds=[0])
        assert added.mean().item() == pytest.approx(mean, abs=0.01)
        assert added.std().item() == pytest.approx(0.3, abs=0.01)


def test_blur_is_scipys(images):
    from scipy.ndimage import gaussian_filter

    got = corrupt(images, "blur", 3, seeds=[0, 0, 0])
    inside = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    # MONAI pads with zeros, integrates the Gaussian over each voxel and cuts it at 4 σ
    flat = images[..., 4]
    got = corrupt(flat, "blur", 3, seeds=[0, 0, 0])
    want = torch.stack([torch.from_numpy(gaussian_filter(x[0].numpy(), 1.5))[None] for x in flat])
    assert (got - want)[inside].abs().max() < 0.03
    assert got[inside].std() < 0.98 * flat[inside].std()


def test_bias_multiplies_smoothly_what_is_above_the_darkest(images):
    spoiled = corrupt(images, "bias_field", 5, seeds=[3, 4, 5])
    for x, y in zip(images, spoiled, strict=True):
        lifted = x - x.min()
        ratio = ((y - x.min()) / lifted)[lifted > 0.5]
        assert ratio.min() > 0
        assert ratio.max() / ratio.min() > 1.3
    constant = corrupt(torch.full((1, 1, 16, 16), 2.0), "bias_field", 5, seeds=[0])
    torch.testing.assert_close(constant, torch.full((1, 1, 16, 16), 2.0))


def test_ghosts_stand_a_quarter_away():
    image = torch.zeros(1, 1, 64, 4)
    image[..., 10, :] = 1
    ghosted = corrupt(image, "ghosting", 5, seeds=[0])
    along = next(seed for seed in range(20) if not torch.allclose(corrupt(image, "ghosting", 5, seeds=[seed]), image))
    ghosted = corrupt(image, "ghosting", 5, seeds=[along])[0, 0, :, 0]
    # lines scaled by 1 - 2, all but the central one put back: δ - 2/4 Σ δ shifted by quarters + 2/64
    want = torch.full((64,), 2 / 64)
    want[10] += 1
    want[[10, 26, 42, 58]] -= 0.5
    torch.testing.assert_close(ghosted, want, rtol=0, atol=1e-5)
    assert ghosted.mean().item() == pytest.approx(1 / 64, abs=1e-6)


def test_contrast_keeps_the_range_of_every_image(images):
    spoiled = corrupt(images, "contrast", 4, seeds=[0, 0, 0])
    for x, y in zip(images, spoiled, strict=True):
        assert y.min().item() == pytest.approx(x.min().item(), abs=1e-4)
        assert y.max().item() == pytest.approx(x.max().item(), abs=1e-4)
        unit = (x - x.min()) / (x.max() - x.min())
        torch.testing.assert_close((y - x.min()) / (x.max() - x.min()), unit**2.5, rtol=1e-4, atol=1e-5)


def test_bad_arguments_are_named(images):
    for arguments, seeds, text in (
        (("fog", 1), [0] * 3, "^kind: expected one of noise, noise_std, blur"),
        (("noise", 0), [0] * 3, "^severity: expected 1 to 5, got 0$"),
        (("noise", 1), [0], "^seeds: expected one for each of the 3 images, got 1$"),
    ):
        with pytest.raises(DataError, match=text):
            corrupt(images, *arguments, seeds=seeds)
    with pytest.raises(DataError, match=r"^image: expected finite values"):
        corrupt(images * math.nan, "noise", 1, seeds=[0] * 3)
    with pytest.raises(DataError, match=r"^image: expected floating \[N, K, \*S\], 2D or 3D, got torch.int64"):
        corrupt(images.long(), "noise", 1, seeds=[0] * 3)
