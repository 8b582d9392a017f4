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


def drawn(images, *size):
    generator = torch.Generator().manual_seed(images)
    return {
        "z": torch.randn((images, 3, *size), generator=generator).requires_grad_(),
        "label": torch.randint(0, 3, (images, *size), generator=generator),
        "image": torch.rand((images, 1, *size), generator=generator),
        "noisy": torch.randn((2 * images, 3, *size), generator=generator),
        "centers": torch.randint(2, 6, (images, 2, len(size)), generator=generator),
        "distance": 5 * torch.rand((images, *size), generator=generator),
        "levels": torch.tensor([0.2, 0.6]),
    }


def u(z):
    return sure_fast.dirichlet_uncertainty(z)


BLURRED = sure_fast.GradientUncertaintyLoss(blur_sigma=0.5)
ANY_SIZE = {
    "dirichlet_uncertainty": lambda a: u(a["z"]),
    "evidential_loss": lambda a: sure_fast.evidential_loss(a["z"], a["label"]).data,
    "boundary_distance": lambda a: sure_fast.boundary_distance(a["label"], max_distance=3.0),
    "gradient_magnitude": lambda a: sure_fast.gradient_magnitude(a["image"]),
    "gradient_magnitude, blurred": lambda a: BLURRED(a["image"], a["image"], a["label"]),
    "gradient_uncertainty_loss": lambda a: sure_fast.gradient_uncertainty_loss(
        u(a["z"]), a["image"], a["distance"], normalize="band"
    ),
    "noise_uncertainty_loss": lambda a: (
        sure_fast.noise_uncertainty_loss(a["z"], *a["noisy"].chunk(2), a["distance"], a["centers"], a["levels"]).total
    ),
    "dense_noise_uncertainty_loss": lambda a: (
        sure_fast.dense_noise_uncertainty_loss(u(a["z"]), *u(a["noisy"]).chunk(2), a["distance"], a["levels"]).order
    ),
    "uncertainty_supervision": lambda a: sure_fast.uncertainty_supervision(a["z"], a["label"], a["image"]).gradient,
    "uncertainty_supervision, evidential": lambda a: sure_fast.uncertainty_supervision(a["z"], a["label"]).data,
    "uncertainty_supervision, patches": lambda a: (
        sure_fast.uncertainty_supervision(
            a["z"], a["label"], a["image"], noisy_logits=a["noisy"], centers=a["centers"], levels=a["levels"]
        ).distance
    ),
    "uncertainty_supervision, images": lambda a: (
        sure_fast.uncertainty_supervision(
            a["z"], a["label"], a["image"], noisy_logits=a["noisy"], levels=a["levels"]
        ).distance
    ),
    "sample_hard_patches": lambda a: (
        sure_fast.sample_hard_patches(a["image"], a["image"], a["label"], a["distance"], num_classes=3).centers
    ),
    "add_noise_patches": lambda a: sure_fast.add_noise_patches(a["image"], a["centers"], None, torch.ones(2, 3, 3)),
    "segmentation_stats": lambda a: sure_fast.segmentation_stats(a["z"], a["label"]).confusion,
    "surface_distances": lambda a: sure_fast.surface_distances(a["label"], a["label"].flip(1), 3).average,
    "spearman": lambda a: sure_fast.spearman(a["distance"].flatten(1), a["image"].flatten(1)),
    "pair_concordance": lambda a: (
        sure_fast.pair_concordance(a["distance"].flatten(1), a["image"].flatten(1)).concordant
    ),
}


@pytest.mark.parametrize("name", ANY_SIZE)
def test_one_graph_for_batches_and_images_of_any_size(name):
    """With the backward's graph, where one is asked for."""
    torch._dynamo.reset()
    compiled = torch.compile(ANY_SIZE[name], fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((5, 8, 9), (6, 10, 8), (4, 9, 11), (7, 12, 13)):
        given = drawn(*shape)
        results = []
        for call in (compiled, ANY_SIZE[name]):
            torch.manual_seed(0)
            with torch._dynamo.config.patch(error_on_recompile=True):
                value = call(given)
            results.append([value.detach()])
            if value.requires_grad:
                results[-1] += torch.autograd.grad(value.sum(), [given["z"]])
        torch.testing.assert_close(*results, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("support", ["image", "patch"])
@pytest.mark.parametrize("epoch", [0, 5])
def test_one_graph_of_the_loss_for_batches_of_any_size(support, epoch):
    """Of the step with its network: the third batch of another size is not compiled anew."""
    from torch._dynamo.testing import CompileCounter

    loss = sure_fast.UncertaintySupervisedLoss(
        num_epochs=10,
        start_epoch=2,
        support=support,
        noisy_share=1.0,
        **{"noise": "mean"} if support == "patch" else {},
    )
    model = torch.nn.Conv2d(1, 3, 3, padding=1)
    torch._dynamo.reset()
    counter = CompileCounter()
    step = torch.compile(
        lambda image, label: loss(model(image), label, image, epoch=epoch, model=model).total,
        fullgraph=True, backend=counter,
    )  # fmt: skip
    for images in (3, 4, 5, 6, 7):
        given = drawn(images, *SIZE)
        step(given["image"], given["label"])
    assert counter.frame_count <= 2
