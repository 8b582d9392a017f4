"""A default has one value, wherever it is one: in ops, modules, the configuration, nnU-Net's trainer."""

from __future__ import annotations

import inspect

import pytest

import sure_fast
from sure_fast import losses, metrics
from sure_fast.methods import METHODS

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


def test_the_preset_is_the_loss():
    loss = sure_fast.UncertaintySupervisedLoss()
    assert (loss.beta, loss.gamma, *loss.weights) == (100.0, 1.0, 1.0, 1.0, 5.0)
    assert METHODS["sure"].options["beta"] == 100.0
    assert METHODS["sure"].options["patch_size"] == loss.patch_size
    assert METHODS["sure"].options["num_patches"] == loss.num_patches


def test_nnunets_trainer():
    pytest.importorskip("nnunetv2", reason="needs the extra [nnunet]: pip install sure_fast[nnunet]")
    from sure_fast.integrations.nnunet import nnUNetTrainerSURE

    loss = sure_fast.UncertaintySupervisedLoss()
    assert (nnUNetTrainerSURE.beta, nnUNetTrainerSURE.gamma) == (loss.beta, loss.gamma)
    assert int(nnUNetTrainerSURE.start * 1000) == sure_fast.UncertaintySupervisedLoss(num_epochs=1000).start_epoch
    assert nnUNetTrainerSURE.annealing * loss.num_epochs == loss.annealing_epochs
