"""A step on a GPU asks the device for nothing. On the meta device, whose tensors have no values, what does so fails."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sure_fast import _backends
from sure_fast.data import SegmentationDataset, discover, phantom
from sure_fast.engine import loop
from sure_fast.engine.cases import plan_for
from sure_fast.engine.config import make
from sure_fast.engine.optimization import Optimization
from sure_fast.ops import _calls, _triton, dense_noise_uncertainty_loss, uncertainty_supervision
from sure_fast.ops import _dense_supervision as dense

META = torch.device("meta")
BASE = {"epochs": "4", "channels": "2,4,8", "batch_size": "2", "phantom_cases": "5", "quick": True}


class Copies(TorchDispatchMode):
    """Collects copies to the device for which the host waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        source = args[-1] if "copy_" in str(func) else args[0] if args else None
        if "copy" in str(func) and isinstance(source, torch.Tensor) and source.device.type == "cpu":
            to = kwargs.get("device") or getattr(args[0], "device", None)
            if to is not None and torch.device(to).type == "meta" and not kwargs.get("non_blocking"):
                self.waited.append(str(func))
        return func(*args, **kwargs)


def test_copies_that_wait_are_seen():
    with Copies() as copies:
        torch.zeros(2).to(META, non_blocking=True)
        assert copies.waited == []
        torch.zeros(2).to(META)
        torch.zeros(2, device=META).copy_(torch.zeros(2))
    assert len(copies.waited) == 2


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Backends take tensors of the meta device for those of a GPU."""
    monkeypatch.setattr(_calls, "device_type", "meta")
    monkeypatch.setattr(_calls, "missing", None)
    monkeypatch.setattr(_triton, "why_not", lambda *_, **__: None)
    for module in (dense, dense_noise_uncertainty_loss, uncertainty_supervision):
        monkeypatch.setattr(module, "backend_beside_triton", lambda _: "cuda")


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize(
    "options",
    [
        {"preset": "softmax"},
        {"preset": "evidential", "ema": "0.99", "clip_norm": "12", "accumulate": "2"},
        {"preset": "evidential", "network.norm": "batch", "optimizer.name": "sgd", "ema": "0.9"},
        {"preset": "probabilistic"},
        {"preset": "devis"},
        {"preset": "sure"},
        {"preset": "dense"},
        {"preset": "dense", "method.noisy_copies": "2", "method.class_weights": "1,2,3,4"},
    ],
    ids=str,
)
def test_a_step_reads_nothing_from_the_device(options, tmp_path):
    config = make({**BASE, **options})
    phantom.write(tmp_path / "data", 3, 0)
    cases = discover(tmp_path / "data")
    plan = plan_for(config, [(24, 24, 12)], 1, cases.info)
    dataset = SegmentationDataset(list(cases), tuple(plan.patch_size))
    trainer = loop.Trainer(config, plan, dataset, [], cases.info, torch.device("cpu"), tmp_path / "run")
    trainer.model = trainer.network = trainer.model.to(META)
    trainer.optimization = Optimization(trainer.model, config, META)
    trainer.optimization.spoiled = torch.zeros((), device=META)
    trainer.outcomes.late, trainer.generator = True, None
    trainer.loss.to(META)
    batch = next(iter(trainer.loader))
    assert batch["label"].dtype == torch.uint8
    image, label = batch["image"].to(META), batch["label"].to(META)
    for number in range(4):  # two changes of the weights, after which averaged ones are updated
        with Copies() as copies:
            numbers = trainer.launch(3, number, image, label)
        assert numbers.device == META
        assert copies.waited == []
    chosen = _backends.explain("evidential_loss", torch.zeros(1, 3, 4, 4, device=META))
    assert next(choice.backend for choice in chosen if choice.chosen) == "triton"
