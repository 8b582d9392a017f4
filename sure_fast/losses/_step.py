"""What the losses of a training step hold against each other at every call, so that no error waits for an epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import _checks
from ..ops._supervision import matching_image


def draw_seed(generator: torch.Generator | None) -> Tensor:
    """A seed of the next random pairs, 0-dim int64 on the CPU; without a generator from torch's default one.

    The state of a generator on a GPU lies on the host: a seed made from it keeps nobody waiting for the device.
    """
    if generator is None or generator.device.type == "cpu":
        return torch.randint(2**62, (), generator=generator)
    state = generator.get_state().view(torch.int64)
    torch.rand((), generator=generator, device=generator.device)  # moves on
    return (state * torch.arange(1, 2 * len(state), 2)).sum() & (2**62 - 1)


def weight_buffer(weights: Sequence[float] | Tensor | None) -> Tensor | None:
    """Weights of classes as float64, for a buffer: on the device of the logits they need not be brought there."""
    given = _checks.weights("class_weights", weights)
    return None if given is None else torch.as_tensor(given, dtype=torch.float64)


def step_image(image: object, logits: Tensor, channels: str) -> Tensor:
    """An image of the logits' voxels, in which no term is differentiated."""
    images = matching_image(image, logits, channels)
    _checks.constant("image", images)
    return images


def step_model(model: object, instead: str, why: str, **values: object) -> None:
    """The values are put into the text where it is needed: a traced step does not format its options."""
    if not callable(model):
        raise ValueError(f"model: expected the network{instead}, {why.format(**values)}, got {_kind(model)}")


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


def answer(model: Callable[[Tensor], Any], images: Tensor, logits: Tensor) -> Tensor:
    """The network's logits of some images, of the shape of those of the clean ones; of a list of outputs the first."""
    return _fitting(model(images), images, logits)


def _fitting(answered: object, images: Tensor, logits: Tensor) -> Tensor:
    if isinstance(answered, (list, tuple)) and answered:
        answered = answered[0]
    wanted = (len(images), *logits.shape[1:])
    if not isinstance(answered, Tensor) or tuple(answered.shape) != wanted:
        came = _checks.shape_text(answered.shape) if isinstance(answered, Tensor) else _kind(answered)
        raise ValueError(
            f"model: expected logits {_checks.shape_text(wanted)} for images {_checks.shape_text(images.shape)}, "
            f"as it gave for the clean ones, or a list of outputs that begins with them, got {came}"
        )
    return _checks.logits("model", answered)


def try_model(model: Callable[[Tensor], Any], image: Tensor, logits: Tensor) -> None:
    """One forward that leaves no trace, of a network that will be asked in a later epoch; of a function none.

    It is asked as it will be then, for a whole batch and in the mode it is in: another mode may answer otherwise, and
    eval() may do more than say so, such as merge weights.
    """
    if not isinstance(model, nn.Module) or torch.compiler.is_compiling() or len(image) == 0:
        return
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    devices = [image.device] if image.is_cuda else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            answered = model(image)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise ValueError(
            f"model: expected to answer images {_checks.shape_text(image.shape)} {image.dtype}, as the loss will ask "
            f"for in a later epoch, got {type(error).__name__}: {error}"
        ) from error
    finally:
        for module, name, buffer, before in buffers:
            if not torch.equal(buffer, before):
                buffer.data.copy_(before)  # a new version would spoil the backward pass of the clean forward
            if getattr(module, name) is not buffer:
                setattr(module, name, buffer)
    _fitting(answered, image, logits)
