"""A prior fitted after the model: to the aggregated posterior, encoder and decoder stay."""

import math
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyro
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.acting import differentiates
from ...core.checks import fraction, positive, whole
from ...core.seeding import seeded
from ...families.part import Line, Part, start_from
from ...model.entry import of_model
from ...model.files import CUSTOM
from ...model.joint import reading
from ...model.vae import VAE
from ...model.visits import VisitsRecord
from ..statistics import mean_and_error

__all__ = ["PriorFit", "fit_prior", "with_prior"]

ROWS = 10_000  # observations that are encoded at once
CHOICES = 2**24  # of which PyTorch draws one by its weight, at most
DRAWS = 50  # of z, for an observation that is held out


@dataclass(frozen=True)
class PriorFit:
    """What :func:`fit_prior` gave.

    Attributes:
        vae: the new model.
        gains: of held-out observations, ``(M,)``, what the new prior adds to the ELBO, in nats.
        history: a row an epoch: ``log_prior_train`` and ``log_prior_validation``, mean log p(z) of
            draws of the guide, nats per observation.
        best_epoch: the one whose weights the prior has; 0 where the old prior stays, being better.
        weights: of these observations, ``(M,)``, by which the gain is their mean; ``None`` of none.
    """

    vae: VAE
    gains: Tensor
    history: pd.DataFrame
    best_epoch: int
    weights: Tensor | None = None

    @property
    def gain(self) -> float:
        """Mean gain of the ELBO, nats per observation."""
        return mean_and_error(self.gains, self.weights)[0]

    @property
    def gain_error(self) -> float:
        """Its standard error, over the held-out observations."""
        return mean_and_error(self.gains, self.weights)[1]

    def summary(self) -> str:
        """The gain in words."""
        if not self.best_epoch:
            return f"The old prior stays: no better one was found in {len(self.history)} epochs."
        return (
            f"The new prior adds {self.gain:.2f} nats per observation to the ELBO of "
            f"{len(self.gains)} held-out observations (standard error {self.gain_error:.2g}); the "
            f"weights are those of epoch {self.best_epoch} of {len(self.history)}."
        )

    def __repr__(self) -> str:
        return f"PriorFit({self.gain:+.2f} nats, standard error {self.gain_error:.2g})"


@of_model
@differentiates
def fit_prior(
    vae: VAE,
    x: Tensor | ArrayLike,
    prior: Line,
    *,
    epochs: int = 50,
    batch_size: int = 500,
    lr: float = 1e-2,
    validation: float = 0.1,
    seed: int = 0,
) -> PriorFit:
    r"""Fit a prior to the aggregated posterior of a trained model; all else stays as it is.

    .. math:: \max_{p} \; E_{q(z)}[\log p(z)], \quad q(z) = \frac1N \sum_n q(z|x_n)

    is the ascent of the ELBO in the prior alone, and does not ask the decoder. Families and
    mixtures of them start at draws of the guide, each component at a cluster of these; in each
    epoch z is drawn anew at every observation. Where no epoch beats the old prior at held-out
    observations, that one stays, with a warning. At most :math:`KL(q(z) \| p(z))` is gained
    (``aggregate_kl`` of :func:`latent_summary`). A prior that is trained with the model from the
    start may reach more, as encoder and decoder then move too. Weights of observations are those
    of the fit, of the choice of its epoch, and of the mean gain.

    Args:
        vae: a trained model, with one latent variable; it stays as it is.
        x: ``(N, *x_shape)``, the training data.
        prior: any prior that can be trained: ``"Flow(NSF, transforms=3)"``,
            ``"Mixture(Normal(loc=learned, scale=learned), components=50)"``,
            ``"VampPrior(components=500)"`` (its pseudo-inputs are trained), or a module with
            ``forward() -> distribution``.
        epochs: passes over the data.
        batch_size: draws of z per step.
        lr: of Adam; it falls to 0 along a cosine. Pseudo-inputs of bits or grey values have far to
            go: a VampPrior of few wants ``lr=0.3``.
        validation: the fraction of x that is held out: a half of it chooses the epoch, the other
            says what the prior buys.
        seed: of the new weights, the order and the draws.

    Returns:
        :class:`PriorFit`: ``vae``, the new model; ``gain`` with ``gain_error``, in nats of the ELBO
        per held-out observation; ``history``. :func:`compare` says what it buys in log p(x).

    Raises:
        ValueError: a prior without parameters or with another support than the guide's; several
            latent variables; too few observations.

    References:
        Ghosh et al. (2020), arXiv:1903.12436, for ex-post density estimation; Hoffman & Johnson
        (2016), ELBO surgery, for the aggregated posterior; Bauer & Mnih (2019), arXiv:1810.11428.

    >>> vae = VAE(2, latent_dim=2, likelihood="Normal", seed=0)
    >>> fitted = fit_prior(vae, torch.randn(60, 2), "Normal(loc=learned, scale=learned)", epochs=2)
    >>> fitted.vae.prior().event_shape, len(fitted.history)
    (torch.Size([2]), 2)
    """
    epochs, batch_size = whole("epochs", epochs), whole("batch_size", batch_size)
    lr, validation = positive("lr", lr), fraction("validation", validation)
    seed = whole("seed", seed, 0)
    if isinstance(vae.record, VisitsRecord):
        raise ValueError(
            "the prior of visits is not exchanged: make a model with the other prior, "
            "VAE(table, 2, prior=...), and train it"
        )
    x, new = vae.check(x), with_prior(vae, prior, seed)
    if not (parameters := [p for p in new.prior.parameters() if p.requires_grad]):
        raise ValueError(
            f"the prior {prior} has no parameters to fit: leave some to it, such as "
            "Normal(loc=learned, scale=learned)"
        )
    held_out = round(validation * len(x) / 2)
    if held_out < 2 or len(x) - 2 * held_out < 1:
        raise ValueError(
            f"{len(x)} observations are too few to hold out a fraction of {validation:g}: give more"
        )
    plan = Plan(epochs, batch_size, lr)
    with seeded(seed), pyro.validation_enabled(False):
        x = x[torch.randperm(len(x)).to(x.device)]
        choosing, scoring, train = x.split([held_out, held_out, len(x) - 2 * held_out])
        start_from(new.prior, vae.record.cells(train))
        if isinstance(new.prior, Part):
            some = train[:CHOICES]
            rows = torch.multinomial(vae.counts_as(some), ROWS, replacement=True)
            new.prior.start_at([_draws(vae, some[rows], 1)[0]])
        history, best = _ascend(new, vae, parameters, train, choosing, plan)
        if not best:
            new = deepcopy(vae).eval()
            warnings.warn(
                f"the prior {prior} is below the one that it was to replace at held-out "
                "observations in every epoch, so that one stays: take more epochs, or another",
                stacklevel=3,
            )
        z = _draws(new, scoring, DRAWS)
        gains = (_log_prior(new, scoring, z) - _log_prior(vae, scoring, z)).mean(0)
    return PriorFit(new, gains, history, best, vae.weights_of(scoring))


def with_prior(vae: VAE, prior: Line, seed: int | None = None) -> VAE:
    """A copy of a model with another prior, not trained; all its other weights are the same.

    Args:
        vae: a model with one latent variable, which stays as it is.
        prior: a line, or a module with ``forward() -> distribution``.
        seed: of the new prior's weights.

    Raises:
        SpecError: an unknown family or parameter.
        ValueError: several latent variables, or a prior with another support than the guide's.
    """
    if len(vae.latents.sites) > 1:
        raise ValueError(
            f"z is of several parts, {', '.join(vae.latents.sites)}, whose prior holds networks of "
            "the model: choose a model with latent_dim=50 and no layers or labels"
        )
    about, like = vae.describe(), torch.empty(0)  # models are made in the default type
    own: dict[str, Any] = {
        role: deepcopy(vae.get_submodule(path)).to(like)
        for role, path in vae.ROLES.items()
        if str(about[role]).startswith(CUSTOM)
    }
    arguments: dict[str, Any] = vae.arguments(about) | own | {"prior": prior}
    with seeded(seed):
        copy = type(vae)(**arguments).to(vae.example)
    copy.record.columns = vae.record.columns
    weights = copy.state_dict()
    weights |= {k: v for k, v in vae.state_dict().items() if not k.startswith("prior.")}
    copy.load_state_dict(weights)
    return copy.train(vae.training)


@dataclass(frozen=True)
class Plan:
    """How the prior is fitted."""

    epochs: int
    batch_size: int
    lr: float


def _ascend(
    vae: VAE, old: VAE, parameters: Sequence[Tensor], x: Tensor, choosing: Tensor, plan: Plan
) -> tuple[pd.DataFrame, int]:
    """Fit the prior; a row an epoch, and the one whose weights it has, 0 if the old is better."""
    optimizer = torch.optim.Adam(parameters, lr=plan.lr)
    steps = plan.epochs * math.ceil(len(x) / plan.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    seen, rows, best, state = _draws(vae, choosing, DRAWS), [], 0, {}
    weights, some = vae.counts_as(x), vae.counts_as(choosing)
    highest = (some * _log_prior(old, choosing, seen)).mean().item()
    vae.eval()
    for epoch in range(1, plan.epochs + 1):
        z, total = _draws(vae, x, 1)[0], 0.0
        vae.prior.train()
        for batch in torch.randperm(len(z)).to(z.device).split(plan.batch_size):
            log_p = vae.prior_at(x[batch]).log_prob(z[batch])
            loss = -(weights[batch] * log_p).mean()
            if not loss.isfinite():
                raise ValueError(
                    f"the prior's log density is {-loss.item()} at draws of the guide in epoch "
                    f"{epoch}: take a smaller lr than {plan.lr:g}, or another prior"
                )
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for p, gradient in zip(parameters, gradients, strict=True):
                p.grad = gradient
            optimizer.step()
            schedule.step()
            total -= loss.item() * len(batch)
        vae.prior.eval()
        held_out = (some * _log_prior(vae, choosing, seen)).mean().item()
        rows.append((epoch, total / len(z), held_out))
        if held_out > highest:
            best, highest = epoch, held_out
            state = {name: value.clone() for name, value in vae.prior.state_dict().items()}
    if best:
        vae.prior.load_state_dict(state)
    optimizer.zero_grad()
    names = ["epoch", "log_prior_train", "log_prior_validation"]
    return pd.DataFrame(rows, columns=names), best


@torch.no_grad()
def _draws(vae: VAE, x: Tensor, num_samples: int) -> Tensor:
    """z of the guide, ``(S, N, *z_shape)``."""
    with reading(vae, None):
        parts: list[Any] = [vae.approximate_posterior(some) for some in x.split(ROWS)]
        return torch.cat([q.sample(torch.Size([num_samples])) for q in parts], 1)


@torch.no_grad()
def _log_prior(vae: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(z) at the draws z of observations x, ``(S, N)``."""
    with reading(vae, None):
        prior = vae.prior_at(x)
        return torch.stack([prior.log_prob(some) for some in z])
