from __future__ import annotations

import math

import pytest
import torch

import sure_fast
from sure_fast.metrics import compute_dice, compute_ece, compute_surface_metrics, dice_of_stats, ece_of_stats


def blobs(shift: int = 0) -> torch.Tensor:
    label = torch.zeros(1, 20, 22, 12, dtype=torch.long)
    label[:, 4 + shift : 12 + shift, 5:15, 3:9] = 1
    label[:, 14:18, 6:12, 2:8] = 2
    return label


def test_dice_is_monais():
    from monai.metrics import compute_dice as monai_dice

    p, t = blobs(2), blobs()
    hot = [torch.nn.functional.one_hot(x, 3).movedim(-1, 1) for x in (p, t)]
    got, absent = compute_dice(p, t, 3)
    torch.testing.assert_close(got.float(), monai_dice(hot[0], hot[1], include_background=False))
    assert not absent.any()


def test_surface_metrics_by_hand():
    # A box moved by two voxels of 1.5 mm along the first axis: 95 % of the surface distances are at most 3 mm.
    got = compute_surface_metrics(blobs(2), blobs(), 3, (1.5, 1.0, 5.0))
    assert got.hd95_mm[0].tolist() == [pytest.approx(3.0), 0.0]
    assert 0 < float(got.assd_mm[0, 0]) < 3
    assert 0 < float(got.nsd[0, 0]) < 1
    assert [float(x[0, 1]) for x in (got.assd_mm, got.nsd)] == [0.0, 1.0]
    assert not got.absent.any()


def test_absent_structures():
    t, p = blobs(), blobs()
    p[p == 2] = 0
    dice, absent = compute_dice(p, t, 4)
    assert dice[0].tolist() == [1.0, 0.0, 1.0]
    assert absent[0].tolist() == [False, False, True]
    diagonal = pytest.approx(math.sqrt(20**2 + 22**2 + 12**2))
    surface = compute_surface_metrics(p, t, 4, (1, 1, 1))
    assert surface.hd95_mm[0].tolist() == [0.0, diagonal, 0.0]
    assert surface.assd_mm[0].tolist() == [0.0, diagonal, 0.0]
    assert surface.nsd[0].tolist() == [1.0, 0.0, 1.0]
    assert surface.absent[0].tolist() == [False, False, True]
    with pytest.raises(ValueError, match="prediction: expected the shape of target"):
        compute_dice(p, t[..., 1:], 3)


def test_bad_arguments_are_named():
    t = blobs()
    with pytest.raises(ValueError, match=r"^num_classes: expected at least 2, the background included, got 1$"):
        compute_dice(t, t, 1)
    with pytest.raises(ValueError, match=r"^prediction: expected the shape of target"):
        compute_surface_metrics(t[..., 1:], t, 3, (1, 1, 1))
    with pytest.raises(ValueError, match=r"^spacing_mm: expected 3 numbers, one per axis"):
        compute_surface_metrics(t, t, 3, (1, 1))
    with pytest.raises(ValueError, match=r"^target: expected one label per voxel of probabilities"):
        compute_ece(torch.ones(1, 2, 3, 3) / 2, torch.zeros(1, 3, 4, dtype=torch.long))


def test_ece_by_hand():
    # Two voxels at p = .9 of which one is right, two at .6 of which both are: (2/4) |.5 - .9| + (2/4) |1 - .6|
    p1 = torch.tensor([0.9, 0.9, 0.6, 0.6])
    p = torch.stack([p1, 1 - p1])[None, :, None, :]
    per_class, top = compute_ece(p, torch.tensor([[[0, 1, 0, 0]]]))
    assert top.item() == pytest.approx(0.4)
    assert per_class.tolist() == pytest.approx([0.4, 0.4])
    assert compute_ece(p[..., :0], torch.zeros(1, 1, 0, dtype=torch.long))[1].isnan()
    one = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    assert compute_ece(one, torch.zeros(1, 1, 1, dtype=torch.long))[1].item() == 0


def test_from_segmentation_stats():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 3, 20, 22), generator=generator, dtype=torch.float64) * 4
    target = torch.randint(0, 3, (2, 20, 22), generator=generator)
    target[0, :5] = -1
    stats = sure_fast.segmentation_stats(logits, target, ignore_index=-1)
    for got, want in zip(dice_of_stats(stats), compute_dice(logits.argmax(1), target, 3, ignore_index=-1), strict=True):
        assert torch.equal(got, want)
    alpha = torch.nn.functional.softplus(logits) + 1
    kept = target >= 0
    p = (alpha / alpha.sum(1, keepdim=True)).movedim(1, -1)[kept].T[None]
    for got, want in zip(ece_of_stats(stats), compute_ece(p, target[kept][None]), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
