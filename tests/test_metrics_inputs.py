"""What the metrics take: maps with or without a channel axis; what they refuse: logits, one-hot maps, other voxels."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch

import sure_fast
from sure_fast import metrics
from sure_fast.losses import region_distance
from tests.test_arguments import FUNCTIONS, arguments_of

COMPUTE = {name: f for name, f in FUNCTIONS.items() if getattr(metrics, name, None) is f}
OF_PROBABILITIES = [name for name, f in COMPUTE.items() if "probabilities" in inspect.signature(f).parameters]
OF_LABELS = [name for name, f in COMPUTE.items() if {"target", "prediction"} & set(inspect.signature(f).parameters)]
MAPS = ("uncertainty", "gradient", "distance", "noisy1", "noisy2", "a", "b", "mask", "label", "target", "prediction")


def plain(result):
    """As a list of tensors."""
    if isinstance(result, torch.Tensor):
        return [result]
    return list(result.values()) if isinstance(result, dict) else list(result)


def variants(value, kind):
    """The same map as [N, *S] or [N, 1, *S]."""
    if isinstance(value, list):
        return [variants(v, kind) for v in value]
    flat = value.squeeze(1) if value.dim() > 3 and value.shape[1] == 1 else value
    return flat if kind == "without" else flat[:, None]


@pytest.mark.parametrize("owner", COMPUTE)
def test_maps_with_and_without_a_channel_axis(owner):
    function, arguments = COMPUTE[owner], arguments_of(owner, COMPUTE[owner])
    wants = plain(function(**arguments))
    names = [name for name in arguments if name in MAPS or name == "noisy"]
    for only in (None, *names):
        for kind in ("with", "without"):
            given = dict(arguments)
            for name in names if only is None else [only]:
                given[name] = variants(arguments[name], kind)
            for got, want in zip(plain(function(**given)), wants, strict=True):
                torch.testing.assert_close(got.reshape(want.shape), want, equal_nan=True, rtol=0, atol=0)
    arrays = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    for got, want in zip(plain(function(**arrays)), wants, strict=True):
        torch.testing.assert_close(got, want, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(10, 12), (6, 8, 9), (1, 10, 12)], ids=str)
def test_gradient_and_distance_are_maps_as_of_the_ops(size):
    image = torch.rand(2, 1, *size)
    label = (torch.rand(2, *size) < 0.1).long()
    for given in (label, label[:, None]):
        gradient, distance = metrics.gradient_and_distance(image, given)
        assert gradient.shape == distance.shape == (2, 1, *size)
        assert torch.equal(gradient, sure_fast.gradient_magnitude(image))
    u = torch.rand(2, 1, *size)
    found = metrics.compute_uncertainty_metrics(u, gradient, distance, u * 1.1, u[:, 0] * 1.2)
    assert all(value.shape == (2,) for value in found.values())
    assert metrics.thin_by_gradient(gradient, distance <= 1).shape == gradient.shape
    assert metrics.compute_ucc(gradient, u[:, 0], mask=distance <= 1).shape == (2,)
    assert metrics.compute_ur(gradient[:, 0], u, mask=(distance <= 1)[:, 0]).shape == (2,)


@pytest.mark.parametrize("owner", OF_PROBABILITIES)
def test_what_is_no_probability_is_refused(owner):
    function, arguments = COMPUTE[owner], arguments_of(owner, COMPUTE[owner])
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 12, 13, generator=generator)
    p = logits.softmax(1)
    spoiled = p.clone()
    spoiled[1, :, 3, 4] = math.nan
    wrong = {
        r"numbers in \[0, 1\], got -\d.* to .*\d; logits become": [logits, logits.numpy(), logits * 100, -p],
        r"numbers in \[0, 1\], got NaN$": [spoiled],
        r"sum to 1 over the classes, got a sum that is": [p * 0.9, (logits * 9).sigmoid(), torch.zeros_like(p)],
    }
    for text, values in wrong.items():
        for value in values:
            with pytest.raises(
                ValueError, match=rf"^probabilities: expected {'' if text[0] == 'n' else 'them to '}" + text
            ):
                function(**{**arguments, "probabilities": value})
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        for classes in (2, 3, 40):
            wide = torch.randn(2, classes, 12, 13, generator=generator).mul(4).softmax(1).to(dtype)
            function(**{**arguments, "probabilities": wide, "target": arguments["target"].clamp(max=classes - 1)})
    mean = torch.stack([torch.randn(2, 3, 12, 13, generator=generator).softmax(1) for _ in range(8)]).mean(0)
    function(**{**arguments, "probabilities": mean})
    padded, target = p.clone(), arguments["target"].clone()
    padded[:, :, :3], target[:, :3] = 0.0, 255  # zeros where nothing counts
    function(**{**arguments, "probabilities": padded, "target": target}, ignore_index=255)
    with pytest.raises(ValueError, match="sum to 1"):
        function(**{**arguments, "probabilities": padded})


@pytest.mark.parametrize("owner", ["compute_ueo", "probability_stats"])
def test_uncertainties_outside_of_their_range(owner):
    function, arguments = COMPUTE[owner], arguments_of(owner, COMPUTE[owner])
    u = torch.rand(2, 12, 13)
    for value in (u * 1.2 + 0.1, u - 0.5, torch.randn(2, 12, 13) * 3, u * math.inf):
        with pytest.raises(
            ValueError, match=r"^uncertainty: expected numbers in \[0, 1\], got .* an entropy is divided"
        ):
            function(**{**arguments, "uncertainty": value})
    function(**{**arguments, "uncertainty": u})


def one_hot(label, classes=3):
    return torch.nn.functional.one_hot(label, classes).movedim(-1, 1)


@pytest.mark.parametrize("owner", OF_LABELS)
def test_one_hot_maps_are_no_labels(owner):
    function, arguments = COMPUTE[owner], arguments_of(owner, COMPUTE[owner])
    names = [name for name in ("target", "prediction") if name in arguments]
    for make, error, text in (
        (one_hot, ValueError, r"argmax\(1\)"),
        (lambda y: one_hot(y).bool(), ValueError, r"argmax\(1\)"),
        (lambda y: one_hot(y).float(), ValueError, r"argmax\(1\)"),
        (lambda y: one_hot(y).numpy(), ValueError, r"argmax\(1\)"),
    ):
        with pytest.raises(error, match=text):
            function(**{**arguments, **{name: make(arguments[name]) for name in names}})


def test_one_hot_maps_are_no_volumes():
    label = torch.zeros(2, 12, 13, dtype=torch.long)
    label[:, 3:8, 4:9], label[:, 5:7, 5:8] = 1, 2
    hot = one_hot(label)
    text = r"^\w+: expected labels \[N, \*S\], got one map per class \[2, 3, 12, 13\]"
    for call in (
        lambda: sure_fast.boundary_distance(hot),
        lambda: sure_fast.boundary_distance(hot.to(torch.uint8)),
        lambda: sure_fast.surface_distances(hot, hot, 3),
        lambda: region_distance(hot, 3),
        lambda: metrics.compute_dice(hot, hot, 3),
        lambda: metrics.compute_hd95(hot, hot, 3, (1.0, 1.0, 1.0)),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    volumes = one_hot(torch.zeros(2, 5, 6, 7, dtype=torch.long))
    for call in (lambda: metrics.compute_dice(volumes, volumes, 3), lambda: sure_fast.boundary_distance(volumes)):
        with pytest.raises(ValueError, match=r"got (shape )?\[2, 3, 5, 6, 7\]"):
            call()
    # a sheet one voxel thick is a volume when it is given as one, and so is anything that is no partition
    assert torch.equal(
        sure_fast.boundary_distance(hot[:, None]), sure_fast.boundary_distance(hot[:, None], backend="reference")
    )
    assert metrics.compute_dice(hot[:, None], hot[:, None], 2).values.tolist() == [[1.0], [1.0]]
    hot[0, :, 5, 5] = 0
    assert sure_fast.boundary_distance(hot).shape == hot.shape
    assert metrics.compute_hd95(hot, hot, 2, (1.0, 1.0, 1.0)).values.tolist() == [[0.0], [0.0]]


def test_a_volume_of_one_plane():
    target = torch.zeros(1, 1, 12, 13, dtype=torch.long)
    target[..., 3:8, 4:9] = 1
    prediction = target.roll(1, -1)
    in_plane = metrics.compute_surface_metrics(prediction, target, 2, (1.5, 1.0))
    volume = metrics.compute_surface_metrics(prediction, target, 2, (5.0, 1.5, 1.0))
    assert in_plane.assd_mm.shape == volume.assd_mm.shape == (1, 1)
    with pytest.raises(ValueError, match=r"^spacing_mm: expected 2 numbers"):
        metrics.compute_surface_metrics(prediction[0], target[0], 2, (5.0, 1.5, 1.0))


def test_uint8_is_not_wrapped():
    """PyTorch takes 255 of uint8 for -1, and 128 for no int8."""
    label = torch.zeros(1, 12, 13, dtype=torch.uint8)
    label[:, 6:], label[:, :, :2] = 1, 255
    with pytest.raises(ValueError, match=r"^target: expected labels in \[0, 3\) or ignore_index=-1, got 255$"):
        metrics.compute_dice(label.clamp(max=1), label, 3, ignore_index=-1)
    for backend in ("cpu", "reference"):
        with pytest.raises(ValueError, match=r"ignore_index=-1, got 255$"):
            sure_fast.evidential_loss(torch.zeros(1, 3, 12, 13), label, ignore_index=-1, backend=backend)
        got = sure_fast.boundary_distance(label, ignore_index=-1, backend=backend)
        assert torch.equal(got, sure_fast.boundary_distance(label.long(), ignore_index=-1, backend=backend))
        assert torch.equal(
            sure_fast.boundary_distance(label, ignore_index=255, backend=backend),
            sure_fast.boundary_distance(label.short(), ignore_index=255, backend=backend),
        )
    every = torch.arange(156, dtype=torch.uint8).reshape(1, 12, 13)
    assert metrics.compute_dice(every, every, 256).values[0, :155].tolist() == [1.0] * 155
    assert (
        metrics.compute_dice(every.clamp(max=100).to(torch.int8), every.clamp(max=100).to(torch.int8), 130).values.min()
        == 1
    )
    assert np.isfinite(float(sure_fast.evidential_loss(torch.zeros(1, 256, 12, 13), every, backend="reference").data))
