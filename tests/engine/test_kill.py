"""kill -9 at random moments: every run goes on, and ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sure_fast.data import phantom
from sure_fast.engine import checkpoint
from tests._runs import assert_equal, final

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="starts the runs by fork, without importing torch each time"),
]
KILLS, SEED = 10, 0
# Many epochs, so that the steps take more of a run's time than what comes before and after them.
FLAGS = ["--epochs=10", "--set=method.start_epoch=3", "--set=network.channels=2,4,8", "--batch-size=1",
         "--set=run.validate_every=1", "--set=run.checkpoint_every=1"]  # fmt: skip


def test_kill_at_ten_random_moments(tmp_path):
    phantom.write(tmp_path / "data", 6, 0, shape=(16, 16, 8))
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["steps"]) == KILLS
    assert len(set(found["steps"])) > KILLS // 3, f"the moments lie too close together to show anything: {found}"
    whole = final(tmp_path / "whole")
    for run in found["runs"]:
        assert_equal(final(Path(run)), whole)


def start(folder: Path, output: Path) -> int:
    """A process that starts the run of a folder, or continues it."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with open(folder / "log.txt", "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            train.main([*FLAGS, f"--data={folder / 'data'}", "--resume", f"--output={output}"])
        code = 0
        (folder / "modules.json").write_text(json.dumps(list(sys.modules)))
    finally:
        os._exit(code)


def wait(child: int, seconds: float) -> int | None:
    """The exit code; None while it runs on after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.002)


def finish(folder: Path, child: int) -> None:
    if wait(child, 120) != 0:
        sys.exit((folder / "log.txt").read_text())


def main(folder: Path) -> None:
    """Kills and continues runs; prints after which step each kill came."""
    finish(folder, start(folder, folder / "first"))
    for name in json.loads((folder / "modules.json").read_text()):
        with contextlib.suppress(ImportError):  # what a run imports on its way takes longer than the run
            importlib.import_module(name)
    began = time.monotonic()
    finish(folder, start(folder, folder / "whole"))
    duration = time.monotonic() - began
    moments, steps, runs = random.Random(SEED), [], []
    while len(steps) < KILLS:
        runs.append(folder / f"run{len(runs)}")
        while len(steps) < KILLS:
            child = start(folder, runs[-1])
            code = wait(child, moments.uniform(0.0, duration))
            if code is not None:
                break
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            written = sorted((runs[-1] / "checkpoints").glob("*.pt"))
            found = [checkpoint.load(path)["progress"]["step"] for path in written]  # raises for one that is corrupt
            steps.append(max(found, default=-1))
        finish(folder, start(folder, runs[-1]))
    print(json.dumps({"duration": duration, "steps": steps, "runs": [str(run) for run in runs]}))


if __name__ == "__main__":
    from sure_fast import train
    from sure_fast.engine import evaluation, pictures

    pictures.save_curves = lambda *_: None
    evaluation.save_case = lambda *_, **__: None
    main(Path(sys.argv[1]))
