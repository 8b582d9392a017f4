from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import torch
import torch._dynamo.testing

import sure_fast
from sure_fast.losses.schedule import total_of_terms
from sure_fast.ops._sums import sums_layout
from sure_fast.ops.evidential_loss import _op, _op_backward
from sure_fast.reference.evidential_loss import evidential_loss as reference
from tests._golden import GOLDEN, load
from tests._tolerances import tolerance

SHAPES = {
    "2d": (2, 4, 17, 23),
    "3d": (2, 3, 5, 6, 7),
    "one voxel": (1, 2, 1, 1),
    "more than a chunk": (1, 2, 70, 61),
    "many classes": (1, 150, 3, 5),
    "empty batch": (0, 3, 4, 4),
    "empty axis": (2, 3, 0, 4),
}


def case(shape, dtype=torch.float32, scale=3.0, ignore=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(shape, generator=generator) * scale).to(dtype)
    target = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    if ignore is not None and target.numel():
        target[torch.rand(target.shape, generator=generator) < 0.3] = ignore
    return logits, target


def total_of(terms, epoch=7):
    """A loss of the terms, which lets every one of them count."""
    return total_of_terms(terms.data, terms.kl, terms.dice, epoch=epoch)


def run(logits, target, **options):
    logits = logits.detach().requires_grad_()
    out = sure_fast.evidential_loss(logits, target, **options)
    total = total_of(out)
    # Scaled as a GradScaler does: the gradient of a mean falls below the normal range of float16.
    (gradient,) = torch.autograd.grad(1024 * total, logits)
    return torch.stack([total, *out[:3]]).detach(), gradient


def strided(logits: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values in another layout."""
    if layout == "channels_last":
        order = (0, *range(2, logits.dim()), 1)
        return logits.permute(order).contiguous().permute(0, logits.dim() - 1, *range(1, logits.dim() - 1))
    if layout == "channel slice":
        wide = torch.full((logits.shape[0], logits.shape[1] + 2, *logits.shape[2:]), math.nan, dtype=logits.dtype)
        wide[:, 1:-1] = logits
        return wide[:, 1:-1]
    if layout == "every other voxel":
        wide = torch.full((*logits.shape[:-1], 2 * logits.shape[-1]), math.nan, dtype=logits.dtype)
        wide[..., ::2] = logits
        return wide[..., ::2]
    if layout == "transposed":
        return logits.transpose(-1, -2).contiguous().transpose(-1, -2)
    return logits


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kind", ["digamma", "log", "mse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_kernel_agrees_with_float64_reference(shape, kind, dtype):
    logits, target = case(shape, dtype)
    out, gradient = run(logits, target, kind=kind, backend="cpu")
    want, want_gradient = run(logits.double(), target, kind=kind, backend="reference")
    assert gradient.dtype == dtype
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    assert out.dtype == compute
    torch.testing.assert_close(out.double(), want, **tolerance(compute))
    scale = want_gradient.abs().max().clamp(min=1e-30) if want_gradient.numel() else 1.0
    wanted = tolerance(dtype, "evidential_loss.gradient")
    torch.testing.assert_close(gradient.double() / scale, want_gradient / scale, **wanted)


@pytest.mark.parametrize("evidence", ["softplus", "relu", "exp"])
@pytest.mark.parametrize("kind", ["digamma", "log", "mse"])
@pytest.mark.parametrize("scale", [0.01, 1.0, 20.0])
def test_evidence_kinds_on_every_isa(isa, kind, evidence, scale):
    logits, target = case((2, 3, 9, 31), scale=scale, ignore=255)
    for dtype in (torch.float32, torch.float64):
        options = {"kind": kind, "evidence": evidence, "ignore_index": 255}
        out, gradient = run(logits.to(dtype), target, backend="cpu", **options)
        want, want_gradient = run(logits.to(dtype).double(), target, backend="reference", **options)
        torch.testing.assert_close(out.double(), want, **tolerance(dtype, "evidential_loss"))
        largest = want_gradient.abs().max()
        wanted = tolerance(dtype, "evidential_loss.gradient")
        torch.testing.assert_close(gradient.double() / largest, want_gradient / largest, **wanted)


@pytest.mark.parametrize("layout", ["channels_last", "channel slice", "every other voxel", "transposed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_strides_change_nothing(layout, dtype):
    logits, target = case((2, 3, 6, 7, 8), dtype)
    other = strided(logits, layout)
    assert torch.equal(other, logits)
    assert not other.is_contiguous()
    for got, want in zip(run(other, target), run(logits, target), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_label_dtypes(dtype):
    logits, target = case((2, 3, 6, 7))
    for got, want in zip(run(logits, target.to(dtype)), run(logits, target), strict=True):
        assert torch.equal(got, want)


def test_label_with_channel_axis():
    logits, target = case((2, 3, 6, 7))
    for got, want in zip(run(logits, target[:, None]), run(logits, target), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_ignored_voxels_count_in_no_term(backend):
    logits, target = case((1, 3, 8, 10))
    cut = logits[..., :6].contiguous()
    ignored = target.clone()
    ignored[..., 6:] = -1
    out, gradient = run(logits, ignored, ignore_index=-1, backend=backend)
    want, want_gradient = run(cut, target[..., :6], backend=backend)
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(gradient[..., :6], want_gradient)
    assert gradient[..., 6:].abs().max() == 0
    nothing, gradient = run(logits, torch.full_like(target, -1), ignore_index=-1, backend=backend)
    assert nothing.abs().max() == 0
    assert gradient.abs().max() == 0


def hand_terms(z: np.ndarray, y: np.ndarray, kind: str) -> tuple[float, float, float]:
    """The equations of the docstring, voxel by voxel in NumPy and SciPy. z [V, C], y [V]."""
    psi, lgamma = scipy.special.digamma, scipy.special.gammaln
    classes = z.shape[1]
    data, kl = [], []
    tp, fp, fn = np.zeros(classes), np.zeros(classes), np.zeros(classes)
    for z_i, y_i in zip(z, y, strict=True):
        alpha = np.log1p(np.exp(z_i)) + 1
        total, p, hot = alpha.sum(), alpha / alpha.sum(), np.eye(classes)[y_i]
        if kind == "digamma":
            data.append(np.sum(hot * (psi(total) - psi(alpha))))
        elif kind == "log":
            data.append(np.sum(hot * (np.log(total) - np.log(alpha))))
        else:
            data.append(np.sum((hot - p) ** 2) + np.sum(p * (1 - p)) / (total + 1))
        a = hot + (1 - hot) * alpha
        kl.append(lgamma(a.sum()) - lgamma(a).sum() - lgamma(classes) + np.sum((a - 1) * (psi(a) - psi(a.sum()))))
        soft = hot + 1e-3
        tp, fp, fn = tp + p * soft, fp + p * (1 - soft), fn + (1 - p) * soft
    a = np.clip(fp / (fp + fn + 1e-5), 0.2, 0.8)
    return float(np.mean(data)), float(np.mean(kl)), float(np.mean(1 - tp / (tp + a * fp + (1 - a) * fn + 1e-5)))


@pytest.mark.parametrize("kind", ["digamma", "log", "mse"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_against_the_equations_in_scipy(kind, backend):
    logits, target = case((1, 3, 4, 5), torch.float64)
    data, kl, dice = hand_terms(logits[0].flatten(1).T.numpy(), target[0].flatten().numpy(), kind)
    weighted = sure_fast.EvidentialLoss(kind=kind, backend=backend)(logits, target, epoch=5)
    np.testing.assert_allclose([float(v) for v in weighted[1:4]], [data, kl, dice], rtol=1e-12)
    np.testing.assert_allclose(float(weighted.total), 10 * data + 0.25 * kl + 10 * dice, rtol=1e-12)
    annealed = sure_fast.EvidentialLoss(
        kind=kind, total="annealed", num_epochs=60, annealing_epochs=0, backend=backend
    )(logits, target, epoch=30)
    assert weighted[1:] == sure_fast.evidential_loss(logits, target, kind=kind, backend=backend)[:3]
    np.testing.assert_allclose(float(annealed.total), data + kl + 0.9 * dice, rtol=1e-12)


def test_hand_computed_without_evidence():
    # relu(z <= 0) = 0: alpha = (1, 1), A = 2, p = 1/2; psi(2) - psi(1) = 1; Dirichlet(1, 1) has KL 0.
    # Half the four voxels are class 1: for both classes TP = 2 (0.5 * 1.001) + 2 (0.5 * 0.001) = 1.002 = FN + 0.002
    logits, target = torch.full((1, 2, 2, 2), -1.0, dtype=torch.float64), torch.tensor([[[0, 0], [1, 1]]])
    for backend in ("cpu", "reference"):
        out = sure_fast.evidential_loss(logits, target, evidence="relu", backend=backend)
        assert float(out.data) == pytest.approx(1.0, abs=1e-12)
        assert float(out.kl) == pytest.approx(0.0, abs=1e-12)
        tp, fp, fn = 1.002, 0.998, 1.002
        a = fp / (fp + fn + 1e-5)
        assert float(out.dice) == pytest.approx(1 - tp / (tp + a * fp + (1 - a) * fn + 1e-5), abs=1e-12)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("kind", ["digamma", "log", "mse"])
@pytest.mark.parametrize(("total", "key"), [("annealed", "edl_loss"), ("weighted", "edl_loss_a")])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, total, key, kind, backend):
    golden = load(name)
    epoch, epochs, annealing = (float(v) for v in golden["epoch_total_annealing"])
    for precision, dtype in (("f32", torch.float32), ("f64", torch.float64)):
        logits = torch.from_numpy(golden["logits"]).to(dtype).requires_grad_()
        target = torch.from_numpy(golden["label"]).long()
        loss = sure_fast.EvidentialLoss(
            kind=kind, total=total, num_epochs=int(epochs), annealing_epochs=int(annealing), backend=backend
        )
        out = loss(logits, target, epoch=epoch)
        want = golden[f"{key}.{kind}.{precision}.total_ace_kl_dice"]
        (gradient,) = torch.autograd.grad(out.total, logits)
        rtol = 1e-5 if dtype == torch.float32 else 1e-9
        # the reference code's shift 1e-3 is a float32 in both precisions
        np.testing.assert_allclose([out.kl.item(), out.dice.item()], want[2:], rtol=max(rtol, 1e-7))
        if kind == "mse":
            # The golden data term counts the squared error C times: mean(C Σ(y-p)² + Σ p(1-p)/(A+1)).
            z = torch.from_numpy(golden["logits"]).double()
            alpha = torch.nn.functional.softplus(z) + 1
            p = alpha / alpha.sum(1, keepdim=True)
            y = torch.nn.functional.one_hot(target, z.shape[1]).movedim(-1, 1)
            surplus = float(((y - p) ** 2).sum(1).mean()) * (z.shape[1] - 1)
            np.testing.assert_allclose(out.data.item() + surplus, want[1], rtol=max(rtol, 1e-6))
            continue
        np.testing.assert_allclose([out.total.item(), out.data.item()], want[:2], rtol=max(rtol, 1e-7))
        want_gradient = golden[f"{key}.{kind}.{precision}.grad_logits"]
        largest = np.abs(want_gradient).max()
        np.testing.assert_allclose(
            gradient.numpy() / largest, want_gradient / largest, atol=1e-5 if dtype == torch.float32 else 1e-7
        )


def test_gradcheck():
    logits, target = case((1, 3, 3, 4), torch.float64, ignore=9)
    logits.requires_grad_()
    for kind in ("digamma", "log", "mse"):
        for backend in ("reference", "cpu"):

            def total(z, kind=kind, backend=backend):
                return total_of(sure_fast.evidential_loss(z, target, kind=kind, ignore_index=9, backend=backend), 3)

            assert torch.autograd.gradcheck(total, (logits,))


def test_every_term_has_its_own_gradient():
    logits, target = case((2, 3, 5, 6), torch.float64)
    for term in ("data", "kl", "dice"):
        gradients = []
        for backend in ("cpu", "reference"):
            z = logits.clone().requires_grad_()
            out = sure_fast.evidential_loss(z, target, backend=backend)
            gradients.append(torch.autograd.grad(getattr(out, term), z)[0])
        assert gradients[0].abs().max() > 0
        torch.testing.assert_close(*gradients, **tolerance(torch.float64, "evidential_loss.gradient"))


def test_same_bits_for_any_number_of_threads():
    logits, target = case((3, 4, 80, 90))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(run(logits, target))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert torch.equal(result[0], results[0][0])
        assert torch.equal(result[1], results[0][1])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_stays_nan(value):
    logits, target = case((1, 3, 4, 40))
    logits[0, 1, 2, 3] = value
    for kind in ("digamma", "log", "mse"):
        out, gradient = run(logits, target, kind=kind)
        assert out[:2].isnan().all()
        assert gradient[0, :, 2, 3].isnan().all()


def test_no_evidence_from_minus_infinity():
    logits, target = case((1, 3, 4, 5))
    logits[0, 1, 2, 3] = -math.inf
    out, gradient = run(logits, target)
    want, want_gradient = run(logits, target, backend="reference")
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(gradient, want_gradient, rtol=1e-4, atol=1e-6)


def test_opcheck():
    for shape in ((2, 3, 4, 5), (1, 2, 3, 4, 5)):
        logits, target = case(shape)
        for wanted in (False, True):
            settings = ("digamma", "softplus", None, None, False, wanted, wanted, "cpu")
            torch.library.opcheck(_op, (logits.requires_grad_(), target, *settings))
        sums = torch.randn(1, 2 + 3 * shape[1], dtype=torch.float64)
        slope = torch.randn((shape[0], 1, *shape[2:]))
        weights = torch.rand(shape[1], dtype=torch.float64)
        for given in ((None, None, None), (torch.randn(target.shape), torch.randn(target.shape), slope)):
            arguments = (sums, *given, logits.detach(), target, "mse", "exp", 1, weights, False, "cpu")
            torch.library.opcheck(_op_backward, arguments)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_uncertainty_from_the_same_pass(shape, dtype, layout):
    logits, target = case(shape, dtype, ignore=-1)
    weight = torch.randn((shape[0], 1, *shape[2:]), generator=torch.Generator().manual_seed(3)).double()
    results = []
    for backend, z in (("cpu", strided(logits, layout)), ("reference", logits.double())):
        z = z.detach().requires_grad_()
        out = sure_fast.evidential_loss(z, target, ignore_index=-1, return_uncertainty=True, backend=backend)
        torch.testing.assert_close(
            out.uncertainty.double(), sure_fast.dirichlet_uncertainty(z.detach().double()), **tolerance(dtype)
        )
        assert out.uncertainty.dtype == z.dtype
        total = total_of(out) + (weight * out.uncertainty.double()).sum()
        results.append(torch.autograd.grad(total, z)[0].double())
    scale = results[1].abs().max().clamp(min=1e-30) if logits.numel() else 1.0
    torch.testing.assert_close(results[0] / scale, results[1] / scale, **tolerance(dtype, "evidential_loss.gradient"))


def test_compiles_whole_and_once():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    @torch.compile(fullgraph=True, backend=counter)
    def step(logits, target):
        return total_of(sure_fast.evidential_loss(logits, target), epoch=3)

    for seed in range(3):
        logits, target = case((2, 3, 8, 9), seed=seed)
        a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        compiled, eager = step(a, target), total_of(sure_fast.evidential_loss(b, target), epoch=3)
        compiled.backward()
        eager.backward()
        torch.testing.assert_close(compiled, eager)
        torch.testing.assert_close(a.grad, b.grad)
    assert counter.frame_count == 1


def test_the_kernel_writes_its_sums_where_the_layout_says():
    logits, target = case((2, 3, 5, 6), torch.float64, ignore=7)
    (sums,), data, kl, _ = _op(logits, target, "log", "softplus", 7, None, False, True, False, "cpu")
    want = reference(logits, target, kind="log", ignore_index=7)
    torch.testing.assert_close((data, kl), (want.data_map, want.kl_map))
    alpha = torch.nn.functional.softplus(logits) + 1
    p = (alpha / alpha.sum(1, keepdim=True)).movedim(1, -1)[target != 7]
    y = torch.nn.functional.one_hot(target[target != 7], 3)
    layout = sums_layout(3)
    assert len(sums) == layout.terms.stop
    torch.testing.assert_close(sums[layout.means], torch.stack([data.sum(), kl.sum()]))
    torch.testing.assert_close(sums[layout.by_class], torch.cat([p.sum(0), (p * y).sum(0), y.sum(0)]))


def test_the_reference_adds_its_sums_up_over_several_processes():
    logits, target = case((2, 3, 5, 6), torch.float64, ignore=7)
    options = {"ignore_index": 7, "class_weights": torch.tensor([1.0, 0.5, 3.0])}
    got = reference(logits, target, add_up=lambda sums: 2 * sums, **options)
    want = reference(torch.cat([logits, logits]), torch.cat([target, target]), **options)
    torch.testing.assert_close(got[:3], want[:3], rtol=1e-12, atol=0)


@pytest.mark.parametrize("regions", [False, True])
def test_the_references_dice_is_the_kernels(regions):
    """It is written from the equation, the kernel's from the sums that it follows from."""
    logits, target = case((2, 3, 25, 26), torch.float64, ignore=7)
    if regions:
        target = torch.stack([target, target.roll(3, 1), target.roll(4, 2)], 1).clamp(max=1)
    options = {"regions": regions, "ignore_index": None if regions else 7, "class_weights": [1.0, 0.5, 3.0]}
    terms, want = (
        torch.stack(sure_fast.evidential_loss(logits, target, backend=backend, **options)[:3])
        for backend in ("cpu", "reference")
    )
    torch.testing.assert_close(terms, want, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"logits": 1.0}, TypeError, "logits: expected a torch.Tensor, got float"),
        ({"logits": torch.zeros(1, 3, 4, 5, dtype=torch.long)}, TypeError, "logits: expected float32"),
        ({"logits": torch.zeros(3, 4, 5)}, ValueError, r"logits: expected \[N, K, H, W\].*got shape \[3, 4, 5\]"),
        ({"logits": torch.zeros(1, 1, 4, 5)}, ValueError, "logits: expected .* at least 2 classes"),
        ({"target": torch.zeros(1, 4, 5)}, TypeError, "target: expected an integer tensor"),
        ({"target": torch.zeros(1, 4, 6, dtype=torch.long)}, ValueError, r"target: expected \[1, 4, 5\].*\[1, 4, 6\]"),
        ({"target": torch.full((1, 4, 5), 3)}, ValueError, r"target: expected labels in \[0, 3\), got 3"),
        ({"target": torch.full((1, 4, 5), -1)}, ValueError, r"target: expected labels in \[0, 3\), got -1"),
        ({"target": torch.full((1, 4, 5), 7), "ignore_index": 8}, ValueError, "or ignore_index=8, got 7"),
        ({"kind": "mae"}, ValueError, "kind: expected one of 'digamma', 'log', 'mse', got 'mae'"),
        ({"evidence": "tanh"}, ValueError, "evidence: expected one of"),
        ({"logits": [torch.zeros(1, 3, 4, 5)]}, TypeError, "logits: expected one output of the network"),
        ({"backend": "gpu"}, ValueError, "backend: expected one of"),
        ({"backend": "cuda"}, ValueError, "evidential_loss: backend 'cuda' was requested, but"),
    ],
)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_errors_name_the_argument(arguments, error, text, backend):
    defaults = {"logits": torch.zeros(1, 3, 4, 5), "target": torch.zeros(1, 4, 5, dtype=torch.long), "backend": backend}
    with pytest.raises(error, match=text) as caught:
        sure_fast.evidential_loss(**{**defaults, **arguments})
    assert "\n" not in str(caught.value)
