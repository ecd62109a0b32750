"""What the settings of ``fit`` ask for, each a callback."""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor
from tqdm.auto import tqdm

from ....core.system import in_a_sentence
from ....language.schedules import schedule
from ...estimators.handlers import KLWeight
from ..checkpoint import write
from ..folder import RunFolder
from ..run import Callback

__all__ = ["Beta", "Checkpoint", "LearningRate", "Patience", "Progress", "Temperature", "summarize"]


class LearningRate(Callback):
    """The learning rate follows a schedule.

    Args:
        value: a number, or a line such as ``"cosine(1e-3)"``.
    """

    def __init__(self, value: float | str) -> None:
        self.value = value

    def start(self) -> None:
        """Read the schedule."""
        self.at = schedule(self.value, self.run.settings.epochs, "lr")

    def before_step(self, time: float) -> None:
        """Set the rate."""
        self.run.optim.lr = self.at(time)


class Temperature(Callback):
    """The temperature of a relaxed gradient follows the estimator's schedule."""

    def start(self) -> None:
        """Read the schedule."""
        self.anneal = self.run.estimator.annealing(self.run.settings.epochs)

    def before_step(self, time: float) -> None:
        """Set the temperature."""
        self.anneal(time)


class Beta(Callback):
    """The weight of the KL term follows a schedule.

    Args:
        value: a number, or a line such as ``"linear(0, 1, epochs=10)"``.
    """

    def __init__(self, value: float | str) -> None:
        self.value = value

    def wrap(self, model: Callable, guide: Callable) -> tuple[Callable, Callable]:
        """Weigh what latent variables contribute; a compiled step reads tensors anew alone."""
        self.at = schedule(self.value, self.run.settings.epochs, "beta")
        live = self.run.settings.compile is not False and self.run.estimator.weighted
        self.handler = KLWeight(self.run.sample.new_ones(()) if live else 1.0)
        return self.handler(model), self.handler(guide)

    def before_step(self, time: float) -> None:
        """Set the weight."""
        self.handler.set(self.at(time))

    def after_epoch(self, row: dict[str, float]) -> None:
        """Put the weight into the history."""
        row["beta"] = float(self.handler.weight)


class Patience(Callback):
    """Stop after so many epochs without a better validation ELBO, with the best weights.

    Args:
        epochs: how many.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.best, self.best_epoch = -float("inf"), 0
        self.weights: Mapping[str, Tensor] = {}

    def start(self) -> None:
        """Raise where there are no validation data."""
        if self.run.held_out is None:
            raise ValueError("patience needs validation data: validation=0.1 holds out a tenth")

    def after_epoch(self, row: dict[str, float]) -> bool:
        """Keep the weights where they are the best so far."""
        if row["elbo_validation"] > self.best:
            self.best, self.best_epoch = row["elbo_validation"], self.run.epoch
            weights = self.run.vae.state_dict()
            self.weights = {name: value.detach().clone() for name, value in weights.items()}
        return self.run.epoch - self.best_epoch >= self.epochs

    def end(self, finished: bool) -> None:
        """Give the model the best weights."""
        if finished and self.weights:
            self.run.vae.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, object]:
        """The best so far."""
        if not self.weights:
            return {}
        return {"best": self.best, "best_epoch": self.best_epoch, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        """Take up the best so far; a run that has stopped stays so."""
        vars(self).update(state)
        self.run.stopped = self.run.epoch - self.best_epoch >= self.epochs


class Checkpoint(Callback):
    """Write the run to its folder, at the ends of epochs, within them, and at its end.

    The two last checkpoints are kept. Where one cannot be written, as on a full disk, a warning
    says so, training goes on, and the next one is tried.

    Args:
        folder: of the run.
        every: epochs between checkpoints.
        minutes: between further ones within epochs; none without it.
    """

    def __init__(
        self, folder: str | Path | RunFolder, every: int = 1, minutes: float | None = None
    ) -> None:
        self.folder, self.every = RunFolder.of(folder), every
        self.seconds = float("inf") if minutes is None else 60 * minutes
        self.kept: tuple[int, int] | None = None  # the epoch and the step of the last one

    def start(self) -> None:
        """Make the folder, and write what the run is told."""
        if self.run.processes.rank == 0:
            self.folder.path.mkdir(parents=True, exist_ok=True)
            self.folder.announce(asdict(self.run.settings), self.run.data)
        self.written = time.monotonic()

    def after_step(self, loss: float, n: int) -> None:
        """Write where it is time: by the clock of the first process."""
        if self.seconds == float("inf"):
            return
        due = time.monotonic() - self.written >= self.seconds
        if any(self.run.processes.total(due and self.run.processes.rank == 0)):
            self.save()

    def after_epoch(self, row: dict[str, float]) -> None:
        """Write where so many epochs are over."""
        if self.run.epoch % self.every == 0:
            self.save()

    def end(self, finished: bool) -> None:
        """Write where the run was stopped or finished since the last one."""
        behind = self.kept != (self.run.epoch, self.run.step)
        if finished and any(self.run.processes.total(behind)):
            self.save()

    def save(self) -> None:
        """Write the checkpoint; all processes go on when it is written."""
        parts, team = self.run.state_dict(), self.run.processes
        try:
            if team.rank == 0:
                write(self.folder.path, parts)
            self.kept = self.run.epoch, self.run.step
        except OSError as problem:
            warnings.warn(
                f"no checkpoint was written to {self.folder}, and the one before stays: "
                f"{in_a_sentence(problem)}",
                stacklevel=2,
            )
        self.written = time.monotonic()
        team.meet()  # parameters that are shared stay as they are until then


class Progress(Callback):
    """A progress bar with the latest ELBO.

    Args:
        shown: whether; by default only at a terminal.
    """

    def __init__(self, shown: bool | None = None) -> None:
        self.disable = None if shown is None else not shown

    def start(self) -> None:
        """Draw the bar."""
        run = self.run
        self.epochs, steps = run.settings.epochs, len(run.batches)
        self.bar = tqdm(
            total=self.epochs * steps,
            initial=run.epoch * steps + run.step,
            mininterval=0.5,
            disable=self.disable,
            unit="step",
            bar_format="{desc} {percentage:3.0f}%|{bar:24}| {elapsed}<{remaining}{postfix}",
        )
        self._describe()
        if run.compiles and not self.bar.disable:
            self.bar.write(f"compiling the step, which {self.epochs * steps:,} steps repay")

    def _describe(self) -> None:
        epoch = min(self.run.epoch + 1, self.epochs)
        self.bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)

    def after_step(self, loss: float, n: int) -> None:
        """Draw a step."""
        self.bar.update()

    def after_epoch(self, row: dict[str, float]) -> None:
        """Show the ELBO."""
        self.bar.set_postfix_str(summarize(row))
        self._describe()

    def end(self, finished: bool) -> None:
        """Leave the bar as it is."""
        self.bar.close()


def summarize(row: Mapping[str, float]) -> str:
    """A row of the history in a few words, for the progress bar."""
    held_out = row["elbo_validation"]
    text = f" ELBO {row['elbo_train']:.2f} train"
    text += "" if held_out != held_out else f", {held_out:.2f} validation"
    return f"{text} nats per observation"
