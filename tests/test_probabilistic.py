from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from sure_fast.engine.prediction import Predictor
from sure_fast.losses import CrossEntropyDiceLoss, ProbabilisticLoss
from sure_fast.models import Description, build
from sure_fast.probabilistic import ProbabilisticUNet


def network(dims=2, seed=0):
    torch.manual_seed(seed)
    size = [16] * dims
    return build(Description("dynunet", dims, 1, 3, size, [4, 8, 8], [(2,) * dims] * 2, latent=2))


def batch(dims=2):
    generator = torch.Generator().manual_seed(0)
    return (
        torch.rand((2, 1, *[16] * dims), generator=generator),
        torch.randint(0, 3, (2, *[16] * dims), generator=generator),
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_the_divergence_is_torchs(dims):
    model, (image, label) = network(dims), batch(dims)
    hot = torch.nn.functional.one_hot(label, 3).movedim(-1, 1).float()
    answer = model(torch.cat([image, hot], 1))
    assert answer.shape == (2, 4, *image.shape[2:])
    gaussians = [Normal(mean, log_std.exp()) for mean, log_std in (
        model.posterior(torch.cat([image, hot], 1)), model.prior(image))]  # fmt: skip
    want = kl_divergence(*gaussians).sum(1)
    for n in range(2):
        torch.testing.assert_close(answer[n, 3], want[n].expand_as(answer[n, 3]))


def test_the_loss_is_its_parts_and_trains_everything():
    model, (image, label) = network(), batch()
    torch.manual_seed(3)
    out = ProbabilisticLoss(kl_weight=0.5)(model(image), label[:, None], image, model=model)
    torch.manual_seed(3)
    logits = model(image)
    hot = torch.nn.functional.one_hot(label, 3).movedim(-1, 1).float()
    answer = model(torch.cat([image, hot], 1))
    plain = CrossEntropyDiceLoss()(answer[:, :3], label).total
    torch.testing.assert_close(out.segmentation, plain)
    torch.testing.assert_close(out.kl, answer[:, 3].mean())
    torch.testing.assert_close(out.total, plain + 0.5 * out.kl)
    out.total.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())
    assert logits.shape == (2, 3, 16, 16)


def test_an_ignored_label_is_in_neither_the_posterior_nor_the_loss():
    model, (image, label) = network(), batch()
    asked = []

    def watching(images):
        asked.append(images)
        return model(images)

    label[:, :4] = 9
    loss = ProbabilisticLoss(ignore_index=9)
    out = loss(torch.zeros(2, 3, 16, 16), label, image, model=watching)
    assert out.total.isfinite()
    assert asked[0][:, 1:, :4].sum() == 0
    assert asked[0][:, 1:, 4:].sum() == 2 * 12 * 16


def test_a_prediction_is_the_mean_over_the_same_draws_everywhere():
    model = network()
    image = torch.rand(1, 1, 20, 24, generator=torch.Generator().manual_seed(1))
    predictor = Predictor([model], (16, 16), inference="probabilistic", samples=3)
    found = predictor(image)
    assert torch.equal(found.probabilities, predictor(image).probabilities)
    assert model.noise is None
    draws = []
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        model.noise = torch.randn(2, generator=generator)
        draws.append(predictor.windows[0](image).softmax(1))
    assert (draws[0] - draws[1]).abs().max() > 1e-4
    torch.testing.assert_close(found.probabilities, sum(draws) / 3)
    model.noise = None
    assert torch.equal(model.eval()(image[..., :16, :16]), model(image[..., :16, :16]))  # the mean of the prior
    model.train()
    assert not torch.equal(model(image[..., :16, :16]), model(image[..., :16, :16]))
    with pytest.raises(ValueError, match="expected a ProbabilisticUNet for probabilistic"):
        Predictor([torch.nn.Conv2d(1, 3, 1)], (16, 16), inference="probabilistic")


def test_an_empty_batch_has_a_loss_of_0_and_wrong_options_are_refused():
    model = network()
    image, label = torch.rand(0, 1, 16, 16), torch.zeros(0, 16, 16, dtype=torch.long)
    out = ProbabilisticLoss()(torch.zeros(0, 3, 16, 16), label, image, model=lambda x: x.new_zeros(0, 3, 16, 16))
    assert out.total == 0
    with pytest.raises(ValueError, match="model: expected the network"):
        ProbabilisticLoss()(torch.zeros(2, 3, 16, 16), *batch()[::-1])
    with pytest.raises(ValueError, match="kl_weight: expected a finite number >= 0"):
        ProbabilisticLoss(kl_weight=-1.0)
    assert isinstance(model, ProbabilisticUNet)
