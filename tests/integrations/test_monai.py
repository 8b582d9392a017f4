"""The losses and metrics inside MONAI: its tensors, loops, engines, inferers and bundles."""

from __future__ import annotations

import itertools

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from monai.transforms import Compose, RandFlipd, ToTensord
from torch._dynamo.testing import CompileCounter

import sure_fast
from sure_fast.metrics import compute_dice

BUNDLE = """
network:
  _target_: UNet
  spatial_dims: 3
  in_channels: 1
  out_channels: 3
  channels: [8, 16]
  strides: [2]
  norm: instance
optimizer:
  _target_: torch.optim.Adam
  params: $@network.parameters()
  lr: 0.001
loss:
  _target_: sure_fast.integrations.monai.TrainerLoss
  loss:
    _target_: sure_fast.UncertaintySupervisedLoss
    noisy_share: 1.0
    num_epochs: 2
    start_epoch: 1
    gamma: 0.2
trainer:
  _target_: SupervisedTrainer
  device: cpu
  max_epochs: 2
  train_data_loader: $@loader
  network: '@network'
  optimizer: '@optimizer'
  loss_function: '@loss'
  train_handlers: ['@loss']
"""


def volume(seed: int) -> dict[str, MetaTensor]:
    image = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(seed))
    label = torch.zeros(1, 16, 16, 16, dtype=torch.long)
    label[:, 3:9, 4:12, 5:13], label[:, 8:13, 6:12, 5:13] = 1, 2
    meta = {"filename_or_obj": f"case{seed}.nii.gz"}
    return {"image": MetaTensor(image + label, meta=meta), "label": MetaTensor(label, meta=meta)}


@pytest.fixture
def loader():
    transforms = Compose([RandFlipd(["image", "label"], prob=0.5, spatial_axis=0), ToTensord(["image", "label"])])
    return DataLoader(Dataset([volume(i) for i in range(4)], transforms), batch_size=2)


def unet():
    torch.manual_seed(0)
    return UNet(3, 1, 3, channels=(8, 16), strides=(2,), norm="instance")


def test_plain_loop_with_sliding_windows(loader):
    model, losses = unet(), []
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    loss_fn = sure_fast.UncertaintySupervisedLoss(num_epochs=6, start_epoch=4, noisy_share=1.0)
    for epoch in range(6):
        for batch in loader:
            assert isinstance(batch["image"], MetaTensor)
            out = loss_fn(model(batch["image"]), batch["label"], batch["image"], epoch=epoch, model=model)
            assert all(type(term) is torch.Tensor for term in out)
            optimizer.zero_grad()
            out.total.backward()
            optimizer.step()
        losses.append(out.segmentation.item() - 0.5 * out.noisy.item())
    assert losses[-1] < losses[0]
    assert min(out.gradient.item(), out.far.item()) > 0
    batch = next(iter(loader))
    with torch.no_grad():
        logits = sliding_window_inference(batch["image"], (12, 12, 12), 2, model, overlap=0.25, mode="gaussian")
    u = sure_fast.dirichlet_uncertainty(logits)
    assert u.shape == batch["label"].shape
    assert type(u) is torch.Tensor
    assert bool(((u > 0) & (u <= 1)).all())
    stats = sure_fast.segmentation_stats(logits, batch["label"])
    assert type(stats[0]) is torch.Tensor
    prediction, label = (t.as_tensor() for t in (logits.argmax(1, keepdim=True), batch["label"]))
    assert bool((compute_dice(prediction.squeeze(1), label.squeeze(1), 3)[0] >= 0).all())


def test_the_network_gets_no_metatensor_from_the_loss():
    seen = []

    def model(images):
        seen.append(type(images))
        return torch.stack([images[:, 0], -images[:, 0]], 1).requires_grad_()

    case = {name: value[None] for name, value in volume(0).items()}
    label = case["label"].clamp(max=1)
    loss_fn = sure_fast.UncertaintySupervisedLoss(num_epochs=2, start_epoch=0)
    loss_fn(model(case["image"].as_tensor()), label, case["image"], epoch=1, model=model)
    assert seen == [torch.Tensor] * 2  # of the clean image, and of the noisy copy


@pytest.mark.parametrize("beta", [0.0, 30.0])
def test_one_graph_for_all_metatensors(beta):
    """Metadata differ from batch to batch; the compiled loss is one graph without breaks, compiled once."""
    torch._dynamo.reset()
    counter = CompileCounter()
    loss_fn = sure_fast.UncertaintySupervisedLoss(num_epochs=4, start_epoch=0, beta=beta, gamma=0.0)

    @torch.compile(backend=counter, fullgraph=True)
    def compiled(logits, label, image):
        return loss_fn(logits, label, image, epoch=2).total

    for seed in range(3):
        case = {name: value[None] for name, value in volume(seed).items()}
        logits = torch.randn(1, 3, 16, 16, 16, requires_grad=True)
        got = compiled(logits, case["label"], case["image"])
        want = loss_fn(logits, case["label"], case["image"], epoch=2).total
        torch.testing.assert_close(got, want)
    assert counter.frame_count == 1


def test_bundle(loader):
    pytest.importorskip("ignite", reason="needs the extra [monai]: pip install sure_fast[monai]")
    import yaml

    parser = ConfigParser({**yaml.safe_load(BUNDLE), "loader": loader})
    torch.manual_seed(0)
    trainer = parser.get_parsed_content("trainer")
    loss, network = parser.get_parsed_content("loss"), parser.get_parsed_content("network")
    before = [p.detach().clone() for p in network.parameters()]
    trainer.run()
    assert trainer.state.epoch == 2
    assert loss.loss.gamma == 0.2
    assert min(loss.terms["gradient"].item(), loss.terms["noise"].item()) > 0  # of epoch 1
    assert not any(torch.equal(p, q) for p, q in zip(before, network.parameters(), strict=True) if p.dim() > 1)


def test_supervised_trainer_equals_the_plain_loop(loader):
    pytest.importorskip("ignite", reason="needs the extra [monai]: pip install sure_fast[monai]")
    from monai.engines import SupervisedTrainer

    from sure_fast.integrations.monai import TrainerLoss

    batches = list(loader)
    for make in (
        lambda: sure_fast.EvidentialLoss(),
        lambda: sure_fast.UncertaintySupervisedLoss(num_epochs=2, start_epoch=0, gamma=0.0),
    ):
        plain, engine = unet(), unet()
        loss_fn, optimizer = make(), torch.optim.SGD(plain.parameters(), 1e-3)
        for epoch, batch in itertools.product(range(2), batches):
            logits = plain(batch["image"])
            if isinstance(loss_fn, sure_fast.EvidentialLoss):
                total = loss_fn(logits, batch["label"], epoch).total
            else:
                total = loss_fn(logits, batch["label"], batch["image"], epoch=epoch).total
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        loss = TrainerLoss(make())
        SupervisedTrainer(
            "cpu", 2, batches, engine, torch.optim.SGD(engine.parameters(), 1e-3), loss, train_handlers=[loss]
        ).run()
        for p, q in zip(plain.parameters(), engine.parameters(), strict=True):
            torch.testing.assert_close(p, q)
        assert loss.terms["total"].item() == pytest.approx(total.item())


def test_a_loss_that_is_no_handler_says_so():
    pytest.importorskip("ignite", reason="needs the extra [monai]: pip install sure_fast[monai]")
    from sure_fast.integrations.monai import TrainerLoss

    with pytest.raises(RuntimeError, match="train_handlers"):
        TrainerLoss(sure_fast.EvidentialLoss())(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))
