from __future__ import annotations

import pytest
import torch

from sure_fast.engine import checkpoint
from sure_fast.engine.checkpoint import ModelPlan


def plan():
    return ModelPlan(2, 1, 3, [4, 8], [[2, 2]], [16, 16], {0: "background", 1: "a", 2: "b"}, "softplus")


def saved(folder, name="last.pt"):
    torch.manual_seed(0)
    model = plan().build()
    optimizer = torch.optim.Adam(model.parameters())
    path = folder / "checkpoints" / name
    checkpoint.save(path, model.state_dict(), optimizer.state_dict(), plan(), 4, {"seed": 1})
    return model, path


def test_round_trip_and_folders(tmp_path):
    model, path = saved(tmp_path)
    for source in (path, tmp_path, tmp_path / "checkpoints"):
        loaded, content = checkpoint.load_model(source)
        assert content["epoch"] == 4
        assert content["plan"] == plan()
        assert not loaded.training
        image = torch.rand(1, 1, 16, 16)
        assert torch.equal(loaded(image), model.eval()(image))
    saved(tmp_path, "best.pt")
    assert checkpoint.find(tmp_path).name == "best.pt"


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    _, path = saved(tmp_path)
    before = path.read_bytes()

    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        saved(tmp_path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["last.pt"]


def test_refuses_truncated_and_foreign_files(tmp_path):
    _, path = saved(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"checkpoint .*last.pt: truncated, or not a checkpoint"):
        checkpoint.load(path)
    torch.save({"model": 1}, path)
    with pytest.raises(ValueError, match=r"checkpoint .*last.pt: expected a 'sure_fast checkpoint 1' file"):
        checkpoint.load(path)
    torch.save(saved, path)  # a pickled function: weights_only refuses it
    with pytest.raises(ValueError, match="truncated, or not a checkpoint"):
        checkpoint.load(path)
    with pytest.raises(ValueError, match="no such file or folder"):
        checkpoint.load(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="expected a run's folder"):
        checkpoint.load(tmp_path / "empty")


def test_refuses_incomplete_content(tmp_path):
    _, path = saved(tmp_path)
    whole = torch.load(path, weights_only=True)
    for part, message in (("model", "its weights do not fit"), ("plan", "the plan of its network is not complete")):
        content = {**whole, part: dict(list(whole[part].items())[1:])}
        torch.save(content, path)
        with pytest.raises(ValueError, match=rf"checkpoint .*last.pt: {message}") as caught:
            checkpoint.load_model(path)
        assert "\n" not in str(caught.value)
    torch.save({key: value for key, value in whole.items() if key != "config"}, path)
    with pytest.raises(ValueError, match=r"checkpoint .*last.pt: expected the key 'config', got none"):
        checkpoint.load(path)
