"""segmentation_stats: all counts and histograms in one pass, its eager reference, and MONAI's Dice alone."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks.common import row

SHAPE = (1, 4, 128, 128, 128)


@pytest.mark.parametrize("name", ["sure_fast", "eager reference", "MONAI DiceMetric, Dice alone"])
def test_segmentation_stats(benchmark, name):
    from monai.metrics import DiceMetric
    from monai.networks.utils import one_hot

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(SHAPE, generator=generator) * 4
    right = torch.rand((SHAPE[0], *SHAPE[2:]), generator=generator) < 0.95
    target = torch.where(right, logits.argmax(1), 0)
    metric = DiceMetric(include_background=False, reduction="none")

    def dice_of(stats):
        right = stats.confusion.diagonal(dim1=1, dim2=2)
        return (2 * right / (stats.confusion.sum(1) + stats.confusion.sum(2)))[:, 1:].float()

    def monai():
        prediction = one_hot(logits.argmax(1, keepdim=True), SHAPE[1])
        return metric(prediction, one_hot(target[:, None], SHAPE[1]))

    options = {"evidence": "softplus"}
    runs = {
        "sure_fast": lambda: dice_of(sure_fast.segmentation_stats(logits, target, **options)),
        "eager reference": lambda: dice_of(
            sure_fast.segmentation_stats(logits, target, **options, backend="reference")
        ),
        "MONAI DiceMetric, Dice alone": monai,
    }
    group = f"segmentation_stats {list(SHAPE)}"
    row(benchmark, group, name, runs[name], monai())
