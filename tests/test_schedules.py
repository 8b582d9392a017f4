"""Every schedule holds its last value past the end; an epoch that is none is refused wherever one is taken."""

from __future__ import annotations

import math

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import sure_fast
from sure_fast.engine.config import RunConfig, TrainConfig
from sure_fast.integrations.nnunet.loss import NNUNetLoss
from sure_fast.losses import DeepSupervision, DevisLoss, PriusLoss, accuracy_uncertainty_loss, schedule

WRONG = [-1, -0.001, math.nan, math.inf, "3", True, [2], torch.tensor(2.0)]
END = [10, 10.5, 11, 15, 30, 1e9, None]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 1, 20, 22, generator=generator)
    label = torch.zeros(2, 20, 22, dtype=torch.long)
    label[:, 4:12, 5:15], label[:, 8:16, 9:18] = 1, 2
    torch.manual_seed(0)
    return torch.nn.Conv2d(1, 3, 3, padding=1), image, label


def losses(model, image, label):
    """Total of every loss that takes an epoch, by name, as functions of it."""
    with torch.no_grad():
        logits = model(image)

    def seeded():
        return torch.Generator().manual_seed(0)

    def step(loss):
        return lambda t: loss(logits, label, image, epoch=t, model=model, generator=seeded()).total

    def nnunet(t):
        loss = NNUNetLoss(num_epochs=10, beta=3.0, gamma=0.1, annealing_epochs=4)
        loss.epoch = t
        torch.manual_seed(0)
        with loss.supervising(image) as images, torch.no_grad():
            return loss(model(images), label[:, None])

    def evidential(total):
        return {"num_epochs": 10, "annealing_epochs": 4, "total": total}

    found = {"nnunet": nnunet, "prius": step(PriusLoss(num_epochs=10, annealing_epochs=4))}
    for total in ("weighted", "annealed"):
        module, devis = sure_fast.EvidentialLoss(**evidential(total)), DevisLoss(**evidential(total))
        levels = DeepSupervision(module)
        found[f"levels {total}"] = lambda t, levels=levels: levels([logits, logits[..., ::2]], label, epoch=t).total
        found[f"module {total}"] = lambda t, module=module: module(logits, label, t).total
        found[f"devis {total}"] = lambda t, devis=devis: devis(logits, label, t).total
        found[f"supervised {total}"] = step(sure_fast.UncertaintySupervisedLoss(**evidential(total), noisy_share=1.0))
    return found


def test_past_the_end_and_without_an_epoch(batch):
    for name, total in losses(*batch).items():
        want = total(10)
        assert all(torch.equal(total(t), want) for t in END), name
        assert want >= 0, name
        # the KL term, the terms of the uncertainty, or the annealed Dice term came or went
        assert not torch.equal(total(0), want), name


def test_an_epoch_that_is_none_is_refused(batch):
    for total in losses(*batch).values():
        for wrong in WRONG:
            with pytest.raises((TypeError, ValueError), match=r"^epoch: expected a finite number >= 0, or None, got"):
                total(wrong)
    loss = sure_fast.UncertaintySupervisedLoss(num_epochs=10)
    for wrong in WRONG:
        with pytest.raises((TypeError, ValueError), match=r"^epoch: expected"):
            loss.supervision_weight(wrong)


def test_schedules_by_hand():
    loss = sure_fast.UncertaintySupervisedLoss(num_epochs=100, start_epoch=30, ramp="exponential")
    assert loss.supervision_weight(29.9) == 0
    assert loss.supervision_weight(30) == pytest.approx(0.01)
    assert loss.supervision_weight(65) == pytest.approx(0.1)
    assert [loss.supervision_weight(t) for t in (100, 150, 300, None)] == [1.0] * 4
    assert [schedule.kl_weight(t, 20) for t in (0, 5, 20, 21, None)] == [0, 0.25, 1, 1, 1]
    assert schedule.kl_weight(0, 0) == 1
    assert schedule.annealed_dice_weight(0, 100) == pytest.approx(0.99)
    assert schedule.annealed_dice_weight(50, 100) == pytest.approx(0.9)
    assert [schedule.annealed_dice_weight(t, 100) for t in (100, 150, None)] == [0.0] * 3


def test_progress_of_devis(batch):
    model, image, label = batch
    z = model(image).detach()
    u = sure_fast.dirichlet_uncertainty(z)
    want = accuracy_uncertainty_loss(z, u, label, 1.0)
    for progress in (1.5, 100, None):
        assert torch.equal(accuracy_uncertainty_loss(z, u, label, progress), want)
    assert torch.equal(accuracy_uncertainty_loss(z, u[:, 0], label[:, None], 1.0), want)
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"^progress: expected a finite number >= 0, got"):
            accuracy_uncertainty_loss(z, u, label, wrong)


@pytest.mark.parametrize("epochs", [1, 3, 10, 40, 100])
def test_the_start_is_that_of_the_command(epochs):
    wanted = TrainConfig(run=RunConfig(epochs=epochs)).method.options["start_epoch"]
    assert sure_fast.UncertaintySupervisedLoss(num_epochs=epochs).start_epoch == wanted == int(0.3 * epochs)
    assert PriusLoss(num_epochs=epochs).start_epoch == wanted
    for make in (sure_fast.UncertaintySupervisedLoss, PriusLoss):
        with pytest.raises(ValueError, match=rf"^start_epoch: expected 0 <= start_epoch < num_epochs \({epochs}\)"):
            make(num_epochs=epochs, start_epoch=epochs)


@pytest.mark.parametrize("options", [{}, {"ramp": "exponential"}, {"total": "annealed"}], ids=str)
def test_a_compiled_step_goes_through_the_epochs(options, batch):
    """It is compiled for the first epoch, once more for any other, and for those with supervision."""
    model, image, label = batch
    loss = sure_fast.UncertaintySupervisedLoss(num_epochs=30, start_epoch=2, gamma=0.0, **options)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda z, t: loss(z, label, image, epoch=t).total, fullgraph=True, backend=counter)
    logits = model(image).detach()
    for t in (*range(30), 40, None):
        torch.testing.assert_close(compiled(logits, t), loss(logits, label, image, epoch=t).total)
    assert counter.frame_count <= 5


@pytest.mark.parametrize("share", [0.25, 0.5, 1 / 3, 1.0])
def test_a_compiled_step_takes_batches_of_any_size(share, batch):
    model, *_ = batch
    loss = sure_fast.UncertaintySupervisedLoss(num_epochs=10, start_epoch=0, noisy_share=share)
    classes = len(model(batch[1])[0])

    def step(image, label):
        noise = loss.noise_of_step(image, epoch=5)
        return loss(model(noise.beside(image)), label, image, epoch=5, noise=noise).total

    torch._dynamo.reset()
    compiled = torch.compile(step, backend="aot_eager")
    for number in (4, 4, 3, 4, 5, 4, 6, 3):
        image, label = (
            torch.randn(number, *batch[1].shape[1:]),
            torch.randint(0, classes, (number, *batch[2].shape[1:])),
        )
        before = loss.shared
        torch.manual_seed(number)
        got = compiled(image, label)
        after, loss.shared = loss.shared, before
        torch.manual_seed(number)
        torch.testing.assert_close(got, step(image, label))
        assert loss.shared == after
