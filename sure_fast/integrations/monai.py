"""MONAI's engines and bundles: a loss that also needs the image, the network and the epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai.utils import CommonKeys
from torch import Tensor

from ..losses import (
    DevisLoss,
    DevisOutput,
    EvidentialLoss,
    EvidentialOutput,
    PriusLoss,
    PriusOutput,
    SupervisionOutput,
    UncertaintySupervisedLoss,
)

OF_LOGITS = (EvidentialLoss, DevisLoss)
OF_IMAGES = (UncertaintySupervisedLoss, PriusLoss)

if TYPE_CHECKING:
    from monai.engines import SupervisedTrainer


class TrainerLoss:
    """A loss of sure_fast for `SupervisedTrainer`: give it as `loss_function` and among the `train_handlers`.

    MONAI calls a loss with prediction and label alone; as a handler this one knows the trainer, whose image, network
    and epoch the uncertainty terms need. The network is asked for the noisy copies by themselves: with batch
    normalisation see docs/method.md, "Noise supervision of whole images".

    Args:
        loss: the loss, or the evidential one alone, or DEviS' or PriUS'.

    Raises:
        TypeError: another loss.

    Example:
        >>> import sure_fast, torch
        >>> from monai.engines import SupervisedTrainer
        >>> from sure_fast.integrations.monai import TrainerLoss
        >>> loss = TrainerLoss(sure_fast.UncertaintySupervisedLoss(num_epochs=2, start_epoch=1))
        >>> network = torch.nn.Conv2d(1, 3, 3, padding=1)
        >>> batches = [{"image": torch.rand(1, 1, 16, 16), "label": torch.randint(0, 3, (1, 1, 16, 16))}]
        >>> trainer = SupervisedTrainer(
        ...     "cpu", 2, batches, network, torch.optim.Adam(network.parameters()), loss, train_handlers=[loss]
        ... )
        >>> trainer.run()
        >>> sorted(loss.terms)[:3]
        ['data', 'dice', 'distance']
    """

    def __init__(self, loss: UncertaintySupervisedLoss | PriusLoss | EvidentialLoss | DevisLoss) -> None:
        if not isinstance(loss, (*OF_LOGITS, *OF_IMAGES)):
            names = ", ".join(kind.__name__ for kind in (*OF_IMAGES, *OF_LOGITS))
            raise TypeError(f"loss: expected one of {names}, got {type(loss).__name__}")
        self.loss = loss
        self.engine: SupervisedTrainer | None = None
        self.terms: dict[str, Tensor] = {}
        """The terms of the last step by name, detached."""

    def attach(self, engine: SupervisedTrainer) -> None:
        """Called by the trainer for each of its handlers."""
        self.engine = engine

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        if self.engine is None:
            raise RuntimeError("TrainerLoss: expected to be among the trainer's train_handlers too")
        epoch = max(0, self.engine.state.epoch - 1)  # ignite counts from 1, and is at 0 before it runs
        out: SupervisionOutput | PriusOutput | EvidentialOutput | DevisOutput
        if isinstance(self.loss, OF_LOGITS):
            out = self.loss(logits, label, epoch)
        else:
            image = self.engine.state.output[CommonKeys.IMAGE]
            out = self.loss(logits, label, image, epoch=epoch, model=self.engine.network)
        self.terms = {name: term.detach() for name, term in out._asdict().items() if term is not None}
        return out.total
