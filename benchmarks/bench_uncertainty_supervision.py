"""The whole supervision of one training step, its network left out: noisy images, every term of the loss and the
gradients of all logits; in the paper's form with hard-sample patches, and with noise over whole images. sure_fast, the
eager reference, torch.compile of it, and of the paper's form the published style.
"""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks import published
from benchmarks.common import row
from sure_fast.methods import PAPER

CASES = {
    "[24, 1, 128, 128], 4 classes": ((24, 1, 128, 128), 4),
    "[2, 1, 96, 96, 96], 3 classes": ((2, 1, 96, 96, 96), 3),
}


FORMS = {"": {**PAPER, "support": "patch", "beta": 30.0}, " with noise over images": {"noisy_share": 1.0}}


class Batch:
    """A batch with blobs as labels; the network's answers are given."""

    def __init__(self, shape, classes, copies):
        generator = torch.Generator().manual_seed(0)
        n, _, *size = shape
        coarse = torch.rand((n, 1, *[6] * len(size)), generator=generator)
        mode = "bilinear" if len(size) == 2 else "trilinear"
        smooth = torch.nn.functional.interpolate(coarse, size=size, mode=mode, align_corners=True)[:, 0]
        levels = torch.quantile(smooth.flatten()[:100_000], torch.linspace(0.6, 0.95, classes - 1))
        self.label = torch.bucketize(smooth, levels)
        self.image = torch.randn(shape, generator=generator)
        self.logits = torch.randn((n, classes, *size), generator=generator).requires_grad_()
        self.mined = torch.randn((n, classes, *size), generator=generator)
        self.noisy = torch.randn((copies * n, classes, *size), generator=generator).requires_grad_()
        self.classes = classes

    def network(self, images):
        return self.noisy if torch.is_grad_enabled() else self.mined

    def gradients(self, total):
        return total.detach(), *torch.autograd.grad(total, (self.logits, self.noisy))


def loss_of(form, backend):
    return sure_fast.UncertaintySupervisedLoss(num_epochs=10, start_epoch=0, **FORMS[form], backend=backend)


def ours(batch, backend, form=""):
    loss = loss_of(form, backend)

    def step():
        generator = torch.Generator().manual_seed(0)
        out = loss(batch.logits, batch.label, batch.image, epoch=9, model=batch.network, generator=generator)
        return batch.gradients(out.total)

    return step


def compiled(batch, form):
    loss = loss_of(form, "reference")
    generator = torch.Generator().manual_seed(0)
    noise = loss.draw_noise(batch.network, batch.logits, batch.label, batch.image, generator=generator)
    total = torch.compile(
        lambda logits, noisy: loss(logits, batch.label, batch.image, epoch=9, noise=noise, noisy_logits=noisy).total
    )

    def step():
        generator = torch.Generator().manual_seed(0)
        loss.draw_noise(batch.network, batch.logits, batch.label, batch.image, generator=generator)
        return batch.gradients(total(batch.logits, batch.noisy))

    return step


def in_published_style(batch, _):
    def u_of(z):
        return sure_fast.dirichlet_uncertainty(z, evidence="softplus", backend="reference")[:, 0]

    def step():
        d = published.distance_maps(batch.label, batch.classes)
        g = published.gradient_maps(batch.image)
        u, mined, (u1, u2) = u_of(batch.logits), u_of(batch.mined), u_of(batch.noisy).chunk(2)
        centers = published.hard_patches(u, mined, batch.label, d, classes=batch.classes, size=3, number=3)
        loss = sure_fast.EvidentialLoss(num_epochs=10, evidence="softplus", backend="reference")
        evidential = loss(batch.logits, batch.label, epoch=9)
        noise = published.noise_loss(u, u1, u2, d, centers, (0.3, 0.8))
        total = evidential.total + 30 * published.gradient_loss(u, g, d) + noise
        return batch.gradients(total)

    return step


STEPS = {
    "sure_fast": lambda batch, form: ours(batch, None, form),
    "eager reference": lambda batch, form: ours(batch, "reference", form),
    "torch.compile(reference)": compiled,
    "published style": in_published_style,
}


@pytest.mark.parametrize("size", CASES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", STEPS)
def test_training_step(benchmark, name, form, size):
    if form and name == "published style":
        pytest.skip("the published code has patches only")
    batch = Batch(*CASES[size], 1 if form else 2)
    step = STEPS[name](batch, form)
    # the published style draws its own pairs and patches: its loss is another number
    expected = None if name == "published style" else ours(batch, "reference", form)()
    rounds = "fast" if name == "sure_fast" else "once"
    row(benchmark, f"training step{form} {size}", name, step, expected, rtol=1e-3, atol=1e-6, rounds=rounds)
