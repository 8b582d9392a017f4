"""The modules equal the composition of the public ops, and the whole loss follows its schedule."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from sure_fast.losses import PriusLoss, draw_image_noise, draw_noisy_images
from sure_fast.losses.supervised import OF_IMAGES, SupervisionOutput
from sure_fast.methods import METHODS


def case(shape=(2, 1, 20, 22), classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(shape, generator=generator)
    label = torch.zeros((shape[0], *shape[2:]), dtype=torch.long)
    label[:, 4:12, 5:15] = 1
    label[:, 8:16, 9:18] = 2
    torch.manual_seed(seed)
    conv = torch.nn.Conv3d if len(shape) == 5 else torch.nn.Conv2d
    model = torch.nn.Sequential(conv(1, 4, 3, padding=1), torch.nn.Tanh(), conv(4, classes, 3, padding=1))
    return model, image, label


PAPER = {**METHODS["sure"].defaults, **METHODS["sure"].fixed}
FORMS = pytest.mark.parametrize("form", [{}, PAPER], ids=["dense", "paper"])


def supervised(**options):
    """With noisy copies of every image, where nothing else is asked for."""
    return sure_fast.UncertaintySupervisedLoss(**{"num_epochs": 10, "start_epoch": 3, "noisy_share": 1.0, **options})


def test_modules_are_their_ops():
    model, image, label = case()
    logits = model(image)
    module = sure_fast.EvidentialLoss(kind="log", total="annealed", num_epochs=7, annealing_epochs=4)
    terms = sure_fast.evidential_loss(logits, label, kind="log")
    total = terms.data + 2 / 4 * terms.kl + (1 - 0.01 ** (1 - 2 / 7)) * terms.dice
    got = module(logits, label, 2)
    assert got[1:] == terms[:3]
    torch.testing.assert_close(got.total, total)
    u = sure_fast.dirichlet_uncertainty(logits)
    got = sure_fast.GradientUncertaintyLoss(operator="central", per_class=True)(u, image, label[:, None])
    g, d = sure_fast.gradient_magnitude(image, operator="central"), sure_fast.boundary_distance(label)
    assert torch.equal(got, sure_fast.gradient_uncertainty_loss(u, g, d, label=label, normalize="band"))


def same_gradients(got, want, model):
    parameters = list(model.parameters())
    for one, other in zip(
        torch.autograd.grad(got, parameters, retain_graph=True), torch.autograd.grad(want, parameters), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("noise", ["mean", "std", "both"])
def test_dense_composition_of_the_public_ops(noise):
    model, image, label = case()
    model, image = model.double(), image.double()  # so that no order is a rounding away
    weights = {"order_weight": 11.0, "distance_weight": 20.0, "far_weight": 3.0, "noisy_weight": 0.25}
    loss = supervised(beta=7.0, gamma=2.0, margin=0.01, noise=noise, noisy_copies=2, **weights)
    logits = model(image)
    out = loss(logits, label, image, epoch=6, model=model, generator=torch.Generator().manual_seed(5))
    drawn = loss.draw_noise(model, logits, label, image, generator=torch.Generator().manual_seed(5))
    answers = model(drawn.images).chunk(2)
    u, *changed = (sure_fast.dirichlet_uncertainty(z) for z in (logits, *answers))
    d = sure_fast.boundary_distance(label)
    clean, *copies = (sure_fast.EvidentialLoss(num_epochs=10)(z, label, epoch=6) for z in (logits, *answers))
    gradient = sure_fast.gradient_uncertainty_loss(u, sure_fast.gradient_magnitude(image), d, normalize="band")
    terms = sure_fast.dense_noise_uncertainty_loss(u, *changed, d, drawn.levels, margin=0.01, normalize="band")
    noisy = (copies[0].total + copies[1].total) / 2
    of_noise = 11 * terms.order + 20 * terms.distance + 3 * terms.far + 0.25 * noisy
    want = clean.total + 7 * gradient + 2 * of_noise
    exactly = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(out.total, want, **exactly)
    torch.testing.assert_close(out.noise, of_noise, **exactly)
    torch.testing.assert_close(out.segmentation, clean.total + 2 * 0.25 * noisy, **exactly)
    assert min(gradient.item(), *(term.item() for term in terms)) > 0
    same_gradients(out.total, want, model)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_one_noisy_copy(backend):
    model, image, label = case()
    model, image = model.double(), image.double()
    weights = {"order_weight": 11.0, "distance_weight": 20.0, "far_weight": 3.0, "noisy_weight": 0.25}
    loss = supervised(beta=7.0, gamma=2.0, noisy_copies=1, **weights)
    answered = []

    def network(images):
        answered.append(len(images))
        return model(images)

    logits = model(image)
    with sure_fast.use_backend(backend):
        out = loss(logits, label, image, epoch=6, model=network, generator=torch.Generator().manual_seed(5))
    assert answered == [2]  # as many as the batch has
    drawn = loss.draw_noise(model, logits, label, image, generator=torch.Generator().manual_seed(5))
    assert (len(drawn.images), len(drawn.levels)) == (2, 1)
    answer = model(drawn.images)
    u, changed = (sure_fast.dirichlet_uncertainty(z) for z in (logits, answer))
    d = sure_fast.boundary_distance(label)
    clean, noisy = (sure_fast.EvidentialLoss(num_epochs=10)(z, label, epoch=6).total for z in (logits, answer))
    gradient = sure_fast.gradient_uncertainty_loss(u, sure_fast.gradient_magnitude(image), d, normalize="band")
    terms = sure_fast.dense_noise_uncertainty_loss(u, changed, None, d, drawn.levels, normalize="band")
    of_noise = 11 * terms.order + 20 * terms.distance + 3 * terms.far + 0.25 * noisy
    want = clean + 7 * gradient + 2 * of_noise
    torch.testing.assert_close(out.total, want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.noise, of_noise, rtol=1e-9, atol=1e-9)
    same_gradients(out.total, want, model)
    given = loss(logits, label, image, epoch=6, noise=drawn, noisy_logits=answer)
    torch.testing.assert_close(given.total, want, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match=r"noisy_logits: expected \[2, 3, 20, 22\], got \[4, 3, 20, 22\]"):
        loss(logits, label, image, epoch=6, noise=drawn, noisy_logits=torch.cat([answer, answer]))
    with pytest.raises(ValueError, match="noisy_copies: expected 1 or 2, got 3"):
        supervised(noisy_copies=3)


@pytest.mark.parametrize("copies", [1, 2])
def test_noise_answered_beside_the_clean_images(copies):
    model, image, label = case()
    model, image = model.double(), image.double()
    loss = supervised(beta=2.0, gamma=3.0, noisy_copies=copies)
    for epoch in (0, 2):  # nothing is supervised yet
        assert loss.noise_of_step(image, epoch=epoch).beside(image) is image
    noise = loss.noise_of_step(image, epoch=6)
    assert (len(noise.levels), len(noise.images)) == (copies, 2 * copies)
    out = loss(model(noise.beside(image)), label, image, epoch=6, noise=noise)
    apart = loss(model(image), label, image, epoch=6, noise=noise, noisy_logits=model(noise.images))
    torch.testing.assert_close(out, apart)
    same_gradients(out.total, apart.total, model)
    none = supervised(gamma=0.0).noise_of_step(image)
    assert not none.levels.numel()
    without = loss(model(none.beside(image)), label, image, epoch=6, noise=none)
    assert without.noise == without.noisy == 0 < without.gradient


def test_noise_over_images_is_one_field_at_two_levels():
    image = torch.randn(2, 1, 40, 40, generator=torch.Generator().manual_seed(1))
    for noise, noise_std in (("mean", 0.3), ("std", 0.3), ("mean", 0.0)):
        drawn = draw_image_noise(
            image,
            noise=noise,
            noise_std=noise_std,
            level_max=2.0,
            noisy_copies=2,
            generator=torch.Generator().manual_seed(2),
        )
        assert drawn.centers is drawn.valid is None
        first, second = (copy - image for copy in drawn.images.chunk(2))
        low, high = drawn.levels.tolist()
        assert 0 < low < high < 2
        if noise == "mean":
            torch.testing.assert_close(second - first, torch.full_like(first, high - low), rtol=1e-4, atol=1e-5)
            assert first.std().item() == pytest.approx(noise_std, rel=0.1, abs=1e-6)
        else:
            torch.testing.assert_close(second * low, first * high, rtol=1e-3, atol=1e-5)
            assert second.std().item() == pytest.approx(high, rel=0.1)
    both = {
        round(float((x.images[:2] - image).mean()), 1) == 0
        for x in (draw_image_noise(image, generator=torch.Generator().manual_seed(seed)) for seed in range(20))
    }
    assert both == {True, False}


def test_composition_of_the_public_ops():
    model, image, label = case()
    loss = supervised(
        **{**PAPER, "beta": 7.0, "gamma": 2.0, "order_weight": 1.0, "distance_weight": 2.0, "far_weight": 3.0}
    )
    logits = model(image)
    out = loss(logits, label, image, epoch=6, model=model, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    noise = loss.draw_noise(model, logits, label, image, generator=generator)
    u = sure_fast.dirichlet_uncertainty(logits, evidence="softplus")
    d = sure_fast.boundary_distance(label)
    segmentation = sure_fast.EvidentialLoss(num_epochs=10, evidence="softplus")(logits, label, epoch=6)
    gradient = sure_fast.gradient_uncertainty_loss(u, sure_fast.gradient_magnitude(image), d)
    noisy = sure_fast.noise_uncertainty_loss(
        logits, *model(noise.images).chunk(2), d, noise.centers, noise.levels, valid=noise.valid,
        order_weight=1.0, distance_weight=2.0, far_weight=3.0, evidence="softplus",
    )  # fmt: skip
    a = 0.01 ** (1 - 3 / 7)
    want = segmentation.total + a * (7 * gradient + 2 * noisy.total)
    torch.testing.assert_close(out.total, want)
    torch.testing.assert_close(out.noise, noisy.total)
    assert min(gradient.item(), noisy.order.item(), noisy.far.item()) > 0
    same_gradients(out.total, want, model)


@FORMS
def test_noise_given_by_the_caller(form):
    model, image, label = case()
    loss = supervised(**form)
    logits = model(image)
    inside = loss(logits, label, image, epoch=5, model=model, generator=torch.Generator().manual_seed(1))
    noise = loss.draw_noise(model, logits, label, image, generator=torch.Generator().manual_seed(1))
    outside = loss(logits, label, image, epoch=5, noise=noise, noisy_logits=model(noise.images))
    torch.testing.assert_close(inside.total, outside.total)
    with pytest.raises(ValueError, match="model: expected the network"):
        loss(logits, label, image, epoch=5)


def test_schedule():
    model, image, label = case()
    loss = supervised(beta=1.0, gamma=1.0, ramp="exponential")
    logits = model(image)
    before = loss(logits, label, image, epoch=2, model=model)
    assert before.total == before.segmentation
    assert before.gradient == before.noise == 0
    assert loss.supervision_weight(2.9) == 0
    assert loss.supervision_weight(3) == pytest.approx(0.01)
    assert loss.supervision_weight(10) == pytest.approx(1.0)
    constant = supervised()
    assert [constant.supervision_weight(epoch) for epoch in (2.9, 3, 10, None)] == [0, 1, 1, 1]
    only_gradient = supervised(gamma=0.0)(logits, label, image, epoch=9)  # needs no model
    assert only_gradient.gradient > 0
    assert only_gradient.noise == 0
    plain = supervised(beta=0.0, gamma=0.0)(logits, label, image, epoch=9)
    assert plain.total == plain.segmentation
    assert isinstance(plain, SupervisionOutput)


@pytest.mark.parametrize("shape", [(2, 1, 20, 22), (1, 1, 18, 19, 20)], ids=str)
@FORMS
def test_repeatable_in_2d_and_3d(shape, form):
    model, image, label = case(shape)
    runs = []
    for _ in range(2):
        out = supervised(**form)(
            model(image), label, image, epoch=8, model=model, generator=torch.Generator().manual_seed(3)
        )
        model.zero_grad()
        out.total.backward()
        runs.append([out.total.detach(), *(p.grad.clone() for p in model.parameters())])
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)
        assert first.isfinite().all()
    assert all(bool(p.abs().max() > 0) for p in runs[0])


def test_ignored_voxels_change_nothing():
    model, image, label = case()
    label[:, :, 19:] = 255
    logits = model(image).detach()
    loss = supervised(**PAPER, ignore_index=255)
    noise = loss.draw_noise(model, logits, label, image, generator=torch.Generator().manual_seed(0))
    changed = logits.clone()
    changed[..., 19:] += 5.0
    z = model(noise.images).detach()
    keep = noise._replace(valid=noise.valid & (noise.centers[..., 1] < 19))
    first = loss(logits, label, image, epoch=5, noise=keep, noisy_logits=z)
    second = loss(changed, label, image, epoch=5, noise=keep, noisy_logits=z)
    torch.testing.assert_close(first, second)


def test_ignored_voxels_change_nothing_of_noise_over_images():
    model, image, label = case()
    label[:, :, 19:] = 255
    loss = supervised(ignore_index=255)
    noise = loss.draw_noise(model, model(image), label, image, generator=torch.Generator().manual_seed(0))
    answers = [model(x).detach() for x in (image, noise.images)]
    changed = [z.clone() for z in answers]
    for z in changed:
        z[..., 19:] += 5.0
    first, second = (loss(z, label, image, epoch=5, noise=noise, noisy_logits=noisy) for z, noisy in (answers, changed))
    torch.testing.assert_close(first, second)


def test_patches_carry_the_same_noise_at_the_same_places():
    image = torch.zeros(2, 1, 9, 9)
    centers, valid = torch.tensor([[[1, 1], [6, 6]]] * 2), torch.tensor([[True, True], [True, False]])
    noise = draw_noisy_images(
        image, centers, valid, torch.tensor([0.0, 5.0]), patch_size=(3, 3), generator=torch.Generator().manual_seed(0)
    )
    first, second = noise.images.chunk(2)
    assert torch.equal(first[0, 0, 0:3, 0:3], first[0, 0, 5:8, 5:8])
    assert torch.equal(first[0, 0, 0:3, 0:3], first[1, 0, 0:3, 0:3])
    assert (first[0] != 0).sum() == 18
    assert (second[1] != 0).sum() == 9
    assert second[1, 0, :3, :3].mean() == pytest.approx(5.0, abs=0.5)
    large = draw_noisy_images(
        torch.zeros(1, 1, 99, 99), torch.tensor([[[49, 49]]]), torch.ones(1, 1, dtype=torch.bool),
        torch.tensor([0.2, 0.8]), patch_size=(99, 99), generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert large.images[1].mean().item() == pytest.approx(0.8, abs=0.02)
    assert large.images[1].std().item() == pytest.approx(0.3, abs=0.02)
    deviations = draw_noisy_images(
        torch.zeros(1, 1, 99, 99), torch.tensor([[[49, 49]]]), torch.ones(1, 1, dtype=torch.bool),
        torch.tensor([0.2, 0.8]), patch_size=(99, 99), noise="std", generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert deviations.images.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0.0, 0.0], abs=0.02)
    assert deviations.images.std(dim=(1, 2, 3)).tolist() == pytest.approx([0.2, 0.8], abs=0.02)
    with pytest.raises(ValueError, match="noise: expected one of"):
        draw_noisy_images(image, centers, valid, torch.tensor([0.2, 0.8]), patch_size=(3, 3), noise="variance")


def test_supervised_noise_levels_are_means_or_deviations():
    model, image, label = case()
    logits = model(image).detach()
    found = {}
    for kind in ("mean", "std"):
        loss = supervised(noise=kind, noise_std=0.0, noisy_copies=2)
        found[kind] = loss.draw_noise(model, logits, label, image, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found["mean"].levels, found["std"].levels)
    for kind, noise in found.items():
        first, second = noise.images.chunk(2)
        changes = [(copy - image)[(copy != image).nonzero(as_tuple=True)] for copy in (first, second)]
        if kind == "mean":  # without a deviation of its own the noise is its level
            for change, level in zip(changes, noise.levels, strict=True):
                torch.testing.assert_close(change, level.expand_as(change), atol=1e-6, rtol=0)
        else:
            assert all(change.std() > 0 for change in changes)


def test_hard_samples_every_few_steps_and_random_places_between():
    model, image, label = case((1, 1, 20, 22))
    asked = []

    def network(images):
        asked.append((len(images), torch.is_grad_enabled()))
        return model(images)

    loss, generator = supervised(**PAPER, mining_every=3, num_patches=2), torch.Generator().manual_seed(0)
    for step in range(7):
        logits = network(image)
        asked.clear()
        out = loss(logits, label, image, epoch=5, model=network, generator=generator)
        assert asked == [(1, False)] * (step % 3 == 0) + [(2, True)]
        assert out.total.isfinite()
    assert loss.draws == 7
    loss.draws = 1
    asked.clear()
    inside = torch.zeros(image.shape[2:])
    for _ in range(200):
        noise = loss.draw_noise(network, logits, label, image, generator=generator)
        loss.draws = 1
        assert noise.valid.all()
        for y, x in noise.centers[0].tolist():
            inside[y, x] += 1
        changed = (noise.images[:1] != image).sum()
        assert changed == 6 * 9  # three classes, two patches each, none on another
    assert asked == []
    # 1200 centers over 18 · 20 places that lie inside, of any label
    assert inside.sum() == inside[1:-1, 1:-1].sum() == 1200
    assert (inside[1:-1, 1:-1] == 0).sum() < 40
    by_label = [float(inside[label[0] == c].mean()) for c in (1, 2)]
    assert by_label == pytest.approx([1200 / 360] * 2, rel=0.3)
    same = [supervised(**PAPER, mining_every=2) for _ in range(2)]
    for a in same:
        a.draws = 1
    first, second = (
        a.draw_noise(network, logits, label, image, generator=torch.Generator().manual_seed(4)) for a in same
    )
    assert torch.equal(first.images, second.images)
    with pytest.raises(ValueError, match="mining_every: expected at least 1, got 0"):
        supervised(mining_every=0)


def test_bad_schedules():
    with pytest.raises(ValueError, match=r"start_epoch: expected 0 <= start_epoch < num_epochs \(10\), got 10"):
        supervised(start_epoch=10)
    with pytest.raises(ValueError, match=r"^beta: expected a finite number >= 0, got -1\.0$"):
        supervised(beta=-1.0)
    with pytest.raises(ValueError, match="noise: expected one of"):
        supervised(noise="variance")
    with pytest.raises(ValueError, match="noise: expected one of 'mean', 'std', got 'both'"):
        supervised(support="patch", noise="both")
    with pytest.raises(ValueError, match="level_max: expected a finite number > 0, got 0"):
        supervised(level_max=0.0)


@pytest.mark.parametrize(
    ("name", "value"), [("patch_size", 5), ("num_patches", 2), ("mining_every", 3), ("level_max", 0.5),
                        ("noisy_copies", 2), ("margin", 0.1), ("detach", True), ("noisy_weight", 1.0)]
)  # fmt: skip
def test_an_option_of_the_other_support_is_refused(name, value):
    own, other = ({}, PAPER) if name in OF_IMAGES else (PAPER, {})
    supervised(**own, **{name: value})
    with pytest.raises(ValueError, match=f"^{name}: expected only with support"):
        supervised(**other, **{name: value})


def test_monai_metatensors_are_accepted():
    from monai.data import MetaTensor

    model, image, label = case()
    plain = supervised()(model(image), label, image, epoch=8, model=model, generator=torch.Generator().manual_seed(3))
    meta, meta_label = MetaTensor(image), MetaTensor(label[:, None])
    out = supervised()(model(meta), meta_label, meta, epoch=8, model=model, generator=torch.Generator().manual_seed(3))
    out.total.backward()
    assert out.total.item() == plain.total.item()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())


def whole_step(form):
    """A network, and the whole supervised step of it, of the paper's form with hard-sample mining."""
    torch.manual_seed(0)
    model = torch.nn.Conv2d(1, 3, 3, padding=1)
    loss = supervised(**{**form, "start_epoch": 0, "distance_weight": 30.0})
    image, label = torch.randn(2, 1, 24, 24), (torch.arange(24) // 8).expand(2, 24, 24).contiguous()
    return model, lambda: loss(model(image), label, image, epoch=5, model=model).total


@FORMS
def test_the_whole_step_is_one_graph(form):
    model, step = whole_step(form)
    torch.manual_seed(1)
    want = step()
    wanted = torch.autograd.grad(want, model.weight)[0]
    torch.manual_seed(1)
    got = torch.compile(step, fullgraph=True, backend="aot_eager")()
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, model.weight)[0], wanted)


def test_the_step_with_noise_beside_the_images_is_one_graph():
    model, image, label = case()
    loss = supervised(noisy_copies=2)
    noise = loss.noise_of_step(image, epoch=5, generator=torch.Generator().manual_seed(0))

    def step():
        return loss(model(noise.beside(image)), label, image, epoch=5, noise=noise).total

    parameters = list(model.parameters())
    want, got = step(), torch.compile(step, fullgraph=True, backend="aot_eager")()
    torch.testing.assert_close(got, want)
    same = zip(torch.autograd.grad(got, parameters), torch.autograd.grad(want, parameters), strict=True)
    for one, other in same:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_noise_beside_a_metatensor_and_in_channels_last():
    from monai.data import MetaTensor

    model, image, label = case()
    loss = supervised()
    plain = loss.noise_of_step(image, epoch=5, generator=torch.Generator().manual_seed(0))
    want = loss(model(plain.beside(image)), label, image, epoch=5, noise=plain)
    for other in (MetaTensor(image), image.contiguous(memory_format=torch.channels_last)):
        noise = loss.noise_of_step(other, epoch=5, generator=torch.Generator().manual_seed(0))
        assert torch.equal(noise.beside(other), plain.beside(image))
        got = loss(model(noise.beside(other)), label, other, epoch=5, noise=noise)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "made",
    [supervised(), supervised(noisy_share=0.25), supervised(**PAPER), PriusLoss(num_epochs=10, start_epoch=3)],
)
def test_a_compiled_loss_takes_batches_of_any_size(made):
    compiled = torch.compile(made, backend="aot_eager")
    for number in (4, 3, 2):  # the last batch of an epoch is smaller: from the second size on shapes are symbols
        model, image, label = case((number, 1, 20, 22))
        for epoch in (0, 5):
            out = compiled(model(image).detach(), label, image, epoch=epoch, model=model)
            assert out.total.isfinite()


@FORMS
def test_the_whole_step_under_autocast(form):
    model, step = whole_step(form)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = step()
    assert total.dtype == torch.float32
    (gradient,) = torch.autograd.grad(total, model.weight)
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().sum()) > 0
