from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sure_fast
from sure_fast.ops.dirichlet_uncertainty import _op
from tests._golden import GOLDEN, load
from tests.ops.backends import HALVES, assert_same_bits, on
from tests.ops.inputs import LAYOUTS, SHAPES, random, strided


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, backend):
    golden = load(name)
    for logits, want in (("logits", "uncertainty"), ("logits_noise1", "uncertainty_noise1")):
        got = backend(torch.from_numpy(golden[logits]).to(backend.widest), evidence="softplus")
        np.testing.assert_allclose(got[:, 0].numpy(), golden[want], rtol=2e-6)


def test_by_hand(backend):
    z = torch.tensor([0.0, 2.0, -1.0], dtype=backend.widest).reshape(1, 3, 1, 1)
    soft = 3 / (3 + math.log(2) + math.log1p(math.exp(2)) + math.log1p(math.exp(-1)))
    for evidence, want in (("softplus", soft), ("relu", 3 / 5), ("exp", 3 / (4 + math.exp(2) + math.exp(-1)))):
        backend.agree(backend(z, evidence=evidence)[0, 0, 0, 0], torch.tensor(want, dtype=torch.float64))
    # exp takes logits up to 10
    want = torch.tensor(1 / (1 + math.exp(10)), dtype=torch.float64)
    backend.agree(backend(z + 100, evidence="exp")[0, 0, 0, 0], want)


@on("cpu", "reference")
@pytest.mark.parametrize("evidence", ["softplus", "exp"])
def test_gradcheck(evidence, backend):
    z = random((1, 3, 2, 3, 4), torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: backend(x, evidence=evidence), (z,))


def run(backend, z, **options):
    """u, and the gradient of a weighted sum of it."""
    leaf = backend.leaf(z)
    weight = random((z.shape[0], 1, *z.shape[2:]), torch.bfloat16, seed=1)
    u = backend(leaf, **options)
    return u.detach(), torch.autograd.grad(u, leaf, weight.to(u.dtype))[0]


def check(kernel, z, **options):
    got = run(kernel, z, **options)
    u = z.detach().double().requires_grad_()
    want = sure_fast.dirichlet_uncertainty(u, backend="reference", **options)
    weight = random((z.shape[0], 1, *z.shape[2:]), torch.bfloat16, seed=1).double()
    assert got[0].dtype == got[1].dtype == z.dtype
    kernel.agree(got[0], want)
    kernel.agree(got[1], torch.autograd.grad(want, u, weight)[0], scaled=True)
    return got


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_kernel_agrees_with_the_reference(shape, variant, dtype):
    check(variant, random(shape, dtype, 3.0))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("evidence", ["softplus", "relu", "exp"])
def test_strides_and_evidence(layout, evidence, kernel):
    z = strided(random((2, 3, 5, 6, 7), scale=6.0), layout)
    assert_same_bits([check(kernel, z, evidence=evidence), run(kernel, z.contiguous(), evidence=evidence)])


@pytest.mark.parametrize("shape", [*SHAPES.values(), (2, 4, 50, 61)], ids=str)
def test_same_bits_however_it_runs(shape, variant):
    z = random(shape, scale=3.0)
    assert_same_bits(run(variant, z) for _ in variant.ways())


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_half_precision_is_rounded_once(half, backend):
    z = random((2, 4, 5, 6), half)
    got = backend(z)
    assert got.dtype == half
    if not backend.interpreted:  # which cuts off
        assert torch.equal(got, backend(z.float()).to(half))


def test_range_empty_and_nan(backend):
    z = random((2, 3, 4, 5), scale=10.0)
    u = backend(z)
    assert bool(((u > 0) & (u <= 1)).all())
    assert backend(torch.zeros(0, 3, 4, 5)).shape == (0, 1, 4, 5)
    none = backend(torch.full_like(z, -1), evidence="relu")
    assert torch.equal(none, torch.ones_like(none))
    z[0, 0, 0, 0], z[0, 2, 2, 2] = math.nan, -math.inf
    assert backend(z).isnan().nonzero().tolist() == [[0, 0, 0, 0]]


def test_infinite_logits_are_nan_where_evidence_is_not_bounded(backend):
    z = random((1, 3, 4, 5))
    z[0, 1, 1, 1], z[0, 2, 2, 2] = math.inf, -math.inf
    assert backend(z, evidence="softplus").isnan().nonzero().tolist() == [[0, 0, 1, 1]]
    assert backend(z, evidence="relu").isnan().nonzero().tolist() == [[0, 0, 1, 1]]
    assert not backend(z, evidence="exp").isnan().any()


def test_operator_is_registered_properly_and_compiles_whole(kernel):
    z = kernel.leaf(random((2, 3, 4, 5)))
    torch.library.opcheck(_op, (z, "softplus", kernel.name))

    def step(z):
        return sure_fast.dirichlet_uncertainty(z, backend=kernel.requested).sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(*(torch.autograd.grad(f(z), z) for f in (compiled, step)))


def test_errors_name_the_argument(backend):
    with pytest.raises(TypeError, match="logits: expected float32"):
        backend(torch.zeros(1, 2, 3, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least 2 classes"):
        backend(torch.zeros(1, 1, 3, 3))
    with pytest.raises(ValueError, match="evidence: expected one of"):
        backend(torch.zeros(1, 2, 3, 3), evidence="sigmoid")
