"""Programs started by the tests, as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path


@cache
def _torchvision_loads() -> bool:
    return not subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode


def environment(torchvision: bool, **variables: str) -> dict[str, str]:
    """This one's, with the commands of this Python; `torchvision`: for what imports it and needs no operator of it."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **variables}
    if torchvision and not _torchvision_loads():
        before = [path for path in [os.environ.get("PYTHONPATH")] if path]
        env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent / "torchvision_cpu"), *before])
    return env


def run(*command: object, torchvision: bool = False, **variables: str) -> str:
    """The output of a command that must succeed, in `environment`."""
    env = environment(torchvision, **variables)
    done = subprocess.run([*map(str, command)], env=env, text=True, capture_output=True, timeout=1500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout
