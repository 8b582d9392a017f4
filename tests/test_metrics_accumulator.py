from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from sure_fast import metrics
from sure_fast.metrics import CaseMetric, DiceMetric, ECEMetric, UncertaintyMetrics, compute_dice, summarize
from tests._ranks import free_port, joined


def cases(number=7):
    generator = torch.Generator().manual_seed(0)
    t = torch.randint(0, 3, (number, 8, 8), generator=generator)
    p = torch.where(torch.rand((number, 8, 8), generator=generator) < 0.3, (t + 1) % 3, t)
    p[0], t[0] = p[0].clamp(max=1), t[0].clamp(max=1)
    return p, t


def test_summary_of_any_batches_in_any_order():
    p, t = cases()
    whole, apart = DiceMetric(num_classes=3), DiceMetric(num_classes=3)
    assert torch.equal(whole(p, t).values, compute_dice(p, t, 3).values)
    for part in (torch.tensor([6, 2]), torch.tensor([4]), torch.tensor([0, 1, 3, 5])):
        apart.update(p[part], t[part])
    for name in ("mean", "std", "interval", "absent", "undefined"):
        assert torch.equal(getattr(whole.compute(), name), getattr(apart.aggregate(), name))
    found = whole.compute()
    assert found.columns == ("1", "2")
    assert found.values.shape == (7, 2)
    assert found.absent.tolist() == [0, 1]
    torch.testing.assert_close(found.mean, found.values.mean(0))
    torch.testing.assert_close(found.std, found.values.std(0))
    assert ((found.interval[:, 0] < found.mean) & (found.mean < found.interval[:, 1])).all()
    whole.reset()
    with pytest.raises(ValueError, match=r"^compute: expected cases with one set of columns, got no case$"):
        whole.compute()
    whole.update(torch.zeros(0, 8, 8, dtype=torch.long), torch.zeros(0, 8, 8, dtype=torch.long))
    with pytest.raises(ValueError, match=r"^compute: expected cases with one set of columns, got no case$"):
        whole.compute()
    with pytest.raises(ValueError, match=r"^columns: expected names that differ, got \['a', 'a'\]$"):
        DiceMetric(num_classes=3, columns=("a", "a"))


def test_columns_and_names():
    p, t = cases()
    dice = DiceMetric(num_classes=3, columns=("liver", "spleen"))
    dice.update(p[:4], t[:4], names=list("abcd"))
    dice.update(p[3:6], t[3:6], names=list("def"))  # d again
    found = dice.compute()
    assert found.columns == ("liver", "spleen")
    assert found.names == tuple("abcdef")
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["spleen"]["absent"] == 1
    assert plain["liver"]["number"] == 6
    with pytest.raises(ValueError, match=r"^names: expected one for each of the 2 cases, got 1$"):
        dice.update(p[:2], t[:2], names=["x"])
    with pytest.raises(ValueError, match=r"^columns: expected 2 names, got \['liver'\]$"):
        DiceMetric(num_classes=3, columns=["liver"]).update(p, t)
    with pytest.raises(TypeError, match="num_clases"):
        DiceMetric(num_clases=3)


def test_undefined_is_counted_and_left_out():
    found = summarize([0.25, math.nan, 0.75, math.nan])
    assert found[:2] == (0.5, pytest.approx(math.sqrt(0.125)))
    assert found[-2:] == (2, 2)
    for values, number in (([], 0), ([math.nan], 0), ([0.5], 1)):
        found = summarize(values)
        assert found.number == number
        assert math.isnan(found.std)
        assert math.isnan(found.low)
    assert math.isnan(summarize([math.nan]).mean)
    assert summarize([0.5]).mean == 0.5
    assert summarize([1.0, math.inf]).mean == math.inf


def test_interval_is_scipys_percentile_bootstrap():
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).gamma(2.0, size=60)
    found = summarize(values, resamples=20000, level=0.9)
    want = bootstrap((values,), np.mean, confidence_level=0.9, n_resamples=20000, method="percentile", rng=1)
    assert found.low == pytest.approx(want.confidence_interval.low, abs=0.02)
    assert found.high == pytest.approx(want.confidence_interval.high, abs=0.02)
    assert summarize(values[::-1], resamples=300) == summarize(values, resamples=300)
    assert summarize(values, seed=1) != summarize(values, seed=2)
    with pytest.raises(ValueError, match="0 < level < 1"):
        summarize(values, level=1.0)


def test_functions_that_return_several_columns_or_none():
    generator = torch.Generator().manual_seed(0)
    p = torch.softmax(torch.randn((3, 3, 8, 8), generator=generator), 1)
    t = torch.randint(0, 3, (3, 8, 8), generator=generator)
    ece = ECEMetric()
    ece.update(p, t)
    assert ece.compute().columns == ("0", "1", "2")
    top = CaseMetric(metrics.compute_ece, top_label=True)
    top.update(p, t)
    assert top.compute().columns == ("value",)
    u = torch.rand((3, 8, 8), generator=generator)
    g, d = metrics.gradient_and_distance(p[:, :1], t)
    maps = UncertaintyMetrics(protocol="sure")
    maps.update(u, g, d, u, u * 1.5)
    assert maps.compute().columns == ("ucc_g", "ucc_d", "ucc_noise", "ur_g", "ur_d", "ur_noise")
    assert maps.compute().mean[2] == 1
    assert pickle.loads(pickle.dumps(maps)).compute().mean[2] == 1


def test_every_function_has_an_accumulator():
    functions = {name for name in metrics.__all__ if name.startswith("compute_")}
    accumulated = {
        value.function.__name__
        for value in vars(metrics).values()
        if isinstance(value, type) and issubclass(value, CaseMetric) and value is not CaseMetric
    }
    # several at once, and a curve
    assert functions - accumulated == {"compute_surface_metrics", "compute_risk_coverage"}


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (3, r"^function: expected a tensor \[N\] or \[N, K\], one row a case, as its result, got int$"),
        ([1.0, 2.0], r"^function: expected a tensor .* got list$"),
        (torch.zeros(()), r"^function: expected a tensor .* got \[\]$"),
        (torch.zeros(2, 3, 4), r"^function: expected a tensor .* got \[2, 3, 4\]$"),
        ({"a": torch.zeros(2), "b": 3}, r"^function's 'b': expected a tensor \[N\], one row a case, .* got int$"),
        ({"a": torch.zeros(2), "b": torch.zeros(3)}, r"^function: expected results of the same cases, got \[2, 3\]$"),
        ({}, r"^function: expected results of the same cases, got \[\]$"),
    ],
)
def test_a_function_that_returns_no_row_a_case(result, text):
    metric = CaseMetric(lambda batch: result)
    with pytest.raises((TypeError, ValueError), match=text):
        metric.update(1)
    with pytest.raises(ValueError, match=r"^compute: .* got no case$"):
        metric.compute()  # none of it was kept


@pytest.mark.parametrize("value", ["0.5", None, True, torch.zeros(2)])
def test_what_is_no_number_of_a_case(value):
    with pytest.raises(TypeError, match=r"^values: expected numbers, one per case, got"):
        summarize([0.5, value])
    assert summarize([0.5, np.float32(0.5), torch.tensor(0.5)]).mean == 0.5


def test_missing_and_unknown_arguments_name_the_metric():
    p, t = cases()
    with pytest.raises(TypeError, match=r"^compute_dice: missing a required argument: 'num_classes'$"):
        compute_dice(p, t)
    with pytest.raises(TypeError, match=r"^compute_dice: got an unexpected keyword argument 'classes'$"):
        DiceMetric(classes=3)


def worker(rank, port, queue):
    with joined(rank, port):
        queue.put((rank, *together(rank)))


def together(rank):
    p, t = cases()
    dice = DiceMetric(num_classes=3)
    own = slice(0, 4) if rank == 0 else slice(3, 7)  # case 3 fills up the last round
    dice.update(p[own], t[own], names=list("abcdefg")[own])
    found = dice.compute()
    empty = DiceMetric(num_classes=3)
    if rank == 0:
        empty.update(p[:1], t[:1])
    return found.mean.tolist(), found.interval.tolist(), found.names, empty.compute().values.shape[0]


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch without gloo")
def test_state_of_all_processes():
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    port = free_port()
    processes = [context.Process(target=worker, args=(rank, port, queue)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
        assert process.exitcode == 0
    results = sorted(queue.get() for _ in processes)
    assert results[0][1:] == results[1][1:]
    alone = DiceMetric(num_classes=3)
    alone.update(*cases())
    assert results[0][1] == alone.compute().mean.tolist()
    assert results[0][2] == alone.compute().interval.tolist()
    assert results[0][3] == tuple("abcdefg")
    assert results[0][4] == 1
