"""The README's Python examples run as they stand, and the options that the docs name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sure_fast import train
from sure_fast.engine.config import full_name

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def test_there_are_examples():
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_example_runs(number):
    exec(compile(BLOCKS[number], f"README.md example {number + 1}", "exec"), {})


def test_options_in_the_docs_exist():
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = file.read_text(encoding="utf-8")
        keys = re.findall(r"--set ([\w.]+)=", text) + re.findall(
            r"`((?:data|network|optimizer|run|method)\.\w+)`", text
        )
        for key in keys:
            assert key == "section.key" or full_name(key) == key, file
        for command in re.findall(r"(sure_fast\.train .*?)(?:`|#|\n\n|$)", text, re.S):
            for flag in re.findall(r"(?<=\s)(--[a-z][a-z-]+)", command.replace("\\\n", " ").split("\n")[0]):
                assert flag in train.parser()._option_string_actions, (file, flag)
