"""Every public callable refuses wrong arguments when made or first called, in one line that names the argument."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest
import torch

import sure_fast
from sure_fast import losses, metrics
from sure_fast.integrations.nnunet.loss import NNUNetLoss

NAN, INF = math.nan, math.inf
NUMBER = ["1", NAN, INF, True, torch.tensor(1.0), [1.0]]
NOT_NEGATIVE = [-1.0, None, *NUMBER]
COUNT = [0, -1, 2.5, "3", NAN, None, True, torch.tensor(3)]
CHOICE = ["typo", "", 3, None, ["mean"], torch.zeros(2), np.zeros(2)]
FLAG = ["yes", 1, 0.0, None, torch.tensor(True)]
INDEX = [1.5, "255", NAN, True, 2**70, torch.tensor(255)]
BACKEND = ["gpu", "", 3, True, ["cpu"]]
EDGES = [0, 4, -3, 3.0, "3", (3, 4), (3, 0), (), (3, 3, 3, 3), (3, 3.0), None, True, NAN]
SPACING = [0.0, -1.0, NAN, INF, "1", (1.0,), (1.0, 0.0), (1.0, NAN), (1.0, 1.0, 1.0, 1.0), True, {}]
WEIGHTS = [[], [0.0, 0.0], [-1.0, 2.0], [NAN, 1.0], [INF, 1.0], "12", 3.0, ["1"], {1.0: 2}, torch.ones(2, 2)]
EPOCH = [-1, -0.5, NAN, INF, -INF, "3", True, [1], torch.tensor(3.0)]
GENERATOR = [3, "cpu", torch.Generator]

WRONG = {
    "annealing_epochs": [value for value in COUNT if not (type(value) is int and value == 0)],
    "backend": BACKEND,
    "beta": NOT_NEGATIVE,
    "bins": COUNT,
    "blur_sigma": NOT_NEGATIVE,
    "channels": CHOICE,
    "class_weights": WEIGHTS,
    "columns": ["abc", 3, [1, 2]],
    "contrast_weight": NOT_NEGATIVE,
    "corruption_weight": NOT_NEGATIVE,
    "ddp": FLAG,
    "detach": FLAG,
    "distance": CHOICE,
    "distance_margin": [None, *NUMBER],
    "distance_weight": NOT_NEGATIVE,
    "epoch": EPOCH,
    "epsilon": [0.0, *NOT_NEGATIVE],
    "evidence": CHOICE,
    "expected": CHOICE,
    "far_threshold": [None, *NUMBER],
    "far_weight": NOT_NEGATIVE,
    "function": ["typo", 3],
    "gamma": NOT_NEGATIVE,
    "generator": GENERATOR,
    "geometry_weight": NOT_NEGATIVE,
    "gradient_threshold": NOT_NEGATIVE,
    "ignore_index": INDEX,
    "ignore_label": INDEX,
    "image_channels": COUNT,
    "kappa": [0.0, -1.0, NAN, "1", None, True],
    "kind": CHOICE,
    "kl_weight": NOT_NEGATIVE,
    "level": [0.0, 1.0, -1.0, None, *NUMBER],
    "level_weights": WEIGHTS,
    "level_max": [0.0, *NOT_NEGATIVE],
    "levels": COUNT,
    "loss": CHOICE,
    "margin": NOT_NEGATIVE,
    "max_distance": [value for value in NOT_NEGATIVE if value is not None],
    "max_std": NOT_NEGATIVE,
    "mining_every": COUNT,
    "noisy_copies": [3, *COUNT],
    "noisy_index": [[0], torch.zeros(1), torch.tensor(0), torch.tensor([9]), torch.tensor([-1])],
    "noisy_share": [0.0, 1.5, 1e-9, *NOT_NEGATIVE],
    "noise": CHOICE,
    "noisy_segmentation": FLAG,
    "noisy_weight": NOT_NEGATIVE,
    "noise_std": NOT_NEGATIVE,
    "noise_threshold": NOT_NEGATIVE,
    "normalize": [value for value in CHOICE if value is not None],
    "num_classes": [1, *COUNT],
    "num_epochs": COUNT,
    "num_pairs": COUNT,
    "number": [value for value in [9, *COUNT] if value is not None and not (type(value) is int and value == 0)],
    "num_patches": COUNT,
    "operator": CHOICE,
    "order_weight": NOT_NEGATIVE,
    "pairs": CHOICE,
    "patch_size": EDGES,
    "per_class": FLAG,
    "percentile": [-1.0, 101.0, None, *NUMBER],
    "points": COUNT,
    "progress": [value for value in NOT_NEGATIVE if value is not None],
    "protocol": CHOICE,
    "ramp": CHOICE,
    "reduction": CHOICE,
    "regions": FLAG,
    "resamples": COUNT,
    "return_uncertainty": FLAG,
    "rim": NOT_NEGATIVE,
    "scale": [0.0, *NOT_NEGATIVE],
    "seed": [1.5, "3", NAN, True, 2**70],
    "spacing": SPACING,
    "spacing_mm": [None, 1.0, *SPACING],
    "start_epoch": [10, -1, 2.5, "3", NAN, True],
    "step": [0.0, *NOT_NEGATIVE],
    "thin": [value for value in (0.0, *NOT_NEGATIVE) if value is not None],
    "threshold": NOT_NEGATIVE,
    "support": CHOICE,
    "tolerance": NOT_NEGATIVE,
    "tolerance_mm": NOT_NEGATIVE,
    "top_label": FLAG,
    "total": CHOICE,
    "weight": NOT_NEGATIVE,
    "window": COUNT,
    "with_distance": FLAG,
    "weighting": CHOICE,
}
"""Wrong values of every option of every public callable."""
LEVELS_OF_NOISE = [(0.9, 0.1), (0.1,), (0.1, 0.1), (NAN, 0.9), "12", 3, None, (0.1, 0.5, 0.9), (0.1, INF)]
SIGNED = ("gradient_threshold", "noise_threshold")
"""Of PriUS, whose indicators are smooth, any number."""


def wrong(owner, name):
    if owner in ("compute_uncertainty_metrics", "UncertaintyMetrics") and name == "levels":
        return LEVELS_OF_NOISE
    if owner in ("compute_ueo", "UEOMetric") and name == "levels":
        return [1, *COUNT]
    if owner == "sample_hard_patches" and name == "num_classes":
        return COUNT
    if owner == "region_distance" and name == "num_classes":
        return COUNT
    if owner == "PriusLoss" and name in SIGNED:
        return [None, *NUMBER]
    return WRONG[name]


def refused(call, name, owner):
    """One line, beginning with the argument's name."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text, text
    assert len(text) < 400, text
    assert re.match(rf"[\w\[\], ]*\b{name}\b[\w\[\], ]*: expected", text), f"{owner}({name}): {text}"


MODULES = {
    "EvidentialLoss": {},
    "GradientUncertaintyLoss": {},
    "NoiseUncertaintyLoss": {},
    "UncertaintySupervisedLoss": {"num_epochs": 10},
    "DevisLoss": {},
    "PriusLoss": {"num_epochs": 10},
    "ProbabilisticLoss": {},
    "CrossEntropyDiceLoss": {},
    "DeepSupervision": {"loss": losses.CrossEntropyDiceLoss()},
    "NNUNetLoss": {"num_epochs": 10, "start_epoch": 2, "beta": 3.0, "gamma": 0.1, "annealing_epochs": 2},
}


def of(owner):
    return NNUNetLoss if owner == "NNUNetLoss" else getattr(losses, owner)


def options_of(function):
    """Its keyword parameters, tensors apart."""
    found = inspect.signature(function).parameters.values()
    return [p.name for p in found if p.name in WRONG and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]


def test_every_loss_module_is_in_the_table():
    found = {name for name in losses.__all__ if inspect.isclass(getattr(losses, name))}
    assert {name for name in found if issubclass(getattr(losses, name), torch.nn.Module)} == {*MODULES} - {"NNUNetLoss"}
    for owner in MODULES:
        names = set(inspect.signature(of(owner).__init__).parameters) - {"self"}
        assert names <= set(WRONG), names - set(WRONG)


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner in MODULES for name in options_of(of(owner).__init__)]
)
def test_constructors_of_losses(owner, name):
    of(owner)(**MODULES[owner])
    for value in wrong(owner, name):
        refused(lambda value=value: of(owner)(**{**MODULES[owner], name: value}), name, f"{owner}, {value!r}")


@pytest.mark.parametrize("owner", MODULES)
def test_unknown_options_of_losses(owner):
    with pytest.raises(TypeError, match="anneling_epochs"):
        of(owner)(**MODULES[owner], anneling_epochs=3)


METRICS = {
    name: getattr(metrics, name) for name in metrics.__all__ if name.endswith("Metric") or name == "UncertaintyMetrics"
}
BOOTSTRAP = ("function", "columns", "level", "resamples", "seed")


def cases_of_accumulators():
    for owner, kind in METRICS.items():
        if owner == "CaseMetric":
            continue
        for name in (*BOOTSTRAP, *getattr(kind.function, "checks", ())):
            yield owner, name


@pytest.mark.parametrize(("owner", "name"), list(cases_of_accumulators()))
def test_constructors_of_accumulators(owner, name):
    for value in wrong(owner, name):
        refused(lambda value=value: METRICS[owner](**{name: value}), name, f"{owner}, {value!r}")


def test_an_accumulator_without_a_function_or_with_an_unknown_option():
    refused(lambda: metrics.CaseMetric(), "function", "CaseMetric")
    for kind in METRICS.values():
        with pytest.raises(TypeError):
            kind(num_clases=3)


def maps_of(shape=(2, 12, 13), seed=0):
    """Right arguments by their names."""
    generator = torch.Generator().manual_seed(seed)
    n, *size = shape
    label = torch.zeros(shape, dtype=torch.long)
    label[:, 2:8, 3:9], label[:, 5:7, 4:6] = 1, 2
    logits = torch.randn((n, 3, *size), generator=generator)
    u = sure_fast.dirichlet_uncertainty(logits)
    return {
        "logits": logits, "label": label, "target": label, "prediction": label.roll(1, 1), "num_classes": 3,
        "image": torch.rand((n, 1, *size), generator=generator), "uncertainty": u, "noisy_uncertainty": u * 0.9,
        "gradient": torch.rand((n, 1, *size), generator=generator), "distance": sure_fast.boundary_distance(label),
        "noisy1": torch.rand((n, 1, *size), generator=generator), "noisy2": torch.rand((n, *size), generator=generator),
        "noisy_logits": torch.randn((2 * n, 3, *size), generator=generator),
        "centers": torch.tensor([[[3, 3], [8, 8]]] * n), "valid": torch.ones(n, 2, dtype=torch.bool),
        "probabilities": logits.softmax(1), "spacing_mm": (1.0, 2.0), "a": u, "b": u * 2, "mask": u > 0.5,
        "noisy": [u, u * 2], "progress": 0.5,
    }  # fmt: skip


def arguments_of(owner, function):
    """The right arguments of a function: those it must have, of others the tensors."""
    known = maps_of()
    if owner == "noise_uncertainty_loss":
        known.update(noisy1=known["logits"] + 0.1, noisy2=known["logits"] + 0.2)
    if owner in (
        "noise_uncertainty_loss", "dense_noise_uncertainty_loss", "uncertainty_supervision", "draw_noisy_images",
    ):  # fmt: skip
        known["levels"] = torch.tensor([0.2, 0.8])
    if owner in ("spearman", "pair_concordance"):
        known.update(a=torch.rand(2, 9), b=torch.rand(2, 9), mask=torch.ones(2, 9, dtype=torch.bool))
    if owner in ("sample_hard_patches", "add_noise_patches"):
        known.update(noise=torch.zeros(2, 3, 3))
    skipped = {"mask", "label"} if owner == "gradient_uncertainty_loss" else set()
    given = {}
    for p in inspect.signature(function).parameters.values():
        if (
            p.name in known
            and p.name not in skipped
            and (p.default is p.empty or isinstance(known[p.name], torch.Tensor))
        ):
            given[p.name] = known[p.name]
    return given


FUNCTIONS = {
    **{name: getattr(sure_fast, name) for name in (
        "add_noise_patches", "boundary_distance", "dense_noise_uncertainty_loss", "dirichlet_uncertainty",
        "evidential_loss", "gradient_magnitude",
        "gradient_uncertainty_loss", "noise_uncertainty_loss", "pair_concordance", "sample_hard_patches",
        "segmentation_stats", "spearman", "surface_distances", "uncertainty_supervision")},
    **{name: getattr(losses, name) for name in (
        "accuracy_uncertainty_loss", "region_distance", "same_label_pairs")},
    "draw_image_noise": losses.draw_image_noise, "draw_noisy_images": losses.draw_noisy_images,
    **{name: getattr(metrics, name) for name in metrics.__all__ if name.startswith("compute_")},
    "probability_stats": metrics.probability_stats, "gradient_and_distance": metrics.gradient_and_distance,
    "thin_by_gradient": metrics.thin_by_gradient,
}  # fmt: skip


def test_every_function_is_in_the_table():
    elsewhere = {"explain", "use_backend", "across_ranks", "summarize", "draw_levels", "failure_detection", "ood_auroc"}
    elsewhere |= {name for name in metrics.__all__ if name.endswith("_of_stats")}
    for module in (sure_fast, losses, metrics):
        names = {name for name in module.__all__ if inspect.isfunction(getattr(module, name))}
        assert names <= {*FUNCTIONS, *elsewhere}
    for owner, function in FUNCTIONS.items():
        arguments = arguments_of(owner, function)
        function(**arguments)
        known = {*WRONG, *arguments, "label", "mask"}
        assert set(inspect.signature(function).parameters) <= known, owner


def test_what_takes_neither_options_nor_maps():
    for name in ("dice_of_stats", "iou_of_stats", "ece_of_stats", "ueo_of_stats"):
        for value in (None, torch.zeros(2, 3, 3), "typo", (1, 2)):
            refused(lambda name=name, value=value: getattr(metrics, name)(value), "stats", name)
    for value in (None, 3, "0.5"):
        refused(lambda value=value: metrics.summarize(value), "values", "summarize")
    for name in ("level", "resamples", "seed"):
        for value in WRONG[name]:
            refused(lambda name=name, value=value: metrics.summarize([0.5], **{name: value}), name, "summarize")
    refused(lambda: losses.draw_levels(3), "device", "draw_levels")
    refused(lambda: losses.draw_levels(torch.device("cpu"), 3), "generator", "draw_levels")
    for value in BACKEND:
        refused(lambda value=value: sure_fast.use_backend(value).__enter__(), "use_backend", "use_backend")
    refused(lambda: sure_fast.explain("typo"), "op", "explain")


def options_to_try():
    for owner, function in FUNCTIONS.items():
        for name in options_of(function):
            if not isinstance(arguments_of(owner, function).get(name), torch.Tensor):
                yield owner, name


@pytest.mark.parametrize(("owner", "name"), list(options_to_try()))
def test_options_of_functions(owner, name):
    function, arguments = FUNCTIONS[owner], arguments_of(owner, FUNCTIONS[owner])
    for value in wrong(owner, name):
        refused(lambda value=value: function(**{**arguments, name: value}), name, f"{owner}, {value!r}")


def tensors_to_try():
    for owner, function in FUNCTIONS.items():
        for name, value in arguments_of(owner, function).items():
            if isinstance(value, torch.Tensor):
                yield owner, name


ANY_SHAPE = ("spearman", "pair_concordance", "same_label_pairs")


@pytest.mark.parametrize(("owner", "name"), list(tensors_to_try()))
def test_tensors_of_functions(owner, name):
    function, arguments = FUNCTIONS[owner], arguments_of(owner, FUNCTIONS[owner])
    right = arguments[name]
    values = ["typo", 3.0, [1, 2], torch.zeros(()), torch.zeros(3, dtype=right.dtype)]
    values.append(right.to(torch.complex64) if right.is_floating_point() else right.float() + 0.5)
    alone = sum(isinstance(value, torch.Tensor) for value in arguments.values()) == 1
    settles = alone or (
        name == "image" and owner in ("add_noise_patches", "draw_noisy_images")
    )  # what the others are held against
    if right.dim() > 1 and owner not in ANY_SHAPE and not settles:
        values.append(right[:, :1, :-1] if right.dim() > 2 else right[:, :1])
    if name != "valid" and (owner, name) != ("thin_by_gradient", "mask"):
        required = inspect.signature(function).parameters[name].default is inspect.Parameter.empty
        values += [None] if required else []
    for value in values:
        if owner == "same_label_pairs" and isinstance(value, torch.Tensor) and bool((value == 0).all()):
            continue  # labels of whatever shape
        with pytest.raises((TypeError, ValueError)) as caught:
            function(**{**arguments, name: value})
        text = str(caught.value)
        assert "\n" not in text, text
        assert "expected" in text, f"{owner}({name}={value!r}): {text}"
