from __future__ import annotations

import json
import math

import pytest
import torch

from sure_fast.data import DatasetInfo
from sure_fast.engine import checkpoint
from sure_fast.engine import run as training
from sure_fast.engine.cases import plan_for
from sure_fast.engine.config import make
from sure_fast.engine.signals import RunFailure
from sure_fast.losses import UncertaintySupervisedLoss

TINY = {"quick": True, "epochs": "2", "start_epoch": "1", "channels": "2,4,8", "batch_size": "2", "phantom_cases": "5"}


def weights(folder):
    return checkpoint.load(folder / "checkpoints" / "last.pt")["model"]


@pytest.mark.slow
def test_same_seed_same_weights(tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        training.train(make({**TINY, "seed": seed}), tmp_path / name, progress=False)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


@pytest.mark.slow
def test_nan_stops_with_epoch_step_and_term(tmp_path, monkeypatch):
    forward = UncertaintySupervisedLoss.forward

    def spoiled(self, *args, epoch, **kwargs):
        out = forward(self, *args, epoch=epoch, **kwargs)
        return out._replace(gradient=out.gradient * math.nan) if epoch == 1 else out

    monkeypatch.setattr(UncertaintySupervisedLoss, "forward", spoiled)
    with pytest.raises(RunFailure, match=r"epoch 2, step \d+: loss term 'gradient' is nan; the state .*last.pt"):
        training.train(make(TINY), tmp_path / "run", progress=False)
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {row["epoch"] for row in rows} == {1}


def test_patch_size_follows_the_images():
    info = DatasetInfo("folders", {0: "background", 1: "a", 2: "b"}, 1)
    shapes = [(35, 50, 36), (32, 40, 24), (43, 58, 47), (34, 51, 30)]
    plan = plan_for(make({}), shapes, 1, info)
    assert (plan.patch_size, plan.channels) == ([32, 40, 24], [16, 32, 64, 128])
    thin = plan_for(make({}), [(200, 180, 5)], 1, info)
    assert thin.patch_size == [96, 96, 5]
    assert thin.strides == [[2, 2, 1]] * 4
    assert thin.kernels == [[3, 3, 3]] * 5
    coarse = plan_for(make({}), [(256, 256, 16)], 1, info, (1.5, 1.5, 10.0))
    assert coarse.kernels[:3] == [[3, 3, 1], [3, 3, 1], [3, 3, 3]]
    given = plan_for(make({"patch_size": "30x32x16"}), shapes, 1, info)
    assert given.strides == [[2, 2, 2], [1, 2, 2], [1, 2, 1]]
    small = plan_for(make({"patch_size": "6,6,6"}), shapes, 1, info)
    assert (small.strides, small.patch_size) == ([[1, 1, 1], [1, 1, 1]], [6, 6, 6])
    for name, size in (("segresnet", [32, 40, 24]), ("unetr", [32, 32, 16]), ("swinunetr", [32, 64, 32])):
        assert plan_for(make({"network.name": name}), shapes, 1, info).patch_size == size
    with pytest.raises(ValueError, match=r"patch_size: expected multiples of 16 for unetr, got \[32, 40, 24\]"):
        plan_for(make({"network.name": "unetr", "patch_size": "32,40,24"}), shapes, 1, info)
    with pytest.raises(ValueError, match="trained with --dims 2 --patch-size 32,24"):
        plan_for(make({"patch_size": "32,1,24"}), shapes, 1, info)
    with pytest.raises(ValueError, match="patch_size: expected 3 numbers >= 1"):
        plan_for(make({"patch_size": "32x32"}), shapes, 1, info)


def test_weights_of_prius_replace_the_published_ones():
    def weights(**flags):
        method = make({"preset": "prius", **flags}).method
        loss = method.record.make_loss(method.options, num_epochs=40, dims=3, in_channels=1, ignore_index=None)
        return loss.weights

    assert weights() == (1.0, 0.1, 1.0)
    assert weights(contrast_weight="100", geometry_weight="0.01") == (100.0, 0.1, 0.01)


@pytest.mark.slow
def test_training_starts_from_the_weights_of_a_run(tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    training.train(
        make({**{k: v for k, v in TINY.items() if k != "start_epoch"}, "preset": "softmax", "epochs": "1"}),
        first,
        progress=False,
    )
    given = {**TINY, "init_from": str(first), "learning_rate": "1e-12"}
    training.train(make(given), second, progress=False)
    before = checkpoint.load(first)["model"]
    assert all(torch.allclose(value, before[key], atol=1e-6) for key, value in weights(second).items())
    training.train(make({**given, "init_from": None}), tmp_path / "third", progress=False)
    assert not all(torch.allclose(value, before[key], atol=1e-6) for key, value in weights(tmp_path / "third").items())
    with pytest.raises(ValueError, match=r"last.pt: expected channels \[2, 8, 16\], got \[2, 4, 8\]"):
        training.train(make({**given, "channels": "2,8,16"}), second, overwrite=True, progress=False)
    with pytest.raises(ValueError, match="init_from: expected a run outside the output folder"):
        training.train(make({**given, "init_from": str(second)}), second, overwrite=True, progress=False)
    assert weights(second)  # what was there is left
    with pytest.raises(ValueError, match="init_from: expected none with an ensemble"):
        make({"preset": "ensemble", "init_from": str(first)})
