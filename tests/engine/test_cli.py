"""What the command lines share."""

from __future__ import annotations

import os

import pytest

from sure_fast.engine import cli


@pytest.mark.parametrize("own", [None, "0"])
def test_large_pages_unless_the_user_has_said(monkeypatch, own):
    monkeypatch.setenv(cli.LARGE_PAGES, "0")  # restored at the end
    if own is None:
        monkeypatch.delenv(cli.LARGE_PAGES)
    seen = []
    cli.run("program", lambda: seen.append(os.environ[cli.LARGE_PAGES]))
    assert seen == [own or "1"]
