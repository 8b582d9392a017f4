"""Two processes: the gradients, results and files of one process with the batch of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
import torch.multiprocessing as mp

from sure_fast import compare, evaluate, predict
from sure_fast.data import SegmentationDataset, discover, phantom
from sure_fast.engine import distributed, loop
from sure_fast.engine import gradients as gradients_of_ranks
from sure_fast.engine.cases import plan_for
from sure_fast.engine.config import ConfigError, make
from sure_fast.engine.signals import RunFailure, StopRequest
from tests._ranks import free_port, joined

BASE = {"channels": "2,4,8", "epochs": "2", "patch_size": "16x16x8", "augment": "none"}
METHODS = {
    "evidential": {"preset": "sure", "gamma": "0", "start_epoch": "0"},
    "accumulated": {"preset": "evidential", "accumulate": "2"},
    "devis": {"preset": "devis"},
    "softmax": {"preset": "softmax"},
}
NOISY = {"preset": "dense", "noisy_share": "0.4", "start_epoch": "0"}


def gradients(folder, output, batch_size, method):
    """Of every step of an epoch of five cases, at weights that do not change."""
    config = make({**BASE, **method, "data": str(folder), "batch_size": str(batch_size)})
    cases = discover(folder)
    plan = plan_for(config, [(24, 24, 12)], 1, cases.info)
    dataset = SegmentationDataset(list(cases)[:5], tuple(plan.patch_size), seed=config.run.seed)
    trainer = loop.Trainer(config, plan, dataset, [], cases.info, torch.device("cpu"), output)
    steps = []
    trainer.optimization.step = lambda: steps.append([p.grad.clone() for p in trainer.model.parameters()])
    trainer.progress.epoch = 1
    trainer._epoch(None, False, StopRequest())
    return steps


def rank_of_two(rank, folder, output, port):
    gradients_of_ranks.BUCKET = 4000
    with joined(rank, port):
        found = {name: gradients(folder, output, 2, method) for name, method in {**METHODS, "noisy": NOISY}.items()}
        torch.save(found, output / f"{rank}.pt")
        spoiled(folder, output)
        assert distributed.gather(rank) == [0, 1]
        steps = running_statistics(folder, output)
        assert distributed.gather(steps) == [steps] * 2
        assert distributed.from_main(lambda: rank) == 0
        with pytest.raises(ConfigError, match="only rank 0 knows"):
            distributed.from_main(lambda: fail("only rank 0 knows"))
        values = torch.tensor([1.0, float("nan")]) if rank else torch.tensor([3.0, 4.0])
        assert distributed.weighted_mean(values, 0.0 if rank else 2.0).tolist() == [3.0, 4.0]
        assert distributed.weighted_mean(torch.full((1,), float(rank)), 1.0 + 2 * rank).tolist() == [0.75]


def running_statistics(folder, output):
    """Of batch normalisation, of the trained and the averaged network, after an epoch on the cases of each rank."""
    config = make({**BASE, "preset": "softmax", "norm": "batch", "ema": "0.9", "data": str(folder), "batch_size": "2"})
    cases = discover(folder)
    plan = plan_for(config, [(24, 24, 12)], 1, cases.info)
    dataset = SegmentationDataset(list(cases)[:4], tuple(plan.patch_size), seed=config.run.seed)
    trainer = loop.Trainer(config, plan, dataset, [], cases.info, torch.device("cpu"), output / "batch")
    trainer._steps(None, False, StopRequest())
    states = [model.state_dict() for model in (trainer.model, trainer.weights)]
    found = [next(value for key, value in state.items() if key.endswith("running_mean")) for state in states]
    assert all(float(mean.abs().max()) > 0 for mean in found)
    return [mean.tolist() for mean in found]


def spoiled(folder, output):
    """A value that is not finite on rank 1 alone stops both, and the state is saved."""
    config = make({**BASE, **METHODS["evidential"], "data": str(folder), "batch_size": "2"})
    cases = discover(folder)
    plan = plan_for(config, [(24, 24, 12)], 1, cases.info)
    dataset = SegmentationDataset(list(cases)[:5], tuple(plan.patch_size), seed=config.run.seed)
    trainer = loop.Trainer(config, plan, dataset, [], cases.info, torch.device("cpu"), output / "spoiled")
    batch = next(iter(trainer.loader))
    image = batch["image"] * (float("nan") if distributed.rank() == 1 else 1.0)
    with pytest.raises(RunFailure, match=r"epoch 1, step 0: loss term .* is nan; the state .* is saved in .*last\.pt"):
        trainer.step(1, 0, image, batch["label"])
    assert (output / "spoiled/checkpoints/last.pt").is_file()


def fail(text):
    raise ConfigError(text)


@pytest.mark.slow
def test_gradients_of_two_ranks_are_those_of_one_with_both_batches(tmp_path):
    phantom.write(tmp_path / "data", 5, 0, shape=(24, 24, 12))
    mp.spawn(rank_of_two, (tmp_path / "data", tmp_path, free_port()), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for method in METHODS:
        # Four cases in the first step, two a rank; one in the second, which leaves rank 1 without any.
        alone = gradients(tmp_path / "data", tmp_path, 4, METHODS[method])
        assert len(alone) == (1 if method == "accumulated" else 2)
        for k, step in enumerate(alone):
            assert max(float(grad.abs().max()) for grad in step) > 1e-3
            for here, there, grad in zip(ranks[0][method][k], ranks[1][method][k], step, strict=True):
                assert torch.equal(here, there)
                torch.testing.assert_close(here, grad, rtol=1e-5, atol=1e-5 * max(1.0, float(grad.abs().max())))
    # In the second step rank 0 has a noisy copy and rank 1 no image.
    for first, second in zip(ranks[0]["noisy"], ranks[1]["noisy"], strict=True):
        assert all(
            torch.equal(here, there) and bool(here.isfinite().all()) for here, there in zip(first, second, strict=True)
        )


@pytest.mark.slow
def test_torchrun_from_end_to_end(tmp_path):
    output = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    flags = ["--quick", "--epochs=2", "--set=network.channels=2,4,8", "--set=data.phantom_cases=7", "--batch-size=1",
             "--device=cpu", "--output", str(output)]  # fmt: skip
    done = subprocess.run(
        [*command, "-m", "sure_fast.train", *flags], capture_output=True, text=True, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sure_fast.train: the run is in") == 1
    assert "cpu, 2 ranks" in done.stdout
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "step"] == list(range(6))  # 5 cases, two a step, twice
    assert rows[-1]["val_dice"] is not None
    again = tmp_path / "again"
    evaluate.main(["--checkpoint", str(output), "--output", str(again), "--device", "cpu"])
    first, second = (json.loads((folder / "results.json").read_text()) for folder in (output, again))
    assert [case["case"] for case in first["per_case"]] == [case["case"] for case in second["per_case"]]
    for here, there in zip(first["per_case"], second["per_case"], strict=True):
        assert here.keys() == there.keys()
        for name, value in here.items():
            assert value == (there[name] if isinstance(value, str | list) else pytest.approx(there[name], rel=1e-6))
    before = sorted(path.name for path in output.iterdir())
    refused = subprocess.run([*command, "-m", "sure_fast.train", *flags], capture_output=True, text=True, timeout=600)
    assert refused.returncode != 0
    assert refused.stderr.count("expected a new or empty folder") == 1
    assert sorted(path.name for path in output.iterdir()) == before


def test_a_process_of_its_own_is_all_ranks():
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.gather("a") == ["a"]
    assert list(distributed.share([1, 2, 3])) == [1, 2, 3]
    assert distributed.interleave([[0, 3], [1, 4], [2]]) == [0, 1, 2, 3, 4]
    with distributed.joined("cpu"):
        assert distributed.world_size() == 1


@pytest.mark.parametrize("command", [evaluate, predict, compare])
def test_programs_of_one_process(command, monkeypatch):
    for name in distributed.ENVIRONMENT:
        monkeypatch.setenv(name, "2")
    flags = {
        evaluate: ["--checkpoint", "x"],
        predict: ["--checkpoint", "x", "--input", "x", "--output", "y"],
        compare: [],
    }
    with pytest.raises(ConfigError, match=rf"torchrun: expected one process of {command.PROGRAM}, got 2"):
        command.main(flags[command])


def test_devices_of_ranks(monkeypatch):
    for name in distributed.ENVIRONMENT:
        monkeypatch.setenv(name, "1")
    assert distributed.own_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="device: expected auto, cuda or cpu for the processes of torchrun"):
        distributed.own_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="a GPU for each process of this machine, got 1 for rank 1"):
        distributed.own_device("cuda")
