"""The training loop: steps, an evaluation at the end of each epoch, and callbacks around both."""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import pyro
import torch

from ...core.acting import untouched
from ...core.memory import keeping_memory
from ...core.seeding import seeded
from ..elbo_terms import elbo_terms
from ..engine.capture import CaptureError
from ..estimators.soundness import check_and_nest
from .run import Callback, Run
from .step import NonFiniteLossError, Step, checked, explain, tensor_float

__all__ = ["Loop"]


class Loop:
    """SVI steps over the batches of a run, until its last epoch or until it is stopped.

    Args:
        run: what is trained; its callbacks wrap model and guide.

    Raises:
        ValueError: the estimator, or a callback, cannot serve this model and guide.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        model, guide = run.vae.model, run.vae.guide
        module: Any = run.vae
        with torch.random.fork_rng(), checked(), untouched(module):
            check_and_nest(run.estimator, model, guide, run.example)
            for callback in run.callbacks.values():
                model, guide = callback.wrap(model, guide)
            guide = run.estimator.wrap(guide, run.example)
        self.step = Step(run, model, guide)
        self.before_step = self._hooks("before_step")
        self.after_step = self._hooks("after_step")
        self.after_epoch = self._hooks("after_epoch")

    def train(self) -> None:
        """Take the steps that are left."""
        run = self.run
        with keeping_memory(), ExitStack() as stack:
            for name, callback in run.callbacks.items():
                self._annotate(callback.start, f"start of the callback {name}")()
                stack.push(lambda kind, *_, end=callback.end: end(kind is None))  # pyrefly: ignore[not-callable]
            if run.compiles:
                with suppress(CaptureError):  # the step says why
                    run.batches.compile()
            while run.epoch < run.settings.epochs and not self._stopped:
                self._epoch()
            run.vae.eval()

    @property
    def _stopped(self) -> bool:
        return self.run.stopped or self.run.processes.stop.is_set()

    def _hooks(self, method: str) -> list[Callable]:
        """A method of those callbacks that override it."""
        return [
            self._annotate(getattr(callback, method), f"{method} of the callback {name}")
            for name, callback in self.run.callbacks.items()
            if getattr(type(callback), method) is not getattr(Callback, method)
        ]

    def _annotate(self, method: Callable, place: str) -> Callable:
        """A method whose exceptions say where they were raised, and what the model is then."""

        def call(*args: object) -> object:
            try:
                return method(*args)
            except Exception as problem:
                done = f"{self.run.epoch} epochs and {self.run.step} steps"
                problem.add_note(
                    f"In {place}: the model has the weights after "
                    f"{done}, and the last checkpoint stays"
                )
                raise

        return call

    def _epoch(self) -> None:
        """The rest of an epoch, and its evaluation where it is not stopped before its end."""
        run, steps, settings = self.run, len(self.run.batches), self.run.settings
        batches = run.begin_epoch()
        run.vae.train()
        start = time.perf_counter()
        with pyro.validation_enabled(False), tensor_float(settings.precision):
            for batch in batches:
                now = run.epoch + run.step / steps
                for hook in self.before_step:
                    hook(now)
                loss = self.step(batch)
                n = run.size(batch)
                run.loss, run.count, run.step = run.loss + loss, run.count + n, run.step + 1
                now = time.perf_counter()
                run.seconds, start = run.seconds + now - start, now
                for hook in self.after_step:
                    hook(loss, n)
                if self._stopped:
                    break
        if run.step == steps:
            run.end_epoch()
            run.vae.eval()
            with seeded(settings.seed), pyro.validation_enabled(False):
                run.history.append(self._evaluate())
                run.loss, run.count = 0.0, 0
                stops = [hook(run.history[-1]) for hook in self.after_epoch]
            (stop,) = run.processes.total(any(stops))
            run.stopped |= bool(stop)

    def _evaluate(self) -> dict[str, float]:
        """The row of the history; the same noise at every epoch."""
        run, team = self.run, self.run.processes
        likelihood, kl = self._terms(run.sample)
        elbo_train, elbo_validation = (likelihood - kl).mean().item(), math.nan
        if run.held_out is not None:
            likelihood, kl = self._terms(run.held_out)
            elbo_validation = (likelihood - kl).mean().item()
        elbo_validation = team.first(torch.tensor(elbo_validation).double()).item()
        for elbo, x in ((elbo_train, run.sample), (elbo_validation, run.held_out)):
            if x is not None and not math.isfinite(elbo):
                raise NonFiniteLossError(
                    f"the ELBO is {elbo} after epoch {run.epoch}: {explain(run.vae, x)} The "
                    "weights are those after this epoch, and the last checkpoint stays"
                )
        loss, count = team.total(run.loss, run.count)
        return {
            "epoch": run.epoch,
            "elbo_train": elbo_train,
            "elbo_validation": elbo_validation,
            "log_likelihood": likelihood.mean().item(),
            "kl": kl.mean().item(),
            "loss": loss / count,
            "lr": run.optim.lr,
            "beta": 1.0,
            "seconds": run.seconds,
        }

    def _terms(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both terms of the ELBO, times how often an observation counts: of a mean over them."""
        vae = self.run.vae
        likelihood, kl = elbo_terms(vae.model, vae.guide, x, layout=self.run.layout)
        if (weights := vae.weights_of(x)) is None:
            return likelihood, kl
        share = weights / weights.mean()
        return share * likelihood, share * kl
