"""The training loop: epochs, losses, validation, checkpoints and logs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from .._distributed import across_ranks
from ..data import SegmentationDataset
from ..data.batches import Collate, RankBatches
from ..losses.deep_supervision import halving, over_levels
from . import checkpoint, console, distributed, resume
from .config import ConfigError, TrainConfig
from .evaluation import validation_dice
from .files import PARTIAL
from .logs import MetricsLog
from .network import Network
from .optimization import Optimization, autocast, crops_of_one_shape, memory_format
from .outcomes import Outcomes, Place
from .signals import Interrupted, RunFailure, StopRequest, ignore_in_worker
from .state import LossState, Progress, RankState, RemainingBatches

MEMBER_SEED = 100_003  # apart, so that runs with neighbouring seeds share no member
RANK_SEED = 1_000_003
STAGES = ("network", "noisy", "supervision", "optimizer")
"""Of a step: the network on the clean images, and on noisy ones; the loss; the change of the weights."""


class Trainer:
    """One training run in one output folder; of an ensemble one `member`, with a seed and files of its own."""

    def __init__(
        self,
        config: TrainConfig,
        plan: checkpoint.ModelPlan,
        dataset: SegmentationDataset,
        validation_cases: Sequence[Any],
        info: Any,
        device: torch.device,
        output: Path,
        member: int = 0,
    ) -> None:
        self.member = member
        seed = config.run.seed + MEMBER_SEED * member
        dataset.seed = seed
        self.config, self.plan, self.info, self.device, self.output = config, plan, info, device, output
        self.dataset, self.validation_cases = dataset, validation_cases
        torch.manual_seed(seed)
        self.memory_format = memory_format(config, plan.dims)
        self.model = plan.build().to(device)
        distributed.same_start(self.model)
        self.model = self.model.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        # Two compiled programs, of the batch and of its two noisy copies, rather than one of any batch size.
        self.network = torch.compile(self.model, dynamic=False) if config.network.compile else self.model
        self.optimization = Optimization(self.model, config, device)
        self.method = config.method.record
        of_run: dict[str, Any] = {"num_epochs": config.run.epochs, "dims": plan.dims, "in_channels": plan.in_channels,
                                  "ignore_index": dataset.ignore_index}  # fmt: skip
        self.loss = self.method.make_loss(config.method.options, **of_run).to(device)
        self.terms = self.method.call(self.loss)
        self.coarse_terms = self.method.call(self.method.make_coarse_loss(config.method.options, **of_run).to(device))
        rank, ranks = distributed.rank(), distributed.world_size()
        if rank:
            torch.manual_seed(seed + RANK_SEED * rank)
        # noise of whole images is drawn where it is needed
        drawn_on = device if device.type == "cuda" else "cpu"
        self.generator = torch.Generator(drawn_on).manual_seed(seed + RANK_SEED * rank)
        self.batches = RankBatches(len(dataset), config.optimizer.batch_size, rank, ranks)
        self.remaining = RemainingBatches(self.batches)
        self.loader = self._load()
        self.outcomes = Outcomes(late=self.optimization.spoiled is not None)
        self.names: list[str] = []
        """Of the terms of the loss, once a step was made."""
        self.clock: Callable[[], float] = time.perf_counter
        self.stages = dict.fromkeys(STAGES, 0.0)
        self.forwards = 0.0
        """Of the batch, done so far; a backward counts for two."""
        self.progress = Progress()
        self.states: dict[str, Any] = {
            "model": self.weights,
            "optimization": self.optimization,
            "ranks": RankState(self.generator, self.model, device),
            "loss": LossState(self.loss),
            "progress": self.progress,
        }
        """What a checkpoint holds, by name: anything with state_dict() and load_state_dict()."""
        if self.weights is not self.model:
            self.states["trained"] = self.model

    def _load(self) -> DataLoader[dict[str, Any]]:
        """The loader of the batches that remain of an epoch."""
        data = self.config.data
        return DataLoader(
            self.dataset,
            batch_sampler=self.remaining,
            collate_fn=Collate(self.dataset),
            num_workers=data.num_workers,
            pin_memory=self.device.type == "cuda",
            persistent_workers=data.num_workers > 0,
            worker_init_fn=ignore_in_worker,
            generator=torch.Generator(),  # else each pass draws from the global one, a resumed pass once more
        )

    @property
    def weights(self) -> torch.nn.Module:
        """The network to evaluate: with `ema` the averaged one."""
        return self.optimization.weights

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.states.items()}

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Raises ValueError where a part is missing or does not fit."""
        for name, part in self.states.items():
            if name not in states:
                raise ValueError(f"expected the state {name!r}, got none")
            try:
                part.load_state_dict(states[name])
            except ConfigError:
                raise
            except (RuntimeError, ValueError, KeyError, TypeError):
                raise ValueError(f"the state {name!r} is that of another run") from None

    def checkpoint(self, name: str = "last.pt") -> Path:
        return self.output / "checkpoints" / checkpoint.member_name(name, self.member)

    def save(self, name: str = "last.pt") -> Path:
        """Of last.pt the one before is kept."""
        path, states = self.checkpoint(name), self.state_dict()
        config, keep = self.config.to_dict(), name == "last.pt"
        distributed.from_main(
            lambda: checkpoint.save(path, states, self.plan, self.progress.epoch, config, keep_previous=keep)
        )
        return path

    def resume(self, report: Callable[[str], object]) -> bool:
        """Goes to the last checkpoint that can be read; False where there is none yet."""
        latest = distributed.from_main(lambda: checkpoint.load_latest(self.checkpoint(), report))
        if latest is None:
            return False
        path, content = latest
        if content["plan"] != self.plan:
            raise ValueError(f"checkpoint {path}: is of another network than this run's")
        try:
            self.load_state_dict(content)
        except ValueError as error:
            raise ValueError(f"checkpoint {path}: {error}") from None
        if distributed.is_main():
            for partial in path.parent.glob("*" + PARTIAL):  # of a run that was killed while it wrote
                partial.unlink()
        report(f"continues at {self._moment()} from {path}")
        return True

    def train(
        self, progress: bool = True, stop: StopRequest | None = None, report: Callable[[str], object] | None = None
    ) -> None:
        """Trains to the last epoch, or until `patience` is at an end; leaves checkpoints/last.pt and best.pt.

        `report` gets a line an epoch.

        Raises:
            Interrupted: `stop` asked for it; last.pt holds the state.
            RunFailure: a term or gradient is not finite, or a file cannot be written.
        """
        stop = stop or StopRequest()
        if self._is_done():
            return
        started, first = time.monotonic(), self.progress.epoch
        try:
            with crops_of_one_shape(), self._log() if distributed.is_main() else nullcontext() as log:
                while not self._is_done():
                    row = self._epoch(log, progress and distributed.is_main(), stop)
                    if log is not None and report is not None:
                        at = self.progress
                        left = (self.config.run.epochs - at.epoch) * (time.monotonic() - started) / (at.epoch - first)
                        report(self._describe(row, left))
        except OSError as error:
            hint = f"continue with: {resume.command(self.output)}"
            raise RunFailure(f"{error}; the checkpoints before it are whole; {hint}") from error

    def _describe(self, row: dict[str, Any], left: float) -> str:
        """One line of an epoch: means of the loss terms, the validation, the best so far, the time."""
        width = len(str(self.config.run.epochs))
        shown = [f"{title} {row[name]:.3g}" for name, title in self.method.shown.items() if row.get(name)]
        parts = [f"epoch {row['epoch']:{width}}/{self.config.run.epochs}: loss {row['total']:.3f}"]
        parts[0] += f" ({', '.join(shown)})" if shown else ""
        if row["val_dice"] is not None:
            classes = [(n, row[f"val_dice/{n}"]) for n in self._classes if row[f"val_dice/{n}"] is not None]
            by_class = f" ({', '.join(f'{name} {value:.3f}' for name, value in classes)})" if len(classes) > 1 else ""
            parts.append(f"validation Dice {row['val_dice']:.3f}{by_class}")
            parts.append(f"best {self.progress.best:.3f} in epoch {self.progress.best_epoch}")
        parts.append(console.duration(row["seconds"]))
        if not self._is_done():
            parts.append(f"{console.duration(left)} left")
        return ", ".join(parts)

    def describe_times(self) -> str:
        """One line: what a step's time went into. On a GPU it is the time to launch the work, not to do it."""
        at = self.progress
        steps, total = max(at.step, 1), at.network_seconds + at.supervision_seconds
        network, supervision = (1e3 * t / steps for t in (at.network_seconds, at.supervision_seconds))
        share = 100 * at.supervision_seconds / total if total else 0.0
        return f"time per step: network {network:.1f} ms, supervision {supervision:.1f} ms ({share:.1f} %)"

    @property
    def _classes(self) -> list[str]:
        return [name for c, name in sorted(self.plan.class_names.items()) if c]

    def _log(self) -> MetricsLog:
        at = self.progress
        return MetricsLog(self.config, self.output, self._classes, member=self.member, epoch=at.epoch, step=at.step)

    def _is_done(self) -> bool:
        at = self.progress
        return at.epoch >= self.config.run.epochs or 0 < self.config.run.patience <= at.unimproved

    def _moment(self) -> str:
        return f"epoch {self.progress.epoch + 1}, step {self.progress.step}"

    def _epoch(self, log: MetricsLog | None, progress: bool, stop: StopRequest) -> dict[str, Any]:
        """Returns what metrics.csv says of the epoch, on rank 0."""
        at, epoch = self.progress, self.progress.epoch
        self.dataset.set_epoch(epoch)
        self.model.train()
        with stop.deferred():
            self._steps(log, progress, stop)
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": at.step,
            "seconds": at.seconds,
            "volumes_per_second": at.volumes / at.seconds,
            "lr": self.optimization.learning_rate,
            "val_dice": None,
        }
        best = False
        last = epoch == self.config.run.epochs - 1
        if self.validation_cases and (last or (epoch + 1) % self.config.run.validate_every == 0):
            path = self._checkpoint(log)  # a validation may take long, and is interrupted at once
            self._end_if_asked(stop, path)
            started = time.monotonic()
            dice = validation_dice(
                self.weights,
                self.validation_cases,
                info=self.info,
                patch_size=self.plan.patch_size,
                device=self.device,
            )
            row["val_dice"] = dice["mean"]
            row["val_dice_per_class"] = {name: value for name, value in dice.items() if name != "mean"}
            at.validation_seconds += time.monotonic() - started
            best = dice["mean"] > at.best
            at.best, at.unimproved = max(at.best, dice["mean"]), 0 if best else at.unimproved + 1
            at.best_epoch = epoch + 1 if best else at.best_epoch
        line = log.epoch(row) if log is not None else {}
        self.optimization.end_epoch()
        at.next_epoch()
        if best:
            self.save("best.pt")
        self._end_if_asked(stop, self._checkpoint(log))
        return line

    def _checkpoint(self, log: MetricsLog | None) -> Path:
        """last.pt, and the rows before it."""
        if log is not None:
            log.sync()
        return self.save()

    def _end_if_asked(self, stop: StopRequest, path: Path) -> None:
        """By a signal that came too late for the last step to see it."""
        number = stop.agreed()
        if number:
            raise Interrupted(number, f" at {self._moment()}; the state is saved in {path}")

    def _steps(self, log: MetricsLog | None, progress: bool, stop: StopRequest) -> None:
        """The batches of the epoch that are not yet done."""
        at, epoch, every = self.progress, self.progress.epoch, self.config.run.checkpoint_every
        width, saved = len(str(self.config.run.epochs)), self.progress.step
        self.remaining.start = at.batch
        bar = console.bar(
            self.loader,
            f"epoch {epoch + 1:{width}}/{self.config.run.epochs}",
            "step",
            initial=at.batch,
            total=at.batch + len(self.loader),
            shown=progress,
            leave=False,
        )
        started = time.perf_counter() - at.seconds
        for batch in bar:
            numbers = self.launch(epoch, at.batch, *self.on_device(batch))
            outcomes = self.outcomes.put(Place(epoch, at.batch, at.step), numbers)
            at.volumes += self.batches.step_size(at.batch)
            at.batch, at.step, at.seconds = at.batch + 1, at.step + 1, time.perf_counter() - started
            last = at.batch == len(self.batches)
            self._take(outcomes + (self.outcomes.rest() if last else []), log, bar)
            if last:
                distributed.average_buffers(self.model)
                if self.weights is not self.model:
                    distributed.average_buffers(self.weights)
            if not last and at.batch % self.config.optimizer.accumulate:
                continue  # the gradients of a group of batches are in no checkpoint
            number = stop.agreed()
            if number or (every and at.step - saved >= every):
                self._take(self.outcomes.rest(), log, bar)
                path, saved = self._checkpoint(log), at.step
            if number:
                raise Interrupted(number, f" at {self._moment()}; the state is saved in {path}")

    def on_device(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and label; from pinned memory nothing waits for them."""
        image, label = (batch[name].to(self.device, non_blocking=True) for name in ("image", "label"))
        return image, label

    def _take(self, outcomes: Sequence[tuple[Place, list[float]]], log: MetricsLog | None, bar: Any) -> None:
        """Logs and shows what steps gave."""
        for place, numbers in outcomes:
            values = self._checked(numbers, place)
            if log is not None:
                log.step(place.epoch + 1, place.step, values)
            shown = {title: f"{values[name]:.3g}" for name, title in self.method.shown.items() if values.get(name)}
            speed = self.progress.volumes / self.progress.seconds
            bar.set_postfix({"loss": f"{values['total']:.3f}", **shown, "volumes_s": f"{speed:.1f}"})

    def _checked(self, numbers: Sequence[float], place: Place | None = None) -> dict[str, float]:
        """The terms by name; RunFailure where one or the gradient's norm is not finite."""
        *terms, norm = numbers
        values = dict(zip(self.names, terms, strict=True))
        for name in sorted(values, key=lambda name: name in self.method.composites):
            if not math.isfinite(values[name]):
                self._stop(f"loss term {name!r} is {values[name]}", place)
        if not math.isfinite(norm):
            self._stop(f"the gradient's norm is {norm}", place)
        return values

    def step(self, epoch: int, number: int, image: torch.Tensor, label: torch.Tensor) -> dict[str, float]:
        """As `launch`, waiting for the terms, which are returned by name."""
        return self._checked(self.launch(epoch, number, image, label).tolist())

    def launch(self, epoch: int, number: int, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Batch `number` of the epoch; with `accumulate` the last of each group, and of the epoch, changes the weights.

        The gradient is that of the mean over the group of the loss of the batch of all ranks.

        Returns:
            The terms, of `self.names`, and a number that is not finite where the gradient's norm is not, float64 on the
            device.

        Raises:
            RunFailure: one is not finite. On a GPU, which nothing waits for, `_checked` says so later, and until then
                no step changes the weights.
        """
        started = self.clock()
        in_group = number % self.config.optimizer.accumulate
        group = min(self.config.optimizer.accumulate, len(self.batches) - (number - in_group))
        if in_group == 0:
            self.optimization.zero_grad()
            self.optimization.keep_statistics()
        network = self.cut_network()
        step: dict[str, Any] = {"image": image, "epoch": epoch, "model": network, "generator": self.generator}
        images, loss = image, cast("Any", self.loss)
        if getattr(loss, "joint", False):  # one batch, so that a normalisation over it is of both
            step["noise"] = loss.noise_of_step(image, epoch=epoch, generator=self.generator)
            images = step["noise"].beside(image)
        logits, *coarser = network.levels(images, clean=len(image))
        coarser = [level[: len(image)] for level in coarser]
        ranks = distributed.world_size()
        with across_ranks() if ranks > 1 else nullcontext():
            out = self.terms(logits, label, **step)
            out = self.deeply_supervised(out, coarser, label, image, epoch)
        terms = torch.stack([term.detach().double() for term in out])
        numbers = torch.cat([distributed.weighted_mean(terms, len(image)), terms.new_zeros(1)])
        self.names = list(out._fields)
        if self.outcomes.late:
            self.optimization.look_at(numbers)
        else:
            self._checked(numbers.tolist())
        # What is a mean over the rank's own images has to count by their number.
        share = len(image) * ranks / self.batches.step_size(number)
        total = out.total
        if share != 1.0 and self.method.own_images:
            total = out.segmentation + (share * (out.total - out.segmentation) if share else 0.0)
        self.optimization.scale(total / group).backward()
        loss_seconds = self.clock() - started - network.seconds
        last = in_group == group - 1
        network.backward(self.optimization.gradients.start if last else None)
        self.progress.supervision_seconds += loss_seconds
        self.progress.network_seconds += network.seconds
        started = self.clock()
        if last:
            self._change_weights(numbers)
        if self.outcomes.late:
            self.optimization.restore_statistics()
        seconds = {**network.seconds_of, "supervision": loss_seconds, "optimizer": self.clock() - started}
        for stage, value in seconds.items():
            self.stages[stage] += value
        self.forwards += network.forwards / max(len(image), 1)
        return numbers

    def _change_weights(self, numbers: torch.Tensor) -> None:
        """By the gradients, whose norm becomes the last of the numbers where nothing waits for it."""
        norm = self.optimization.gradient_norm()
        if self.outcomes.late:
            numbers[-1] = norm
            self.optimization.look_at(numbers)
        elif not math.isfinite(float(norm)) and not self.optimization.overflowed(float(norm)):
            self._stop(f"the gradient's norm is {float(norm)}")
        self.optimization.step()

    def deeply_supervised(
        self, out: Any, coarser: Sequence[torch.Tensor], label: torch.Tensor, image: torch.Tensor, epoch: int
    ) -> Any:
        """The terms with the segmentation loss of every resolution in their total, each half as much as the finer."""
        if not coarser:
            return out
        finest, *weights = halving(1 + len(coarser))
        own = out.segmentation if "segmentation" in out._fields else out.total
        others = over_levels(
            lambda logits, labels: self.coarse_terms(logits, labels, image=image, epoch=epoch, model=None),
            coarser,
            label,
            weights,
        )
        whole = finest * own + others.total
        replaced = {"total": out.total - own + whole}
        return out._replace(**replaced, **({"segmentation": whole} if "segmentation" in out._fields else {}))

    def cut_network(self) -> Network:
        """The network for one step."""
        return Network(
            self.network,
            self.plan.num_classes,
            coarser=self.plan.deep_supervision,
            precision=lambda: autocast(self.config, self.device),
            memory_format=self.memory_format,
            clock=self.clock,
        )

    def _stop(self, what: str, place: Place | None = None) -> None:
        """`place`: of the step that is to blame, where others were begun since."""
        at = self.progress
        if place is not None:
            at.batch, at.step = place.batch, place.step
        moment = self._moment()
        if not self.outcomes.late:  # else a flag on the device did so
            self.optimization.restore_statistics()
        begun = at.batch % self.config.optimizer.accumulate  # batches whose gradients are lost
        at.batch, at.step = at.batch - begun, at.step - begun
        raise RunFailure(f"{moment}: {what}; the state before this step is saved in {self.save()}")
