"""Precision, accumulation, clipping, schedule, averaged weights, compiled network: each does what its name says."""

from __future__ import annotations

import math

import pytest
import torch

from sure_fast.data import SegmentationDataset, discover, phantom
from sure_fast.engine import loop, optimization
from sure_fast.engine.cases import plan_for
from sure_fast.engine.config import ConfigError, make
from sure_fast.engine.optimization import Optimization, make_optimizer, schedule_factor
from sure_fast.engine.sections import OptimizerConfig
from sure_fast.methods import METHODS

CPU = torch.device("cpu")
BASE = {
    "preset": "sure",
    "channels": "2,4,8",
    "epochs": "4",
    "start_epoch": "0",
    "patch_size": "16x16x8",
    "batch_size": "1",
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    phantom.write(folder, 5, 0, shape=(24, 24, 12))
    return discover(folder)


def trainer_of(cases, output, without=(), **options):
    given = {name: value for name, value in {**BASE, "data": "given", **options}.items() if name not in without}
    config = make(given)
    plan = plan_for(config, [(24, 24, 12)], 1, cases.info)
    dataset = SegmentationDataset(list(cases), tuple(plan.patch_size))
    return loop.Trainer(config, plan, dataset, [], cases.info, CPU, output)


def epoch_of(trainer, epoch=3):
    """Gradients at the end of every step of the optimizer, and the terms of every batch."""
    steps, rows = [], []
    change = trainer.optimization.step

    def step():
        steps.append([p.grad.clone() for p in trainer.model.parameters()])
        change()

    trainer.optimization.step = step
    trainer.dataset.set_epoch(epoch)
    for number, batch in enumerate(trainer.loader):
        rows.append(trainer.step(epoch, number, batch["image"], batch["label"]))
    return steps, rows


@pytest.mark.parametrize("preset", ["softmax", "evidential", "devis", "prius", "sure"])
def test_coarser_outputs_have_the_segmentation_loss(cases, tmp_path, preset):
    without = () if preset in ("prius", "sure") else ("start_epoch",)
    trainer = trainer_of(cases, tmp_path, without, preset=preset)
    batch = next(iter(trainer.loader))
    image, label = batch["image"], batch["label"]
    network = trainer.cut_network()
    logits, coarse = network.levels(image)
    out = trainer.terms(logits, label, image=image, epoch=3, model=network, generator=trainer.generator)
    got = trainer.deeply_supervised(out, [coarse], label, image, 3)
    plain = METHODS[preset if preset in ("softmax", "devis") else "evidential"]
    of_run = {"num_epochs": 4, "dims": 3, "in_channels": 1, "ignore_index": None}
    options = {**plain.options, **({"evidence": "softplus"} if preset == "sure" else {})}
    wanted = plain.call(plain.make_loss(options, **of_run))(coarse, label, image=image, epoch=3, model=None).total
    own = getattr(out, "segmentation", out.total)
    torch.testing.assert_close(got.total, out.total - own + 2 / 3 * own + 1 / 3 * wanted)
    steps, _ = epoch_of(trainer)
    heads = [k for k, (name, _) in enumerate(trainer.model.named_parameters()) if "deep_supervision_heads" in name]
    assert heads
    assert all(step[k].abs().max() > 0 for step in steps for k in heads)


def still(trainer):
    """With weights that do not change."""
    trainer.optimization.step = lambda: None
    return trainer


def test_accumulated_gradients_are_the_mean_of_their_batches(cases, tmp_path):
    alone, _ = epoch_of(still(trainer_of(cases, tmp_path)))
    grouped, _ = epoch_of(still(trainer_of(cases, tmp_path, accumulate="2")))
    assert (len(alone), len(grouped)) == (5, 3)
    for k, group in enumerate(([0, 1], [2, 3], [4])):
        for n, grad in enumerate(grouped[k]):
            mean = sum(alone[i][n] for i in group) / len(group)
            torch.testing.assert_close(grad, mean, rtol=1e-5, atol=1e-6)


def test_clipping(cases, tmp_path):
    def norms(steps):
        return [math.sqrt(sum(float(g.square().sum()) for g in step)) for step in steps]

    free = norms(epoch_of(still(trainer_of(cases, tmp_path)))[0])
    limit = sorted(free)[2]
    clipped = norms(epoch_of(still(trainer_of(cases, tmp_path, clip_norm=str(limit))))[0])
    assert clipped == pytest.approx([min(norm, limit) for norm in free], rel=1e-4)


def test_schedule(cases, tmp_path):
    for schedule, wanted in (("constant", [1e-3] * 4), ("poly", [1e-3 * (1 - k / 4) ** 0.9 for k in range(4)])):
        trainer = trainer_of(cases, tmp_path, schedule=schedule)
        epoch_of(trainer)  # a schedule before any step of the optimizer is refused by torch
        rates = []
        for _ in range(4):
            rates.append(trainer.optimization.learning_rate)
            trainer.optimization.end_epoch()
        assert rates == pytest.approx(wanted)


def test_warm_up():
    def rates(**options):
        return [schedule_factor(OptimizerConfig(**options), 6)(epoch) for epoch in range(7)]

    assert rates(schedule="constant", warmup=2) == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1, 1])
    assert rates(schedule="poly", warmup=2) == pytest.approx([1 / 3, 2 / 3, *((1 - k / 4) ** 0.9 for k in range(4)), 0])
    assert rates(schedule="cosine") == pytest.approx([0.5 * (1 + math.cos(math.pi * k / 6)) for k in range(7)])


def test_optimizers():
    def made(**options):
        return make_optimizer([torch.nn.Parameter(torch.ones(2))], OptimizerConfig(**options))

    sgd = made(name="sgd", weight_decay=3e-5)
    assert type(sgd) is torch.optim.SGD
    assert {name: sgd.defaults[name] for name in ("lr", "momentum", "nesterov", "weight_decay")} == {
        "lr": 1e-2, "momentum": 0.99, "nesterov": True, "weight_decay": 3e-5
    }  # fmt: skip
    assert not made(name="sgd", momentum=0.0).defaults["nesterov"]
    adamw = made(name="adamw", weight_decay=0.1, learning_rate=2e-4)
    assert type(adamw) is torch.optim.AdamW
    assert (adamw.defaults["lr"], adamw.defaults["weight_decay"]) == (2e-4, 0.1)
    assert (type(made()), made().defaults["lr"]) == (torch.optim.Adam, 1e-3)


def test_averaged_weights(cases, tmp_path):
    trainer = trainer_of(cases, tmp_path, ema="0.5", learning_rate="0.1")
    first = next(trainer.model.parameters())
    seen = []
    update = trainer.optimization._average

    def recorded(average):
        seen.append(first.detach().clone())
        update(average)

    trainer.optimization._average = recorded
    epoch_of(trainer)
    want = seen[0]
    for n, value in enumerate(seen[1:], start=1):
        decay = min(0.5, (1 + n) / (10 + n))
        want = decay * want + (1 - decay) * value
    torch.testing.assert_close(next(trainer.weights.parameters()), want)
    assert not torch.allclose(want, seen[-1], atol=1e-4)
    assert trainer.weights is not trainer.model
    assert trainer_of(cases, tmp_path).weights.state_dict().keys() == trainer.weights.state_dict().keys()


@pytest.mark.parametrize(("amp", "dtype", "close"), [("bf16", torch.bfloat16, 0.1), ("fp16", torch.float16, 0.02)])
def test_precision(cases, tmp_path, amp, dtype, close):
    full, halved = trainer_of(cases, tmp_path), trainer_of(cases, tmp_path, amp=amp)
    found = []
    inside = halved.loss.forward

    def forward(logits, *args, **kwargs):
        found.append(logits.dtype)
        return inside(logits, *args, **kwargs)

    halved.loss.forward = forward
    _, want = epoch_of(still(full))
    steps, rows = epoch_of(halved)
    assert set(found) == {dtype}
    assert rows[0]["total"] == pytest.approx(want[0]["total"], rel=close)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert all(grad.dtype == torch.float32 for step in steps for grad in step)
    overflows = sum(not all(grad.isfinite().all() for grad in step) for step in steps)
    assert overflows < 5 if amp == "fp16" else overflows == 0  # the first scale of the loss may be too large
    assert not torch.equal(next(halved.model.parameters()), next(full.model.parameters()))


def test_an_overflow_halves_the_scale_and_leaves_the_weights():
    model = torch.nn.Linear(2, 1)
    config = make({"amp": "fp16", "clip_norm": "1"})
    found = Optimization(model, config, CPU)
    before, scale = model.weight.detach().clone(), found.scaler.get_scale()

    def overflow():
        found.zero_grad()
        (found.scale(model(torch.ones(1, 2)).sum()) * math.inf).backward()
        norm = found.gradient_norm()
        known = found.overflowed(norm)
        found.step()
        return known

    assert overflow()
    assert found.scaler.get_scale() == scale / 2
    assert torch.equal(model.weight, before)
    while found.scaler.get_scale() > optimization.LEAST_SCALE:
        assert overflow()
    assert not overflow()  # no scale helps: the gradient itself is not finite
    found.zero_grad()
    found.scale(model(torch.ones(1, 2)).sum()).backward()
    norm = found.gradient_norm()
    assert norm == pytest.approx(math.sqrt(3), rel=1e-4)  # unscaled, before clipping
    assert float(model.weight.grad.norm()) < 1.0
    found.step()
    assert not torch.equal(model.weight, before)
    plain = Optimization(model, make({}), CPU)
    assert not plain.overflowed(math.inf)


def test_channels_last_changes_no_gradient(cases, tmp_path):
    want, _ = epoch_of(still(trainer_of(cases, tmp_path)))
    trainer = trainer_of(cases, tmp_path, channels_last=True)
    kernels = [p for p in trainer.model.parameters() if p.dim() == 5 and min(p.shape[:2]) > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last_3d) for p in kernels)
    got, _ = epoch_of(still(trainer))
    for a, b in zip(want[0], got[0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max()) + 1e-6)


@pytest.mark.slow
def test_compiled_network(cases, tmp_path):
    want, _ = epoch_of(still(trainer_of(cases, tmp_path, gamma="0")))
    trainer = trainer_of(cases, tmp_path, gamma="0", compile=True)
    optimization.check_device(trainer.config, CPU)
    got, _ = epoch_of(still(trainer))
    assert all("_orig_mod" not in name for name in trainer.weights.state_dict())
    for a, b in zip(want[0], got[0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max()) + 1e-6)


def test_options_that_cannot_apply(monkeypatch):
    for flags, message in (
        ({"ema": "1"}, r"ema: expected a number in \[0, 1\), got 1"),
        ({"accumulate": "0"}, "accumulate: expected at least 1, got 0"),
        ({"clip_norm": "-1"}, "clip_norm: expected a finite number >= 0, got -1"),
        ({"amp": "fp8"}, "amp: expected one of none, bf16, fp16, got 'fp8'"),
        ({"preset": "evidential", "mining_every": "2"}, "mining_every: is no option of preset evidential"),
    ):
        with pytest.raises(ConfigError, match=message):
            make(flags)
    with pytest.raises(ConfigError, match="amp: expected none or bf16 on mps, got fp16"):
        optimization.check_device(make({"amp": "fp16"}), torch.device("mps"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "an old GPU")
    with pytest.raises(ConfigError, match="amp: expected none or fp16 on an old GPU, got bf16"):
        optimization.check_device(make({"amp": "bf16"}), torch.device("cuda"))

    def broken(*_, **__):
        raise RuntimeError("no working compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(ConfigError, match=r"compile: torch\.compile cannot be used here: no working compiler$"):
        optimization.check_device(make({"compile": True}), CPU)
