from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from sure_fast.data import CORRUPTIONS, discover, phantom
from sure_fast.engine import robustness
from sure_fast.engine.config import ConfigError
from sure_fast.engine.evaluation import evaluate_cases
from sure_fast.engine.prediction import Prediction, Predictor
from sure_fast.engine.robustness import RowFile, conditions, summaries, sweep
from sure_fast.models import build_model, plan_strides

CPU = torch.device("cpu")
SOME = (("clean", 0), ("noise", 5), ("blur", 2))


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return discover(phantom.write(tmp_path_factory.mktemp("set") / "phantom", 3, 0, shape=(32, 32, 8)))


@pytest.fixture
def predictor(cases):
    torch.manual_seed(0)
    return Predictor(
        [build_model(3, 1, cases.info.num_classes, (4, 8), plan_strides((32, 32, 8), 2), network="unet")], (32, 32, 8)
    )


def run(predictor, cases, file, **options):
    return sweep(predictor, cases, file, info=cases.info, device=CPU, progress=False, **options)


def test_every_condition_once():
    assert len(conditions()) == 1 + 6 * 5
    assert {kind for kind, severity in conditions([2, 4]) if severity == 4} == {*CORRUPTIONS}
    assert conditions([]) == (("clean", 0),)


def test_it_continues_with_what_is_missing(cases, predictor, tmp_path):
    calls = []

    class Stop(Exception):
        pass

    def counting(image, place):
        calls.append(image)
        if limit and len(calls) > limit:
            raise Stop
        return predictor(image, place)

    limit = None
    whole = run(counting, cases, RowFile(tmp_path / "whole.jsonl", {"seed": 0}), wanted=SOME)
    assert len(whole) == 9
    assert len(calls) == 9
    calls.clear()
    limit = 5
    with pytest.raises(Stop):
        run(counting, cases, RowFile(tmp_path / "rows.jsonl", {"seed": 0}), wanted=SOME)
    with open(tmp_path / "rows.jsonl", "a") as file:
        file.write('{"case": "cut o')
    calls.clear()
    limit = None
    again = run(counting, cases, RowFile(tmp_path / "rows.jsonl", {"seed": 0}), wanted=SOME)
    assert len(calls) == 5  # one case's clean prediction again
    assert again == whole
    assert (tmp_path / "rows.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    calls.clear()
    assert run(counting, cases, RowFile(tmp_path / "rows.jsonl", {"seed": 0}), wanted=SOME) == whole
    assert not calls
    with pytest.raises(ConfigError, match=r"rows.jsonl: expected rows of this evaluation, got others \(seed differ"):
        RowFile(tmp_path / "rows.jsonl", {"seed": 1})


def test_clean_rows_are_the_evaluation(cases, predictor, tmp_path):
    rows = run(predictor, cases, RowFile(tmp_path / "rows.jsonl", {}), wanted=SOME)
    clean = {row["case"]: row for row in rows if row["kind"] == "clean"}
    result = evaluate_cases(predictor, cases, info=cases.info, device=CPU, progress=False)
    for case in result.per_case:
        for metric, value in clean[case["case"]].items():
            if metric in ("kind", "severity", "case", *robustness.NOISE_METRICS):
                continue
            assert value == case[metric] or (value is None and math.isnan(case[metric])), metric
    noisy = [row for row in rows if row["kind"] == "noise"]
    assert all(-1 <= row["ucc_noise"] <= 1 for row in noisy)
    assert all(row["ucc_noise"] is None for row in clean.values())


def test_order_of_cases_changes_nothing(cases, predictor, tmp_path):
    rows = run(predictor, cases, RowFile(tmp_path / "a.jsonl", {}), wanted=SOME)
    turned = sweep(predictor, cases[::-1], RowFile(tmp_path / "b.jsonl", {}), info=cases.info, device=CPU,
                   progress=False, wanted=SOME)  # fmt: skip
    # as text: NaN is not equal to itself
    assert json.dumps(summaries(rows)) == json.dumps(summaries(turned))


def test_files_and_curves(cases, predictor, tmp_path):
    rows = run(predictor, cases, RowFile(tmp_path / "robustness.jsonl", {}))
    assert len(rows) == 3 * 31
    robustness.write(tmp_path, rows, {"seed": 0}, "sure")
    with open(tmp_path / "robustness.csv", newline="") as file:
        table = list(csv.DictReader(file))
    mine = [row["dice"] for row in rows if (row["kind"], row["severity"]) == ("contrast", 3)]
    found = next(r for r in table if (r["kind"], r["severity"], r["metric"]) == ("contrast", "3", "dice"))
    assert float(found["mean"]) == pytest.approx(np.mean(mine))
    plain = json.loads((tmp_path / "robustness.json").read_text())
    assert len(plain["summary"]) == len(table)
    picture = np.asarray(Image.open(tmp_path / "robustness.png").convert("L"))
    assert min(picture.shape) > 800
    assert picture.std() > 10
    lines = robustness.table(rows).splitlines()
    assert len(lines) == 32
    assert lines[-1].startswith(f"contrast {CORRUPTIONS['contrast'].severities[-1]:g}")


def test_a_spoiled_prediction_is_undefined_and_counted(cases, predictor, tmp_path):
    def spoiled(image, place):
        found = predictor(image, place)
        logits = found.logits.clone()
        logits[0, 0, 3, 3, 3] = math.nan
        return Prediction(found.probabilities * math.nan, found.uncertainty * math.nan, logits)

    rows = run(spoiled, cases, RowFile(tmp_path / "rows.jsonl", {}), wanted=SOME)
    assert all(row["dice"] is None and row["aurc"] is None and row["ucc_d"] is None for row in rows)
    assert all(math.isnan(row["mean"]) and row["undefined"] == 3 for row in summaries(rows))
    robustness.write(tmp_path, rows, {}, "sure")
    result = evaluate_cases(spoiled, cases, info=cases.info, device=CPU, progress=False)
    assert result.spoiled == [case.name for case in cases]
    assert result.statistics["dice"].undefined == 3
