from __future__ import annotations

import math

import pytest
import torch

from sure_fast.engine.prediction import Prediction, Predictor, home, sliding_window
from sure_fast.metrics import probability_stats
from sure_fast.models import build_model, plan_strides

SIZE = (16, 16, 8)


def network(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    return build_model(3, 1, 3, (4, 8), plan_strides(SIZE, 2), dropout=dropout, network="unet").eval()


@pytest.fixture
def image():
    return torch.randn((1, 1, *SIZE), generator=torch.Generator().manual_seed(0))


def entropy(p):
    return -(p * p.log()).sum(1) / math.log(3)


@torch.no_grad()
def test_evidential_and_softmax(image):
    model = network()
    z = model(image)
    found = Predictor([model], SIZE, evidence="softplus")(image)
    alpha = torch.nn.functional.softplus(z) + 1
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(found.probabilities, alpha / alpha.sum(1, keepdim=True), **close)
    torch.testing.assert_close(found.uncertainty, 3 / alpha.sum(1), **close)
    label = z.argmax(1).roll(1, 1)
    of_logits = found.stats(label, None)
    of_probabilities = probability_stats(found.probabilities, label, uncertainty=found.uncertainty)
    for got, want in zip(of_logits, of_probabilities, strict=True):
        assert (got.double() - want.double()).abs().sum() <= 4  # voxels a rounding away from the edge of a bin
    found = Predictor([model], SIZE, inference="softmax")(image)
    torch.testing.assert_close(found.probabilities, z.softmax(1), **close)
    torch.testing.assert_close(found.uncertainty, entropy(z.softmax(1)), **close)
    assert found.logits is None
    assert torch.equal(found.labels, z.argmax(1))


@torch.no_grad()
def test_ensemble_and_mirrors(image):
    models = [network(k) for k in range(3)]
    p = torch.stack([m(image).softmax(1) for m in models]).mean(0)
    found = Predictor(models, SIZE, inference="ensemble")(image)
    torch.testing.assert_close(found.probabilities, p, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.uncertainty, entropy(p), rtol=1e-4, atol=1e-5)
    mirrored = Predictor(models[:1], SIZE, inference="tta")
    found = mirrored(image)
    flips = [(), (2,), (3,), (4,), (2, 3), (2, 4), (3, 4), (2, 3, 4)]
    p = torch.stack([models[0](image.flip(f)).flip(f).softmax(1) for f in flips]).mean(0)
    torch.testing.assert_close(found.probabilities, p, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mirrored(image.flip(3)).uncertainty, found.uncertainty.flip(2), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_dropout_draws_the_same_masks_for_every_image(image):
    model = network(dropout=0.3)
    predictor = Predictor([model], SIZE, inference="mc-dropout", samples=4)
    state = torch.random.get_rng_state()
    first = predictor(image)
    torch.rand(3)
    assert torch.equal(predictor(image).probabilities, first.probabilities)
    torch.random.set_rng_state(state)
    predictor(image)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(module.training for module in model.modules())
    plain = Predictor([model], SIZE, inference="softmax")(image)
    assert not torch.allclose(plain.probabilities, first.probabilities, atol=1e-3)
    other = Predictor([model], SIZE, inference="mc-dropout", samples=4, seed=1)(image)
    assert not torch.allclose(other.probabilities, first.probabilities, atol=1e-3)
    torch.testing.assert_close(first.probabilities.sum(1), torch.ones(1, *SIZE))


def test_networks_that_do_not_fit_the_method():
    one, two = [network()], [network(), network(1)]
    for models, inference, text in (
        (one, "guess", "^inference: expected one of evidential"),
        (one, "ensemble", "^models: expected at least 2 networks for ensemble, got 1$"),
        (two, "tta", "^models: expected 1 network for tta, got 2$"),
        (one, "mc-dropout", "^models: expected a network with dropout"),
    ):
        with pytest.raises(ValueError, match=text):
            Predictor(models, SIZE, inference=inference)


def test_labels_are_those_that_the_counts_see():
    """Evidence that is equal for different logits: the first class, as in segmentation_stats."""
    logits = torch.tensor([-20.0, -18.0]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4)
    label = torch.ones(1, 4, 4, dtype=torch.long)
    for evidence in ("softplus", "relu", "exp"):
        p = Prediction(torch.full((1, 2, 4, 4), 0.5), torch.ones(1, 4, 4), logits, evidence)
        confusion = p.stats(label, None).confusion[0]
        assert confusion[1, int(p.labels[0, 0, 0])] == 16


def test_large_images_stay_in_main_memory(monkeypatch):
    gpu = torch.device("cuda", 1)
    assert home(gpu, (512, 512, 512), 4) == gpu  # 2 GiB of logits
    assert home(gpu, (512, 512, 513), 4) == torch.device("cpu")
    asked = {}
    monkeypatch.setattr(
        "monai.inferers.utils.sliding_window_inference", lambda image, *_, **options: asked.update(options) or image
    )
    sliding_window(torch.nn.Conv3d(1, 1, 1).to("meta"), SIZE)(torch.zeros(1, 1, *SIZE))
    assert (asked["sw_device"], asked["device"]) == (torch.device("meta"), torch.device("cpu"))


@pytest.mark.parametrize("length", [16, 48])
def test_the_network_sees_a_few_windows_whatever_the_image(length):
    seen = []
    model = network()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        logits = sliding_window(model, SIZE)(torch.zeros(1, 1, length, 16, 40))
    assert logits.shape == (1, 3, length, 16, 40)
    assert {shape[1:] for shape in seen} == {(1, *SIZE)}
    assert max(shape[0] for shape in seen) <= 4
