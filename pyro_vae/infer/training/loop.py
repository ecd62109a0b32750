"""The training loop: SVI steps, an evaluation and a checkpoint at the end of each epoch."""

import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import SVI
from torch import Tensor, nn
from tqdm.auto import tqdm

from ...core.seeding import seeded
from ...language.schedules import Schedule
from ..elbo_terms import elbo_terms
from ..engine.compiled import CaptureError, CompiledELBO, CompileMode
from ..engine.optim import FusedOptim
from ..engine.precision import Precision, lowered, products
from ..estimators.estimator import Estimator
from ..estimators.handlers import KLWeight
from ..estimators.soundness import check_and_nest
from ..sites import family_name
from .batches import Batches
from .checkpoint import State, read, restore, rng_state, set_rng_state, write
from .collapse import AggressiveGuide, check_free_bits, with_free_bits

__all__ = ["Loop", "NonFiniteLossError", "Trainable", "summary"]


class NonFiniteLossError(FloatingPointError):
    """The loss became infinite or NaN; the weights are those before that step."""


class Trainable(Protocol):
    """What training asks of a model: two Pyro functions, and a check of data at the boundary."""

    def model(self, x: Tensor) -> Tensor: ...  # noqa: D102
    def guide(self, x: Tensor) -> Tensor: ...  # noqa: D102
    def check(self, x: Tensor) -> Tensor: ...  # noqa: D102
    def as_data(self, x: Tensor) -> Tensor: ...  # noqa: D102
    def start_from(self, x: Tensor) -> None: ...  # noqa: D102
    def state_dict(self) -> dict[str, Tensor]: ...  # noqa: D102
    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> object: ...  # noqa: D102
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...  # noqa: D102
    def zero_grad(self) -> None: ...  # noqa: D102
    def train(self) -> object: ...  # noqa: D102
    def eval(self) -> object: ...  # noqa: D102


class Loop:
    """Everything that a run needs, and its :class:`State`.

    Args:
        vae: with ``model``, ``guide`` and a ``state_dict``.
        estimator: the bound and gradient rule.
        optim: one optimizer over all parameters.
        lr: the learning rate at a time in epochs.
        beta: the weight of the KL term at a time in epochs.
        batches: of an epoch.
        prepare: what a batch goes through before the step.
        evaluate_on: training data, and validation data if any, for the history.
        state: where the run is.
        compile_from: the least number of planned steps of one batch size that are compiled.
        compile_mode: see :class:`CompiledELBO`.
        precision: of the networks, in steps; evaluations are in full precision.
        free_bits: nats of each latent dimension that cost nothing; 0 leaves the bound as it is.
        aggressive: epochs at most in which the guide is trained ahead of the model.
    """

    def __init__(
        self,
        vae: Trainable,
        estimator: Estimator,
        optim: FusedOptim,
        *,
        lr: Schedule,
        beta: Schedule,
        batches: Batches,
        prepare: Callable[[Tensor], Tensor],
        evaluate_on: tuple[Tensor, Tensor | None],
        state: State,
        compile_from: float,
        compile_mode: CompileMode | None,
        precision: Precision,
        free_bits: float = 0.0,
        aggressive: int = 0,
    ) -> None:
        self.vae, self.estimator, self.optim = vae, estimator, optim
        self.lr, self.beta, self.batches, self.prepare = lr, beta, batches, prepare
        self.evaluate_on, self.state = evaluate_on, state
        self.best: Mapping[str, Tensor] = {}
        self.epoch_rng = self.step_rng = rng_state()
        self.elbo: Any = estimator.elbo
        self.compiled = None
        if compile_from < math.inf:
            self.compiled = CompiledELBO(self.elbo, compile_mode, announce=False)
        self.compile_from = compile_from
        self.precision: Precision = precision
        example = evaluate_on[0][: max(1, min(batches.batch_size, len(evaluate_on[0])))]
        live = self.compiled is not None and estimator.weighted  # a graph reads tensors anew
        self.kl_weight = KLWeight(example.new_ones(()) if live else 1.0)
        model, guide = vae.model, vae.guide
        with torch.random.fork_rng():
            check_and_nest(estimator, model, guide, example)
            if free_bits:
                model, guide = with_free_bits(model, guide, free_bits)
                check_free_bits(self.elbo, model, guide, example)
            self.ahead = None
            if aggressive:
                self.ahead = AggressiveGuide(
                    aggressive, vae.model, vae.guide, evaluate_on[0], state.inner, optim.processes
                )
            wrapped = lowered(estimator.wrap(guide, example), precision, example.device)
            model = lowered(model, precision, example.device)
        self.svi = SVI(
            self.kl_weight(model), self.kl_weight(wrapped), optim,
            loss=self.elbo.loss, loss_and_grads=self._loss_and_grads,
        )  # fmt: skip
        self.resumed: Mapping[str, Tensor] | None = None

    def resume(self, folder: Path, epochs: int) -> None:
        """Go on where the checkpoint of a run folder stopped."""
        state, parts = read(folder)
        differ = [k for k, v in self.state.settings.items() if state.settings.get(k) != v]
        if differ:
            was = ", ".join(f"{k}={state.settings.get(k)!r}" for k in differ)
            now = ", ".join(f"{k}={self.state.settings[k]!r}" for k in differ)
            raise ValueError(f"{folder} was run with {was}, not with {now}: resume with the same")
        if state.epoch > epochs:
            raise ValueError(
                f"{folder} has {state.epoch} epochs already, more than epochs={epochs}"
            )
        restore(parts, self.vae, self.estimator.network, self.optim)
        self.state, self.best = state, parts.get("best", {})
        team = self.optim.processes
        self.epoch_rng, self.resumed = team.own(parts["epoch_rng"]), team.own(parts["rng"])
        if self.ahead is not None:
            self.ahead.progress = state.inner
        if team.rank:
            state.loss, state.count = 0.0, 0
            state.inner.loss, state.inner.count = 0.0, 0.0

    def run(
        self,
        epochs: int,
        *,
        out: Path | None,
        checkpoint_every: int,
        progress: bool | None,
        stop: threading.Event,
    ) -> None:
        """Train until ``epochs``, until patience is out, or until ``stop`` is set."""
        state, steps = self.state, len(self.batches)
        self.anneal = self.estimator.annealing(epochs)
        bar = tqdm(
            total=epochs * steps, initial=state.epoch * steps + state.step, mininterval=0.5,
            disable=None if progress is None else not progress, unit="step",
            bar_format="{desc} {percentage:3.0f}%|{bar:24}| {elapsed}<{remaining}{postfix}",
        )  # fmt: skip
        self.epochs = epochs
        with bar:
            if self._pays(self.batches.rows):
                if not bar.disable:
                    bar.write(f"compiling the step, which {epochs * steps:,} steps repay")
                with suppress(CaptureError):  # the step says why
                    self.batches.compile()
            while state.epoch < epochs and not self._out_of_patience() and not stop.is_set():
                bar.set_description(f"epoch {state.epoch + 1}/{epochs}", refresh=False)
                if self._epoch(bar, stop):
                    row = self._evaluate()
                    bar.set_postfix_str(summary(row))
                    if out is not None and state.epoch % checkpoint_every == 0:
                        self.save(out)
        if out is not None:
            self.save(out)
        self.vae.eval()
        if self.best:
            self.vae.load_state_dict(dict(self.best))

    def save(self, out: Path) -> None:
        """Write the checkpoint; all processes go on when it is written."""
        network, team = self.estimator.network, self.optim.processes
        inner = self.state.inner
        loss, count, *ahead = team.total(self.state.loss, self.state.count, inner.loss, inner.count)
        inner = replace(inner, loss=ahead[0], count=ahead[1])
        state = replace(self.state, loss=loss, count=int(count), inner=inner)
        rng = {"rng": team.gather(rng_state()), "epoch_rng": team.gather(self.epoch_rng)}
        moments = self.optim.get_state()
        if team.rank == 0:
            write(out, state, self.vae, network, moments, {**rng, "best": self.best})
        team.meet()  # parameters that are shared stay as they are until then

    def _epoch(self, bar: tqdm, stop: threading.Event) -> bool:
        """The rest of an epoch; false where it was stopped before its end."""
        state, steps = self.state, len(self.batches)
        if self.resumed is not None:
            set_rng_state(self.epoch_rng)
        self.epoch_rng = rng_state()
        batches = self.batches.epoch(skip=state.step)  # the order of a resumed one is drawn again
        if self.resumed is not None and state.step:
            set_rng_state(self.resumed)
        self.resumed = None
        self.vae.train()
        start = time.perf_counter()
        with pyro.validation_enabled(False), products(self.precision):
            for batch in batches:
                now = state.epoch + state.step / steps
                self.kl_weight.set(self.beta(now))
                self.optim.lr = self.lr(now)
                self.anneal(now)
                if self.ahead is not None:
                    self.optim.frozen = self.ahead.frozen
                loss = self._step(batch)
                state.loss, state.count = state.loss + loss, state.count + len(batch)
                if self.ahead is not None:
                    self.ahead.step(loss, len(batch))
                state.step += 1
                bar.update()
                if stop.is_set():
                    break
        state.seconds += time.perf_counter() - start
        if state.step < steps:
            return False
        state.epoch, state.step, self.epoch_rng = state.epoch + 1, 0, rng_state()
        return True

    def _step(self, batch: Tensor) -> float:
        if not len(batch):  # of several processes one may have no part of a ragged last batch
            self.optim(())
            return 0.0
        batch = self.prepare(batch)
        with pyro.validation_enabled(True) if self._first else nullcontext():
            return float(self.svi.step(batch))  # pyright: ignore[reportArgumentType]

    @property
    def _first(self) -> bool:
        """Whether this is the run's first step, which Pyro's validation checks."""
        return self.state.epoch == self.state.step == 0

    def _loss_and_grads(self, model: Callable, guide: Callable, x: Tensor) -> float:
        """The estimator's, with a stop before the optimizer sees what is not finite."""
        rng = rng_state()
        elbo: Any = self.compiled if self._pays(len(x)) and not self._first else self.elbo
        try:
            loss = elbo.loss_and_grads(model, guide, x)
        except CaptureError as problem:
            if not self.compile_from:
                raise
            warnings.warn(f"the steps are not compiled: {problem}", stacklevel=2)
            self.compiled = None
            loss = self.elbo.loss_and_grads(model, guide, x)
        if not math.isfinite(loss):
            set_rng_state(rng)
            self._explain(loss, x)
        return loss

    def _pays(self, rows: int) -> bool:
        """Whether to compile the step for batches of so many rows."""
        whole = rows == self.batches.rows
        planned = self.epochs * (len(self.batches) - 1 if whole else 1)
        return self.compiled is not None and planned >= self.compile_from

    def _evaluate(self) -> dict[str, float]:
        """The row of the history; the same noise at every epoch."""
        state, (train, held_out) = self.state, self.evaluate_on
        model, guide, seed = self.vae.model, self.vae.guide, state.settings["seed"]
        self.vae.eval()
        with seeded(seed), pyro.validation_enabled(False):
            likelihood, kl = elbo_terms(model, guide, train)
            elbo_train, elbo_validation = (likelihood - kl).mean().item(), math.nan
            if held_out is not None:
                likelihood, kl = elbo_terms(model, guide, held_out)
                elbo_validation = (likelihood - kl).mean().item()
            if self.ahead is not None:
                self.ahead.epoch(state.epoch)
        loss, count = self.optim.processes.total(state.loss, state.count)
        elbo_validation = self.optim.processes.first(torch.tensor(elbo_validation).double()).item()
        elbo = elbo_train if held_out is None else elbo_train + elbo_validation
        if not math.isfinite(elbo):
            self._explain(-elbo, train)
        row = {
            "epoch": state.epoch, "elbo_train": elbo_train, "elbo_validation": elbo_validation,
            "log_likelihood": likelihood.mean().item(), "kl": kl.mean().item(),
            "loss": loss / count, "lr": self.optim.lr,
            "beta": float(self.kl_weight.weight), "seconds": state.seconds,
        }  # fmt: skip
        state.history.append(row)
        state.loss, state.count = 0.0, 0
        if state.settings["patience"] and (state.best is None or elbo_validation > state.best):
            state.best, state.best_epoch = elbo_validation, state.epoch
            self.best = {k: v.detach().clone() for k, v in self.vae.state_dict().items()}
        return row

    def _out_of_patience(self) -> bool:
        best, patience = self.state.best_epoch, self.state.settings["patience"]
        return best is not None and self.state.epoch - best >= patience

    def _explain(self, loss: float, x: Tensor) -> None:
        """Find what made a loss infinite or NaN, and say it."""
        cause = "no single site shows it"
        for name, parameter in self.vae.named_parameters():
            if not parameter.isfinite().all():
                cause = f"parameter {name!r} is not finite"
                break
        else:
            with torch.no_grad(), poutine.block(), pyro.validation_enabled(False):
                guide = poutine.trace(self.vae.guide).get_trace(x)
                model = poutine.trace(poutine.replay(self.vae.model, guide)).get_trace(x)
                for trace, side in ((guide, "guide"), (model, "model")):
                    trace.compute_log_prob()
                    site: Any
                    for name, site in trace.nodes.items():
                        if site["type"] == "sample" and not site["log_prob"].isfinite().all():
                            worst = site["log_prob"][~site["log_prob"].isfinite()][0].item()
                            family = family_name(site["fn"])
                            cause = (
                                f"site {name!r} ({family}) of the {side} has log density {worst}"
                            )
                            break
        self.vae.zero_grad()
        raise NonFiniteLossError(
            f"the loss is {loss} in epoch {self.state.epoch + 1}, step {self.state.step + 1}: "
            f"{cause}. The weights are those before it, and the last checkpoint stays. Try a "
            "smaller lr, optimizer='Adam(clip_norm=10)', or a likelihood that cannot degenerate"
        )


def summary(row: Mapping[str, float]) -> str:
    """A row of the history in a few words, for the progress bar."""
    held_out = row["elbo_validation"]
    text = f" ELBO {row['elbo_train']:.2f} train"
    return text + ("" if math.isnan(held_out) else f", {held_out:.2f} validation") + " nats/datum"
