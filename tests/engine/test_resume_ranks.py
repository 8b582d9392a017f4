"""Two ranks, of which one gets a signal, stop at the same step and go on with the bits of an uninterrupted run."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
import torch.multiprocessing as mp

from sure_fast.data import phantom
from sure_fast.engine import checkpoint, distributed, evaluation, loop, pictures
from sure_fast.engine import run as training
from sure_fast.engine.config import make
from sure_fast.engine.signals import Interrupted
from tests._ranks import free_port, joined
from tests._runs import assert_equal, final

pytestmark = pytest.mark.slow
FLAGS = {"epochs": "2", "start_epoch": "0", "channels": "2,4,8", "batch_size": "1", "norm": "batch", "device": "cpu"}


def rank_of_two(rank, folder, port):
    pictures.save_curves = evaluation.save_case = lambda *_, **__: None
    config = make({**FLAGS, "data": str(folder / "data")})
    launch, steps = loop.Trainer.launch, []

    def signalled(*arguments):
        steps.append(None)
        if rank == 1 and len(steps) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return launch(*arguments)

    with joined(rank, port):
        training.train(config, folder / "whole", progress=False)
        loop.Trainer.launch = signalled
        with pytest.raises(Interrupted, match=r"at epoch 1, step 1; .*; continue with: torchrun .* --resume "):
            training.train(config, folder / "run", progress=False)
        loop.Trainer.launch = launch
        distributed.from_main(lambda: shutil.copytree(folder / "run", folder / "stopped"))
        training.train(config, folder / "run", progress=False, resume=True)


def test_two_ranks(tmp_path):
    data = phantom.write(tmp_path / "data", 6, 0, shape=(16, 16, 8))  # 4 to train: 2 steps an epoch
    mp.spawn(rank_of_two, (tmp_path, free_port()), nprocs=2)
    assert checkpoint.load(tmp_path / "stopped/checkpoints/last.pt")["progress"]["step"] == 1
    assert_equal(final(tmp_path / "run"), final(tmp_path / "whole"))
    with pytest.raises(ValueError, match=r"last.pt: expected as many ranks as when it was written, 2, got 1$"):
        training.train(make({**FLAGS, "data": str(data)}), tmp_path / "stopped", progress=False, resume=True)
