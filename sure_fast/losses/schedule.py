"""What weighs the terms and changes with the epoch. Past its last epoch every schedule holds its last value.

An epoch of None stands for that end: a loss that is called without one leaves no term out.
"""

from __future__ import annotations

from torch import Tensor

from .. import _checks

TOTALS = ("weighted", "annealed")
RAMPS = ("constant", "exponential")
NUM_EPOCHS = 100
ANNEALING_EPOCHS = 20
"""Of the KL term; with `NUM_EPOCHS` the settings of arXiv 2509.17098's code."""
START_SHARE = 0.3
"""Share of the epochs before the uncertainty is supervised: 30 of 100, as in arXiv 2509.17098."""


def check_epoch(epoch: float | None) -> None:
    """A finite number >= 0, or None; the count starts at 0."""
    if epoch is None:
        return
    _checks.real("epoch", epoch, "a finite number >= 0, or None")
    if not 0 <= epoch < float("inf"):
        raise ValueError(f"epoch: expected a finite number >= 0, or None, got {epoch}")


def check_total(
    *, total: str = "weighted", num_epochs: int = NUM_EPOCHS, annealing_epochs: int = ANNEALING_EPOCHS
) -> None:
    """The options of `total_of_terms`."""
    _checks.choice("total", total, TOTALS)
    _checks.count("num_epochs", num_epochs)
    _checks.count("annealing_epochs", annealing_epochs, least=0)


def start_of(num_epochs: int, start_epoch: int | None = None) -> int:
    """The first epoch with supervised uncertainty; None: after 30 % of them."""
    _checks.count("num_epochs", num_epochs)
    if start_epoch is None:
        return int(START_SHARE * num_epochs)
    _checks.count("start_epoch", start_epoch, least=0)
    if start_epoch >= num_epochs:
        raise ValueError(f"start_epoch: expected 0 <= start_epoch < num_epochs ({num_epochs}), got {start_epoch}")
    return start_epoch


def progress(epoch: float | None, num_epochs: int, start_epoch: float = 0) -> float:
    """(t - t₀) / (T - t₀), 1 past the end."""
    check_epoch(epoch)
    return 1.0 if epoch is None else min(1.0, (epoch - start_epoch) / (num_epochs - start_epoch))


def rising(share: float) -> float:
    """0.01^(1 - share): from 0.01 to 1, where it stays."""
    return 0.01 ** (1.0 - min(1.0, share))


def kl_weight(epoch: float | None, annealing_epochs: int) -> float:
    """λ = min(1, t / annealing_epochs)."""
    check_epoch(epoch)
    return 1.0 if epoch is None or not annealing_epochs else min(1.0, epoch / annealing_epochs)


def annealed_dice_weight(epoch: float | None, num_epochs: int) -> float:
    """1 - 0.01^(1 - t / T) of the total "annealed": from 0.99 to 0."""
    return 1.0 - rising(progress(epoch, num_epochs))


def evidential_weights(
    *,
    epoch: float | None,
    total: str = "weighted",
    num_epochs: int = NUM_EPOCHS,
    annealing_epochs: int = ANNEALING_EPOCHS,
) -> tuple[float, float, float]:
    """Of the data, KL and Dice terms as `total` says; see `EvidentialLoss`."""
    annealing = kl_weight(epoch, annealing_epochs)
    if total == "weighted":
        return 10.0, annealing, 10.0
    return 1.0, annealing, annealed_dice_weight(epoch, num_epochs)


def total_of_terms(
    data: Tensor,
    kl: Tensor,
    dice: Tensor,
    *,
    epoch: float | None,
    total: str = "weighted",
    num_epochs: int = NUM_EPOCHS,
    annealing_epochs: int = ANNEALING_EPOCHS,
) -> Tensor:
    """The evidential terms weighted as `total` says; see `EvidentialLoss`."""
    weights = evidential_weights(epoch=epoch, total=total, num_epochs=num_epochs, annealing_epochs=annealing_epochs)
    return weights[0] * data + weights[1] * kl + weights[2] * dice


def supervision_weight(epoch: float | None, start_epoch: int, num_epochs: int, ramp: str = "constant") -> float:
    """a: 0 before the start, then 1, or with the ramp "exponential" 0.01^(1 - (t - t₀) / (T - t₀))."""
    check_epoch(epoch)
    if epoch is not None and epoch < start_epoch:
        return 0.0
    return 1.0 if ramp == "constant" else rising(progress(epoch, num_epochs, start_epoch))
