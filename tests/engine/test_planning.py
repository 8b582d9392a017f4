"""Grid, slices and network of a run, and what is refused before it begins."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from sure_fast.data import phantom
from sure_fast.engine import run as training
from sure_fast.engine.cases import plan_run
from sure_fast.engine.config import ConfigError, make

QUICK = {"preset": "evidential", "channels": "2,4,8", "patch_size": None}


def volumes(root, spacings=((1.5, 1.5, 5.0),) * 5, shape=(24, 20, 8), modality="MRI", box=None):
    """Cases named c0, c1, … in the layout of the Decathlon, images of noise with a block as label."""
    pairs = []
    for k, spacing in enumerate(spacings):
        label = np.zeros(shape, np.uint8)
        label[6:14, 5:12, 2:6] = 1
        image = np.random.default_rng(k).normal(100, 20, shape).astype(np.float32) + 100 * label
        if box is not None:
            outside = np.ones(shape, bool)
            outside[box] = False
            image[outside] = 0
        for folder, array in (("imagesTr", image), ("labelsTr", label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.diag([*spacing, 1.0])), root / folder / f"c{k}.nii")
        pairs.append({"image": f"./imagesTr/c{k}.nii", "label": f"./labelsTr/c{k}.nii"})
    content = {"modality": {"0": modality}, "labels": {"0": "background", "1": "block"}, "training": pairs}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def planned(root, **flags):
    given = {name: value for name, value in {**QUICK, **flags}.items() if value is not None}
    lines = []
    run = plan_run(make({**given, "data": str(root)}), root, False, lambda line, warning: lines.append(line))
    return run, lines


@pytest.mark.parametrize(
    ("chosen", "spacing", "axis"),
    [
        ("auto", (1.5, 1.5, 5.0), 2),
        ("auto", (5.0, 1.5, 1.5), 0),
        ("auto", (1.0, 1.0, 1.0), 2),  # axial of equal ones
        ("coronal", (1.5, 1.5, 5.0), 1),
        ("sagittal", (1.5, 1.5, 5.0), 0),
        ("1", (1.5, 1.5, 5.0), 1),
    ],
)
def test_the_axis_of_the_slices(tmp_path, chosen, spacing, axis):
    run, _ = planned(volumes(tmp_path, (spacing,) * 5), dims="2", slice_axis=chosen)
    assert (run.plan.slice_axis, run.plan.dims, run.plan.image_dims) == (axis, 2, 3)
    shape = [n for k, n in enumerate((24, 20, 8)) if k != axis]
    assert all(p <= n for p, n in zip(run.plan.patch_size, shape, strict=True))


def test_volumes_of_several_spacings_are_brought_to_the_median(tmp_path):
    mixed = ((1.0, 1.0, 5.0), (1.0, 1.0, 5.0), (1.0, 1.0, 5.0), (1.25, 1.0, 5.0), (1.0, 1.0, 5.0))
    run, lines = planned(volumes(tmp_path / "mixed", mixed))
    assert run.plan.spacing == [1.0, 1.0, 5.0]
    assert any("they are resampled to 1x1x5 mm for the network" in line for line in lines)
    run, lines = planned(tmp_path / "mixed", spacing="none")
    assert run.plan.spacing is None
    assert any("they are not resampled" in line for line in lines)
    near = (*mixed[:3], (1.05, 1.0, 5.0), mixed[4])
    assert planned(volumes(tmp_path / "near", near))[0].plan.spacing is None
    coarse = (*mixed[:4], (1.0, 1.0, 8.0))
    flat = [*coarse[:3], (1.0, 1.0, 5.0), coarse[4]]
    assert planned(volumes(tmp_path / "flat", flat), dims="2")[0].plan.spacing is None  # slices keep their distance
    assert planned(tmp_path / "flat")[0].plan.spacing == [1.0, 1.0, 5.0]
    given, _ = planned(tmp_path / "near", spacing="0.5,0.5,5")
    assert given.plan.spacing == [0.5, 0.5, 5.0]
    assert max(given.plan.patch_size) >= 40
    one, _ = planned(tmp_path / "near", spacing="2")
    assert one.plan.spacing == [2.0, 2.0, 2.0]
    sliced, _ = planned(tmp_path / "near", spacing="0.5,0.5", dims="2")
    assert sliced.plan.spacing == [0.5, 0.5, 5.0]


def test_grey_values_of_ct_are_absolute(tmp_path):
    run, _ = planned(volumes(tmp_path / "ct", modality="CT"))
    (window,) = run.plan.windows
    lower, upper, mean, std = window
    assert lower < 180 < mean < 220 < upper  # the block is 200 with noise of 20
    assert std == pytest.approx(20, rel=0.1)
    assert run.cases[0].info.windows[0].mean == mean
    assert planned(volumes(tmp_path / "mr"))[0].plan.windows is None


def test_the_patch_is_that_of_the_box(tmp_path):
    box = (slice(4, 20), slice(2, 18), slice(0, 8))
    root = volumes(tmp_path, box=box)
    assert planned(root, foreground_crop="true", channels="2,4,8")[0].plan.patch_size == [16, 16, 8]
    assert planned(root)[0].plan.patch_size == [24, 20, 8]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"dims": "4"}, "data.dims: expected 2 or 3, got 4"),
        ({"slice_axis": "0"}, "data.slice_axis: expected with data.dims 2 only, got '0'"),
        ({"dims": "2", "slice_axis": "axiel"}, "data.slice_axis: expected one of auto, axial, .*, got 'axiel'"),
        ({"spacing": "0"}, "data.spacing: expected sizes from 1e-12 to 1e12 mm, one or one per axis, got 0"),
        ({"spacing": "1,-1,1"}, "data.spacing: expected sizes from 1e-12 to 1e12 mm, one or one per axis, got 1,-1,1"),
        ({"spacing": "fine"}, "data.spacing: expected auto, none, or sizes in mm, got 'fine'"),
        ({"spacing": "1,1"}, "data.spacing: expected 1 or 3 sizes for these images"),
        ({"resize": "8,8"}, "data.resize: expected 3 numbers for these images"),
        ({"resize": "8,8,8", "spacing": "2"}, "data.resize: expected without data.spacing"),
        ({"empty_slices": "0.5"}, r"data.empty_slices: expected with slices of volumes only \(--dims 2\), got 0.5"),
        ({"empty_slices": "2"}, r"data.empty_slices: expected a share in \[0, 1\], got 2"),
        ({"augment": "strong"}, "data.augment: expected nnunet, mirror, none, or a list of transforms, got 'strong'"),
        ({"augment": "[{Nosuchd: {}}]"}, "data.augment: expected one of MONAI's dictionary transforms, got 'Nosuchd'"),
        ({"augment": "[{SpatialPadd: {spatial_size: 40}}]"}, "data.augment: expected transforms that keep a crop"),
        ({"augment": "[{RandZoomd: {prob: 1, min_zoom: two}}]"}, "data.augment: "),
        ({"patch_size": "24,20,1"}, r"data.patch_size: expected more than one voxel .*--dims 2 --patch-size 24,20"),
        ({"network.name": "resnet"}, "network.name: expected one of unet, .*package.module:function, got 'resnet'"),
        ({"network.name": "unetr", "channels": "8,16"}, r"network.channels: is no option of unetr, got \[8, 16\]"),
        ({"network.name": "unet", "deep_supervision": "true"}, "network.deep_supervision: is no option of unet"),
        ({"network.name": "attentionunet", "norm": "group"}, "network: expected a network for patches of .*, got "
                                                             "attentionunet: norm: expected batch"),
        ({"network.parameters": "nonsense:1"}, "network: expected a network for patches of .*nonsense"),
        ({"network.name": "segresnet", "patch_size": "24,20,6"}, "data.patch_size: expected multiples of 4"),
        ({"channels": "2,4"}, "network: .*dynunet: expected at least 3 levels of channels"),
        ({"optimizer.momentum": "0.5"}, "optimizer.momentum: expected with optimizer.name sgd only, got 0.5"),
        ({"optimizer.warmup": "40"}, "optimizer.warmup: expected less than the 40 epochs, got 40"),
        ({"optimizer.name": "lion"}, "optimizer.name: expected one of adam, adamw, sgd, got 'lion'"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, flags, message):
    root = volumes(tmp_path / "set")
    given = {name: value for name, value in {**QUICK, **flags, "data": str(root)}.items() if value is not None}
    with pytest.raises(ConfigError, match=message) as error:
        training.train(make(given), tmp_path / "run", progress=False)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_pictures_and_volumes_together_or_of_no_spacing(tmp_path):
    root = volumes(tmp_path / "both", shape=(24, 20, 8))
    flat = np.zeros((24, 20), np.uint8)
    flat[5:9, 5:9] = 1
    for folder in ("imagesTr", "labelsTr"):
        nibabel.save(nibabel.Nifti1Image(flat * 1, np.eye(4)), root / folder / "c4.nii")
    with pytest.raises(ConfigError, match="expected images of one dimension, got both 2D and 3D"):
        planned(root)
    flat_set = tmp_path / "flat"
    for k in range(5):
        for folder, array in (("images", flat * 50.0 + k), ("labels", flat)):
            (flat_set / folder).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), np.eye(4)), flat_set / folder / f"c{k}.nii")
    assert planned(flat_set, dims="2")[0].plan.slice_axis is None
    with pytest.raises(ConfigError, match=r"data.dims: expected 2 with images of two axes, got 3"):
        planned(flat_set, dims="3")
    with pytest.raises(ConfigError, match=r"data.slice_axis: expected with volumes only, got axial"):
        planned(flat_set, dims="2", slice_axis="axial")


def test_a_network_of_the_user_s_own_is_tried_first(tmp_path, monkeypatch):
    (tmp_path / "ownnet.py").write_text(
        "import torch\n"
        "def good(dims, in_channels, num_classes, patch_size):\n"
        "    return torch.nn.Conv3d(in_channels, num_classes, 3, padding=1)\n"
        "def small(dims, in_channels, num_classes, patch_size):\n"
        "    return torch.nn.Conv3d(in_channels, num_classes, 3)\n"
        "def broken(dims, in_channels, num_classes, patch_size):\n"
        "    return torch.nn.Conv3d(7, num_classes, 3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    root = volumes(tmp_path / "set")
    own = {"channels": None}
    assert planned(root, **own, **{"network.name": "ownnet:good"})[0].plan.network == "ownnet:good"
    with pytest.raises(ConfigError, match=r"network.name: expected ownnet:small to give logits \[2, 2, 24, 20, 8\]"):
        planned(root, **own, **{"network.name": "ownnet:small"})
    with pytest.raises(ConfigError, match=r"network: expected a network for patches of \[24, 20, 8\], got ownnet"):
        planned(root, **own, **{"network.name": "ownnet:broken"})
    with pytest.raises(ConfigError, match=r"network.dropout: expected 0 with ownnet:good, which has no layer of it"):
        planned(root, **{**own, "preset": "mc-dropout"}, **{"network.name": "ownnet:good"})
    with pytest.raises(ConfigError, match=r"network.upsample: is no option of ownnet:good, got transposed"):
        planned(root, **own, **{"network.name": "ownnet:good", "upsample": "transposed"})
    with pytest.raises(ConfigError, match=r"network.norm: is no option of ownnet:good, got batch"):
        planned(root, **own, **{"network.name": "ownnet:good", "norm": "batch"})


def test_a_dry_run_tells_what_is_to_come(tmp_path, capsys):
    data = phantom.write(tmp_path / "set", 6, 0, shape=(32, 32, 8))
    config = make({"data": str(data), "channels": "2,4,8", "epochs": "4", "start_epoch": "1", "dims": "2"})
    training.try_out(config, tmp_path / "run", dry_run=True, progress=False)
    out = capsys.readouterr().out
    for text in (
        "cases: 4 train, 1 val, 1 test",
        "size in voxels, smallest, median, largest: 32 x 32 x 8; 32 x 32 x 8; 32 x 32 x 8",
        "voxel size in mm, smallest, median, largest: 1.5 x 1.5 x 5;",
        "slices along axis 2",
        "class 3 left ventricle: in 6 cases",
        "grey values of MRI: 0.5 to 99.5 % are",
        "patch: 32 x 32, batch 4",
        "network: dynunet, 2D,",
        "before epoch 2, peak memory",
        "to the end: 4 epochs of",
        "all is well with 4 train, 1 val, 1 test cases",
    ):
        assert text in out, text
    assert not (tmp_path / "run").exists()
