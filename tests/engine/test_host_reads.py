"""A step on a GPU asks the device for nothing. On the meta device, whose tensors have no values, what does so fails."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import sure_fast
from benchmarks.gpu.launches import META, as_on_a_gpu
from sure_fast import _backends, _checks
from sure_fast.data import SegmentationDataset, discover, phantom
from sure_fast.engine import loop
from sure_fast.engine.cases import plan_for
from sure_fast.engine.config import make
from sure_fast.engine.optimization import Optimization
from sure_fast.losses import CrossEntropyDiceLoss, DevisLoss, PriusLoss, draw_levels
from sure_fast.ops.evidential_loss import checked_weights

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


@pytest.fixture(name="as_on_a_gpu")
def _as_on_a_gpu():
    with as_on_a_gpu():
        yield


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize(
    "options",
    [
        {"preset": "softmax"},
        {"preset": "evidential", "ema": "0.99", "clip_norm": "12", "accumulate": "2"},
        {"preset": "evidential", "network.norm": "batch", "optimizer.name": "sgd", "ema": "0.9"},
        {"preset": "probabilistic"},
        {"preset": "devis"},
        {"preset": "prius"},
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


WEIGHTS = [1.0, 2.0, 3.0]
LOSSES = {
    "evidential": lambda z, y, **_: sure_fast.EvidentialLoss(class_weights=WEIGHTS)(z, y, epoch=5),
    "evidential_loss": lambda z, y, **_: sure_fast.evidential_loss(z, y, class_weights=WEIGHTS),
    "evidential levels": lambda z, y, **_: sure_fast.EvidentialLoss(class_weights=WEIGHTS, level_weights=[2.0, 1.0])(
        [z, z[..., ::2, ::2]], [y, y[..., ::2, ::2]]
    ),
    "softmax": lambda z, y, **_: CrossEntropyDiceLoss(class_weights=WEIGHTS)(z, y),
    "supervised": lambda z, y, **given: sure_fast.UncertaintySupervisedLoss(class_weights=WEIGHTS)(z, y, **given),
    "supervised, patches": lambda z, y, **given: sure_fast.UncertaintySupervisedLoss(support="patch", noise="std")(
        z, y, **given
    ),
    "supervised, pairs": lambda z, y, **given: sure_fast.UncertaintySupervisedLoss(num_pairs=100)(z, y, **given),
    "prius": lambda z, y, **given: PriusLoss(ignore_index=9)(z, y, **given),
    "devis": lambda z, y, **given: DevisLoss()(z, y, epoch=9),
}


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("of", [None, "cpu"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_waits_for_no_copy(name, of):
    """Weights in a list, levels of noise, and a generator on the CPU."""
    z = torch.zeros(2, 3, 24, 24, device=META, requires_grad=True)
    y = torch.zeros(2, 24, 24, dtype=torch.int64, device=META)
    generator = None if of is None else torch.Generator(of)
    given = {"image": torch.zeros(2, 1, 24, 24, device=META), "model": lambda x: x.expand(-1, 3, -1, -1) + 0.0}
    with Copies() as copies:
        LOSSES[name](z, y, **given, epoch=400, generator=generator)[0].sum().backward()
    assert copies.waited == []


def test_a_captured_graph_reads_nothing_from_the_host(monkeypatch):
    with FakeTensorMode():
        device = torch.zeros(1, device="cuda:0").device
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        text = "class_weights: expected it on cuda:0 while a CUDA graph is captured, got it on the CPU"
        with pytest.raises(RuntimeError, match=text):
            checked_weights("class_weights", [1.0, 2.0], 2, device)
        with pytest.raises(RuntimeError, match="generator: expected it on cuda:0"):
            draw_levels(device, torch.Generator())
        on_device = torch.ones(2, device=device)
        assert _checks.onto("class_weights", on_device, device) is on_device
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        assert checked_weights("class_weights", [1.0, 2.0], 2, device).device == device
