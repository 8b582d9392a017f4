"""A training step on a GPU: the host waits for nothing, and what is not finite changes nothing. Skipped without one."""

from __future__ import annotations

import pytest
import torch

from sure_fast.data import SegmentationDataset, discover, phantom
from sure_fast.engine import loop
from sure_fast.engine.cases import plan_for
from sure_fast.engine.config import make
from sure_fast.engine.signals import RunFailure
from sure_fast.ops import _calls

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU"),
]
BASE = {"quick": True, "epochs": "4", "channels": "8,16,32", "batch_size": "2", "phantom_cases": "5", "ema": "0.9"}


@pytest.fixture(params=["evidential", "sure", "dense"])
def trainer(request, tmp_path):
    config = make({**BASE, "preset": request.param, "device": "cuda"})
    phantom.write(tmp_path / "data", 4, 0)
    cases = discover(tmp_path / "data")
    plan = plan_for(config, [(24, 24, 12)], 1, cases.info)
    dataset = SegmentationDataset(list(cases), tuple(plan.patch_size))
    made = loop.Trainer(config, plan, dataset, [], cases.info, torch.device("cuda"), tmp_path / "run")
    made.model.train()
    return made


def test_a_step_waits_for_nothing(trainer):
    if _calls.missing is not None:
        pytest.skip(_calls.missing)  # the reference sorts pairs, whose number it asks for
    batch = next(iter(trainer.loader))
    for _ in range(2):  # programs are compiled, memory is allocated
        trainer.step(3, 0, *trainer.on_device(batch))
    torch.cuda.set_sync_debug_mode("error")
    try:
        numbers = trainer.launch(3, 0, *trainer.on_device(batch))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert bool(numbers.isfinite().all())


def test_what_is_not_finite_changes_nothing(trainer):
    image, label = trainer.on_device(next(iter(trainer.loader)))
    trainer.step(3, 0, image, label)
    before = [
        parameter.detach().clone() for model in (trainer.model, trainer.weights) for parameter in model.parameters()
    ]
    trainer.launch(3, 0, image * float("nan"), label)
    trainer.launch(3, 0, image, label)  # begun before anyone has looked
    after = [parameter for model in (trainer.model, trainer.weights) for parameter in model.parameters()]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    with pytest.raises(RunFailure, match="loss term"):
        trainer.step(3, 0, image * float("nan"), label)
