"""Gradients averaged over ranks during the backward."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from sure_fast.data import SegmentationDataset, discover, phantom
from sure_fast.engine import distributed, gradients, loop
from sure_fast.engine.cases import plan_for
from sure_fast.engine.config import make
from sure_fast.engine.gradients import GradientAverage
from sure_fast.engine.signals import RunFailure, StopRequest
from tests._ranks import free_port, joined
from tests.engine.test_distributed import BASE

WIDTH = 8
MESSAGE = 4 * (WIDTH * WIDTH + WIDTH)
"""Bytes of one layer."""


class Layers(torch.nn.Module):
    """Four layers, the last of them a head of its own, and one that nothing reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.head, self.unused = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, head: bool = True) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).tanh()
        return self.head(x) if head else x


class Messages:
    """All-reduce of two ranks with the same gradients, which notes what was sent and when."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.now = "backward"

    def all_reduce(self, flat: torch.Tensor, async_op: bool) -> Messages:
        assert async_op
        self.sent.append(f"{flat.numel()} {self.now}")
        flat *= 2
        return self

    def wait(self) -> None:
        self.now = "waited"


@pytest.fixture
def messages(monkeypatch):
    found = Messages()
    monkeypatch.setattr(dist, "all_reduce", found.all_reduce)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(gradients, "BUCKET", MESSAGE)
    return found


def test_buckets(monkeypatch):
    monkeypatch.setattr(gradients, "BUCKET", 4 * 10)
    sizes = [(4, torch.float32), (6, torch.float32), (1, torch.float32), (50, torch.float32), (1, torch.float64)]
    parameters = [torch.nn.Parameter(torch.zeros(number, dtype=dtype)) for number, dtype in sizes]
    found = gradients.cut(parameters)
    assert [[p.numel() for p in bucket] for bucket in found] == [[4, 6], [1], [50], [1]]
    assert gradients.cut([]) == []


def test_messages_leave_during_the_last_backward(messages):
    model = Layers()
    model.unused.requires_grad_(False)
    average = GradientAverage(model.parameters())
    x = torch.randn(3, WIDTH)
    model(x).sum().backward()
    assert messages.sent == []
    alone = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    average.start()
    model(x).sum().backward()
    number = WIDTH * WIDTH + WIDTH
    assert messages.sent == [f"{number} backward"] * 4
    average.finish()
    assert messages.now == "waited"
    assert all(p.grad is None for p in model.unused.parameters())
    found = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.equal(grad, 2 * once) for grad, once in zip(found, alone, strict=True))


def test_what_the_backward_does_not_reach_is_sent_at_the_end(messages):
    model = Layers()
    average = GradientAverage(model.parameters())
    average.start()
    messages.now = "backward"
    model(torch.randn(3, WIDTH), head=False).sum().backward()
    assert messages.sent == []  # the first bucket is that of the layer which nothing reaches
    messages.now = "end"
    average.finish()
    assert [sent.split()[1] for sent in messages.sent] == ["end"] * 5
    assert all(p.grad is not None and not p.grad.any() for p in (*model.unused.parameters(), *model.head.parameters()))
    average.finish()  # a rank without images
    assert len(messages.sent) == 10


def test_a_gradient_that_changes_after_it_was_sent_is_an_error(messages):
    model = Layers()
    average = GradientAverage(list(model.head.parameters()))
    average.start()
    model(torch.ones(1, WIDTH)).sum().backward()
    with pytest.raises(RuntimeError, match="a gradient changed after it was sent to the other ranks"):
        model(torch.ones(1, WIDTH)).sum().backward()


def test_a_process_of_its_own_sends_nothing():
    model = Layers()
    average = GradientAverage(model.parameters())
    average.start()
    model(torch.ones(1, WIDTH)).sum().backward()
    average.finish()
    assert average.buckets == []
    assert model.unused.weight.grad is None


def rank_of_two(rank, folder, output, port):
    gradients.BUCKET = MESSAGE
    with joined(rank, port):
        found = {"means": means(rank), "nothing": means(rank, empty=True), "nan": means(rank, spoiled=True)}
        gradients.BUCKET = 4000
        found |= {"steps": weights_after(folder, output / "steps"), "stopped": stopped(rank, folder, output / "nan")}
        torch.save(found, output / f"{rank}.pt")


def means(rank, empty=False, spoiled=False):
    """Of gradients of two backwards; what rank 1 does not reach, or has no image for, counts as 0."""
    torch.manual_seed(0)
    model = Layers()
    average = GradientAverage(model.parameters())
    for number in range(0 if empty and rank else 2):
        if number:
            average.start()
        x = torch.full((1, WIDTH), rank + 1.0) * (math.nan if spoiled and rank else 1.0)
        model(x, head=rank == 0).sum().backward()
    own = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]
    average.finish()
    return own, [p.grad for p in model.parameters()]


def trainer_of(folder, output, **options):
    config = make({**BASE, "data": str(folder), "batch_size": "1", **options})
    cases = discover(folder)
    plan = plan_for(config, [(24, 24, 12)], 1, cases.info)
    dataset = SegmentationDataset(list(cases)[:5], tuple(plan.patch_size), seed=config.run.seed)
    return loop.Trainer(config, plan, dataset, [], cases.info, torch.device("cpu"), output)


def weights_after(folder, output):
    """An epoch in which each rank draws noise of its own, with coarser outputs, clipping and accumulation."""
    options = {"preset": "sure", "start_epoch": "0", "accumulate": "2", "clip_norm": "12", "deep_supervision": "true"}
    trainer = trainer_of(folder, output, **options)
    average = trainer.optimization.gradients
    early, finish = [], average.finish

    def finish_and_note():
        early.append(len(average._sent))
        finish()

    average.finish = finish_and_note
    trainer._steps(None, False, StopRequest())
    number = len(average.buckets)
    assert number > 3
    assert max(early) == number, (early, number)  # all of them, while the backward ran
    return [p.detach() for p in trainer.model.parameters()]


def stopped(rank, folder, output):
    """A gradient that is not finite on rank 1 alone, with terms that are, stops both before the weights change."""
    trainer = trainer_of(folder, output, preset="softmax")
    before = [p.detach().clone() for p in trainer.model.parameters()]
    if rank:
        next(trainer.model.parameters()).register_hook(lambda grad: grad * math.nan)
    batch = next(iter(trainer.loader))
    with pytest.raises(RunFailure, match=r"the gradient's norm is nan; the state before this step is saved"):
        trainer.step(0, 0, batch["image"], batch["label"])
    assert all(torch.equal(p, old) for p, old in zip(trainer.model.parameters(), before, strict=True))
    return True


@pytest.mark.slow
def test_two_ranks(tmp_path):
    phantom.write(tmp_path / "data", 5, 0, shape=(24, 24, 12))
    mp.spawn(rank_of_two, (tmp_path / "data", tmp_path, free_port()), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name in ("means", "nothing"):
        for own, other, mean, same in zip(
            *first[name][:1], *second[name][:1], first[name][1], second[name][1], strict=True
        ):
            assert torch.equal(mean, same)
            assert torch.equal(mean, (own + other) / 2)
    assert not any(grad.any() for grad in second["nothing"][0])
    assert any(grad.any() for grad in first["nothing"][1])
    for mean, same in zip(first["nan"][1], second["nan"][1], strict=True):
        assert torch.equal(mean.isnan(), same.isnan())
    assert first["nan"][1][0].isnan().all()
    assert all(torch.equal(here, there) for here, there in zip(first["steps"], second["steps"], strict=True))
    assert first["stopped"]
    assert second["stopped"]
