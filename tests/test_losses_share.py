"""Noisy copies of a share of the images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

import sure_fast
from sure_fast.losses import supervised as supervised_module
from sure_fast.losses.noise_uncertainty import check_share
from tests.test_losses import FORMS, case, same_gradients, supervised


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_copies_of_some_images(backend, copies):
    model, image, label = case((5, 1, 20, 22))
    model, image = model.double(), image.double()
    label = torch.stack([labels.roll(k, 0) for k, labels in enumerate(label)])  # of every image others
    generator = torch.Generator().manual_seed(3)
    loss = supervised(beta=7.0, gamma=2.0, noisy_copies=copies, noisy_share=0.4)
    noise = loss.noise_of_step(image, epoch=6, generator=generator)
    assert noise.which.shape == (2,)
    assert len(noise.images) == 2 * copies
    with sure_fast.use_backend(backend):
        out = loss(model(noise.beside(image)), label, image, epoch=6, noise=noise)
    clean = supervised(beta=7.0, gamma=0.0)(model(image), label, image, epoch=6)
    alone = supervised(beta=0.0, gamma=2.0, noisy_copies=copies)
    times = math.sqrt(0.4)
    some = image[noise.which]
    given = {"noise": noise._replace(which=None, times=times), "noisy_logits": model(noise.images)}
    of_some = alone(model(some), label[noise.which], some, epoch=6, **given)
    for name in ("noise", "order", "distance", "far", "noisy"):
        torch.testing.assert_close(getattr(out, name), getattr(of_some, name), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.total, clean.total + 2 * of_some.noise, rtol=1e-9, atol=1e-9)
    same_gradients(out.total, clean.total + 2 * of_some.noise, model)
    drawn = {tuple(sorted(loss.noise_of_step(image, epoch=6, generator=generator).which.tolist())) for _ in range(40)}
    assert len(drawn) > 5  # of 10 pairs


@pytest.mark.parametrize(
    ("batch", "share", "copies"),
    [(1, 0.25, [1, 0, 0, 0] * 2), (2, 0.25, [1, 0] * 4), (8, 0.25, [2] * 8), (3, 0.25, [1, 1, 1, 0] * 2),
     (2, 0.4, [1, 1, 1, 1, 0] * 2), (10, 0.3, [3] * 8), (3, 1.0, [3] * 8), (2, 1 / 3, [1, 1, 0] * 3)],
)  # fmt: skip
def test_a_share_of_the_images_whatever_the_batch(batch, share, copies):
    loss = supervised(noisy_share=share)
    images = torch.randn(batch, 1, 8, 8)
    for wanted in copies:
        noise = loss.noise_of_step(images, epoch=6)
        assert len(noise.images) == wanted
        assert noise.times == pytest.approx(wanted / (batch * math.sqrt(share)) if wanted else 1, rel=1e-3)
    assert loss.shared == 0
    assert len(loss.noise_of_step(images[:0], epoch=6).images) == 0


@pytest.mark.parametrize("kind", [float, np.float16, np.float32, np.float64, str], ids=lambda kind: kind.__name__)
def test_numbers_of_any_library(kind):
    if kind is str:
        with pytest.raises(TypeError, match="noisy_share: expected a"):
            supervised(noisy_share="0.25")
    else:
        assert check_share(kind(0.25)) == (1, 4)
        assert check_share(kind(1)) == (1, 1)


@pytest.mark.parametrize("wrong", [0.0006, 1.0004, 2])
def test_a_share_that_is_none(wrong):
    with pytest.raises(ValueError, match=rf"noisy_share: expected a number from 0.001 to 1, got {wrong}"):
        supervised(noisy_share=wrong)


@FORMS
def test_a_share_of_the_steps_is_heavier(form):
    """With patches always; with noise over images where the batch is one image."""
    model, image, label = case((2 if form else 1, 1, 20, 22))
    asked = []

    def network(images):
        asked.append(len(images))
        return model(images)

    lazy, always = supervised(**{**form, "noisy_share": 1 / 3}), supervised(**form)
    logits = network(image)
    for epoch in (0, 2):  # without supervision nothing counts
        lazy(logits, label, image, epoch=epoch, model=model)
    for call in range(5):
        asked.clear()
        due = call % 3 == 0
        want = always(logits, label, image, epoch=6, model=model, generator=torch.Generator().manual_seed(call))
        out = lazy(logits, label, image, epoch=6, model=network, generator=torch.Generator().manual_seed(call))
        assert bool(asked) == due
        torch.testing.assert_close(out.noise, math.sqrt(3) * want.noise * due)
        a = lazy.supervision_weight(6)
        plain = want.segmentation - a * lazy.gamma * lazy.noisy_weight * want.noisy * (form == {})
        of_noise = a * lazy.gamma * out.noise
        torch.testing.assert_close(out.total, plain + a * lazy.beta * want.gradient + of_noise)
        torch.testing.assert_close(out.gradient, want.gradient)
    assert lazy.shared == 5 % 3
    drawn = lazy.draw_noise(model, logits, label, image)
    given = {"noise": drawn, "noisy_logits": model(drawn.images)}
    outs = [loss(logits, label, image, epoch=6, **given) for loss in (lazy, always)]
    assert outs[0].total == outs[1].total > 0


def test_a_compiled_loss_is_traced_for_the_calls_until_a_share_begins_anew():
    torch._dynamo.reset()
    counter = CompileCounter()
    model, image, label = case()
    loss = supervised(noisy_share=0.25)
    compiled = torch.compile(lambda z: loss(z, label, image, epoch=5, model=model).total, backend=counter)
    for _ in range(8):
        compiled(model(image).detach())
    assert counter.frame_count == 4  # calls, after which a quarter begins anew


@pytest.mark.parametrize("share", [0.3, 0.1])
def test_a_compiled_loss_that_would_be_traced_for_many_calls_is_refused(share):
    torch._dynamo.reset()
    model, image, label = case()
    loss = supervised(noisy_share=share)
    compiled = torch.compile(
        lambda z: loss(z, label, image, epoch=5, model=model).total, fullgraph=True, backend="eager"
    )
    with pytest.raises(Exception, match="noisy_share: expected a fraction with a denominator up to 8 in a compiled"):
        compiled(model(image).detach())  # where the graph may break, the loss runs as it is
    many = torch.cat([image] * 5), torch.cat([label] * 5)  # of ten images 3 and 1 are always the same
    torch.compile(lambda z: loss(z, many[1], many[0], epoch=5, model=model).total, backend="eager")(model(many[0]))


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_rank_without_a_copy_takes_part_and_counts_nothing(backend, copies, monkeypatch):
    """The sums of the copies are added up over the ranks, so that all of them compute the same."""
    monkeypatch.setattr(supervised_module, "number_of_ranks", lambda: 2)
    model, image, label = case((1, 1, 20, 22))
    model, image = model.double(), image.double()
    loss, plain = supervised(noisy_share=0.25, noisy_copies=copies), supervised(gamma=0.0)
    asked = []

    def network(images):
        asked.append(len(images))
        return model(images)

    for wanted in (1, 0, 0, 0, 1):
        noise = loss.noise_of_step(image, epoch=6)
        loss.shared = (loss.shared - 1) % 4
        assert (len(noise.images), len(noise.levels)) == (wanted * copies, copies)
        assert noise.times == 2 * wanted
        with sure_fast.use_backend(backend):
            out = loss(model(noise.beside(image)), label, image, epoch=6, noise=noise)
            asked.clear()
            apart = loss(model(image), label, image, epoch=6, model=network)
            want = plain(model(image), label, image, epoch=6)
        assert asked == [copies] * wanted
        if wanted:
            assert min(out.noise, apart.noise) > 0
        else:
            torch.testing.assert_close([out.total, apart.total], [want.total, want.total], rtol=1e-9, atol=1e-9)
            same_gradients(out.total, want.total, model)


def test_ranks_with_fewer_images_stay_with_the_others(monkeypatch):
    monkeypatch.setattr(supervised_module, "number_of_ranks", lambda: 2)
    ranks = [supervised(noisy_share=0.25), supervised(noisy_share=0.25)]
    for sizes in ((2, 2), (2, 1), (1, 0), (2, 2), (4, 3), (8, 8)):
        for loss, size in zip(ranks, sizes, strict=True):
            loss.noise_of_step(torch.zeros(size, 1, 8, 8), epoch=6)
        assert ranks[0].shared == ranks[1].shared
