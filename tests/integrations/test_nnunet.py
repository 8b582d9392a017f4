"""nnU-Net: the loss on its tensors, the trainer found and run by its own commands, and the batch of two ranks."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

import sure_fast
from sure_fast.losses import supervised

pytest.importorskip("nnunetv2", reason="needs the extra [nnunet]: pip install sure_fast[nnunet]")

from sure_fast.integrations.nnunet import TRAINERS
from sure_fast.integrations.nnunet.loss import IGNORED, NNUNetLoss
from tests._ranks import free_port, joined
from tests.integrations.programs import run

HIPPOCAMPUS = os.environ.get("SURE_FAST_HIPPOCAMPUS", "")
SETTINGS = {"num_epochs": 10, "start_epoch": 2, "beta": 30.0, "gamma": 0.1, "annealing_epochs": 2, "scale": 0.1}
TRAINER = """
from sure_fast.integrations.nnunet import nnUNetTrainerSURE

class nnUNetTrainerSUREShort(nnUNetTrainerSURE):
    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 2, 1
        self.start = 0.5

    def train_step(self, batch):
        result = super().train_step(batch)
        assert self.loss.epoch == self.current_epoch
        self.print_to_log_file("supervision weight", self.loss.supervised.supervision_weight(self.loss.epoch))
        return result
"""


class Pyramid(torch.nn.Module):
    """Two resolutions, as nnU-Net's networks with deep supervision answer."""

    def __init__(self, channels=1, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.fine = torch.nn.Conv3d(channels, classes, 3, padding=1)
        self.coarse = torch.nn.Conv3d(channels, classes, 2, stride=2)

    def forward(self, x):
        return [self.fine(x), self.coarse(x)]


def case(batch=2, channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(batch, channels, 12, 12, 12, generator=generator)
    label = torch.zeros(batch, 1, 12, 12, 12, dtype=torch.int16)
    label[:, :, 2:8, 3:9, 2:9], label[:, :, 6:9, 4:8, 4:8] = 1, 2
    return data, [label, label[:, :, ::2, ::2, ::2].contiguous()]


def test_deep_supervision_and_uncertainty():
    data, targets = case()
    network = Pyramid()
    loss = NNUNetLoss(**SETTINGS, level_weights=[2 / 3, 1 / 3])
    loss.epoch = 5
    output = network(data)
    evidential = sure_fast.EvidentialLoss(num_epochs=10, annealing_epochs=2)
    plain = 0.1 * evidential(output, targets, 5).total  # its default weights of two levels
    torch.testing.assert_close(loss(output, targets), plain)

    torch.manual_seed(3)
    with loss.supervising(data) as images:
        assert len(images) == 4  # one noisy copy
        total = loss(network(images), targets)
    torch.manual_seed(3)
    whole = sure_fast.UncertaintySupervisedLoss(
        num_epochs=10, start_epoch=2, beta=30.0, gamma=0.1, annealing_epochs=2, channels="max", noisy_share=1.0
    )
    out = whole(output[0], targets[0], data, epoch=5, model=lambda x: network(x)[0])
    assert out.gradient > 0
    assert out.noise > 0
    noisy = 2 / 3 * 0.1 * whole.noisy_weight * out.noisy  # of the finest level, times gamma
    torch.testing.assert_close(total, plain + 0.1 * (out.total - out.segmentation + noisy))
    total.backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())
    torch.testing.assert_close(loss(output, targets), plain)  # the block has ended


def test_before_the_start_the_network_sees_no_noise():
    data, targets = case()
    loss = NNUNetLoss(**SETTINGS, level_weights=[1.0, 0.0])
    loss.epoch = 1
    with loss.supervising(data) as images:
        assert images is data
        assert loss(Pyramid()(images), targets) > 0


def test_no_noise_in_a_cascade():
    data, targets = case(channels=3)
    loss = NNUNetLoss(**SETTINGS, image_channels=1)
    loss.epoch = 5
    with loss.supervising(data) as images:
        loss(Pyramid(3)(images)[0], targets[0]).backward()
    clean, noisy = images.chunk(2)
    assert torch.equal(clean, data)
    assert torch.equal(noisy[:, 1:], data[:, 1:])
    assert not torch.equal(noisy[:, :1], data[:, :1])


def test_noise_in_a_share_of_the_images():
    data, targets = case()
    network, loss = Pyramid(), NNUNetLoss(**SETTINGS, level_weights=[0.5, 0.5], noisy_share=1 / 3)
    loss.epoch = 5
    sizes = []
    for _ in range(5):
        with loss.supervising(data) as images:
            sizes.append(len(images))
            assert loss(network(images), targets).isfinite()
    assert sizes == [3, 3, 2, 3, 3]  # copies of 2/3 of an image, rounded up


def test_ignore_label():
    data, targets = case()
    network = Pyramid()
    loss = NNUNetLoss(**SETTINGS, level_weights=[0.5, 0.5], ignore_label=3)
    for target in targets:
        target[..., target.shape[-1] // 2 :] = 3
    output = [z.detach() for z in network(data)]
    changed = [z.clone() for z in output]
    for z in changed:
        z[..., z.shape[-1] // 2 :] += 5
    assert torch.equal(loss(output, targets), loss(changed, targets))
    loss.epoch = 5
    with loss.supervising(data) as images:
        assert loss(network(images), targets).isfinite()


@pytest.mark.parametrize("ignore", [False, True])
def test_regions(ignore):
    data, (label, coarse) = case()
    targets = [
        torch.cat([t > 0, t == 2, t == 9], 1) if ignore else torch.cat([t > 0, t == 2], 1) for t in (label, coarse)
    ]
    if ignore:
        targets[0][:, 2, 10:] = True
    network = Pyramid(classes=2)
    loss = NNUNetLoss(
        **{**SETTINGS, "gamma": 0.0}, level_weights=[0.5, 0.5], regions=True, ignore_label=9 if ignore else None
    )
    loss.epoch = 5
    output = network(data)
    wanted = [t[:, :2].to(torch.uint8) for t in targets]
    if ignore:
        wanted[0][:, :, 10:] = IGNORED
    plain = sum(
        sure_fast.EvidentialLoss(
            num_epochs=10, annealing_epochs=2, regions=True, ignore_index=IGNORED if ignore else None
        )(z, t, epoch=5).total
        for z, t in zip(output, wanted, strict=True)
    )
    torch.testing.assert_close(loss(output, targets), 0.05 * plain)
    with loss.supervising(data) as images:
        assert images is data
        total = loss(output, targets)
    edges = sure_fast.GradientUncertaintyLoss(channels="max", ignore_index=IGNORED)
    u = sure_fast.evidential_loss(output[0], wanted[0], regions=True, ignore_index=IGNORED, return_uncertainty=True)
    terms = [edges(u.uncertainty[:, r : r + 1], data, wanted[0][:, r]) for r in range(2)]
    assert min(term.item() for term in terms) > 0
    a = loss.supervised.supervision_weight(5)
    torch.testing.assert_close(total, 0.05 * plain + 0.1 * a * 30.0 * sum(terms) / 2)
    total.backward()


def test_a_rank_without_a_noisy_copy_adds_up_as_often_as_the_others(monkeypatch):
    monkeypatch.setattr(supervised, "number_of_ranks", lambda: 2)
    data, (label, _) = case()
    target = (label > 0).to(torch.float32)
    network = torch.nn.Conv3d(1, 1, 3, padding=1)
    calls, totals = [], []
    for share in (1.0, 0.1):  # in the second call of a tenth of two images none has a copy
        loss = NNUNetLoss(**SETTINGS, regions=True, noisy_share=share)
        loss.epoch, loss.supervised.shared = 5, 1
        inner, times = loss.evidential.forward, []
        monkeypatch.setattr(
            loss.evidential, "forward", lambda *a, inner=inner, times=times: times.append(1) or inner(*a)
        )
        with loss.supervising(data) as images:
            totals.append(loss(network(images), target))
        calls.append(len(times))
    assert calls == [2, 2]
    assert len(images) == 2
    without = NNUNetLoss(**{**SETTINGS, "gamma": 0.0}, regions=True)
    without.epoch = 5
    with without.supervising(data):
        torch.testing.assert_close(totals[1], without(network(data), target))


@pytest.mark.parametrize("copies", [1, 2])
def test_noise_of_regions(copies):
    """Of one region all is as of the two classes absent and present, of which the logits are -z and z."""
    data, (label, _) = case()
    target = (label > 0).to(torch.float32)
    loss = NNUNetLoss(**SETTINGS, regions=True)
    loss.supervised.image_noise["noisy_copies"] = copies
    loss.epoch = 5
    network = torch.nn.Conv3d(1, 1, 3, padding=1)
    with loss.supervising(data) as images:
        output = network(images)
        total = loss(output, target)
        noise = loss._batch[1]
    assert len(images) == 2 * (1 + copies)
    clean, noisy = output[:2], output[2:]
    two_classes = sure_fast.UncertaintySupervisedLoss(
        num_epochs=10, start_epoch=2, beta=30.0, gamma=0.1, annealing_epochs=2, channels="max"
    )
    out = two_classes(torch.cat([-output, output], 1), target[:, 0].long(), data, epoch=5, noise=noise)
    assert min(out.gradient, out.order, out.distance, out.far) > 0
    evidential = sure_fast.EvidentialLoss(num_epochs=10, annealing_epochs=2, regions=True)
    learnt = [evidential(z, target.to(torch.uint8), 5).total for z in (clean, *noisy.split(2))]
    ordered = sum(w * x for w, x in zip(two_classes.weights, (out.order, out.distance, out.far), strict=True))
    of_noise = ordered + two_classes.noisy_weight * sum(learnt[1:]) / copies
    torch.testing.assert_close(total, 0.1 * (learnt[0] + 30.0 * out.gradient + 0.1 * of_noise))
    total.backward()
    assert network.weight.grad.abs().sum() > 0


def test_ignored_voxels_of_regions_have_no_part_in_the_noise():
    data, (label, _) = case()
    target = torch.cat([label > 0, label == 2, label == 9], 1)
    target[:, 2, 10:] = True
    loss = NNUNetLoss(**SETTINGS, regions=True, ignore_label=9)
    loss.epoch = 5
    with loss.supervising(data) as images:
        output = Pyramid(classes=2)(images)[0].detach()
        changed = output.clone()
        changed[:, :, 10:] += 3
        assert torch.equal(loss(output, target), loss(changed, target))
        changed[:, :, :2] += 3
        assert not torch.equal(loss(output, target), loss(changed, target))


def test_wrong_number_of_resolutions():
    data, targets = case()
    with pytest.raises(ValueError, match="expected 2 resolutions, got 2 and 1"):
        NNUNetLoss(**SETTINGS, level_weights=[0.5, 0.5])(Pyramid()(data), targets[:1])


def test_compiled_network():
    """As nnU-Net compiles it: one graph of the clean batch, and one with the noisy copies."""
    from torch._dynamo.testing import CompileCounter

    data, targets = case()
    torch._dynamo.reset()
    counter = CompileCounter()
    network = torch.compile(Pyramid(), backend=counter)
    loss = NNUNetLoss(**SETTINGS, level_weights=[0.5, 0.5])
    for epoch in (0, 5, 6, 7):
        loss.epoch = epoch
        with loss.supervising(data) as images:
            loss(network(images), targets).backward()
    assert counter.frame_count <= 2


def _rank(rank: int, folder: str, port: str) -> None:
    with joined(rank, port):
        _two_batches(rank, folder)


def _two_batches(rank: int, folder: str) -> None:
    data, targets = case(4)
    targets[0][0], targets[1][0] = 3, 3  # so that the ranks' means alone are not the batch's
    loss = NNUNetLoss(**SETTINGS, level_weights=[0.6, 0.4], ignore_label=3, ddp=True)
    network = torch.nn.parallel.DistributedDataParallel(Pyramid())
    mine = slice(2 * rank, 2 * rank + 2)
    value = loss(network(data[mine]), [t[mine] for t in targets])
    value.backward()
    grads = [p.grad for p in network.module.parameters()]
    torch.save((value.detach(), grads), f"{folder}/{rank}.pt")
    loss.epoch = 5
    with loss.supervising(data[mine]) as images:
        loss(network(images), [t[mine] for t in targets]).backward()


@pytest.mark.slow
def test_two_ranks_equal_one_process_with_their_batch(tmp_path):
    mp.spawn(_rank, (str(tmp_path), free_port()), nprocs=2)
    data, targets = case(4)
    targets[0][0], targets[1][0] = 3, 3
    network = Pyramid()
    value = NNUNetLoss(**SETTINGS, level_weights=[0.6, 0.4], ignore_label=3)(network(data), targets)
    value.backward()
    for rank in range(2):
        got, grads = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(got, value.detach())
        for p, grad in zip(network.parameters(), grads, strict=True):
            torch.testing.assert_close(grad, p.grad, rtol=1e-5, atol=1e-7)


def test_across_ranks_needs_ranks():
    with pytest.raises(RuntimeError, match="not initialised"), sure_fast.across_ranks():
        pass


@pytest.mark.slow
def test_found_through_the_printed_folder():
    folder = run(sys.executable, "-m", "sure_fast.integrations.nnunet").strip()
    assert folder == str(TRAINERS)
    code = (
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "print(find('nnUNetTrainerSURE').__module__)"
    )
    found = run(sys.executable, "-c", code, torchvision=True, nnUNet_extTrainer=folder).strip().splitlines()[-1]
    assert found == "sure_fast.integrations.nnunet.trainer"


@pytest.mark.slow
@pytest.mark.skipif(not HIPPOCAMPUS, reason="SURE_FAST_HIPPOCAMPUS does not name the Task04_Hippocampus folder")
def test_hippocampus(tmp_path):
    """Plan, preprocess, train and predict a dozen cases with nnU-Net's commands."""
    source, cases = Path(HIPPOCAMPUS), 12
    raw = tmp_path / "raw" / "Dataset004_Hippocampus"
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    names = sorted(path.name.removesuffix(".nii.gz") for path in (source / "imagesTr").glob("hippocampus_*.nii.gz"))
    for name in names[:cases]:
        shutil.copy(source / "imagesTr" / f"{name}.nii.gz", raw / "imagesTr" / f"{name}_0000.nii.gz")
        shutil.copy(source / "labelsTr" / f"{name}.nii.gz", raw / "labelsTr" / f"{name}.nii.gz")
    labels = {"background": 0, "Anterior": 1, "Posterior": 2}
    description = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": cases, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(description))
    trainers = tmp_path / "trainers"
    trainers.mkdir()
    (trainers / "short.py").write_text(TRAINER)
    options: dict = {
        "torchvision": True,
        "nnUNet_raw": str(tmp_path / "raw"),
        "nnUNet_preprocessed": str(tmp_path / "preprocessed"),
        "nnUNet_results": str(tmp_path / "results"),
        "nnUNet_extTrainer": f"{TRAINERS}{os.pathsep}{trainers}",
        "nnUNet_def_n_proc": "2",
        "nnUNet_n_proc_DA": "1",
    }
    run("nnUNetv2_plan_and_preprocess", "-d", 4, "-c", "3d_fullres", "-np", 2, "-npfp", 2, **options)
    said = run("nnUNetv2_train", 4, "3d_fullres", 0, "-tr", "nnUNetTrainerSUREShort", "-device", "cpu", **options)
    assert said.count("supervision weight 0.0\n") == 2
    assert said.count("supervision weight 1.0\n") == 2
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(raw / "imagesTr" / f"{names[0]}_0000.nii.gz", images)
    trained = ["-tr", "nnUNetTrainerSUREShort", "-d", 4, "-c", "3d_fullres", "-f", 0, "-device", "cpu", "-chk"]
    out = tmp_path / "out"
    run("nnUNetv2_predict", "-i", images, "-o", out, *trained, "checkpoint_final.pth", "--disable_tta", **options)
    import nibabel

    predicted, image = nibabel.load(out / f"{names[0]}.nii.gz"), nibabel.load(images / f"{names[0]}_0000.nii.gz")
    assert predicted.shape == image.shape
    assert set(map(int, set(predicted.get_fdata().ravel()))) <= {0, 1, 2}
