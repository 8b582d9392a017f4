from __future__ import annotations

import pytest
import torch

from sure_fast.engine import checkpoint
from sure_fast.engine.checkpoint import ModelPlan


def plan():
    return ModelPlan(2, 1, 3, [4, 8], [[2, 2]], [16, 16], {0: "background", 1: "a", 2: "b"}, "softplus")


def saved(folder, name="last.pt", epoch=4):
    torch.manual_seed(0)
    model = plan().build()
    states = {"model": model.state_dict(), "optimizer": torch.optim.Adam(model.parameters()).state_dict()}
    path = folder / "checkpoints" / name
    checkpoint.save(path, states, plan(), epoch, {"seed": 1}, keep_previous=True)
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


EARLIER_PLAN = ("dims", "in_channels", "num_classes", "channels", "strides", "patch_size", "class_names", "evidence",
                "dropout", "norm", "orientation")  # fmt: skip
"""What the plan of a checkpoint held before there was a choice of networks."""
EARLIER_CONFIG = {"data": {"augment": True}, "network": {"channels": [4, 8], "norm": "instance"}, "run": {"seed": 1}}


def test_a_checkpoint_that_names_no_network_is_the_unet_it_was(tmp_path):
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    model = UNet(2, 1, 3, (4, 8), ((2, 2),), num_res_units=2, norm="instance")
    path = tmp_path / "last.pt"
    content = {name: value for name, value in vars(plan()).items() if name in EARLIER_PLAN}
    torch.save({"format": checkpoint.FORMAT, "plan": content, "epoch": 3, "config": EARLIER_CONFIG,
                "model": model.state_dict()}, path)  # fmt: skip
    loaded, content = checkpoint.load_model(path)
    image = torch.rand(1, 1, 16, 16)
    assert torch.equal(loaded(image), model.eval()(image))
    config = content["config"]
    assert (config.network.name, config.network.upsample, config.data.augment) == ("unet", "transposed", "mirror")
    assert (config.data.spacing, config.optimizer.schedule) == ("none", "constant")
    predictor, _ = checkpoint.load_predictor(path)
    assert predictor(image).labels.shape == (1, 16, 16)
    with pytest.raises(ValueError, match=r"last.pt: expected network dynunet, got unet"):
        checkpoint.load_weights(path, ModelPlan(**{**vars(plan()), "network": "dynunet", "upsample": "interpolate"}))


def test_a_network_of_the_user_s_own_that_is_gone(tmp_path):
    states = {"model": {}}
    gone = ModelPlan(**{**vars(plan()), "network": "gone_module:make"})
    checkpoint.save(tmp_path / "last.pt", states, gone, 1, {"run": {"seed": 1}})
    with pytest.raises(ValueError, match=r"last.pt: .*a function that can be imported, got 'gone_module:make'"):
        checkpoint.load_model(tmp_path / "last.pt")


def test_one_rule_says_which_weights(tmp_path):
    saved(tmp_path, "best.pt")
    with pytest.raises(ValueError, match=r"expected a run's folder with checkpoints/last.pt, got none"):
        checkpoint.find(tmp_path)
    assert checkpoint.find(tmp_path, "best").name == "best.pt"
    saved(tmp_path)
    assert checkpoint.find(tmp_path).name == "last.pt"
    (tmp_path / "config.yaml").write_text("weights: best\n")
    assert checkpoint.find(tmp_path).name == "best.pt"
    assert checkpoint.find(tmp_path, "last").name == "last.pt"
    with pytest.raises(ValueError, match="weights: expected with a run's folder only, got best with the file"):
        checkpoint.find(tmp_path / "checkpoints/last.pt", "best")


def contents(path):
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def test_full_disk_leaves_the_old_checkpoints(tmp_path, monkeypatch):
    saved(tmp_path, epoch=3)
    _, path = saved(tmp_path)
    before = contents(path)
    assert before.keys() == {"last.pt", "last.previous.pt"}

    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(OSError, match=r"checkpoint .*last.pt: cannot be written: No space left on device$"):
            saved(tmp_path)
    assert contents(path) == before


def test_full_disk_within_torch(tmp_path):
    """A limit on the file's size fails where a full disk does, in a write of torch's own."""
    resource = pytest.importorskip("resource")
    saved(tmp_path, epoch=3)
    _, path = saved(tmp_path)
    before, limits = contents(path), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["last.pt"]) // 2, limits[1]))
        with pytest.raises(OSError, match=r"checkpoint .*last.pt: cannot be written: File too large$"):
            saved(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(path) == before


def test_the_latest_that_can_be_read(tmp_path):
    lines = []
    path = tmp_path / "checkpoints" / "last.pt"
    assert checkpoint.load_latest(path, lines.append) is None
    for epoch in (3, 4):
        saved(tmp_path, epoch=epoch)
    found, content = checkpoint.load_latest(path, lines.append)
    assert (found.name, content["epoch"], lines) == ("last.pt", 4, [])
    path.rename(path.with_name("elsewhere"))  # killed between the two renames of a save
    assert checkpoint.load_latest(path, lines.append)[1]["epoch"] == 3
    path.with_name("elsewhere").rename(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for spoiled in (whole[:-100], b"", bytes(flipped)):
        path.write_bytes(spoiled)
        found, content = checkpoint.load_latest(path, lines.append)
        assert (found.name, content["epoch"]) == ("last.previous.pt", 3)
        (line,) = lines
        assert line.startswith(f"checkpoint {path}: truncated, or not a checkpoint of sure_fast; it is now last.broken")
        assert line.endswith("last.previous.pt, the one before it, is used")
        assert not path.exists()
        lines.clear()
    saved(tmp_path, epoch=5)  # the good one before stays until there are two good ones again
    assert checkpoint.load(checkpoint.previous(path))["epoch"] == 3
    for file in (path, checkpoint.previous(path)):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"last.previous.pt: truncated"):
        checkpoint.load_latest(path, lines.append)


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
