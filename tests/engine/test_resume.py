"""Interrupted runs: the resumed one ends with the bits of the uninterrupted one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from sure_fast import train as command
from sure_fast.data import phantom
from sure_fast.engine import checkpoint, cli, evaluation, loop, pictures, signals
from sure_fast.engine import run as training
from tests._runs import assert_equal, final

pytestmark = pytest.mark.slow
TINY = ["--epochs=3", "--set=network.channels=2,4,8", "--set=run.validate_every=2"]
STEPS = 6  # 4 training cases: 2 a batch, 3 epochs
RUNS = {
    "sure": ["--preset=sure", "--set=method.start_epoch=1", "--batch-size=2"],
    "mc-dropout": ["--preset=mc-dropout", "--batch-size=2"],
    "slices": [
        "--dims=2",
        "--set=optimizer.name=sgd",
        "--set=optimizer.warmup=1",
        "--set=method.start_epoch=1",
        "--set=data.empty_slices=0.5",
        "--set=data.foreground_share=0.5",
        "--batch-size=12",
    ],
    "ensemble": ["--preset=ensemble", "--set=method.members=2", "--batch-size=2"],
    "everything": [
        *(
            "--preset=sure",
            "--set=method.start_epoch=0",
            "--batch-size=1",
            "--set=optimizer.accumulate=3",
            "--set=optimizer.schedule=poly",
            "--set=optimizer.clip_norm=0.5",
            "--set=optimizer.ema=0.9",
        ),
        *(
            "--set=method.mining_every=3",
            "--set=method.noisy_share=0.4",
            "--set=network.norm=batch",
            "--amp=fp16",
            "--set=run.patience=1",
            "--set=run.validate_every=1",
        ),
    ],
}


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """They take longer than all else here, and have tests of their own."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pictures, "save_curves", lambda *_: None)
        patched.setattr(evaluation, "save_case", lambda *_, **__: None)
        yield


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    data = phantom.write(tmp_path_factory.mktemp("data"), 6, 0, shape=(16, 16, 8))
    return {name: [*TINY, *own, f"--data={data}"] for name, own in RUNS.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, flags):
    """Uninterrupted runs."""
    folder = tmp_path_factory.mktemp("whole")
    for name, own in flags.items():
        command.main([*own, "--output", str(folder / name)])
    return {name: final(folder / name) for name in flags}


def send(patched, owner, name, at, *, number=signal.SIGTERM, times=1):
    """Within the `at`-th call of a function from now on this process gets a signal; more than one at any distance."""
    patched.setattr(signals, "TOGETHER", 0.0 if times > 1 else signals.TOGETHER)
    inner, calls = getattr(owner, name), []

    def signalled(*arguments, **options):
        result = inner(*arguments, **options)
        calls.append(None)
        if len(calls) == at:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return result

    patched.setattr(owner, name, signalled)


def run(*arguments):
    """The exit code of the command line."""
    try:
        cli.run(command.PROGRAM, lambda: command.main([str(a) for a in arguments]))
    except SystemExit as end:
        return end.code
    return 0


def stopped_at(step, output, arguments, **options):
    with pytest.MonkeyPatch.context() as patched:
        send(patched, loop.Trainer, "launch", step, **options)
        return run(*arguments, "--output", output)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_sigterm_in_any_step(flags, whole, tmp_path, capfd, step):
    output = tmp_path / "my run"
    assert stopped_at(step, output, flags["sure"]) == 143
    error = capfd.readouterr().err
    assert "SIGTERM: finishing the step and saving" in error
    epoch = (step - 1) // 2
    assert error.strip().splitlines()[-1] == (
        f"sure_fast.train: stopped by SIGTERM at epoch {epoch + 1}, step {step}; the state is saved in "
        f"{output}/checkpoints/last.pt; continue with: python -m sure_fast.train --resume '{output}'"
    )
    assert not list(output.rglob("*.partial"))
    assert checkpoint.load(output / "checkpoints/last.pt")["progress"]["step"] == step
    assert run("--resume", output) == 0
    assert f"continues at epoch {epoch + 1}, step {step} from" in capfd.readouterr().out
    assert_equal(final(output), whole["sure"])


def test_ctrl_c_and_dropout_and_workers(flags, whole, tmp_path):
    """The network's dropout draws from torch's own generator; workers prefetch what the stopped run never used."""
    assert stopped_at(3, tmp_path / "run", [*flags["mc-dropout"], "--num-workers=2"], number=signal.SIGINT) == 130
    assert run("--resume", tmp_path / "run", "--num-workers=0") == 0
    assert_equal(final(tmp_path / "run"), whole["mc-dropout"])


def test_slices_and_momentum(flags, whole, tmp_path):
    """Which slices come in an epoch, how each crop is changed, the momentum and the warm-up go on as they were."""
    assert stopped_at(4, tmp_path / "run", [*flags["slices"], "--num-workers=2"]) == 143
    assert run("--resume", tmp_path / "run", "--num-workers=0") == 0
    assert_equal(final(tmp_path / "run"), whole["slices"])


@pytest.mark.parametrize(("step", "saved"), [(1, 3), (3, 3), (4, 4), (5, 7), (8, 8)])
def test_every_state(flags, whole, tmp_path, step, saved):
    """Scaler, schedule, averaged weights, counter of the searches, patience; a group of batches is finished."""
    assert stopped_at(step, tmp_path / "run", flags["everything"]) == 143
    assert checkpoint.load(tmp_path / "run/checkpoints/last.pt")["progress"]["step"] == saved
    assert run("--resume", tmp_path / "run") == 0
    assert_equal(final(tmp_path / "run"), whole["everything"])


def test_ctrl_c_in_a_terminal(flags, tmp_path):
    """Every process of the group gets the signal, the workers that prepare the next crops too."""
    arguments = [*flags["sure"], "--epochs=500", "--set=run.validate_every=500", "--num-workers=2", "--output=run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sure_fast.train", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    last = tmp_path / "run/checkpoints/last.pt"
    try:
        for _ in range(1200):
            if last.exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert error.splitlines()[-1].startswith("sure_fast.train: stopped by SIGINT")
    assert error.endswith("continue with: python -m sure_fast.train --resume run\n")
    assert "Traceback" not in error
    step = checkpoint.load(last)["progress"]["step"]
    rows = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert sum('"kind": "step"' in row for row in rows) >= step > 0


@pytest.mark.parametrize("step", [3, STEPS, STEPS + 1, STEPS + 4])
def test_ensemble_goes_on_at_its_member(flags, whole, tmp_path, step):
    assert stopped_at(step, tmp_path / "run", flags["ensemble"]) == 143
    assert run("--resume", tmp_path / "run") == 0
    assert_equal(final(tmp_path / "run"), whole["ensemble"])


def test_a_second_signal_stops_at_once(flags, whole, tmp_path, capfd):
    arguments = [*flags["sure"], "--set=run.checkpoint_every=1"]
    assert stopped_at(4, tmp_path / "run", arguments, times=2) == 143
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("sure_fast.train: stopped by SIGTERM; continue with: ")
    assert checkpoint.load(tmp_path / "run/checkpoints/last.pt")["progress"]["step"] == 3
    assert run("--resume", tmp_path / "run", "--set=run.checkpoint_every=0") == 0
    assert_equal(final(tmp_path / "run"), whole["sure"])


@pytest.mark.parametrize(
    ("owner", "name"), [(loop, "validation_dice"), (training, "evaluate_cases"), (loop.checkpoint, "load_latest")]
)
def test_a_signal_outside_the_steps(flags, whole, tmp_path, owner, name):
    """In the validation, in the evaluation, and before the first step of a run that is continued."""
    with pytest.MonkeyPatch.context() as patched:
        send(patched, owner, name, 1)
        first = run(*flags["sure"], "--output", tmp_path / "run")
        assert first == (0 if name == "load_latest" else 143)
        if name == "load_latest":
            (tmp_path / "run/results.json").unlink()
            assert run("--resume", tmp_path / "run") == 143
    assert run("--resume", tmp_path / "run") == 0
    assert_equal(final(tmp_path / "run"), whole["sure"])


@pytest.mark.parametrize(("call", "place"), [(2, "epoch 2, step 2"), (5, "epoch 2, step 4")])
def test_a_signal_just_after_the_last_step(flags, whole, tmp_path, capfd, call, place):
    """When no step of the epoch can see it any more: it counts before the validation, and at the end."""
    with pytest.MonkeyPatch.context() as patched:
        send(patched, signals.StopRequest, "agreed", call)
        assert run(*flags["sure"], "--output", tmp_path / "run") == 143
    assert f"stopped by SIGTERM at {place}; the state is saved in" in capfd.readouterr().err
    assert run("--resume", tmp_path / "run") == 0
    assert_equal(final(tmp_path / "run"), whole["sure"])


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 3], lambda b: b""], ids=["truncated", "empty"])
def test_a_broken_checkpoint_is_named_and_the_one_before_used(flags, whole, tmp_path, capfd, spoil):
    assert stopped_at(5, tmp_path / "run", flags["sure"]) == 143
    last = tmp_path / "run/checkpoints/last.pt"
    last.write_bytes(spoil(last.read_bytes()))
    assert run("--resume", tmp_path / "run") == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if "truncated" in line]
    assert len(lines) == 1
    assert str(last) in lines[0]
    assert "last.previous.pt, the one before it, is used" in lines[0]
    assert_equal(final(tmp_path / "run"), whole["sure"])


def test_no_checkpoint_that_can_be_read(flags, tmp_path, capfd):
    assert stopped_at(1, tmp_path / "run", flags["sure"]) == 143
    last = tmp_path / "run/checkpoints/last.pt"
    assert not checkpoint.previous(last).exists()
    last.write_bytes(b"x")
    assert run("--resume", tmp_path / "run") == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith(f"sure_fast.train: error: checkpoint {last}: truncated")


def test_disk_full(flags, whole, tmp_path, capfd):
    """At the second checkpoint of the second epoch."""
    output, save = tmp_path / "run", torch.save
    written = []

    def full(content, file):
        written.append(None)
        if len(written) == 4:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        save(content, file)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "save", full)
        assert run(*flags["sure"], "--output", output, "--set=run.checkpoint_every=1") == 1
    last = output / "checkpoints/last.pt"
    lines = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert lines == [
        f"sure_fast.train: error: checkpoint {last}: cannot be written: No space left on device; the checkpoints "
        f"before it are whole; continue with: python -m sure_fast.train --resume {output}"
    ]
    assert checkpoint.load(last)["progress"]["step"] == 2
    assert sorted(path.name for path in last.parent.iterdir()) == ["last.previous.pt", "last.pt"]
    assert run("--resume", output, "--set=run.checkpoint_every=0") == 0
    assert_equal(final(output), whole["sure"])


def test_one_command_starts_and_continues(flags, whole, tmp_path, capfd):
    output = tmp_path / "run"
    (output / "phantom").mkdir(parents=True)  # a start that was killed
    (output / "config.yaml.partial").touch()
    again = [*flags["sure"], "--resume", "--output", output]
    (output / "notes.txt").touch()
    assert run(*again) == 2
    assert "expected a new or empty folder" in capfd.readouterr().err
    (output / "notes.txt").unlink()
    with pytest.MonkeyPatch.context() as patched:
        send(patched, loop.Trainer, "launch", 3)
        assert run(*again) == 143
    assert run(*again, "--learning-rate=0.1") == 2
    assert "was started with optimizer.learning_rate 0.001, got 0.1" in capfd.readouterr().err
    assert run(*again) == 0
    assert_equal(final(output), whole["sure"])
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    capfd.readouterr()
    assert run(*again) == 0
    assert capfd.readouterr().out == f"sure_fast.train: the run in {output} is complete\n"
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    results = (output / "results.json").read_text()
    (output / "results.json").write_text(results[:100])  # which are made again
    assert run(*again) == 0
    made, was = (json.loads(text) for text in ((output / "results.json").read_text(), results))
    assert made["per_case"] == was["per_case"]


def test_resume_alone_takes_the_last_run(flags, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run("--resume") == 2
    assert "resume: expected a run in runs, got none; name its folder" in capfd.readouterr().err
    for name in ("b", "a"):
        assert stopped_at(1, tmp_path / "runs" / name, flags["sure"]) == 143
    assert run("--resume") == 0
    assert (tmp_path / "runs/a/results.json").exists()
    assert not (tmp_path / "runs/b/results.json").exists()


def test_refused(flags, tmp_path, capfd):
    output = tmp_path / "run"
    assert stopped_at(1, output, flags["sure"]) == 143
    (tmp_path / "other.yaml").write_text("beta: 3\n")
    for arguments, message in (
        (["--resume", tmp_path / "none"], "expected the folder of a run with config.yaml, got none"),
        (["--resume", output, "--overwrite"], "resume: expected no --overwrite with it"),
        (["--resume", output, "--output", tmp_path / "b"], "expected no other --output"),
        (["--resume", output, "--epochs", 9], "was started with run.epochs 3, got 9"),
        (["--resume", output, "--config", tmp_path / "other.yaml"], "was started with method.beta 100.0, got 3.0"),
        (["--resume", output, "--wokers=2"], "unrecognized arguments: --wokers=2; did you mean '--num-workers'?"),
        (["--resume", output, "--epoch=3"], "unrecognized arguments: --epoch=3; did you mean '--epochs'?"),
    ):
        assert run(*arguments) == 2
        assert message in capfd.readouterr().err.splitlines()[-1]
    data = tmp_path / "data"
    shutil.copytree(flags["sure"][-1].removeprefix("--data="), data)
    assert stopped_at(1, tmp_path / "moved", [*TINY, *RUNS["sure"], f"--data={data}"]) == 143
    capfd.readouterr()
    shutil.rmtree(data)
    phantom.write(data, 7, 0, shape=(16, 16, 8))
    assert run("--resume", tmp_path / "moved") == 2
    assert "cases of the data are not those it was started with" in capfd.readouterr().err
    assert run("--resume", output) == 0


def test_checkpoint_of_another_network(flags, tmp_path, capfd):
    assert stopped_at(1, tmp_path / "a", flags["sure"]) == 143
    assert stopped_at(1, tmp_path / "b", [*flags["sure"], "--set=network.channels=4,8,16"]) == 143
    shutil.copy(tmp_path / "b/checkpoints/last.pt", tmp_path / "a/checkpoints/last.pt")
    assert run("--resume", tmp_path / "a") == 2
    assert "is of another network than this run's" in capfd.readouterr().err
