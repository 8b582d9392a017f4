"""Networks: what they give, how they are planned, and that they leave no grid."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch

from sure_fast.models import NETWORKS, NORMS, Description, build, build_model, plan_topology

CONVTRANSPOSE = (torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)


def description(name, dims, **changes):
    patch = ((64, 32, 32) if name == "swinunetr" else (16, 32, 16))[:dims]
    levels = 3
    own: dict = {"parameters": {}}
    if name == "unetr":
        own["parameters"] = {"feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_heads": 3}
    if name == "swinunetr":
        own["parameters"] = {"feature_size": 12}
    given = {"network": name, "dims": dims, "in_channels": 2, "num_classes": 3, "patch_size": patch,
             "channels": [4, 8, 16], "strides": [[2] * dims] * (levels - 1), **own}  # fmt: skip
    return Description(**{**given, **changes})


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_logits_and_gradients(name, dims):
    if name in ("unetr", "swinunetr"):
        pytest.importorskip("einops")
    of = description(name, dims)
    torch.manual_seed(0)
    model = build(of)
    assert not any(isinstance(layer, CONVTRANSPOSE) for layer in model.modules())
    image = torch.randn(2, 2, *of.patch_size)
    logits = model(image)
    assert logits.shape == (2, 3, *of.patch_size)
    logits.square().sum().backward()
    parameters = {n: p for n, p in model.named_parameters() if "cross_attn" not in n}  # MONAI's ViT does not use them
    without = [n for n, p in parameters.items() if p.grad is None or not p.grad.isfinite().all()]
    assert not without
    assert any(isinstance(x, CONVTRANSPOSE) for x in build(dataclasses.replace(of, upsample="transposed")).modules())


def grid(model):
    """How much the answer to a constant image changes with a period of 2, far from its border."""
    with torch.no_grad():
        center = model.eval()(torch.ones(1, 1, 160, 160))[0, :, 72:88, 72:88]
    return (center[:, ::2] - center[:, 1::2]).abs().max() / center.abs().max()


@pytest.mark.parametrize("name", ["unet", "dynunet", "segresnet", "attentionunet"])
def test_no_grid(name):
    given = {"in_channels": 1, "patch_size": (160, 160), "norm": "batch"}
    torch.manual_seed(0)
    assert grid(build(description(name, 2, **given))) < 1e-5
    torch.manual_seed(0)
    assert grid(build(description(name, 2, **given, upsample="transposed"))) > 1e-3


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["unet", "dynunet", "segresnet"])
def test_normalisation(name, norm):
    kinds = {"instance": torch.nn.InstanceNorm2d, "batch": torch.nn.BatchNorm2d, "group": torch.nn.GroupNorm}
    layers = {type(layer) for layer in build(description(name, 2, norm=norm)).modules()}
    assert kinds[norm] in layers
    assert not layers & {kind for other, kind in kinds.items() if other != norm}


def test_coarser_outputs_come_in_training_only():
    model = build(description("dynunet", 2, channels=[4, 8, 16, 16], strides=[[2, 2]] * 3, deep_supervision=2))
    image = torch.randn(1, 2, 32, 32)
    levels = model(image)
    assert [tuple(level.shape) for level in levels] == [(1, 3, 32, 32)] * 3
    assert isinstance(model.eval()(image), torch.Tensor)


def test_dropout_spares_the_logits():
    torch.manual_seed(0)
    model = build(description("dynunet", 2, dropout=0.5))
    assert (model(torch.randn(1, 2, 32, 32)) != 0).all()
    assert sum(isinstance(layer, torch.nn.Dropout) and layer.p == 0.5 for layer in model.modules()) > 4


def test_a_function_of_the_user_s_own(tmp_path, monkeypatch):
    (tmp_path / "mynet.py").write_text(
        "import torch\n"
        "def make(dims, in_channels, num_classes, patch_size, width=1):\n"
        "    assert patch_size == (16, 32)\n"
        "    return torch.nn.Conv2d(in_channels, num_classes, 2 * width + 1, padding=width)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = build(description("mynet:make", 2, parameters={"width": 2}))
    assert model.kernel_size == (5, 5)
    for name, message in (
        ("mynet:made", "expected a function that can be imported, got 'mynet:made'"),
        ("nonet:make", "expected a function that can be imported, got 'nonet:make'"),
        ("mynet:torch", "expected a function, got 'mynet:torch', which is module"),
        ("resnet", "expected one of unet, .*, or package.module:function, got 'resnet'"),
    ):
        with pytest.raises(ValueError, match=message):
            build(description(name, 2))
    sys.modules.pop("mynet")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("dynunet", {"channels": [4, 8], "strides": [[2, 2]]}, "dynunet: expected at least 3 levels of channels"),
        ("segresnet", {"channels": [4, 8, 8]}, "segresnet: expected channels that double"),
        ("attentionunet", {"norm": "instance"}, "attentionunet: norm: expected batch"),
        ("unet", {"parameters": {"width": 3}}, "unet: .*unexpected keyword argument 'width'"),
    ],
)
def test_what_cannot_be_built(name, changes, message):
    with pytest.raises(ValueError, match=message):
        build(description(name, 2, **changes))


def test_topology_by_hand():
    # sizes 40, 24: 40 -> 20 -> 10 -> 5; 24 -> 12 -> 6, which would leave 3
    assert plan_topology((40, 24)).strides == ((2, 2), (2, 2), (2, 1))
    assert plan_topology((40, 24)).patch_size == (40, 24)
    assert plan_topology((47, 24)).patch_size == (40, 24)
    assert plan_topology((47, 24), fixed=True).patch_size == (47, 24)
    assert plan_topology((47, 24), fixed=True).strides == ((1, 2), (1, 2))
    # 1, 1, 4 mm: the coarse axis waits until the others are at 4 mm
    of = plan_topology((64, 64, 64), 4, (1.0, 1.0, 4.0))
    assert of.strides == ((2, 2, 1), (2, 2, 1), (2, 2, 2))
    assert of.kernels == ((3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3))


def test_the_short_form():
    assert build_model(2, 1, 3)(torch.rand(1, 1, 32, 32)).shape == (1, 3, 32, 32)
    assert build_model(3, 1, 2, (2, 4), network="unet")(torch.rand(1, 1, 8, 8, 8)).shape == (1, 2, 8, 8, 8)
