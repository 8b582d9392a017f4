"""What any tool left: found by name, held against the image, and evaluated as far as its files allow."""

from __future__ import annotations

import json
import math
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from sure_fast import evaluate
from sure_fast.data import DataError, discover, load_case, phantom, save_nifti
from sure_fast.engine.map_evaluation import evaluate_maps
from sure_fast.engine.maps import MapFolders, load
from sure_fast.metrics import compute_dice, compute_ece, compute_error_auroc, compute_ucc_noise

CLASSES = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Phantoms, and softmax-like answers: the label blurred and wrong in places."""
    root = tmp_path_factory.mktemp("maps")
    phantom.write(root / "data", 3, shape=(20, 18, 10))
    cases = discover(root / "data")
    generator = np.random.default_rng(0)
    answers = {}
    for case in cases:
        label = load_case(case).label.numpy()
        z = np.eye(CLASSES)[label] * 2 + generator.normal(0, 1, (*label.shape, CLASSES))
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        answers[case.name] = np.moveaxis(p, -1, 0).astype(np.float32)
    return root / "data", cases, answers


def entropy(p):
    return (-(p * np.log(p)).sum(0) / math.log(len(p))).astype(np.float32)


def affine_of(case):
    return nib.load(case.image).affine


def leave(folder, data, *kinds, ending=".nii.gz"):
    """Results of a tool."""
    _, cases, answers = data
    for case in cases:
        p, affine = answers[case.name], affine_of(case)
        for kind in kinds:
            array = {"segmentation": p.argmax(0).astype(np.uint8), "uncertainty": entropy(p),
                     "probabilities": np.moveaxis(p, 0, -1)}[kind]  # fmt: skip
            place = folder if kind == "segmentation" else folder / kind
            save_nifti(place / f"{case.name}{ending}", array, affine)
    return folder


def test_the_files_tell_which_metrics_there_are(data, tmp_path):
    _, cases, answers = data
    segmentation = {"dice", "iou", "hd95_mm", "assd_mm", "nsd"}
    of_u = {"ueo", "aurc", "auroc", "mean_uncertainty", "case_uncertainty", "window_uncertainty", "ucc_g", "ur_g"}
    of_p = {"ece", "adaptive_ece", "brier", "nll"}
    for kinds, wanted in (
        (("segmentation",), segmentation),
        (("segmentation", "uncertainty"), segmentation | of_u),
        (("segmentation", "probabilities"), segmentation | of_u | of_p),
    ):
        folder = leave(tmp_path / "-".join(kinds), data, *kinds)
        result = evaluate_maps(MapFolders.found_in(folder), cases, info=cases.info, progress=False)
        assert {metric for metric in result.metrics() if "/" not in metric} == wanted
        for row, case in zip(result.per_case, cases, strict=True):
            label, p = load_case(case).label[None], torch.from_numpy(answers[case.name])[None]
            assert row["dice"] == pytest.approx(float(compute_dice(p.argmax(1), label, CLASSES)[0].mean()))
            if "probabilities" in kinds:
                assert row["ece"] == pytest.approx(float(compute_ece(p, label, top_label=True)), abs=1e-6)
            if len(kinds) > 1:
                u = torch.from_numpy(entropy(answers[case.name]))[None]
                assert row["auroc"] == pytest.approx(
                    float(compute_error_auroc(u, p.argmax(1), label, CLASSES)), abs=1e-6
                )


def test_a_segmentation_counts_beside_its_probabilities(data, tmp_path):
    """A tool may mend it afterwards: Dice and errors are of the file, calibration of the probabilities."""
    _, cases, answers = data
    folder = leave(tmp_path / "out", data, "segmentation", "probabilities")
    before = evaluate_maps(MapFolders.found_in(folder), cases[:1], info=cases.info, progress=False).per_case[0]
    path = folder / f"{cases[0].name}.nii.gz"
    mended = answers[cases[0].name].argmax(0).astype(np.uint8)
    mended[:2] = 0
    save_nifti(path, mended, affine_of(cases[0]))
    after = evaluate_maps(MapFolders.found_in(folder), cases[:1], info=cases.info, progress=False).per_case[0]
    label = load_case(cases[0]).label[None]
    assert after["dice"] == pytest.approx(
        float(compute_dice(torch.from_numpy(mended)[None].long(), label, CLASSES)[0].mean())
    )
    assert after["dice"] != before["dice"]
    assert after["auroc"] != before["auroc"]
    assert [after[name] for name in ("ece", "brier", "nll")] == [before[name] for name in ("ece", "brier", "nll")]
    save_nifti(path, (mended + 1) % CLASSES, affine_of(cases[0]))
    with pytest.raises(
        DataError, match=r"expected .* to hold its most probable classes, got them in \d+% of the voxels"
    ):
        evaluate_maps(MapFolders.found_in(folder), cases[:1], info=cases.info, progress=False)


def test_under_noise(data, tmp_path):
    _, cases, answers = data
    folder = leave(tmp_path / "out", data, "segmentation", "uncertainty")
    maps = [entropy(answers[cases[0].name])]
    for k in (1, 2):
        maps.append((maps[0] * (1 - 0.3 * k) + 0.2 * k).astype(np.float32))
        save_nifti(folder / f"noisy-{k}" / f"{cases[0].name}_uncertainty.nii.gz", maps[k], affine_of(cases[0]))
    folders = MapFolders.found_in(folder)
    assert [path.name for path in folders.noisy] == ["noisy-1", "noisy-2"]
    (folder / "noisy-10").mkdir()
    assert [path.name for path in MapFolders.found_in(folder).noisy] == ["noisy-1", "noisy-2", "noisy-10"]
    (folder / "noisy-10").rmdir()
    row = evaluate_maps(folders, cases[:1], info=cases.info, progress=False).per_case[0]
    truth_near = row["ucc_noise"]
    assert {"ucc_d", "ur_d", "ur_noise"} <= row.keys()
    assert -1 <= truth_near <= 1
    with pytest.raises(DataError, match=f"noisy .*noisy-1: expected {cases[1].name}"):
        evaluate_maps(folders, cases[1:2], info=cases.info, progress=False)
    single = MapFolders.of(folder, noisy=[folder / "noisy-2"])
    row = evaluate_maps(single, cases[:1], info=cases.info, progress=False).per_case[0]
    whole = leave(tmp_path / "whole", data, "segmentation", "uncertainty")  # as noisy folder its maps count
    prediction, noisy = load(MapFolders.of(folder, noisy=[whole]), cases[0], load_case(cases[0]), CLASSES)
    assert torch.equal(noisy[0], prediction.uncertainty)
    for case in cases:  # as nnU-Net leaves them: CASE.nii.gz is the segmentation
        p = answers[case.name]
        np.savez(whole / f"{case.name}.npz", probabilities=p.transpose(0, *range(p.ndim - 1, 0, -1)))
    shutil.rmtree(whole / "uncertainty")
    bare = leave(tmp_path / "bare", data, "probabilities") / "probabilities"
    of_probabilities = MapFolders.of(probabilities=bare, noisy=[whole, bare])
    prediction, noisy = load(of_probabilities, cases[0], load_case(cases[0]), CLASSES)
    assert len(noisy) == 2
    assert all(torch.allclose(u, prediction.uncertainty, atol=1e-5) for u in noisy)
    near = torch.ones(1, *maps[0].shape, dtype=torch.bool)
    both = [torch.from_numpy(x)[None] for x in (maps[0], maps[2])]
    everywhere = float(compute_ucc_noise(both, mask=near))
    assert row["ucc_noise"] == pytest.approx(everywhere, abs=0.5)  # of the voxels near a boundary alone


@pytest.mark.parametrize(
    ("segmentation", "uncertainty"),
    [("{}.nii.gz", "uncertainty/{}.nii.gz"), ("{}_segmentation.nii.gz", "{}_uncertainty.nii.gz"),
     ("{}_seg.nii", "{}_entropy.nii"), ("{}/{}_trans.nii.gz", "uncertainty/{}/{}_trans.nii.gz")],
)  # fmt: skip
def test_names_of_several_tools(data, tmp_path, segmentation, uncertainty):
    _, cases, answers = data
    for case in cases:
        p = answers[case.name]
        save_nifti(tmp_path / segmentation.format(case.name, case.name), p.argmax(0).astype(np.uint8), affine_of(case))
        save_nifti(tmp_path / uncertainty.format(case.name, case.name), entropy(p), affine_of(case))
    folders = MapFolders.of(tmp_path, uncertainty=tmp_path if "entropy" in uncertainty else None)
    chosen, notes = folders.choose(cases)
    assert (len(chosen), notes) == (3, [])
    prediction, noisy = load(folders, cases[0], load_case(cases[0]), CLASSES)
    assert np.array_equal(prediction.labels[0].numpy(), answers[cases[0].name].argmax(0))
    np.testing.assert_allclose(prediction.uncertainty[0].numpy(), entropy(answers[cases[0].name]))
    assert prediction.known == {"uncertainty"}
    assert noisy == []


def test_what_monai_writes(data, tmp_path):
    """Its LoadImage, Orientation and SaveImage: another order of the voxels, a folder a case, channels at the end."""
    from monai.data import MetaTensor
    from monai.transforms import EnsureChannelFirst, LoadImage, Orientation, SaveImage

    _, cases, answers = data
    case, p = cases[0], torch.from_numpy(answers[cases[0].name])
    loaded = EnsureChannelFirst()(LoadImage(image_only=True)(case.image))
    probabilities = Orientation(axcodes="PSR", labels=None)(MetaTensor(p, affine=loaded.affine, meta=loaded.meta))
    assert probabilities.shape[1:] != p.shape[1:]
    for folder, array, kind in (
        ("p", probabilities, np.float32),
        ("s", probabilities.argmax(0, keepdim=True), np.uint8),
    ):
        SaveImage(tmp_path / folder, output_dtype=kind, resample=False, print_log=False)(array)
    assert (tmp_path / "p" / case.name / f"{case.name}_trans.nii.gz").is_file()
    folders = MapFolders.of(tmp_path / "s", probabilities=tmp_path / "p")
    prediction, _ = load(folders, case, load_case(case), CLASSES)
    np.testing.assert_allclose(prediction.probabilities[0].numpy(), p, rtol=1e-5)
    assert np.array_equal(prediction.labels[0].numpy(), p.argmax(0))


def test_archives_of_nnunet(data, tmp_path):
    """[C, z, y, x], and one case of several whose names begin alike."""
    _, cases, answers = data
    for case in cases:
        p = answers[case.name]
        save_nifti(tmp_path / f"{case.name}.nii.gz", p.argmax(0).astype(np.uint8), affine_of(case))
        np.savez_compressed(tmp_path / f"{case.name}.npz", probabilities=p.transpose(0, 3, 2, 1))
    for name in ("dataset.json", "plans.json", "predict_from_raw_data_args.json"):
        (tmp_path / name).write_text("{}")
    folders = MapFolders.found_in(tmp_path)
    prediction, _ = load(folders, cases[1], load_case(cases[1]), CLASSES)
    np.testing.assert_allclose(prediction.probabilities[0].numpy(), answers[cases[1].name], rtol=1e-5)
    assert prediction.known == {"probabilities", "uncertainty"}
    shutil.copy(tmp_path / f"{cases[0].name}.npz", tmp_path / f"{cases[1].name}.npz")
    (tmp_path / f"{cases[2].name}.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="to hold its most probable classes"):
        load(folders, cases[1], load_case(cases[1]), CLASSES)
    with pytest.raises(DataError, match="expected an archive with 'probabilities'"):
        load(folders, cases[2], load_case(cases[2]), CLASSES)


def test_another_order_of_the_voxels_is_brought_to_the_image(data, tmp_path):
    _, cases, answers = data
    case = cases[0]
    folder = leave(tmp_path, data, "segmentation", "uncertainty", "probabilities")
    for path in (
        folder / f"{case.name}.nii.gz",
        *(folder / kind / f"{case.name}.nii.gz" for kind in ("uncertainty", "probabilities")),
    ):
        image = nib.load(path)
        turned = image.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
        nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), path)
    prediction, _ = load(MapFolders.found_in(folder), case, load_case(case), CLASSES)
    assert np.array_equal(prediction.labels[0].numpy(), answers[case.name].argmax(0))
    np.testing.assert_allclose(prediction.uncertainty[0].numpy(), entropy(answers[case.name]))
    np.testing.assert_allclose(prediction.probabilities[0].numpy(), answers[case.name], rtol=1e-5)


def test_what_does_not_fit_names_the_file(data, tmp_path):
    _, cases, answers = data
    case = cases[0]
    folder = leave(tmp_path / "out", data, "segmentation", "uncertainty", "probabilities")
    folders, sample, affine = MapFolders.found_in(folder), load_case(case), affine_of(case)
    good = {path: path.read_bytes() for path in folder.rglob(f"{case.name}.nii.gz")}
    u, p = entropy(answers[case.name]), np.moveaxis(answers[case.name], 0, -1)
    moved = affine + np.array([[0, 0, 0, 9], [0] * 4, [0] * 4, [0] * 4])
    for kind, array, where, text in (
        ("uncertainty", u[1:], affine, r"expected the shape \[20, 18, 10\] of the image, got \[19, 18, 10\]"),
        ("uncertainty", u, moved, r"expected the affine of the image, got one that is up to 9 mm off"),
        ("uncertainty", u * 3, affine, r"expected an uncertainty in \[0, 1\] \(--uncertainty-max gives another"),
        ("uncertainty", u - 0.5, affine, r"expected an uncertainty in \[0, 1\]"),
        ("uncertainty", (u > 0.5).astype(np.uint8), affine, "expected an uncertainty, got whole numbers alone"),
        ("probabilities", p[..., :3], affine, "expected the probabilities of 4 classes, got 3 channels"),
        ("probabilities", p * 2, affine, "expected probabilities in .* that add up to 1 in every voxel"),
        ("segmentation", np.full(u.shape, 7, np.uint8), affine, r"expected class numbers in \[0, 4\), got 7"),
        ("segmentation", u, affine, "expected whole class numbers in a label"),
    ):
        path = folder / ("" if kind == "segmentation" else kind) / f"{case.name}.nii.gz"
        save_nifti(path, array, where)
        with pytest.raises(DataError, match=f"{path}: {text}"):
            load(folders, case, sample, CLASSES)
        path.write_bytes(good[path])
    scaled = MapFolders.of(folder, largest=2.0)
    np.testing.assert_allclose(load(scaled, case, sample, CLASSES)[0].uncertainty[0].numpy(), u / 2)
    shutil.copy(folder / f"{case.name}.nii.gz", folder / f"{case.name}.nii")
    with pytest.raises(DataError, match="expected one segmentation of the case, got also"):
        load(folders, case, sample, CLASSES)


def test_which_cases(data, tmp_path):
    _, cases, _ = data
    folder = leave(tmp_path / "out", data, "segmentation", "uncertainty")
    (folder / f"{cases[0].name}.nii.gz").unlink()
    (folder / "uncertainty" / f"{cases[0].name}.nii.gz").unlink()
    chosen, notes = MapFolders.found_in(folder).choose(cases)
    assert [case.name for case in chosen] == [case.name for case in cases[1:]]
    assert notes == ["1 of 3 labelled cases have no prediction and are left out"]
    (folder / "uncertainty" / f"{cases[1].name}.nii.gz").unlink()
    with pytest.raises(DataError, match=f"uncertainty .*: expected a file of case {cases[1].name}"):
        MapFolders.found_in(folder).choose(cases)
    (tmp_path / "others").mkdir()
    (tmp_path / "others/scan.nii.gz").touch()
    with pytest.raises(DataError, match=f"such as {cases[0].name}.nii.gz, got scan.nii.gz"):
        MapFolders.found_in(tmp_path / "others").choose(cases)
    with pytest.raises(DataError, match=r"predictions .*: expected a folder, got nothing"):
        MapFolders.of(tmp_path / "none")
    with pytest.raises(DataError, match=r"noisy .*: expected a folder, got nothing"):
        MapFolders.of(folder, noisy=[tmp_path / "none"])
    with pytest.raises(ValueError, match="uncertainty-max: expected with uncertainty maps only, got 2 without any"):
        MapFolders.of(leave(tmp_path / "alone", data, "segmentation"), largest=2.0)
    with pytest.raises(ValueError, match="predictions: expected a folder of segmentations, or --probabilities DIR"):
        MapFolders.of(uncertainty=folder)


def test_the_command(data, tmp_path, capsys):
    root, cases, _ = data
    folder = leave(tmp_path / "out", data, "segmentation", "uncertainty")
    evaluate.main(["--data", str(root), "--predictions", str(folder), "--output", str(tmp_path / "results")])
    said = capsys.readouterr().out
    assert "3 cases of" in said
    assert "reads segmentation, uncertainty" in said
    assert "UCC_g" in said
    assert "UCC_noise" not in said.split("UCC: ")[0]
    assert "ECE" not in said
    content = json.loads((tmp_path / "results/results.json").read_text())
    assert content["cases"] == 3
    assert "ece" not in content["mean"]
    assert (tmp_path / "results/pictures" / f"{cases[0].name}.png").is_file()
    leave(tmp_path / "segmentation", data, "segmentation")
    evaluate.main(["--data", str(root), "--predictions", str(tmp_path / "segmentation")])
    assert "UCC" not in capsys.readouterr().out
    for arguments, text in (
        (["--predictions", str(folder)], "data: expected the folder of the images and labels"),
        (["--data", str(root)], "checkpoint: expected a run's folder or a checkpoint, or --predictions DIR"),
        (
            ["--data", str(root), "--predictions", str(folder), "--checkpoint", "x"],
            "checkpoint: expected none with pred",
        ),
        (["--data", str(root), "--predictions", str(folder), "--device", "cpu"], "device: expected none with pred"),
        (["--data", str(root), "--predictions", str(folder), "--robustness"], "robustness: expected none with pred"),
        (["--data", str(root), "--predictions", str(folder), "--uncertainty-max", "0"], "uncertainty-max: expected"),
    ):
        with pytest.raises(ValueError, match=text):
            evaluate.main(arguments)


def test_pictures(tmp_path):
    """16 and 8 bits, grey levels that labels are stored as, and [C, 1, H, W] of nnU-Net's archive."""
    generator = np.random.default_rng(0)
    for folder in ("data/images", "data/masks", "out/uncertainty"):
        (tmp_path / folder).mkdir(parents=True)
    for k in range(2):
        mask = np.zeros((24, 20), np.uint8)
        mask[6:18, 5:15] = 255
        pixels = (mask * 0.3 + generator.normal(80, 9, mask.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"data/images/p{k}.png")
        Image.fromarray(mask).save(tmp_path / f"data/masks/p{k}.png")
        predicted = np.roll(mask, 1, 0)
        Image.fromarray(predicted if k else (predicted > 0).astype(np.uint8)).save(tmp_path / f"out/p{k}.png")
        u = generator.random(mask.shape)
        stored = (u * 255).astype(np.uint8) if k else (u * 65535).astype(np.uint16)
        Image.fromarray(stored).save(tmp_path / f"out/uncertainty/p{k}.png")
        p = 0.9 * (predicted > 0) + 0.05
        np.savez(tmp_path / f"out/p{k}.npz", probabilities=np.stack([1 - p, p])[:, None])
    cases = discover(tmp_path / "data", label_map={0: 0, 255: 1})
    folders = MapFolders.found_in(tmp_path / "out")
    for case in cases:
        prediction, _ = load(folders, case, load_case(case), 2)
        assert int(prediction.labels.sum()) == 120
        assert 0.9 < float(prediction.uncertainty.max()) <= 1
        assert float(prediction.probabilities.max()) == pytest.approx(0.95)
    with pytest.raises(DataError, match="expected no --uncertainty-max with pictures, whose depth tells it, got 3"):
        load(MapFolders.of(tmp_path / "out", largest=3.0), cases[0], load_case(cases[0]), 2)
    assert "hd95_px" in evaluate_maps(folders, cases, info=cases.info, progress=False).mean
