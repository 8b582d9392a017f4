"""What is differentiated as compilers and checkpoints do it: with logits in any memory layout what Inductor makes of a
call, and what fake kernels promise it; and calls that are made again in the backward."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import sure_fast
from sure_fast.ops import _triton, dirichlet_uncertainty, evidential_loss, noise_uncertainty_loss
from sure_fast.ops import uncertainty_supervision as supervision
from tests.ops.inputs import LAYOUTS, random, strided

SIZE = (16, 18)
LABEL = torch.randint(0, 3, (2, *SIZE), generator=torch.Generator().manual_seed(0))
IMAGE, CENTERS, LEVELS = random((2, 1, *SIZE)), torch.randint(0, 16, (2, 5, 2)), torch.tensor([0.1, 0.9])
VALID = torch.ones(2, 5, dtype=torch.bool)
PATCHES = {"centers": CENTERS, "levels": LEVELS}
CALLS = {
    "dirichlet_uncertainty": lambda z, noisy: sure_fast.dirichlet_uncertainty(z).sum() + noisy.sum(),
    "evidential_loss": lambda z, noisy: sum(sure_fast.evidential_loss(z, LABEL)[:3]) + noisy.sum(),
    "noise_uncertainty_loss": lambda z, noisy: (
        sure_fast.noise_uncertainty_loss(z, *noisy.chunk(2), IMAGE[:, 0].abs(), CENTERS, LEVELS).total
    ),
    "uncertainty_supervision, patches": lambda z, noisy: sum(
        sure_fast.uncertainty_supervision(z, LABEL, IMAGE, noisy_logits=noisy, **PATCHES)[:7]
    ),
    "uncertainty_supervision, images": lambda z, noisy: sum(
        sure_fast.uncertainty_supervision(z, LABEL, IMAGE, noisy_logits=noisy, levels=LEVELS)[:7]
    ),
}
BACKWARDS = {
    "dirichlet_uncertainty": (
        dirichlet_uncertainty._op_backward,
        lambda z, noisy, backend: (random((2, 1, *SIZE)), z, "softplus", backend),
    ),
    "evidential_loss": (
        evidential_loss._op_backward,
        lambda z, noisy, backend: (
            torch.ones(1, 11, dtype=torch.float64), None, None, None, z, LABEL, "digamma", "exp", None, None, False,
            backend,
        ),
    ),
    "noise_uncertainty_loss": (
        noise_uncertainty_loss._op_backward,
        lambda z, noisy, backend: (
            torch.ones(2, dtype=torch.float64), torch.ones(4, dtype=torch.float64),
            torch.ones(2, 2, 10, dtype=torch.float64), z, *noisy.chunk(2), IMAGE[:, 0].abs(), CENTERS, LEVELS, VALID,
            4.0, "exp", backend,
        ),
    ),
    "uncertainty_supervision": (
        supervision._op_backward,
        lambda z, noisy, backend: (
            torch.ones(15, dtype=torch.float64), torch.ones(2, dtype=torch.float64),
            torch.ones(2, dtype=torch.float64), torch.full((2, *SIZE), 4, dtype=torch.uint8), random((2, *SIZE)),
            torch.ones(2, 2, 10, dtype=torch.float64), z, LABEL, noisy, CENTERS, LEVELS, VALID, "digamma", "exp", None,
            None, 4.0, backend,
        ),
    ),
}  # fmt: skip


def both(layout):
    return [strided(random((n, 3, *SIZE), seed=n), layout).requires_grad_() for n in (2, 4)]


@pytest.fixture(scope="module")
def _no_earlier_graphs(tmp_path_factory):
    """Inductor keeps what it compiled, and does not look whether a fake kernel has changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


OTHERS = [pytest.param(layout, marks=pytest.mark.slow) for layout in ("contiguous", *LAYOUTS) if layout != "transposed"]


@pytest.mark.usefixtures("_no_earlier_graphs")
@pytest.mark.parametrize("layout", ["transposed", *OTHERS])
@pytest.mark.parametrize("name", CALLS)
def test_inductor_computes_the_same(name, layout):
    leaves = both(layout)
    torch._dynamo.reset()
    compiled = torch.compile(CALLS[name], fullgraph=True)
    got, want = (torch.autograd.grad(call(*leaves), leaves) for call in (compiled, CALLS[name]))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("layout", ["contiguous", *LAYOUTS])
@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("name", BACKWARDS)
def test_fake_gradients_have_the_strides_of_the_real(name, backend, layout):
    if backend == "triton" and _triton.MISSING is not None:
        pytest.skip(_triton.MISSING)
    op, arguments = BACKWARDS[name]
    z, noisy = (x.detach() for x in both(layout))
    torch.library.opcheck(op, arguments(z, noisy, backend), test_utils="test_faketensor")


@pytest.mark.parametrize("name", CALLS)
def test_a_call_may_be_checkpointed(name):
    leaves = both("contiguous")
    got = torch.autograd.grad(checkpoint(CALLS[name], *leaves, use_reentrant=False), leaves)
    torch.testing.assert_close(got, torch.autograd.grad(CALLS[name](*leaves), leaves), rtol=0, atol=0)
