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
from tests.ops.backends import Backend, assert_same_bits, on
from tests.ops.inputs import LAYOUTS, SHAPES, strided

KINDS = ("digamma", "log", "mse")
REFERENCE = Backend("evidential_loss", "reference")


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


def run(backend, logits, target, **options):
    """Every output, and the gradient of a sum of them that weighs a map of many voxels like one number."""
    leaf = backend.leaf(logits)
    out = backend(leaf, target, return_uncertainty=True, **options)
    # Eighths and powers of two, which half precision holds, as the gradient of u is rounded to.
    weight = torch.randint(1, 8, (logits.numel() + 1,), generator=torch.Generator().manual_seed(1)).double() / 8
    total = 0.0
    for k, x in enumerate(out):
        each = weight[: x.numel()].reshape(x.shape) * x.double()
        total = total + (k + 1) * 2.0 ** -x.numel().bit_length() * each.sum()
    # Scaled as a GradScaler does: the gradient of a mean falls below the normal range of float16.
    return [x.detach() for x in out], torch.autograd.grad(1024 * total, leaf)[0]


def check(kernel, logits, target, terms="evidential_loss", **options):
    """Outputs and gradient are the float64 reference's; returns them."""
    got, gradient = run(kernel, logits, target, **options)
    want, wanted = run(REFERENCE, logits.double(), target, **options)
    for a, b in zip(got[:3], want[:3], strict=True):
        assert a.dtype == torch.promote_types(logits.dtype, torch.float32)
        kernel.agree(a, b, terms)
    assert got[3].dtype == gradient.dtype == logits.dtype
    kernel.agree(got[3], want[3])
    kernel.agree(gradient, wanted, "evidential_loss.gradient", scaled=True)
    return got, gradient


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_kernel_agrees_with_the_reference(shape, kind, kernel, dtype):
    check(kernel, *case(shape, dtype), terms="", kind=kind)


@on("cpu")
@pytest.mark.parametrize("kind", KINDS)
def test_very_many_classes(kind, kernel, dtype):
    check(kernel, *case((1, 150, 3, 5), dtype), terms="", kind=kind)


@pytest.mark.parametrize("evidence", ["softplus", "relu", "exp"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.01, 1.0, 20.0])
def test_evidence_and_kinds(kind, evidence, scale, variant):
    logits, target = case((2, 3, 9, 31), scale=scale, ignore=255)
    for dtype in {torch.float32, variant.widest}:
        check(variant, logits.to(dtype), target, kind=kind, evidence=evidence, ignore_index=255)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("half", [False, True])
def test_strides_change_nothing(layout, half, kernel):
    logits, target = case((2, 3, 6, 7, 8), torch.bfloat16 if half else torch.float32)
    other = strided(logits, layout)
    assert not other.is_contiguous()
    assert_same_bits(run(kernel, z, target) for z in (other, other.contiguous()))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32], ids=str)
def test_label_dtypes_and_channel_axis(dtype, kernel):
    logits, target = case((2, 3, 6, 7))
    assert_same_bits(run(kernel, logits, y) for y in (target, target.to(dtype), target[:, None]))


def test_ignored_voxels_count_in_no_term(backend):
    logits, target = case((1, 3, 8, 10))
    ignored = target.clone()
    ignored[..., 6:] = -1
    out, gradient = terms_of(backend, logits, ignored, ignore_index=-1)
    want, want_gradient = terms_of(backend, logits[..., :6].contiguous(), target[..., :6])
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(gradient[..., :6], want_gradient)
    assert gradient[..., 6:].abs().max() == 0
    nothing, gradient = terms_of(backend, logits, torch.full_like(target, -1), ignore_index=-1)
    assert nothing.abs().max() == 0
    assert gradient.abs().max() == 0


def terms_of(backend, logits, target, **options):
    """The terms, and the gradient of the total of them alone."""
    leaf = backend.leaf(logits)
    out = backend(leaf, target, **options)
    return torch.stack(out[:3]).detach(), torch.autograd.grad(1024 * total_of(out), leaf)[0]


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


@pytest.mark.parametrize("kind", KINDS)
def test_against_the_equations_in_scipy(kind, backend):
    logits, target = case((1, 3, 4, 5), backend.widest)
    z = logits[0].flatten(1).T.double().numpy()
    wanted = torch.tensor(hand_terms(z, target[0].flatten().numpy(), kind), dtype=torch.float64)
    data, kl, dice = wanted
    module = sure_fast.EvidentialLoss(kind=kind, evidence="softplus", backend=backend.name)
    weighted = module(*backend.put((logits, target)), epoch=5)
    backend.agree(torch.stack(weighted[1:4]), wanted)
    backend.agree(weighted.total, 10 * data + 0.25 * kl + 10 * dice)
    settings = {"total": "annealed", "num_epochs": 60, "annealing_epochs": 0, "evidence": "softplus"}
    annealed = sure_fast.EvidentialLoss(kind=kind, backend=backend.name, **settings)
    annealed = annealed(*backend.put((logits, target)), epoch=30)
    assert_same_bits(
        [torch.stack(annealed[1:4]).cpu(), torch.stack(backend(logits, target, kind=kind, evidence="softplus")[:3])]
    )
    backend.agree(annealed.total, data + kl + 0.9 * dice)


def test_hand_computed_without_evidence(backend):
    # relu(z <= 0) = 0: alpha = (1, 1), A = 2, p = 1/2; psi(2) - psi(1) = 1; Dirichlet(1, 1) has KL 0.
    # Half the four voxels are class 1: for both classes TP = 2 (0.5 * 1.001) + 2 (0.5 * 0.001) = 1.002 = FN + 0.002
    logits, target = torch.full((1, 2, 2, 2), -1.0, dtype=backend.widest), torch.tensor([[[0, 0], [1, 1]]])
    tp, fp, fn = 1.002, 0.998, 1.002
    a = fp / (fp + fn + 1e-5)
    dice = 1 - tp / (tp + a * fp + (1 - a) * fn + 1e-5)
    out = backend(logits, target, evidence="relu")
    backend.agree(torch.stack(out[:3]), torch.tensor([1.0, 0.0, dice], dtype=torch.float64))


@on("cpu", "reference")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("total", "key"), [("annealed", "edl_loss"), ("weighted", "edl_loss_a")])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, total, key, kind, backend):
    golden = load(name)
    epoch, epochs, annealing = (float(v) for v in golden["epoch_total_annealing"])
    for precision, dtype in (("f32", torch.float32), ("f64", torch.float64)):
        logits = backend.leaf(torch.from_numpy(golden["logits"]).to(dtype))
        target = torch.from_numpy(golden["label"]).long()
        loss = sure_fast.EvidentialLoss(
            kind=kind, total=total, num_epochs=int(epochs), annealing_epochs=int(annealing), evidence="softplus",
            backend=backend.name,
        )  # fmt: skip
        out = loss(logits, backend.put(target), epoch=epoch)
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
            gradient.cpu().numpy() / largest, want_gradient / largest, atol=1e-5 if dtype == torch.float32 else 1e-7
        )


@on("cpu", "reference")
def test_gradcheck(backend):
    logits, target = case((1, 3, 3, 4), torch.float64, ignore=9)
    logits.requires_grad_()
    for kind in KINDS:

        def total(z, kind=kind):
            return total_of(backend(z, target, kind=kind, ignore_index=9), 3)

        assert torch.autograd.gradcheck(total, (logits,))


@pytest.mark.parametrize("term", ["data", "kl", "dice"])
def test_every_term_has_its_own_gradient(term, kernel):
    logits, target = case((2, 3, 5, 6), kernel.widest)
    found = []
    for backend, z in ((kernel, logits), (REFERENCE, logits.double())):
        leaf = backend.leaf(z)
        found.append(torch.autograd.grad(getattr(backend(leaf, target), term), leaf)[0])
    assert found[0].abs().max() > 0
    kernel.agree(*found, "evidential_loss.gradient", scaled=True)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_same_bits_however_it_runs(shape, variant):
    logits, target = case(shape)
    assert_same_bits(run(variant, logits, target) for _ in variant.ways())


@on("cpu")
def test_same_bits_of_many_chunks(kernel):
    logits, target = case((3, 4, 80, 90))
    assert_same_bits(run(kernel, logits, target) for _ in kernel.ways())


@pytest.mark.parametrize("kind", KINDS)
def test_a_sum_beyond_float32_is_nan_and_no_wrong_number(kind, kernel):
    z, y = torch.zeros(1, 3, 4, 5), torch.zeros(1, 4, 5, dtype=torch.long)
    z[0, :2, 1, 2] = 3e38
    leaf = kernel.leaf(z)
    options = {"kind": kind, "evidence": "softplus"}
    out = sure_fast.evidential_loss(leaf, kernel.put(y), **options, backend=kernel.name)
    assert all(term.isnan() for term in out[:1])
    (gradient,) = torch.autograd.grad(out.data + out.kl + out.dice, leaf)
    assert bool(gradient[0, :, 1, 2].isnan().all())
    right = sure_fast.evidential_loss(z.double(), y, **options)
    assert right.data.isfinite()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_nan_stays_nan(value, kind, backend):
    logits, target = case((1, 3, 4, 40))
    logits[0, 1, 2, 3], target[0, 2, 3] = value, 0
    out, gradient = terms_of(backend, logits, target, kind=kind, evidence="softplus" if value > 0 else "exp")
    assert out[:2].isnan().all()
    assert gradient[0, :, 2, 3].isnan().all()


def test_no_evidence_from_minus_infinity(kernel):
    logits, target = case((1, 3, 4, 5))
    logits[0, 1, 2, 3] = -math.inf
    out, gradient = terms_of(kernel, logits, target)
    want, want_gradient = terms_of(REFERENCE, logits, target)
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(gradient, want_gradient, rtol=1e-4, atol=1e-6)


@on("triton")
@pytest.mark.parametrize("label", [3, -2, 2**40])
def test_a_label_out_of_range_is_nan_where_nobody_waits_to_look(label, kernel):
    """On the CPU the op says so."""
    from sure_fast.kernels import evidential_loss as kernels

    logits, target = case((1, 3, 4, 40), ignore=-1)
    target[0, 1, 1] = label
    sums = kernels.forward(*kernel.put((logits, target)), "digamma", "softplus", -1, None, False)
    assert sums[0].isnan().tolist() == [True] + [False] * 10
    if kernel.interpreted:
        with pytest.raises(ValueError, match="target: expected labels in"):
            kernel(logits, target, ignore_index=-1)


@on("triton")
def test_far_voxels_and_scaled_slopes(kernel):
    """What the fused training step adds: u over the far voxels, and a slope of every voxel's u times its image's."""
    from sure_fast.kernels import evidential_loss as kernels

    logits, target = case((2, 3, 20, 41), ignore=-1)
    generator = torch.Generator().manual_seed(3)
    squared = torch.randint(0, 256, target.shape, generator=generator).to(torch.uint8)
    far, slope = (squared > 16) & (target != -1), torch.randn(target.shape, generator=generator) * 3
    z, y, given, slopes = kernel.put((logits, target, squared, slope))
    sums = kernels.forward(z, y, "digamma", "exp", -1, None, False, squared=given, far_above=16)
    wide = logits.double().requires_grad_()
    u = sure_fast.dirichlet_uncertainty(wide, backend="reference")[:, 0]
    torch.testing.assert_close(sums[0, -2].cpu(), u[far].sum(), **tolerance(torch.float32))
    assert int(sums[0, -1]) == int(far.sum())
    assert torch.equal(sums[:, :-2], kernels.forward(z, y, "digamma", "exp", -1, None, False))
    loss = REFERENCE(wide, target, ignore_index=-1)
    number = int((target != -1).sum())
    (
        0.5 * number * loss.data
        + 3.0 * u[far].sum()
        + 0.25 * (slope[0].double() * u[0]).sum()
        - 2 * (slope[1].double() * u[1]).sum()
    ).backward()
    coefficients = torch.zeros_like(sums)
    coefficients[0, 0], coefficients[0, -2] = 0.5, 3.0
    scale = kernel.put(torch.tensor([0.25, -2.0], dtype=torch.float64))
    got = kernels.backward(
        coefficients, z, y, "digamma", "exp", -1, None, False,
        uncertainty=slopes, scale=scale, squared=given, far_above=16,
    )  # fmt: skip
    kernel.agree(got, wide.grad, "evidential_loss.gradient", scaled=True)


def test_opcheck(kernel):
    shapes = [(2, 3, 4, 5)] if kernel.interpreted else [(2, 3, 4, 5), (1, 2, 3, 4, 5)]
    for shape in shapes:
        logits, target = kernel.put(case(shape))
        for wanted in (False, True):
            settings = ("digamma", "softplus", None, None, False, wanted, wanted, kernel.name)
            torch.library.opcheck(_op, (logits.requires_grad_(), target, *settings))
        slope = torch.randn((shape[0], 1, *shape[2:]))
        weights = torch.rand(shape[1], dtype=torch.float64)
        sums = kernel.put(torch.randn(1, 2 + 3 * shape[1], dtype=torch.float64))
        for given in ((None, None, None), kernel.put((torch.randn(target.shape), torch.randn(target.shape), slope))):
            arguments = (sums, *given, logits.detach(), target, "mse", "exp", 1, weights, False, kernel.name)
            torch.library.opcheck(_op_backward, arguments)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_uncertainty_from_the_same_pass(layout, kernel, dtype):
    logits, target = case((2, 3, 5, 6, 7), dtype, ignore=-1)
    out = kernel(kernel.put(strided(logits, layout)), target, ignore_index=-1, return_uncertainty=True)
    assert out.uncertainty.dtype == dtype
    kernel.agree(out.uncertainty, sure_fast.dirichlet_uncertainty(logits.double(), backend="reference"))


def test_compiles_whole_and_once(kernel):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    def step(logits, target):
        return total_of(sure_fast.evidential_loss(logits, target, backend=kernel.requested), epoch=3)

    compiled = torch.compile(step, fullgraph=True, backend=counter)
    for seed in range(3):
        logits, target = kernel.put(case((2, 3, 8, 9), seed=seed))
        results = []
        for function in (compiled, step):
            leaf = logits.clone().requires_grad_()
            loss = function(leaf, target)
            results.append((loss.detach(), torch.autograd.grad(loss, leaf)[0]))
        torch.testing.assert_close(*results)
    assert counter.frame_count == 1


@on("cpu")
def test_the_kernel_writes_its_sums_where_the_layout_says(kernel):
    logits, target = case((2, 3, 5, 6), torch.float64, ignore=7)
    (sums,), data, kl, _ = _op(logits, target, "log", "softplus", 7, None, False, True, False, kernel.name)
    want = reference(logits, target, kind="log", evidence="softplus", ignore_index=7)
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
def test_the_references_dice_is_the_kernels(regions, kernel):
    """It is written from the equation, the kernel's from the sums that it follows from."""
    logits, target = case((2, 3, 25, 26), kernel.widest, ignore=7)
    if regions:
        target = torch.stack([target, target.roll(3, 1), target.roll(4, 2)], 1).clamp(max=1)
    options = {"regions": regions, "ignore_index": None if regions else 7, "class_weights": [1.0, 0.5, 3.0]}
    want = torch.stack(REFERENCE(logits.double(), target, **options)[:3])
    kernel.agree(torch.stack(kernel(logits, target, **options)[:3]), want)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"logits": 1.0}, TypeError, "logits: expected a torch.Tensor, got float"),
        ({"logits": torch.zeros(1, 3, 4, 5, dtype=torch.long)}, TypeError, "logits: expected float32"),
        ({"logits": torch.zeros(3, 4, 5)}, ValueError, r"logits: expected \[N, K, H, W\].*got shape \[3, 4, 5\]"),
        ({"logits": torch.zeros(1, 1, 4, 5)}, ValueError, "logits: expected .* at least 2 classes"),
        ({"target": torch.zeros(1, 4, 5, dtype=torch.complex64)}, TypeError, "target: expected an integer tensor"),
        ({"target": torch.zeros(1, 4, 6, dtype=torch.long)}, ValueError, r"target: expected \[1, 4, 5\].*\[1, 4, 6\]"),
        ({"target": torch.full((1, 4, 5), 3)}, ValueError, r"target: expected labels in \[0, 3\), got 3"),
        ({"target": torch.full((1, 4, 5), -1)}, ValueError, r"target: expected labels in \[0, 3\), got -1"),
        ({"target": torch.full((1, 4, 5), 7), "ignore_index": 8}, ValueError, "or ignore_index=8, got 7"),
        ({"kind": "mae"}, ValueError, "kind: expected one of 'digamma', 'log', 'mse', got 'mae'"),
        ({"evidence": "tanh"}, ValueError, "evidence: expected one of"),
        ({"logits": [torch.zeros(1, 3, 4, 5)]}, TypeError, "logits: expected one output of the network"),
    ],
)
def test_errors_name_the_argument(arguments, error, text, backend):
    defaults = {"logits": torch.zeros(1, 3, 4, 5), "target": torch.zeros(1, 4, 5, dtype=torch.long)}
    if "expected labels" in text and backend.device.type == "cuda":
        return  # nobody waits for the GPU to look at labels
    with pytest.raises(error, match=text) as caught:
        backend(**{**defaults, **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("backend_name", "text"),
    [("gpu", "backend: expected one of"), ("cuda", "evidential_loss: backend 'cuda' was requested, but")],
)
def test_a_backend_that_it_has_not_is_refused(backend_name, text):
    with pytest.raises(ValueError, match=text):
        sure_fast.evidential_loss(*case((1, 3, 4, 5)), backend=backend_name)
