from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from sure_fast.data import discover, phantom
from sure_fast.engine import evaluation
from sure_fast.engine.evaluation import EvaluationResult, evaluate_cases, validation_dice
from sure_fast.engine.pictures import save_curves
from sure_fast.engine.prediction import Predictor, sliding_window
from sure_fast.engine.table import SINGLE, number, table
from sure_fast.models import build_model, plan_strides


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return discover(phantom.write(tmp_path_factory.mktemp("set") / "phantom", 3, 0, shape=(32, 32, 8)))


def network(cases):
    torch.manual_seed(0)
    return build_model(3, 1, cases.info.num_classes, (4, 8), plan_strides((32, 32, 8), 2), network="unet")


PATCH = (32, 32, 8)


def predictor(model):
    return Predictor([model], PATCH)


def test_every_metric_of_every_case(cases, tmp_path):
    model = network(cases)
    options = {"info": cases.info, "device": torch.device("cpu"), "progress": False}
    result = evaluate_cases(predictor(model), cases, seed=1, pictures=tmp_path, **options)
    assert [row["case"] for row in result.per_case] == [case.name for case in cases]
    for row in result.per_case:
        for name in (
            "dice",
            "hd95_mm",
            "assd_mm",
            "nsd",
            "ece",
            "ucc_g",
            "ucc_d",
            "ucc_noise",
            "ur_g",
            "ur_d",
            "ur_noise",
            "ucc_noise_std",
            "ur_noise_std",
        ):
            assert math.isfinite(row[name])
    # a case's numbers depend on nothing but the case
    alone = evaluate_cases(predictor(model), cases[1:2], seed=1, **options)
    assert alone.per_case[0] == result.per_case[1]
    other = evaluate_cases(predictor(model), cases[1:2], seed=2, **options)
    assert other.per_case[0]["ucc_noise"] != result.per_case[1]["ucc_noise"]
    dice = validation_dice(model, cases, info=cases.info, patch_size=PATCH, device=torch.device("cpu"))
    assert dice["mean"] == pytest.approx(result.mean["dice"])
    for case in cases:
        picture = np.asarray(Image.open(tmp_path / f"{case.name}.png").convert("L"))
        assert picture.shape[1] > 1000
        assert picture.std() > 10


class Expert(torch.nn.Module):
    """Knows the labels of one case, and is a little less sure where the image is bright."""

    def __init__(self, label):
        super().__init__()
        self.label = label

    def forward(self, image):
        hot = torch.nn.functional.one_hot(self.label, 4).movedim(-1, 0)[None].float()
        return hot * (7 - image.clamp(-2, 2))


def test_unannotated_voxels_enter_nothing(cases, monkeypatch):
    """Whatever the network says where nothing is annotated, and whatever the image shows: the same result."""
    info = dataclasses.replace(cases.info, ignore_index=9)
    options = {"info": info, "device": torch.device("cpu")}
    sample = evaluation.load_case(cases[0], normalized=True)
    marked = sample.label.clone()
    marked[:, 14:] = 9
    assert len(marked.unique()) == 5
    monkeypatch.setattr(evaluation, "load_case", lambda *_, **__: dataclasses.replace(sample, label=marked))
    results = []
    for filling in (marked.where(marked != 9, 0), sample.label, marked.where(marked != 9, 3)):
        result = evaluate_cases(predictor(Expert(filling)), cases[:1], progress=False, **options)
        assert result.mean["dice"] == 1
        assert result.mean["hd95_mm"] == 0
        assert validation_dice(Expert(filling), cases[:1], patch_size=PATCH, **options)["mean"] == 1
        results.append(result.per_case[0])
    assert results[0]["ece"] == results[1]["ece"] == results[2]["ece"]
    # the uncertainty under the network's answer differs only where it is not looked at
    assert results[0]["ucc_g"] == results[1]["ucc_g"] == results[2]["ucc_g"]
    assert results[0]["ur_d"] == results[1]["ur_d"] == results[2]["ur_d"]


def test_a_class_in_neither_label_nor_prediction_is_told_apart(cases, monkeypatch):
    sample = evaluation.load_case(cases[0], normalized=True)
    label = sample.label.where(sample.label != 3, 0)
    monkeypatch.setattr(evaluation, "load_case", lambda *_, **__: dataclasses.replace(sample, label=label))
    options = {"info": cases.info, "device": torch.device("cpu"), "progress": False}
    result = evaluate_cases(predictor(Expert(label)), cases[:1], **options)
    name = cases.info.class_names[3]
    assert result.per_case[0]["absent"] == [name]
    assert result.to_json()["absent"][name] == 1
    assert sum(result.absent.values()) == 1
    assert table(result).splitlines()[-1].endswith(f"{name} in 1 of the cases")
    # predicted but not there: the worst values
    missing = evaluate_cases(predictor(Expert(sample.label)), cases[:1], **options)
    assert missing.mean[f"dice/{name}"] == 0
    diagonal = math.hypot(*(n * mm for n, mm in zip(label.shape, sample.spacing_mm, strict=True)))
    assert missing.mean[f"hd95_mm/{name}"] == pytest.approx(diagonal)
    assert "neither" not in table(missing)


def test_no_case_is_an_error(cases):
    options = {"info": cases.info, "device": torch.device("cpu")}
    with pytest.raises(ValueError, match=r"^cases: expected at least one to evaluate, got none$"):
        evaluate_cases(predictor(network(cases)), [], **options)
    with pytest.raises(ValueError, match=r"^cases: expected at least one to validate on, got none$"):
        validation_dice(network(cases), [], patch_size=PATCH, **options)


def test_windows_cover_images_larger_and_smaller_than_the_patch(cases):
    model = network(cases).eval()
    predict = sliding_window(model, (32, 32, 8))
    with torch.no_grad():
        whole = torch.randn(1, 1, 32, 32, 8)
        torch.testing.assert_close(predict(whole), model(whole), rtol=1e-4, atol=1e-5)
        for shape in ((20, 40, 5), (32, 32, 8), (50, 33, 9)):
            assert predict(torch.randn(1, 1, *shape)).shape == (1, 4, *shape)


def test_undefined_values_are_counted_and_left_out_of_the_mean():
    names = {0: "background", 1: "a"}
    row = {"case": "x", "absent": []}
    for metric in ("dice", "iou", "hd95_mm", "assd_mm", "nsd", "ece"):
        row |= {f"{metric}/a": 0.5, metric: 0.5}
    maps = {key: 0.25 for key in SINGLE if key != "ucc_g"}
    result = EvaluationResult(names, [{**row, "ucc_g": -0.5, **maps}, {**row, "ucc_g": math.nan, **maps}])
    assert result.mean["ucc_g"] == -0.5
    assert result.statistics["ucc_g"].undefined == 1
    assert result.statistics["dice"].undefined == 0
    assert math.isnan(result.statistics["ucc_g"].std)
    line = next(text for text in table(result).splitlines() if text.startswith("UCC_g"))
    assert line.split() == ["UCC_g", "-0.500", "–", "–", "-1", "1"]
    plain = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert plain["per_case"][1]["ucc_g"] is None


def test_strides_keep_axes_long_enough():
    assert plan_strides((64, 64, 16), 3) == ((2, 2, 2), (2, 2, 2))
    assert plan_strides((64, 64, 8), 3) == ((2, 2, 2), (2, 2, 1))
    assert plan_strides((64, 6), 3) == ((2, 1), (2, 1))
    assert plan_strides((33, 64), 2) == ((1, 2),)


def test_curves(tmp_path):
    terms = ("total", "data", "kl", "dice", "gradient", "order", "distance", "far")
    rows = [{"kind": "step", "epoch": e, "step": e, **dict.fromkeys(terms, 1.0 / (e + 1))} for e in range(5)]
    rows += [{"kind": "epoch", "epoch": 4, "val_dice": 0.5}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    save_curves(tmp_path / "metrics.jsonl", tmp_path)
    assert np.asarray(Image.open(tmp_path / "losses.png").convert("L")).std() > 10


def test_small_numbers_keep_their_digits():
    values = (0.5, -0.25, 0.00052, -0.004, 0.0, math.nan)
    assert [number(value) for value in values] == ["0.500", "-0.250", "0.00052", "-0.00400", "0", "–"]
