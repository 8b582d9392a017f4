"""A loss over the outputs of several resolutions."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from sure_fast.losses import CrossEntropyDiceLoss, DeepSupervision, DevisLoss, PriusLoss
from tests.ops.test_evidential_loss import case
from tests.ops.test_evidential_loss_options import region_case


def pyramid():
    """Outputs of three resolutions, the labels of the finest, and the labels nearest to the voxels of the others."""
    logits, target = case((2, 3, 8, 12), torch.float64)
    coarse, _ = case((2, 3, 4, 6), torch.float64, seed=1)
    coarsest, _ = case((2, 3, 2, 5), torch.float64, seed=2)
    half = target[:, 1::2, 1::2]  # of two equally near labels the later one
    rows = target[:, [2, 6]][:, :, [1, 3, 6, 8, 10]]  # centers of 12/5 voxels: 1.2, 3.6, 6, 8.4, 10.8
    return [logits, coarse, coarsest], [target, half, rows]


def test_a_loss_that_looks_at_the_image_takes_the_finest_output_alone():
    for loss in (sure_fast.UncertaintySupervisedLoss(num_epochs=4), PriusLoss(num_epochs=4)):
        with pytest.raises(TypeError, match=r"^loss: .* got \w+Loss, which looks at the image too: give it the finest"):
            DeepSupervision(loss)


def test_the_evidential_loss_sums_the_levels():
    levels, targets = pyramid()
    loss = sure_fast.EvidentialLoss()
    parts = [loss(z, t, epoch=3) for z, t in zip(levels, targets, strict=True)]
    out = loss(levels, targets[0], epoch=3)
    for k in range(4):
        torch.testing.assert_close(out[k], (4 * parts[0][k] + 2 * parts[1][k] + parts[2][k]) / 7)
    assert loss(levels, targets, epoch=3) == out
    assert DeepSupervision(loss)(levels, targets[0], epoch=3) == out
    first = sure_fast.EvidentialLoss(level_weights=[1.0, 0.0])(tuple(levels[:2]), targets[:2], epoch=3)
    assert torch.equal(first.total, parts[0].total)
    module = sure_fast.EvidentialLoss(class_weights=[1, 2, 3], level_weights=[0.5, 0.5])
    coarse = levels[1].requires_grad_()
    module(levels[:2], targets[0], epoch=3).total.backward()
    assert coarse.grad.abs().max() > 0


def test_regions():
    logits, target = region_case((1, 2, 8, 8))
    coarse, _ = region_case((1, 2, 4, 4), seed=1)
    loss = sure_fast.EvidentialLoss(regions=True)
    parts = [loss(z, t) for z, t in ((logits, target), (coarse, target[..., 1::2, 1::2]))]
    torch.testing.assert_close(loss([logits, coarse], target).total, (2 * parts[0].total + parts[1].total) / 3)


@pytest.mark.parametrize("loss", [DevisLoss(num_epochs=10), CrossEntropyDiceLoss(), torch.nn.CrossEntropyLoss()])
def test_any_loss(loss):
    levels, targets = pyramid()
    out = DeepSupervision(loss, [3.0, 0.0, 1.0])(levels, targets[0])
    parts = [loss(z, t) for z, t in zip(levels, targets, strict=True)]
    assert type(out) is type(parts[0])
    if isinstance(out, torch.Tensor):
        torch.testing.assert_close(out, 3 * parts[0] + parts[2])
    else:
        torch.testing.assert_close(tuple(out), tuple(3 * a + b for a, b in zip(parts[0], parts[2], strict=True)))
    alone = DeepSupervision(loss)(levels[0], targets[0])
    torch.testing.assert_close(alone, parts[0])


def test_it_compiles_whole():
    levels, targets = pyramid()
    loss = DeepSupervision(sure_fast.EvidentialLoss())
    compiled = torch.compile(lambda z, t: loss(z, t, epoch=3).total, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(levels, targets[0]), loss(levels, targets[0], epoch=3).total)


def test_errors_name_the_argument():
    logits, target = region_case()
    loss = sure_fast.EvidentialLoss(regions=True)
    with pytest.raises(ValueError, match=r"^logits: expected at least one output"):
        loss([], target)
    with pytest.raises(TypeError, match=r"^logits: expected a torch.Tensor, got float"):
        loss([1.0], target)
    with pytest.raises(ValueError, match=r'^reduction: expected "mean" with a list of outputs, got \'none\'$'):
        sure_fast.EvidentialLoss(regions=True, reduction="none")([logits], target)
    with pytest.raises(ValueError, match=r"^level_weights, target: expected one for each of the 1 outputs, got 2"):
        sure_fast.EvidentialLoss(regions=True, level_weights=[1, 2])([logits], target)
    with pytest.raises(ValueError, match=r"^level_weights, target: expected one for .* outputs, got 1 and 2"):
        loss([logits], [target, target])
    with pytest.raises(ValueError, match=r"^level_weights: expected a list of outputs in logits, got one tensor$"):
        sure_fast.EvidentialLoss(level_weights=[1.0])(logits, target)
    with pytest.raises(TypeError, match=r"^loss: expected a function"):
        DeepSupervision(3)
