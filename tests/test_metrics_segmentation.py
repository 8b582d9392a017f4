from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sure_fast
from sure_fast.metrics import (
    compute_assd,
    compute_dice,
    compute_hd95,
    compute_iou,
    compute_nsd,
    compute_surface_metrics,
    dice_of_stats,
    iou_of_stats,
)


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
    with pytest.raises(ValueError, match=r"^spacing_mm: expected 3 numbers > 0, one per axis"):
        compute_surface_metrics(t, t, 3, (1, 1))
    with pytest.raises(ValueError, match=r"^target: expected labels in \[0, 3\), got 3$"):
        compute_dice(t, t + (t == 2), 3)
    with pytest.raises(TypeError, match=r"^prediction: expected an integer tensor"):
        compute_iou(t.to(torch.complex64), t, 3)
    with pytest.raises(TypeError, match=r"^target: expected a torch.Tensor, got list$"):
        compute_dice(t, [1], 3)


def one_hot(label):
    return torch.nn.functional.one_hot(label, 3).movedim(-1, 1)


def test_iou_is_monais_and_torchmetrics():
    from monai.metrics import compute_iou as monai_iou
    from torchmetrics.classification import MulticlassJaccardIndex

    p, t = blobs(2), blobs()
    got = compute_iou(p, t, 3)
    torch.testing.assert_close(got.values.float(), monai_iou(one_hot(p), one_hot(t), include_background=False))
    torch.testing.assert_close(got.values[0].float(), MulticlassJaccardIndex(3, average="none")(p, t)[1:])
    assert got.values[0, 0] != compute_dice(p, t, 3).values[0, 0]


def test_surface_distances_are_monais():
    from monai import metrics as monai

    p, t, spacing = blobs(2), blobs(), (1.5, 1.0, 5.0)
    hot = (one_hot(p).float(), one_hot(t).float())
    close = {"rtol": 1e-5, "atol": 1e-5, "check_dtype": False}
    want = monai.compute_hausdorff_distance(*hot, percentile=95, spacing=spacing)
    torch.testing.assert_close(compute_hd95(p, t, 3, spacing).values, want, **close)
    want = monai.compute_average_surface_distance(*hot, symmetric=True, spacing=spacing)
    torch.testing.assert_close(compute_assd(p, t, 3, spacing).values, want, **close)
    want = monai.compute_surface_dice(*hot, class_thresholds=[1.6, 1.6], spacing=spacing)
    torch.testing.assert_close(compute_nsd(p, t, 3, spacing, tolerance_mm=1.6).values, want, **close)


def test_ignored_voxels_count_in_neither():
    p, t = blobs(2), blobs()
    marked = t.clone()
    marked[:, :7] = 255
    kept = marked != 255
    for metric in (compute_dice, compute_iou):
        got = metric(p, marked, 3, ignore_index=255)
        want = metric(p[kept][None], t[kept][None], 3)
        assert torch.equal(got.values, want.values)
        assert not torch.equal(got.values, metric(p, t, 3).values)


def test_arrays_of_every_kind():
    p, t = blobs(2), blobs()
    want = compute_dice(p, t, 3).values
    backwards = np.ascontiguousarray(p.numpy()[..., ::-1])[..., ::-1]
    assert torch.equal(compute_dice(backwards, t.numpy().astype(np.uint16), 3).values, want)
    fixed = t.numpy()
    fixed.flags.writeable = False
    assert torch.equal(compute_dice(p.to(torch.uint8), fixed, 3).values, want)
    assert torch.equal(compute_dice(p.numpy() == 1, t.numpy() == 1, 2).values[:, 0], want[:, 0])


def test_from_segmentation_stats():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 3, 20, 22), generator=generator, dtype=torch.float64) * 4
    target = torch.randint(0, 3, (2, 20, 22), generator=generator)
    target[0, :5] = -1
    stats = sure_fast.segmentation_stats(logits, target, ignore_index=-1)
    for of_stats, compute in ((dice_of_stats, compute_dice), (iou_of_stats, compute_iou)):
        for got, want in zip(of_stats(stats), compute(logits.argmax(1), target, 3, ignore_index=-1), strict=True):
            assert torch.equal(got, want)
