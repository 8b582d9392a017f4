"""A default has one value, wherever it is one: in ops, modules, the configuration, nnU-Net's trainer."""

from __future__ import annotations

import inspect

import pytest

import sure_fast
from sure_fast import losses, metrics
from sure_fast.methods import DEFAULT, METHODS, PAPER
from sure_fast.ops.noise_uncertainty_loss import DISTANCE_WEIGHT, FAR_WEIGHT, ORDER_WEIGHT

OWN = {
    # c_far and the weights of its other terms are PriUS's own (arXiv 2605.10984), of another loss
    ("PriusLoss", "far_weight"), ("PriusLoss", "distance_weight"), ("PriusLoss", "noise_threshold"),
    ("PriusLoss", "gradient_threshold"), ("PriusLoss", "distance"),
    # the two levels of the noise, elsewhere how finely a histogram is cut
    ("compute_uncertainty_metrics", "levels"), ("uncertainty_supervision", "levels"),
    # one number a class, elsewhere pairs of one class
    ("compute_ueo", "per_class"), ("ueo_of_stats", "per_class"),
    # a tensor of noise, elsewhere its kind
    ("sample_hard_patches", "noise"),
    # the losses' bands: L_gu's and L_nu's
    ("GradientUncertaintyLoss", "threshold"), ("gradient_uncertainty_loss", "threshold"),
    ("NoiseUncertaintyLoss", "threshold"), ("noise_uncertainty_loss", "threshold"),
    # where nothing bounds a distance
    ("boundary_distance", "max_distance"),
    # a difference of u, and a distance in mm
    ("pair_concordance", "tolerance"), ("surface_distances", "tolerance"),
    # the ops' plain form is the paper's
    ("gradient_uncertainty_loss", "normalize"), ("dense_noise_uncertainty_loss", "normalize"),
    ("uncertainty_supervision", "normalize"),
    # of patches, and of the method that has them
    ("NoiseUncertaintyLoss", "order_weight"), ("NoiseUncertaintyLoss", "distance_weight"),
    ("NoiseUncertaintyLoss", "far_weight"), ("noise_uncertainty_loss", "order_weight"),
    ("noise_uncertainty_loss", "distance_weight"), ("noise_uncertainty_loss", "far_weight"),
    ("draw_noisy_images", "noise"), ("dense_noise_uncertainty_loss", "threshold"),
    # of modules a seed is drawn
    ("GradientUncertaintyLoss", "seed"),
}  # fmt: skip


def defaults():
    """(name, owner, value) of every default of a public callable."""
    for module in (sure_fast, losses, metrics):
        for owner in module.__all__:
            value = getattr(module, owner)
            if not callable(value) or owner in ("explain",):
                continue
            for p in inspect.signature(value).parameters.values():
                if p.default is not p.empty and (owner, p.name) not in OWN:
                    yield p.name, owner, p.default
    for method in METHODS.values():
        if method.name == "sure":  # the paper's form, test_the_presets_are_the_loss
            continue
        for name, value in method.defaults.items():
            yield name, method.name, value


def test_one_value_for_one_name():
    found: dict = {}
    for name, owner, value in defaults():
        found.setdefault(name, {}).setdefault(repr(value), set()).add(owner)
    for name in ("dropout", "members", "loss", "seed"):
        found.pop(name, None)
    apart = {name: values for name, values in found.items() if len(values) > 1}
    assert not apart, apart


def test_the_presets_are_the_loss():
    parameters = inspect.signature(sure_fast.UncertaintySupervisedLoss).parameters
    for name, value in METHODS[DEFAULT].options.items():
        assert value == parameters[name].default, name
    paper = METHODS["sure"].options
    for name, value in paper.items():
        assert value == PAPER.get(name, parameters[name].default), name
    assert (paper["evidence"], paper["normalize"], paper["noise"], paper["ramp"]) == (
        "softplus", None, "mean", "exponential",
    )  # fmt: skip
    weights = [paper[f"{name}_weight"] for name in ("order", "distance", "far")]
    assert weights == [ORDER_WEIGHT, DISTANCE_WEIGHT, FAR_WEIGHT]
    dense_only = {"level_max", "noisy_copies", "margin", "detach", "noisy_weight"}
    patches_only = {"patch_size", "num_patches", "mining_every"}
    assert set(parameters) - set(paper) >= {"support", *dense_only}
    assert set(parameters) - set(METHODS[DEFAULT].options) >= {"support", *patches_only}


def test_nnunets_trainer():
    pytest.importorskip("nnunetv2", reason="needs the extra [nnunet]: pip install sure_fast[nnunet]")
    from sure_fast.integrations.nnunet import nnUNetTrainerSURE

    loss = sure_fast.UncertaintySupervisedLoss()
    assert (nnUNetTrainerSURE.beta, nnUNetTrainerSURE.gamma) == (0.1, loss.gamma)  # docs/results.md, nnU-Net
    assert int(nnUNetTrainerSURE.start * 1000) == sure_fast.UncertaintySupervisedLoss(num_epochs=1000).start_epoch
    assert nnUNetTrainerSURE.annealing * loss.num_epochs == loss.annealing_epochs
