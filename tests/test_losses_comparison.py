"""The losses of the comparison methods against their equations, voxel by voxel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sure_fast
from sure_fast.losses import (
    CrossEntropyDiceLoss,
    DevisLoss,
    PriusLoss,
    accuracy_uncertainty_loss,
    region_distance,
    same_label_pairs,
)
from sure_fast.losses.prius import PUBLISHED


def blobs(dims=2, batch=2):
    """Two nested squares or cubes, moved from image to image."""
    label = torch.zeros((batch, *[20] * dims), dtype=torch.long)
    for n in range(batch):
        label[(n, *[slice(2 + n, 17 + n)] * dims)] = 1
        label[(n, *[slice(7 + n, 14 + n)] * dims)] = 2
    return label


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    label = blobs()
    logits = torch.randn((2, 3, 20, 20), generator=generator) * 2
    image = label[:, None] + 0.3 * torch.randn((2, 1, 20, 20), generator=generator)
    return logits.requires_grad_(), label, image


def test_weights_of_classes(batch):
    logits, label, _ = batch
    weights = [0.5, 1.0, 3.0]
    out = CrossEntropyDiceLoss(class_weights=weights)(logits, label)
    given = torch.tensor(weights)
    torch.testing.assert_close(out.cross_entropy, torch.nn.functional.cross_entropy(logits, label, weight=given))
    p, y = logits.softmax(1), torch.nn.functional.one_hot(label, 3).movedim(-1, 1)
    by_class = 1 - (2 * (p * y).sum((0, 2, 3)) + 1e-5) / ((p + y).sum((0, 2, 3)) + 1e-5)
    torch.testing.assert_close(out.dice, (by_class * given).sum() / given.sum())
    ones, plain = CrossEntropyDiceLoss(class_weights=[2.0] * 3), CrossEntropyDiceLoss()
    torch.testing.assert_close(ones(logits, label).total, plain(logits, label).total)
    ignored = CrossEntropyDiceLoss(ignore_index=2, class_weights=[1.0, 2.0, 9.0])(logits, label)
    wanted = torch.nn.functional.cross_entropy(logits, label, weight=torch.tensor([1.0, 2.0, 9.0]), ignore_index=2)
    torch.testing.assert_close(ignored.cross_entropy, wanted)
    with pytest.raises(ValueError, match="class_weights: expected 3 finite numbers >= 0, not all 0"):
        CrossEntropyDiceLoss(class_weights=[1.0, 2.0])(logits, label)


def test_cross_entropy_and_dice_are_monais(batch):
    from monai.losses import DiceCELoss

    logits, label, _ = batch
    out = CrossEntropyDiceLoss()(logits, label)
    want = DiceCELoss(softmax=True, to_onehot_y=True, batch=True)(logits, label[:, None])
    torch.testing.assert_close(out.total, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.total, out.cross_entropy + out.dice)
    marked = label.clone()
    marked[:, :9] = 7
    out = CrossEntropyDiceLoss(ignore_index=7)(logits, marked)
    want = CrossEntropyDiceLoss()(logits[:, :, 9:], label[:, 9:])
    torch.testing.assert_close(out.total, want.total)
    out.total.backward()
    assert (logits.grad[:, :, :9] == 0).all()
    assert (logits.grad[:, :, 9:] != 0).any()
    none = CrossEntropyDiceLoss(ignore_index=7)(logits, torch.full_like(label, 7))
    assert none.cross_entropy == 0
    assert none.total.isfinite()
    with pytest.raises(ValueError, match=r"^label: expected labels in \[0, 3\), got 7$"):
        CrossEntropyDiceLoss()(logits, marked)
    wide = CrossEntropyDiceLoss()(logits.double(), label)
    assert wide.total.dtype == torch.float64  # as of the other losses
    torch.testing.assert_close(wide.total.float(), CrossEntropyDiceLoss()(logits, label).total)


def test_region_distance_of_labels_beyond_the_classes():
    with pytest.raises(ValueError, match=r"^label: expected labels in \[0, 2\), got 2$"):
        region_distance(blobs(), 2)
    assert region_distance(blobs(), 2, ignore_index=2).max() > 0


@pytest.mark.parametrize("evidence", ["softplus", "relu", "exp"])
def test_devis_is_its_equation(batch, evidence):
    logits, label, _ = batch
    label = label.clone()
    label[0, 0] = -1
    loss = DevisLoss(num_epochs=10, evidence=evidence, ignore_index=-1)
    out = loss(logits, label, epoch=4)
    z = logits.detach().double().numpy()
    evidences = {"softplus": np.logaddexp(0, z), "relu": np.maximum(z, 0), "exp": np.exp(np.clip(z, -10, 10))}
    alpha = evidences[evidence] + 1
    total = alpha.sum(1)
    annealing = 0.01 ** (1 - 4 / 10)
    terms = []
    for n, y, x in np.ndindex(2, 20, 20):
        if label[n, y, x] == -1:
            continue
        u, p = 3 / total[n, y, x], alpha[n, :, y, x].max() / total[n, y, x]
        if z[n, :, y, x].argmax() == label[n, y, x]:
            terms.append(annealing * -p * math.log(1 - u + 1e-10))
        else:
            terms.append((1 - annealing) * -(1 - p) * math.log(u + 1e-10))
    assert out.calibration.item() == pytest.approx(np.mean(terms), rel=1e-5)
    plain = sure_fast.EvidentialLoss(num_epochs=10, evidence=evidence, ignore_index=-1)(logits, label, epoch=4)
    torch.testing.assert_close(out.total, plain.total + out.calibration)
    assert out[1:5] == plain[:4]


def test_devis_gradient(batch):
    logits, label, _ = batch
    DevisLoss(num_epochs=10)(logits, label, epoch=4).calibration.backward()
    fused = logits.grad.clone()
    z = logits.detach().double().requires_grad_()
    u = sure_fast.dirichlet_uncertainty(z)
    accuracy_uncertainty_loss(z, u, label, 0.4).backward()
    torch.testing.assert_close(fused.double(), z.grad, rtol=1e-4, atol=1e-7)
    assert fused.abs().max() > 0


@pytest.mark.parametrize("dims", [2, 3])
def test_region_distance_is_scipys(dims):
    from scipy.ndimage import distance_transform_edt

    label = blobs(dims)
    got = region_distance(label, 3)
    for n in range(2):
        want = sum(distance_transform_edt((label[n] == c).numpy()) for c in (1, 2))
        np.testing.assert_allclose(got[n].numpy(), want, rtol=1e-6)
    whole = region_distance(torch.ones_like(label), 3)
    assert whole.unique().tolist() == [pytest.approx(math.sqrt(dims * 400))]
    marked = label.clone()
    marked[label == 2] = 9
    assert (region_distance(marked, 3, ignore_index=9)[label == 1] >= got[label == 1]).all()
    assert (region_distance(marked, 3, ignore_index=9)[label == 2] == 0).all()


def test_pairs_are_disjoint_and_of_one_label():
    label = torch.randint(0, 5, (3, 11, 13), generator=torch.Generator().manual_seed(0))
    label[0] = 9
    first, second = same_label_pairs(label, 9, torch.Generator().manual_seed(1))
    flat = label.flatten()
    assert (flat[first] == flat[second]).all()
    assert (flat[first] != 9).all()
    both = torch.cat([first, second])
    assert len(both.unique()) == len(both)
    assert len(both) >= (flat != 9).sum() - 10  # two at most are left over per label
    assert (first // 143 != second // 143).any()  # across images
    most = torch.iinfo(torch.int64).max
    for ignored, own in ((1, most), (-most - 1, most)):
        extreme = torch.where(label == 9, ignored, torch.where(label == 4, own, label))
        found = torch.cat(same_label_pairs(extreme, ignored, torch.Generator().manual_seed(1)))
        assert (extreme.flatten()[found] != ignored).all()
        assert len(found) >= (extreme != ignored).sum() - 10
        assert (extreme.flatten()[found[: len(found) // 2]] == extreme.flatten()[found[len(found) // 2 :]]).all()
    again, _ = same_label_pairs(label, 9, torch.Generator().manual_seed(1))
    other, _ = same_label_pairs(label, 9, torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.equal(first[: len(other)], other[: len(first)])


def indicator(x, kappa=10.0):
    return 1 / (1 + math.exp(-kappa * x)) if kappa * x > -700 else 0.0


def test_contrast_and_geometry_are_their_equations(batch):
    from scipy.ndimage import maximum_filter, uniform_filter

    logits, label, image = batch
    loss = PriusLoss(num_epochs=10, start_epoch=3, corruption_weight=0, far_threshold=2.5, distance_margin=0.7)
    generator = torch.Generator().manual_seed(4)
    out = loss(logits, label, image, epoch=5, generator=generator)
    pairs = same_label_pairs(label, None, torch.Generator().manual_seed(4))
    u = sure_fast.dirichlet_uncertainty(logits.detach())
    low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
    gradient = sure_fast.gradient_magnitude((image - low) / (high - low), blur_sigma=0.5)
    g = np.stack([maximum_filter(x[0].numpy(), 3, mode="constant") for x in gradient]).ravel()
    inside = np.stack([uniform_filter(np.ones((20, 20)), 3, mode="constant")] * 2)
    mean = (np.stack([uniform_filter(x[0].double().numpy(), 3, mode="constant") for x in u]) / inside).ravel()
    d, u = region_distance(label, 3).flatten().tolist(), u.flatten().tolist()
    contrast, geometry = [0.0, 0.0], [0.0, 0.0]
    for i, j in zip(*(p.tolist() for p in pairs), strict=True):
        w = indicator(10 * (0.5 - max(d[i], d[j])))
        contrast[0] += w * max((mean[i] - mean[j]) * (g[i] - g[j]), 0)
        contrast[1] += w
        t = indicator(d[i] - 2.5) * indicator(d[j] - 2.5)
        w = indicator(abs(d[i] - d[j]) - 0.7)
        s = 1.0 * w * (1 - t) * (d[i] - d[j]) + t * 100.0
        geometry[0] += max(s * (u[i] - (1 - 2 * t) * u[j]), 0)
        geometry[1] += w * (1 - t) + t
    assert out.contrast.item() == pytest.approx(contrast[0] / contrast[1], rel=1e-4)
    assert out.geometry.item() == pytest.approx(geometry[0] / geometry[1], rel=1e-4)
    assert out.contrast > 0
    plain = sure_fast.EvidentialLoss(num_epochs=10)(logits, label, epoch=5)
    torch.testing.assert_close(out.total, plain.total + out.contrast + out.geometry)
    out.total.backward()
    assert logits.grad.isfinite().all()


def test_corruption_is_its_equation(batch):
    from scipy.ndimage import uniform_filter

    logits, label, image = batch
    answers = []

    def model(x):
        # more uncertain for a voxel that the noise has raised
        answers.append((x, (logits.repeat(2, 1, 1, 1) * (1 - 0.2 * x).clamp(0.1)).detach().requires_grad_()))
        return answers[-1][1]

    loss = PriusLoss(num_epochs=10, start_epoch=3, contrast_weight=0, geometry_weight=0, corruption_weight=2)
    out = loss(logits, label, image, epoch=3, model=model, generator=torch.Generator().manual_seed(4))
    noisy, changed = answers[0]
    added = (noisy - image.repeat(2, 1, 1, 1)).detach()
    span = (image.amax((1, 2, 3)) - image.amin((1, 2, 3))).repeat(2)
    std = (added.flatten(1).std(1) / span).view(2, 2).mean(1).tolist()
    assert 0 < std[0] < std[1] < 1.1 * 40 / 255
    generator = torch.Generator().manual_seed(4)
    same_label_pairs(label, None, generator)
    levels = [0.0, *(torch.rand(2, generator=generator).sort().values * 40 / 255).tolist()]
    assert std == pytest.approx(levels[1:], rel=0.1)
    maps = [sure_fast.dirichlet_uncertainty(z.detach()) for z in (logits, *changed.chunk(2))]
    inside = uniform_filter(np.ones((20, 20)), 5, mode="constant")
    means = [np.stack([uniform_filter(x[0].double().numpy(), 5, mode="constant") / inside for x in u]) for u in maps]
    weight = np.vectorize(indicator)(7.5 - region_distance(label, 3).numpy())
    want = 0.0
    for n in (1, 2):
        v = -(levels[n] - levels[n - 1]) * (means[n] - means[n - 1])
        want += (weight * np.maximum(v, 0)).sum() / weight.sum()
    assert out.corruption.item() == pytest.approx(want, rel=1e-4)
    out.corruption.backward()
    assert (changed.grad != 0).any()
    assert logits.grad is None or (logits.grad == 0).all()  # the clean map is a constant here
    plain = sure_fast.EvidentialLoss(num_epochs=10)(logits, label, epoch=3)
    torch.testing.assert_close(out.total, plain.total + 2 * out.corruption)


def test_prius_before_its_start_and_with_its_published_settings(batch):
    logits, label, image = batch
    loss = PriusLoss(num_epochs=10, start_epoch=3)
    out = loss(logits, label, image, epoch=2, model=lambda x: x)
    assert out.total == out.segmentation
    assert out.contrast == out.corruption == out.geometry == 0
    with pytest.raises(ValueError, match=r"^model: expected the network, from the first call on .*, got None$"):
        loss(logits, label, image, epoch=0)
    for distance in ("region", "boundary"):
        hard = PriusLoss(num_epochs=10, start_epoch=3, distance=distance, **PUBLISHED[3])
        volume = blobs(3)
        generator = torch.Generator().manual_seed(0)
        z = torch.randn((2, 3, 20, 20, 20), generator=generator).requires_grad_()
        x = torch.randn((2, 1, 20, 20, 20), generator=generator)
        out = hard(z, volume, x, epoch=3, model=lambda y: y.repeat(1, 3, 1, 1, 1), generator=generator)
        assert out.contrast > 0
        assert out.geometry > 0
        out.total.backward()
        assert z.grad.isfinite().all()
    empty = loss(logits, torch.zeros_like(label), image * 0, epoch=3, model=lambda y: y.repeat(1, 3, 1, 1))
    assert empty.total.isfinite()
    with pytest.raises(ValueError, match=r"^distance: expected one of 'region', 'boundary', got 'x'$"):
        PriusLoss(distance="x")
    with pytest.raises(ValueError, match=r"^kappa: expected a number > 0"):
        PriusLoss(kappa=0)
