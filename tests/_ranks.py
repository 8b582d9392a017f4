"""Processes of a test that are the ranks of one another."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sure_fast.engine import distributed


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@contextmanager
def joined(rank: int, port: str) -> Iterator[None]:
    """Within the block this process is one of two ranks of one thread each; after it no thread of gloo is left."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    with distributed.joined("cpu"):
        yield
    if sys.platform == "linux":
        left = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
        assert not [name for name in left if "gloo" in name], left
