"""The page that shows predictions: what it holds, and what a browser makes of it."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
import urllib.request

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from sure_fast import predict, view
from sure_fast.data import DataError, discover, load_case, phantom
from sure_fast.engine import run as training
from sure_fast.engine.config import make

pytestmark = pytest.mark.slow
OPTIONS = {"quick": True, "epochs": "1", "preset": "evidential", "channels": "2,4,8", "batch_size": "2"}
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("view")
    phantom.write(root / "data", 5, shape=(24, 20, 10))
    training.train(make({**OPTIONS, "data": str(root / "data")}), root / "run", progress=False)
    view.main([str(root / "run")])
    predict.main(
        ["--checkpoint", str(root / "run"), "--input", str(root / "data/imagesTr"), "--output", str(root / "out")]
    )
    view.main([str(root / "out")])
    return root


def page_of(folder):
    """What the page is told, and the layers of every case as NIfTI images."""
    told = json.loads((folder / "cases.js").read_text().removeprefix("window.sureFastCases = ").rstrip(";\n"))
    layers = []
    for number in (one["number"] for one in told["cases"]):
        text = (folder / f"cases/{number}.js").read_text()
        found = re.fullmatch(r"sureFastCase\((\d+), (.*)\);\n", text, re.S)
        assert int(found.group(1)) == number
        files = {name: gzip.decompress(base64.b64decode(data)) for name, data in json.loads(found.group(2)).items()}
        layers.append({name: nib.Nifti1Image.from_bytes(data) for name, data in files.items()})
    return told, layers


def test_layers_are_those_of_the_files(project):
    told, layers = page_of(project / "out/view")
    assert [one["name"] for one in told["cases"]] == [
        line.split(",")[0] for line in (project / "out/review.csv").read_text().splitlines()[1:]
    ]
    assert [part["name"] for part in told["classes"]] == ["right ventricle", "myocardium", "left ventricle"]
    with open(project / "out/review.csv", newline="") as file:
        rows = {row["case"]: {k: float(v) for k, v in row.items() if k != "case"} for row in csv.DictReader(file)}
    for one, of_case in zip(told["cases"], layers, strict=True):
        image = nib.load(project / f"data/imagesTr/{one['name']}.nii.gz")
        assert set(of_case) == {"image", "prediction", "uncertainty"}
        for layer, path, tolerance in (
            ("image", image.get_filename(), np.ptp(image.get_fdata()) / 65535),
            ("prediction", project / f"out/{one['name']}_segmentation.nii.gz", 0),
            ("uncertainty", project / f"out/{one['name']}_uncertainty.nii.gz", 0.5 / 255),
        ):
            wanted = nib.load(path)
            np.testing.assert_allclose(of_case[layer].affine, wanted.affine, atol=1e-4)
            np.testing.assert_allclose(of_case[layer].get_fdata(), wanted.get_fdata(), atol=tolerance + 1e-6)
        row = rows[one["name"]]
        u = nib.load(project / f"out/{one['name']}_uncertainty.nii.gz")
        index = np.linalg.inv(u.affine) @ [*one["place"], 1]
        assert u.get_fdata()[tuple(np.rint(index[:3]).astype(int))] == pytest.approx(
            row["region_uncertainty"], rel=1e-5
        )
        assert one["place"] == pytest.approx([row["x_mm"], row["y_mm"], row["z_mm"]], abs=0.01)
        assert one["percentile"] == pytest.approx(row["percentile"])


def test_of_a_run_the_evaluated_cases_with_their_labels(project):
    told, layers = page_of(project / "run/view")
    evaluated = json.loads((project / "run/results.json").read_text())["per_case"]
    assert sorted(one["name"] for one in told["cases"]) == sorted(case["case"] for case in evaluated)
    dice = {case["case"]: case["dice"] for case in evaluated}
    for one, of_case in zip(told["cases"], layers, strict=True):
        assert one["dice"] == pytest.approx(dice[one["name"]])
        case = next(case for case in discover(project / "data") if case.name == one["name"])
        label = nib.load(case.label)
        matched = of_case["label"].as_reoriented(
            nib.orientations.ornt_transform(
                nib.orientations.io_orientation(of_case["label"].affine), nib.orientations.io_orientation(label.affine)
            )
        )
        assert np.array_equal(matched.get_fdata(), load_case(case).label.numpy())
        np.testing.assert_allclose(matched.affine, label.affine, atol=1e-4)
    assert [part["name"] for part in told["classes"]] == ["right ventricle", "myocardium", "left ventricle"]


def test_an_earlier_page_stays_where_the_new_one_fails(project, tmp_path):
    shutil.copytree(project / "out", tmp_path / "out")
    shutil.copytree(project / "data/imagesTr", tmp_path / "images")
    told, _ = page_of(tmp_path / "out/view")
    last = max((tmp_path / "images").iterdir())
    last.write_bytes(last.read_bytes()[:400])
    with pytest.raises(DataError, match=last.name):
        view.main([str(tmp_path / "out"), "--images", str(tmp_path / "images")])
    assert page_of(tmp_path / "out/view")[0] == told
    assert not (tmp_path / "out/view/cases.partial").exists()


def test_beside_a_data_folder_and_without_its_images(project, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(project / "out", out)
    (out / "predictions.json").unlink()
    for arguments, text in (
        ([], r"images: expected the folder of the images of .* \(--images\), got none"),
        (["--images", str(tmp_path / "none")], "expected an image or a folder of images, got nothing there"),
        (["--weights", "best"], "weights: expected with a run only, got one"),
        (["--device", "cpu"], "device: expected with a run only, got one"),
        (["--images", "x", "--data", "y"], "images: expected none with --data, which has them, got both"),
    ):
        with pytest.raises(ValueError, match=text):
            view.main([str(out), *arguments])
    next(out.glob("*_uncertainty.nii.gz")).unlink()
    view.main([str(out), "--data", str(project / "data"), "--output", str(tmp_path / "page")])
    assert "note: 1 of 5 images have no prediction here and are left out" in capsys.readouterr().err
    told, layers = page_of(tmp_path / "page")
    assert all(
        one["dice"] is not None and "label" in of_case for one, of_case in zip(told["cases"], layers, strict=True)
    )
    with pytest.raises(ValueError, match="data: expected with a folder of predictions only, got one"):
        view.main([str(project / "run"), "--data", str(project / "data")])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").touch()
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        view.main([str(out), "--data", str(project / "data"), "--output", str(tmp_path / "mine")])
    with pytest.raises(ValueError, match="expected the folder of a run or of predictions, got nothing there"):
        view.main([str(tmp_path / "none")])


def test_pictures_stand_upright(tmp_path):
    pixels, u = np.zeros((6, 9), np.uint8), np.zeros((6, 9), np.uint16)
    pixels[1, 7], u[1, 7] = 200, 60000  # right, near the top
    for folder, array in (("images", pixels), ("out", (pixels > 0).astype(np.uint8)), ("out/uncertainty", u)):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(array).save(tmp_path / folder / "a.png")
    view.main([str(tmp_path / "out"), "--images", str(tmp_path / "images")])
    told, layers = page_of(tmp_path / "out/view")
    assert told["cases"][0]["flat"]
    x, y, _ = (int(k) for k in told["cases"][0]["place"])
    assert (x, y) == (7, 4)  # NiiVue's y points up
    for layer in ("image", "prediction", "uncertainty"):
        assert layers[0][layer].get_fdata()[x, y, 0] > 0
        assert (layers[0][layer].get_fdata() > 0).sum() == 1


def test_served_on_this_machine_alone(project):
    command = [sys.executable, "-u", "-m", "sure_fast.view", str(project / "out"), "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert "open" in process.stdout.readline()
            url = process.stdout.readline().split(": ")[1].split()[0]
            assert url.startswith("http://127.0.0.1:")
            assert b"NiiVue" in urllib.request.urlopen(f"{url}index.html").read()
        finally:
            process.terminate()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)])
def test_in_a_browser(project, width, height):
    """From a file: it draws, a key changes the slice, another the case, and layers can be hidden."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height})
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto((project / "run/view/index.html").as_uri())
        page.wait_for_selector("body[data-ready=true]", timeout=60_000)

        def drawn():
            page.wait_for_timeout(300)
            return page.locator("#stage").screenshot()

        first, place = drawn(), page.inner_text("#place")
        colours = {tuple(c) for c in np.asarray(Image.open(io.BytesIO(first)).convert("RGB")).reshape(-1, 3)[::7]}
        assert len(colours) > 50  # not blank
        assert re.search(r"mm; image [\d.e+-]+; prediction .*; label .*; u 0\.\d+", place)
        page.keyboard.press("ArrowRight")
        moved = drawn()
        assert moved != first
        assert page.inner_text("#place") != place
        page.keyboard.press("u")
        assert drawn() != moved
        assert not page.is_checked("#show-uncertainty")
        page.keyboard.press(" ")
        assert page.inner_text("#place") == place
        page.keyboard.press("2")
        assert page.get_attribute("[data-view=AXIAL]", "aria-pressed") == "true"
        if len(json.loads((project / "run/results.json").read_text())["per_case"]) > 1:
            page.keyboard.press("ArrowDown")
            page.wait_for_function("document.querySelector('#choice').value === '1'")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.is_visible("#choice") == (width < 760)
        assert errors == []
        browser.close()
