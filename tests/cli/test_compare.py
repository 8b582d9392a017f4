"""Methods side by side: what is trained, what is kept, and what the report says."""

from __future__ import annotations

import base64
import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from sure_fast import predict
from sure_fast.comparison import compare, report
from sure_fast.comparison import results as comparison
from sure_fast.comparison.results import GROUPS, Comparison
from sure_fast.comparison.tables import MAIN
from sure_fast.data import phantom
from sure_fast.data.corruptions import CORRUPTIONS
from sure_fast.engine import run as training
from sure_fast.engine.config import ConfigError

pytestmark = pytest.mark.slow
PRESETS, SEEDS = ["softmax", "sure"], ["0", "1"]


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    data = phantom.write(tmp_path_factory.mktemp("set") / "phantom", 6, 0, shape=(32, 32, 8))
    return {"data": str(data), "epochs": "2", "start_epoch": "1", "channels": "2,4,8", "batch_size": "2"}


@pytest.fixture(scope="module")
def output(flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "out"
    compare.compare(flags, PRESETS, SEEDS, folder, severities="", arguments=["--data", "DIR"], progress=False)
    return folder


def load(output):
    runs = [comparison.load_run(p, int(s), output / f"{p}-seed{s}") for s in SEEDS for p in PRESETS]
    for run in runs:
        run.curves = json.loads((run.folder / "curves.json").read_text())
    content = json.loads((output / "results.json").read_text())
    names = {int(k): v for k, v in content["class_names"].items()}
    return Comparison(runs, names, content)


def test_tables(output):
    with open(output / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 1  # presets, seeds, test cases
    content = json.loads((output / "results.json").read_text())
    mine = [float(row["dice"]) for row in rows if row["preset"] == "sure"]
    found = content["methods"]["sure"]["dice"]
    assert found["mean"] == pytest.approx(np.mean(mine))
    assert found["seed_std"] == pytest.approx(np.std(mine, ddof=1))
    assert content["command"] == "python -m sure_fast.compare --data DIR"
    assert content["versions"]["torch"]
    assert content["seeds"] == [0, 1]
    splits = [json.loads((output / f"sure-seed{seed}/split.json").read_text()) for seed in SEEDS]
    assert splits[0] == splits[1]
    text = (output / "results.md").read_text()
    assert text.count("\n| ") == len(GROUPS) * 4 + 3  # and the differences to one of the two
    assert "Differences to SURE, case by case" in text
    against = content["differences"]
    assert against["to"] == "sure"
    apart = [float(row["dice"]) for row in rows if row["preset"] == "softmax"]
    assert against["of"]["dice"]["softmax"]["mean"] == pytest.approx(np.mean(apart) - np.mean(mine))
    tex = (output / "tables.tex").read_text()
    assert tex.count("\\begin{tabular}") == tex.count("\\bottomrule") == len(GROUPS)
    assert "UCC\\_g $\\downarrow$" in tex
    with open(output / "tables.csv", newline="") as file:
        summary = list(csv.DictReader(file))
    assert len(summary) == 2 * sum(map(len, GROUPS.values()))
    row = next(r for r in summary if (r["preset"], r["metric"]) == ("sure", "dice"))
    assert float(row["mean"]) == pytest.approx(np.mean(mine))
    assert "Bold: better than every other method by more than chance" in text


def test_report_is_one_file_with_everything(output):
    page = (output / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    sections = ("slices", "numbers", "tables", "calibration", "principles", "settings")
    places = [page.index(f'<h2 id="{section}">') for section in sections]
    assert places == sorted(places)  # what people look at comes first
    assert 'id="robustness"' not in page  # left out
    images = re.findall(r'src="data:image/(png|svg\+xml);base64,([^"]+)"', page)
    assert sum(kind == "png" for kind, _ in images) == 2 + 2 * 3  # image and label; prediction, errors, u
    assert sum(kind == "svg+xml" for kind, _ in images) == 2 + 1 + 2 + 1 + len(MAIN)  # and the scale of u
    for kind, data in images:
        start = base64.b64decode(data)[:60]
        assert start.startswith(b"\x89PNG") if kind == "png" else b"<?xml" in start
    assert page.count("rank correlation of the uncertainty u") == 1
    assert "(ours)" not in page
    assert "background:rgb(255,38,26)" in page  # the legend of what is wrong


def test_results_of_another_tool_stand_beside_ours(flags, output, tmp_path, capsys):
    """As those of the run that they are of, but for what no file tells."""
    folder, out = tmp_path / "other", tmp_path / "out"
    shutil.copytree(output, out)
    case = json.loads((out / "softmax-seed0/split.json").read_text())["test"][0]
    image = Path(flags["data"]) / f"imagesTr/{case}.nii.gz"
    predict.main(["--checkpoint", str(out / "softmax-seed0"), "--input", str(image), "--output", str(folder),
                  "--probabilities"])  # fmt: skip
    before = {path: path.stat().st_mtime_ns for path in out.rglob("last.pt")}
    compare.compare(flags, PRESETS, SEEDS, out, severities="", arguments=[], progress=False, added={"A + B": folder})
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("last.pt")}
    content = json.loads((out / "results.json").read_text())["methods"]
    wanted = json.loads((out / "softmax-seed0/results.json").read_text())["mean"]
    for metric in ("dice", "hd95_mm", "ece", "brier", "auroc", "ucc_g"):
        assert content["A + B"][metric]["mean"] == pytest.approx(wanted[metric], abs=2e-4)
    assert content["A + B"]["ucc_noise"]["mean"] is None
    lines = [line for line in (out / "results.md").read_text().splitlines() if line.startswith("| A + B |")]
    assert len(lines) == len(GROUPS) + 1
    assert "–" in lines[3]
    page = (out / "report.html").read_text()
    assert "but A + B, whose results were made elsewhere" in page
    assert len(list((out / "added-A + B/slices").glob("*-uncertainty.png"))) == 1
    (folder / f"{case}_segmentation.nii.gz").unlink()
    for added, text in (
        ({"A": folder}, f"add A: expected a file of case {case}"),
        ({"sure": folder}, "add: expected a name of letters and digits that no preset has, got 'sure'"),
        ({"A/B": folder}, "add: expected a name of letters and digits"),
        ({"A": tmp_path / "none"}, "predictions .*: expected a folder, got nothing"),
    ):
        with pytest.raises(ValueError, match=text):
            compare.compare(flags, PRESETS, SEEDS, out, severities="", progress=False, added=added)


def results_of(cases):
    """Runs of methods by name, from {method: {metric: [a number a case]}}."""
    rows = {
        name: [{"case": str(k), **{m: v[k] for m, v in metrics.items()}} for k in range(len(metrics["dice"]))]
        for name, metrics in cases.items()
    }
    runs = [comparison.Run(name, 0, None, {"per_case": row, "mean": row[0]}) for name, row in rows.items()]
    return Comparison(runs, {0: "background", 1: "a"}, {"seeds": [0]})


def test_a_method_is_marked_only_where_it_is_better_by_more_than_chance():
    dice = [0.8, 0.7, 0.9, 0.6, 0.8, 0.7]
    nearly = [d + step for d, step in zip(dice, (0.02, -0.01, 0.02, -0.01, 0.01, -0.02), strict=True)]
    clearly = [d + 0.05 for d in dice]
    assert results_of({"sure": {"dice": dice}, "softmax": {"dice": nearly}}).best("dice", 1) is None
    assert results_of({"sure": {"dice": dice}, "softmax": {"dice": clearly}}).best("dice", 1) == "softmax"
    assert results_of({"sure": {"dice": dice}, "softmax": {"dice": clearly}}).best("dice", -1) == "sure"
    assert results_of({"sure": {"dice": dice}}).best("dice", 1) is None
    third = {"sure": {"dice": dice}, "softmax": {"dice": clearly}, "tta": {"dice": [d + 0.001 for d in clearly[::-1]]}}
    assert results_of(third).best("dice", 1) is None


def test_a_method_that_does_not_segment_is_marked_in_nothing():
    good, bad = [0.8, 0.7, 0.9], [0.2, 0.1, 0.3]
    found = results_of(
        {
            "sure": {"dice": good, "ucc_g": [-0.5, -0.6, -0.4]},
            "evidential": {"dice": good, "ucc_g": [0.0, 0.1, 0.0]},
            "prius": {"dice": bad, "ucc_g": [-0.9, -0.9, -0.9]},
        }
    )
    assert found.usable() == ["evidential", "sure"]
    assert found.best("ucc_g", -1) == "sure"


def test_started_again_it_does_what_is_missing(output, flags, monkeypatch):
    trained = []
    done = training.train

    def counting(config, place, **options):
        trained.append(place.name)
        return done(config, place, **options)

    monkeypatch.setattr(training, "train", counting)
    before = (output / "results.csv").read_text()
    compare.compare(flags, PRESETS, SEEDS, output, severities="", arguments=[], progress=False)
    assert not trained
    (output / "sure-seed1" / "results.json").unlink()  # as an interrupted run leaves it
    compare.compare(flags, PRESETS, SEEDS, output, severities="", arguments=[], progress=False)
    assert trained == ["sure-seed1"]
    assert (output / "results.csv").read_text() == before


def test_robustness_is_added(output, flags):
    compare.compare(flags, ["sure"], ["0", "1"], output, arguments=[], progress=False)
    page = (output / "report.html").read_text()
    assert 'id="robustness"' in page
    content = json.loads((output / "results.json").read_text())
    rows = content["robustness"]["sure"]
    assert {row["kind"] for row in rows} == {"clean", *CORRUPTIONS}
    clean = next(r for r in rows if (r["kind"], r["metric"]) == ("clean", "dice"))
    assert clean["mean"] == pytest.approx(content["methods"]["sure"]["dice"]["mean"])
    assert clean["number"] == 1  # a case, its seeds averaged
    found = content["methods"]["sure"]
    for kind in CORRUPTIONS:  # one case: more uncertain than the clean one, less, or one seed each
        assert found[f"ood_{kind}"]["mean"] in (0.0, 0.25, 0.5, 0.75, 1.0)
    assert 0 <= found["failure_aurc"]["mean"] <= 1
    assert -1 <= found["failure_spearman"]["mean"] <= 1
    assert "OOD AUROC, blur 3" in page
    assert "OOD AUROC, blur 3" in (output / "results.md").read_text()
    curve = [r["mean"] for r in rows if r["metric"] == "ood_auroc" and r["kind"] == "clean"]
    assert curve == [0.5]


def test_refused(output, flags, tmp_path):
    def run(presets=PRESETS, seeds=SEEDS, severities="", **others):
        options = {"severities": severities, "arguments": [], "progress": False}
        compare.compare({**flags, **others}, presets, seeds, output, **options)

    for options, text in (
        ({"presets": ["sure", "best"]}, r"^method\.preset: expected one of softmax"),
        ({"presets": ["sure", "sure"]}, "^presets: expected each once, got sure,sure"),
        ({"seeds": ["0", "0"]}, "^seeds: expected each once, got 0,0"),
        ({"epochs": "3"}, "holds a run with another run.epochs; choose another output"),
        ({"presets": ["softmax"]}, r"^method\.start_epoch: is no option of any of the presets softmax"),
        ({"members": "3"}, r"^method\.members: is no option of any"),
        ({"severities": "1,6"}, "^severities: expected some of 1,2,3,4,5, each once, got 1,6"),
        ({"run.seed": "3"}, r"^run\.seed: expected --seeds instead, got '3'"),
        ({"presets": ["softmax", "tta"]}, r"^method\.start_epoch: is no option of any of the presets softmax,tta"),
    ):
        with pytest.raises(ConfigError, match=text):
            run(**options)
    with pytest.raises(ConfigError, match=r"^quick: expected no data"):
        compare.compare(flags, PRESETS, SEEDS, tmp_path / "quick", quick=True, arguments=[], progress=False)
    assert not (tmp_path / "quick").exists()


def test_runs_of_other_classes_or_cases_stand_in_no_table(output):
    first, *others = load(output).runs
    comparison.check_same([first, *others])
    for key, value in (("class_names", {"0": "background", "1": "liver"}), ("per_case", [])):
        wrong = dataclasses.replace(others[0], results={**others[0].results, key: value})
        with pytest.raises(ConfigError, match=r"expected the (classes|cases) of .*, got others"):
            comparison.check_same([first, wrong])


def test_undefined_values_are_named_in_the_report(output, tmp_path):
    results = load(output)
    for run in results.of("softmax"):
        run.results["spoiled"] = ["a case"]
        for case in run.results["per_case"]:
            case.update({key: None for key, value in case.items() if isinstance(value, float)})
        nothing = {"number": [0.0] * 10, "confidence": [None] * 10, "accuracy": [None] * 10}
        run.curves = {**run.curves, "risk": [], "gradient": [], "distance": [], "reliability": nothing}
    report.write(results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Undefined values, left out of the means: Softmax entropy: Dice 2, IoU 2" in page
    assert "every metric undefined: Softmax entropy (seed 0): a case" in page
    assert results.best("dice", 1) is None
    assert "<td>–</td>" in page
