"""What steps gave, read while the next one runs: the same rows, and the same state where a step spoils a run."""

from __future__ import annotations

import json
import math

import pytest
import torch

from sure_fast.engine import checkpoint, loop, outcomes
from sure_fast.engine import run as training
from sure_fast.engine.config import make
from sure_fast.engine.optimization import Optimization, ema_update, make_optimizer
from sure_fast.engine.outcomes import Outcomes, Place
from sure_fast.engine.signals import RunFailure
from sure_fast.losses import UncertaintySupervisedLoss

TINY = {"quick": True, "epochs": "2", "start_epoch": "1", "channels": "2,4,8", "batch_size": "1", "phantom_cases": "6"}


class Arrived:
    def synchronize(self) -> None:
        pass


@pytest.fixture
def late(monkeypatch):
    """Trainers on the CPU that read as on a GPU: one step late, their optimizers told by a flag."""
    made = Optimization.__init__

    def of_gpu(self, model, config, device):
        made(self, model, config, device)
        self.fused, self.spoiled = True, torch.zeros(())
        self.optimizer = make_optimizer(model.parameters(), config.optimizer, True)
        self.optimizer.found_inf, self.optimizer.grad_scale = self.spoiled, None
        self._update = ema_update(config.optimizer.ema, self.spoiled)

    monkeypatch.setattr(Optimization, "__init__", of_gpu)
    monkeypatch.setattr(outcomes, "copy_of", lambda numbers: (numbers.clone(), Arrived()))


def test_numbers_come_out_in_their_order(monkeypatch):
    monkeypatch.setattr(outcomes, "copy_of", lambda numbers: (numbers.clone(), Arrived()))
    places = [Place(0, k, k) for k in range(3)]
    numbers = [torch.tensor([float(k)], dtype=torch.float64) for k in range(3)]
    at_once = Outcomes(late=False)
    assert [at_once.put(*given) for given in zip(places, numbers, strict=True)] == [[(p, [p.step])] for p in places]
    assert at_once.rest() == []
    later = Outcomes(late=True)
    got = [later.put(*given) for given in zip(places, numbers, strict=True)]
    assert got == [[], [(places[0], [0.0])], [(places[1], [1.0])]]
    assert later.rest() == [(places[2], [2.0])]
    assert later.rest() == []


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def spoil(monkeypatch, call):
    """The term of this call of the loss is NaN."""
    forward, calls = UncertaintySupervisedLoss.forward, []

    def spoiled(self, *args, **kwargs):
        out = forward(self, *args, **kwargs)
        if self.beta:  # else that of a coarser resolution
            calls.append(1)
        return (
            out._replace(total=out.total * math.nan, data=out.data * math.nan)
            if self.beta and len(calls) == call
            else out
        )

    monkeypatch.setattr(UncertaintySupervisedLoss, "forward", spoiled)


@pytest.mark.slow
@pytest.mark.parametrize("call", [1, 3, 4], ids=["first", "middle", "last of an epoch"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_spoiled_step_changes_nothing_although_the_next_has_begun(late, optimizer, call, tmp_path, monkeypatch):
    flags = {**TINY, "optimizer.name": optimizer, "ema": "0.9", "optimizer.learning_rate": "1e-2"}
    with monkeypatch.context() as patch:
        trainers = []
        made = loop.Trainer.__init__
        patch.setattr(loop.Trainer, "__init__", lambda self, *a, **k: (trainers.append(self), made(self, *a, **k))[1])
        spoil(patch, call)
        with pytest.raises(RunFailure, match=rf"epoch 1, step {call - 1}: loss term 'data' is nan; the state before"):
            training.train(make(flags), tmp_path / "spoiled", progress=False)
    assert trainers[0].outcomes.late
    assert len(trainers[0].batches) == 4
    states = checkpoint.load(tmp_path / "spoiled/checkpoints/last.pt")
    assert [row["step"] for row in rows(tmp_path / "spoiled")] == list(range(call - 1))
    assert states["progress"]["step"] == states["progress"]["batch"] == call - 1

    # a whole run that leaves its state after as many steps
    if call > 1:
        kept = {}
        saved = loop.Trainer.save

        def save(self, name="last.pt"):
            kept.setdefault(self.progress.step, {k: v.clone() for k, v in self.model.named_parameters()})
            return saved(self, name)

        monkeypatch.setattr(loop.Trainer, "save", save)
        training.train(make({**flags, "checkpoint_every": "1"}), tmp_path / "whole", progress=False)
        want = kept[call - 1]
        got = {name: states["trained"][name] for name in want}
        assert all(torch.equal(got[name], want[name]) for name in want)
        assert rows(tmp_path / "whole")[: call - 1] == rows(tmp_path / "spoiled")
    assert all(value.isfinite().all() for value in states["model"].values())
    assert all(
        entry.isfinite().all()
        for state in states["optimization"]["optimizer"]["state"].values()
        for entry in state.values()
    )


@pytest.mark.slow
@pytest.mark.parametrize("when", ["now", "later"])
def test_running_statistics_are_those_before_a_spoiled_image(when, tmp_path, monkeypatch, request):
    if when == "later":
        request.getfixturevalue("late")
    flags = {**TINY, "network.norm": "batch", "ema": "0.9"}
    launch, calls = loop.Trainer.launch, []

    def spoiled(self, epoch, number, image, label):
        calls.append(1)
        return launch(self, epoch, number, image * (math.nan if len(calls) == 3 else 1.0), label)

    monkeypatch.setattr(loop.Trainer, "launch", spoiled)
    with pytest.raises(RunFailure, match="epoch 1, step 2: loss term"):
        training.train(make(flags), tmp_path / "run", progress=False)
    states = checkpoint.load(tmp_path / "run/checkpoints/last.pt")
    for name in ("model", "trained"):
        running = [value for key, value in states[name].items() if "running" in key]
        assert running
        assert all(value.isfinite().all() for value in running)
        assert any(bool((value != 0).any()) and bool((value != 1).any()) for value in running)


@pytest.mark.slow
def test_reading_late_changes_nothing_else(tmp_path, monkeypatch, request):
    training.train(make({**TINY, "checkpoint_every": "2"}), tmp_path / "now", progress=False)
    request.getfixturevalue("late")
    training.train(make({**TINY, "checkpoint_every": "2"}), tmp_path / "later", progress=False)
    now, later = (
        [{k: v for k, v in row.items() if not k.endswith("s_per_second") and k != "seconds"} for row in rows(folder)]
        for folder in (tmp_path / "now", tmp_path / "later")
    )
    assert [list(row) for row in now] == [list(row) for row in later]
    for a, b in zip(now, later, strict=True):  # the fused optimizer rounds elsewhere
        assert a["step"] == b["step"]
        if a["kind"] == "step":
            assert b["total"] == pytest.approx(a["total"], rel=0.02)


def test_a_generator_takes_the_state_of_another_device():
    from sure_fast.engine.state import set_state

    first, second, third = (torch.Generator() for _ in range(3))
    for generator in (first, second):
        set_state(generator, torch.arange(16, dtype=torch.uint8))  # of a GPU's
    set_state(third, torch.arange(1, 17, dtype=torch.uint8))
    drawn = [torch.rand(4, generator=generator).tolist() for generator in (first, second, third)]
    assert drawn[0] == drawn[1] != drawn[2]
    state = first.get_state()
    set_state(third, state)
    assert torch.equal(third.get_state(), state)
