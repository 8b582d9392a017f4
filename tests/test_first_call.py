"""What a later epoch would stumble over is told at the first call of a loss, or works."""

from __future__ import annotations

import re

import pytest
import torch

import sure_fast
from sure_fast.integrations.nnunet.loss import NNUNetLoss
from sure_fast.losses import DevisLoss, PriusLoss, draw_noisy_images


def case(channels=1, size=(20, 22), classes=3):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, channels, *size, generator=generator)
    label = torch.zeros(2, *size, dtype=torch.long)
    label[:, size[0] // 2 :] = 1
    torch.manual_seed(0)
    return torch.nn.Conv2d(channels, classes, 3, padding=1), image, label


def supervised(**options):
    """With noisy copies of every image, where nothing else is asked for."""
    return sure_fast.UncertaintySupervisedLoss(**{"num_epochs": 10, "start_epoch": 3, "noisy_share": 1.0, **options})


def patches(**options):
    return supervised(**{"support": "patch", "noise": "mean", **options})


def prius(**options):
    return PriusLoss(**{"num_epochs": 10, "start_epoch": 3, **options})


MAKERS = [supervised, prius]


class Wrong(torch.nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


def refused(loss, text, logits, label, image, **given):
    for epoch in (0, 5):
        with pytest.raises((TypeError, ValueError), match=text):
            loss(logits, label, image, epoch=epoch, **given)


@pytest.mark.parametrize("make", MAKERS)
def test_images_that_do_not_fit(make):
    model, image, label = case()
    logits = model(image).detach()
    refused(make(), "^image: expected .* to match logits", logits, label, image[..., 1:], model=model)
    refused(make(), "^image: expected .* to match logits", logits, label, image[:1], model=model)
    refused(make(), "^image: expected float32", logits, label, image.long(), model=model)
    refused(make(), "^image: requires grad", logits, label, image.clone().requires_grad_(), model=model)
    refused(make(), "^image: expected a torch.Tensor", logits, label, None, model=model)
    refused(make(), "^logits: expected one output .* as the first, got a list$", [logits], label, image, model=model)
    refused(make(), "^label: expected whole numbers as labels, got 0.5", logits, label * 0.5 + 0.5, image, model=model)
    refused(make(), "^label: expected labels in", logits, label + 2, image, model=model)
    refused(
        make(), r"^label: expected .* use .argmax\(1\)", logits, torch.zeros(2, 3, 20, 22).long(), image, model=model
    )
    for same in (label.float(), label > 0):  # whole numbers and booleans
        assert make()(logits, same, image, epoch=0, model=model).total.isfinite()
    two, many, label = case(2)
    refused(make(), '^channels: "luma" expects 1 or 3 channels, got 2', two(many).detach(), label, many, model=two)
    for epoch in (0, 5):
        assert make(channels="mean")(two(many).detach(), label, many, epoch=epoch, model=two).total.isfinite()


@pytest.mark.parametrize("size", [(2, 22), (20, 2)])
def test_images_smaller_than_the_patch(size):
    model, image, label = case(size=size)
    text = rf"^patch_size: expected .* fits into the image \[{size[0]}, {size[1]}\], got \[3, 3\]; .*1 along"
    refused(patches(), text, model(image).detach(), label, image, model=model)
    patch = tuple(1 if n < 3 else 3 for n in size)
    for options in ({"patch_size": patch}, {"gamma": 0.0}):
        for epoch in (0, 5):
            out = patches(**options)(model(image), label, image, epoch=epoch, model=model)
            assert out.total.isfinite()
    assert supervised()(model(image), label, image, epoch=5, model=model).total.isfinite()  # noise everywhere fits
    refused(patches(patch_size=(3, 3, 3)), "^patch_size: expected one odd number >= 1 or 2 of them",
            model(image).detach(), label, image, model=model)  # fmt: skip
    three = supervised(spacing=(1.0, 1.0, 1.0))
    refused(
        three,
        "^spacing: expected one number from 1e-12 .* or 2 of them",
        model(image).detach(),
        label,
        image,
        model=model,
    )


@pytest.mark.parametrize("make", MAKERS)
def test_networks(make):
    model, image, label = case()
    logits = model(image).detach()
    refused(make(), "^model: expected the network.*, got None$", logits, label, image)
    refused(make(), "^model: expected the network.*, got str$", logits, label, image, model="net")
    wrong = {
        r"got \[\d, 2, 20, 22\]$": lambda x: torch.cat([x, x], 1),
        r"got \[\d, 3, 10, 11\]$": lambda x: model(x)[..., ::2, ::2],
        r"got dict$": lambda x: {"out": model(x)},
        r"got None$": lambda x: None,
    }
    for text, answer in wrong.items():
        network = Wrong(answer)
        refused(
            make(),
            r"^model: expected logits \[\d, 3, 20, 22\] for images.*" + text,
            logits,
            label,
            image,
            model=network,
        )
        with pytest.raises(ValueError, match=text):  # a plain function is not asked before it has to be
            make()(logits, label, image, epoch=5, model=answer)
    for several in (lambda x: [model(x), model(x)[..., ::2, ::2]], lambda x: (model(x), None)):
        want = make()(logits, label, image, epoch=5, model=model, generator=torch.Generator().manual_seed(0))
        got = make()(logits, label, image, epoch=5, model=several, generator=torch.Generator().manual_seed(0))
        assert torch.equal(got.total, want.total)


def test_noise_that_does_not_fit():
    model, image, label = case()
    logits = model(image).detach()
    loss = supervised(noisy_copies=2)
    noise = loss.draw_noise(model, logits, label, image)
    answer = model(noise.images).detach()
    refused(loss, r"^noisy_logits: expected \[4, 3, 20, 22\], got \[2, 3, 20, 22\]$", logits, label, image,
            noise=noise, noisy_logits=answer[:2])  # fmt: skip
    refused(
        supervised(), r"^noise: expected NoisyImages", logits, label, image, noise=tuple(noise), noisy_logits=answer
    )
    text = (
        r"^logits: expected those of the 6 images of noise\.beside\(image\), or noisy_logits beside those of 2, got 2$"
    )
    refused(loss, text, logits, label, image, noise=noise)
    refused(loss, "^model: expected the network, or noise, from the first call on", logits, label, image)
    text = "^noise: expected the noise of noisy_logits, got None"
    refused(loss, text, logits, label, image, model=model, noisy_logits=answer)
    with pytest.raises(ValueError, match=r"^support: expected 'image' to draw noise before the network answers"):
        supervised(support="patch", noise="mean").noise_of_step(image)
    with pytest.raises(ValueError, match=r"^image: expected"):
        loss.noise_of_step(image[0, 0])
    assert supervised()(logits, label, image, epoch=0, noise=noise, noisy_logits=answer).total.isfinite()


@pytest.mark.parametrize("make", MAKERS)
def test_trying_a_network_leaves_no_trace(make):
    _, image, label = case()
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.BatchNorm2d(3), torch.nn.Dropout(0.5))
    network[2].eval()
    logits = network(image)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    seen = []
    network.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    state, loss = torch.get_rng_state(), make()
    for _ in range(3):
        loss(logits, label, image, epoch=0, model=network)
    assert seen == [2]  # the batch, once
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network] == [True, True, False]
    assert network.training
    loss(logits, label, image, epoch=0, model=lambda x: pytest.fail("asked before its epoch"))


def test_a_network_is_tried_with_the_fewest_noisy_images():
    model, image, label = case()
    image, label = (t.repeat_interleave(3, 0)[:5] for t in (image, label))
    seen = []
    network = torch.nn.Sequential(model)
    network.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    loss = supervised(noisy_share=0.5)
    loss(model(image), label, image, epoch=0, model=network)
    for _ in range(2):
        loss(model(image), label, image, epoch=5, model=network)
    assert seen == [2, 3, 2]
    with pytest.raises(ValueError, match="got RuntimeError: too few images"):
        supervised(noisy_share=0.25)(model(image), label, image, epoch=0, model=Particular())


class Particular(torch.nn.Module):
    """Wants at least two images, merges its weights in eval(), counts its forwards, answers evaluation otherwise."""

    def __init__(self, training_answer=None):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.BatchNorm2d(3)
        self.training_answer = training_answer or (lambda z: z)
        self.register_buffer("forwards", torch.zeros(()))
        self.register_buffer("shared", torch.ones(1).expand(4))  # cannot be written
        self.merged = False

    def train(self, mode=True):
        self.merged = self.merged or not mode
        return super().train(mode)

    def forward(self, x):
        if len(x) < 2:
            raise RuntimeError("too few images")
        self.forwards = self.forwards + 1
        z = self.norm(self.conv(x))
        return self.training_answer(z) if self.training else {"probabilities": z.softmax(1)}


@pytest.mark.parametrize("make", MAKERS)
def test_a_network_is_tried_as_it_will_be_asked(make):
    _, image, label = case()
    network = Particular()
    logits = network(image)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loss = make()
    out = loss(logits, label, image, epoch=0, model=network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert (network.training, network.merged) == (True, False)
    out.total.backward()  # of a forward before the one that was tried
    assert loss(network(image), label, image, epoch=5, model=network).total.isfinite()
    stacked = Particular(lambda z: torch.stack([z, z], 1))  # as MONAI's DynUNet with deep supervision
    refused(
        make(),
        r"^model: expected logits \[\d, 3, 20, 22\] .*got \[\d, 2, 3, 20, 22\]$",
        stacked(image)[:, 0].detach(),
        label,
        image,
        model=stacked,
    )


@pytest.mark.parametrize("make", MAKERS)
def test_a_network_that_cannot_answer(make):
    _, image, label = case()
    network = Particular()
    logits = network(image).detach()
    text = r"^model: expected to answer images \[2, 1, 20, 22\] torch.float64, .* got RuntimeError: .*dtype|double"
    with pytest.raises(ValueError, match=text):
        make()(logits, label, image.double(), epoch=0, model=network)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("inside", ["clean", "noisy"])
def test_autocast_around_one_of_the_forwards(make, inside):
    model, image, label = case()

    def half(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(x)

    clean, noisy = (half, model) if inside == "clean" else (model, half)
    logits = clean(image)
    assert logits.dtype == (torch.bfloat16 if inside == "clean" else torch.float32)
    out = make()(logits, label, image, epoch=5, model=noisy, generator=torch.Generator().manual_seed(0))
    want = make()(model(image), label, image, epoch=5, model=model, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(out.segmentation, want.segmentation, rtol=0.02, atol=0.02)
    (got,) = torch.autograd.grad(out.total, model.weight)
    assert got.isfinite().all()
    assert got.abs().sum() > 0


def test_nnunet():
    model, image, label = case(2)
    settings = {"num_epochs": 10, "start_epoch": 3, "beta": 3.0, "annealing_epochs": 4}

    def call(data, epoch=0, label=label[:, None], logits=model(image).detach(), **options):  # noqa: B008
        loss = NNUNetLoss(**settings, **options)
        loss.epoch = epoch
        with loss.supervising(data):
            return loss(logits, label)

    assert call(image, gamma=0.1, image_channels=2) > 0
    with pytest.raises(ValueError, match=r"^image_channels: expected at most the 2 channels of the data, got 3"):
        call(image, gamma=0.1, image_channels=3)
    with pytest.raises(ValueError, match=r"^image: expected"):
        call(image[..., 1:], gamma=0.1, image_channels=2)
    regions = torch.zeros(2, 3, 20, 22, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"^image: expected"):
        call(image[..., 1:], gamma=0.0, image_channels=2, regions=True, label=regions)
    assert call(image, gamma=0.0, image_channels=2, regions=True, label=regions, epoch=5) > 0


def test_monai_takes_every_loss_with_an_epoch():
    pytest.importorskip("ignite", reason="needs the extra [monai]: pip install sure_fast[monai]")
    from monai.engines import SupervisedTrainer

    from sure_fast.integrations.monai import TrainerLoss

    batches = [{"image": torch.rand(1, 1, 16, 16), "label": torch.randint(0, 3, (1, 1, 16, 16))}]
    for made in (supervised(), prius(), DevisLoss(), sure_fast.EvidentialLoss()):
        network, loss = torch.nn.Conv2d(1, 3, 3, padding=1), TrainerLoss(made)
        SupervisedTrainer(
            "cpu", 12, batches, network, torch.optim.Adam(network.parameters()), loss, train_handlers=[loss]
        ).run()
        assert all(term.isfinite() for term in loss.terms.values())
    with pytest.raises(TypeError, match=r"^loss: expected one of UncertaintySupervisedLoss, .* got MSELoss$"):
        TrainerLoss(torch.nn.MSELoss())


BACKENDS = {
    "UncertaintySupervisedLoss": ("cpu", "triton", "reference"),
    "GradientUncertaintyLoss": ("cpu", "reference"),
    "NoiseUncertaintyLoss": ("cpu", "triton", "reference"),
    "EvidentialLoss": ("cpu", "triton", "reference"),
}


@pytest.mark.parametrize("owner", BACKENDS)
@pytest.mark.parametrize("backend", ["cpu", "triton", "cuda", "reference"])
def test_backends_of_modules(owner, backend):
    make = getattr(sure_fast, owner)
    if backend in BACKENDS[owner]:
        assert make(backend=backend).backend == backend
        return
    with pytest.raises(ValueError, match=rf"^backend: expected None, .* got '{backend}', which \w+ has not$"):
        make(backend=backend)


def test_a_backend_for_the_terms_that_are_computed():
    assert patches(gamma=0.0, backend="triton").backend == "triton"
    with pytest.raises(ValueError, match=r"^backend: expected None, .* got 'triton', which \w+ has not$"):
        patches(backend="triton")
    model, image, label = case()
    with (
        sure_fast.use_backend("triton"),
        pytest.raises(ValueError, match=r"'triton', which sample_hard_patches has not$"),
    ):
        patches()
    loss = patches()
    with sure_fast.use_backend("triton"), pytest.raises(ValueError, match=r"which sample_hard_patches has not$"):
        loss(torch.zeros(2, 3, 20, 22), label, image, epoch=0, model=model)


@pytest.mark.parametrize("generators", [True, False])
def test_sampled_pairs_are_drawn_anew_and_repeatably(generators):
    model, image, label = case()
    u = sure_fast.dirichlet_uncertainty(model(image).detach())
    logits = model(image).detach()
    whole = supervised(gamma=0.0, pairs="sampled", num_pairs=50)
    edges = sure_fast.GradientUncertaintyLoss(pairs="sampled", num_pairs=50)

    def steps(seed):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed) if generators else None
        return [
            [float(whole(logits, label, image, epoch=9, generator=generator).gradient) for _ in range(4)],
            [float(edges(u, image, label, generator=generator)) for _ in range(4)],
        ]

    first, again, other = steps(0), steps(0), steps(1)
    assert first == again
    for k in range(2):
        assert len({*first[k], *other[k]}) == 8
    assert edges(u, image, label, seed=3) == edges(u, image, label, seed=3) != edges(u, image, label, seed=4)


def test_sampled_pairs_compile_whole():
    model, image, label = case()
    loss = supervised(gamma=0.0, pairs="sampled", num_pairs=50)
    compiled = torch.compile(lambda z: loss(z, label, image, epoch=9).gradient, fullgraph=True, backend="aot_eager")
    logits = model(image).detach()
    torch.manual_seed(0)
    got = [float(compiled(logits)) for _ in range(3)]
    torch.manual_seed(0)
    assert got == [float(loss(logits, label, image, epoch=9).gradient) for _ in range(3)]
    assert len(set(got)) == 3


@pytest.mark.parametrize("center", [(0, 0), (19, 21), (-1, 3), (3, 21), (900, 3)])
def test_patches_that_reach_out_of_the_image(center):
    _, image, _ = case()
    centers, valid = torch.tensor([[center, (5, 5)]] * 2), torch.tensor([[True, True]] * 2)
    levels = torch.tensor([0.2, 0.8])
    found = re.escape(str([*center]))
    text = rf"^centers: expected voxel indices inside \[20, 22\] with room for a patch of \[3, 3\], got {found}$"
    for kind in (torch.int64, torch.int32, torch.int16):
        with pytest.raises(ValueError, match=text):
            draw_noisy_images(image, centers.to(kind), valid, levels)
    unused = draw_noisy_images(image, centers, valid & torch.tensor([False, True]), levels)
    assert (unused.images != torch.cat([image, image])).sum() == 4 * 9
    with pytest.raises(
        ValueError, match=r"^patch_size: expected a patch that fits into the image \[20, 22\], got \[21, 21\]"
    ):
        draw_noisy_images(image, centers, valid, levels, patch_size=21)


def test_centers_of_every_integer_type_and_in_compiled_steps():
    _, image, _ = case()
    centers, valid, levels = torch.tensor([[[5, 5]]] * 2), torch.ones(2, 1, dtype=torch.bool), torch.tensor([0.2, 0.8])
    want = draw_noisy_images(image, centers, valid, levels, generator=torch.Generator().manual_seed(0))
    for kind in (torch.int32, torch.uint8):
        got = draw_noisy_images(image, centers.to(kind), valid, levels, generator=torch.Generator().manual_seed(0))
        assert torch.equal(got.images, want.images)
        assert got.centers.dtype == torch.int64
    z, d = torch.randn(2, 3, 20, 22), torch.zeros(2, 20, 22)
    op = torch.compile(
        lambda c: sure_fast.noise_uncertainty_loss(z, z + 1, z - 1, d, c, levels).total,
        fullgraph=True, backend="aot_eager",
    )  # fmt: skip
    assert op(centers).isfinite()
    with pytest.raises(ValueError, match=r"^centers: expected voxel indices inside"):
        op(centers + 900)
