from __future__ import annotations

import math

import numpy as np
import pytest

from sure_fast.comparison import detection
from sure_fast.metrics import failure_detection, ood_auroc


def rows(seed, cases=12):
    """A sweep in which blur makes cases bad and uncertain, and noise does neither."""
    generator = np.random.default_rng(seed)
    found = []
    for kind, severity, harm in (("clean", 0, 0.0), ("noise", 3, 0.0), ("blur", 1, 0.1), ("blur", 5, 0.5)):
        for k in range(cases):
            bad = harm + 0.1 * generator.random()
            u = bad + 0.05 * generator.random()
            found.append({"case": str(k), "kind": kind, "severity": severity, "dice": 1 - bad, "case_uncertainty": u})
    return found


def test_numbers_are_those_of_all_cases():
    sweep = rows(0)
    table = detection.of_sweep(sweep)
    assert detection.titles(table)["ood_blur"] == ("OOD AUROC, blur 5", 1)  # no 3: the strongest
    values = detection.values([table])
    want = failure_detection([r["case_uncertainty"] for r in sweep], [r["dice"] for r in sweep])
    assert values["failure_aurc"][0] == pytest.approx(want.aurc)
    assert values["failure_spearman"][0] == pytest.approx(want.spearman)
    of = {key: [u for u, _ in cases.values()] for key, cases in table.items()}
    assert values["ood_noise"][0] == pytest.approx(ood_auroc(of["clean", 0], of["noise", 3]))
    assert values["ood_blur"][0] == 1.0
    statistics = detection.statistics(values["failure_aurc"])
    assert statistics.low < statistics.mean < statistics.high
    by_severity = {(r["kind"], r["severity"]): r["mean"] for r in detection.by_severity([table])}
    assert by_severity["clean", 0] == 0.5
    assert by_severity["blur", 5] == 1.0
    assert by_severity["blur", 1] == pytest.approx(ood_auroc(of["clean", 0], of["blur", 1]))


def test_seeds_are_averaged_and_undefined_cases_left_out():
    tables = [detection.of_sweep(rows(seed)) for seed in (0, 1)]
    both = detection.values(tables)
    apart = [detection.values([table]) for table in tables]
    for name, row in both.items():
        np.testing.assert_allclose(row, (apart[0][name] + apart[1][name]) / 2)
    spoiled = rows(0)
    spoiled[0]["case_uncertainty"] = spoiled[0]["dice"] = None
    values = detection.values([detection.of_sweep(spoiled)])
    assert not math.isnan(values["failure_aurc"][0])
    assert not math.isnan(values["ood_blur"][0])
