"""Reweighted wake-sleep, per data point, so that minibatches are sound."""

from collections.abc import Callable
from typing import Unpack

import pyro.poutine as poutine
import torch
from torch import Tensor

from ...core.checks import number
from ..guides import Unobserved
from ..sites import latent, samples
from .handlers import ScoreFunction
from .multisample import Plates, Run, add
from .profile import Profile
from .rules import (
    copies_have_a_density,
    no_factor_counts_the_wrong_way,
    no_point_is_weighted,
    the_guide_has_parameters_of_its_own,
    the_score_has_mean_zero,
)
from .weights import WeightedELBO, Weights

__all__ = ["RWS"]


class RWS(WeightedELBO):
    r"""Reweighted wake-sleep (RWS): model and guide each have an objective of their own.

    .. math:: \nabla_\theta \approx \sum_k \tilde w_k \nabla_\theta \log p_\theta(x, z_k), \qquad
        \nabla_\phi \approx (1 - s) \sum_k \tilde w_k \nabla_\phi \log q_\phi(z_k | x)
        + s\, \nabla_\phi \log q_\phi(\tilde z | \tilde x)

    with normalized importance weights, a dream :math:`\tilde z, \tilde x \sim p_\theta` for every
    data point, and the share s of sleep. The value, and the model's gradient (wake-theta), are
    those of the importance-weighted bound. The guide's (wake-phi) is of the inclusive
    :math:`KL(p(z|x) \| q(z|x))`, with a bias that falls as 1/K; in sleep it is unbiased for the
    inclusive KL at data from the model. No path is needed: right for discrete and continuous
    guides. Weights are per data point and a scale (minibatches) stays outside, which Pyro's
    ``ReweightedWakeSleep`` lacks. One evaluation a particle.

    Args:
        num_particles: K, at least 2.
        sleep: the share of sleep in the guide's gradient, between 0 (wake only) and 1.

    Raises:
        ValueError: arguments out of range; in a step, sites of different scale, or no argument that
            is the observed data where the guide is to see a dream.

    References:
        Bornschein & Bengio (2015), arXiv:1406.2751; Le et al. (2020), arXiv:1805.10469.
    """

    least = 2
    profile = Profile(
        gradients=("score",),
        guides="any",
        note="importance-weighted bound, unbiased for it in the model; the guide descends the "
        "inclusive KL, with a bias that falls as 1/K; one evaluation a particle",
        needs=(
            no_factor_counts_the_wrong_way,
            no_point_is_weighted,
            the_guide_has_parameters_of_its_own,
            the_score_has_mean_zero,
            copies_have_a_density,
        ),
        refused=tuple(
            (rule, "its guide ascends log q at draws that are fixed: leave gradient out")
            for rule in ("pathwise", "stl")
        ),
        weighted=False,
        ascends="model",
    )

    def __init__(
        self,
        num_particles: int = 10,
        sleep: float = 0.0,
        **plates: Unpack[Plates],
    ) -> None:
        super().__init__(num_particles, **plates)
        self.sleep = number("sleep", sleep, 0.0)
        if self.sleep > 1:
            raise ValueError(f"sleep is a share between 0 and 1, got {sleep}")

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> Run:
        return super()._get_trace(model, ScoreFunction()(guide), args, kwargs)

    def _weights(self, log_w: Tensor) -> Weights:
        w = log_w.softmax(0)
        return Weights(w, w, (1 - self.sleep) * w)

    def _estimates(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Tensor, Tensor]:
        bound, surrogate = super()._estimates(model, guide, args, kwargs)
        if self.sleep and torch.is_grad_enabled():
            surrogate = surrogate + self.sleep * self._dream(model, guide, args, kwargs)
        return bound, surrogate

    def _dream(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> Tensor:
        """log q of latent sites that the model drew, given the data that it drew with them."""
        with torch.no_grad():
            dream = poutine.trace(Unobserved()(model)).get_trace(*args, **kwargs)
        drawn = {
            id(site["infer"]["obs"]): site["value"]
            for site in samples(dream)
            if site["infer"].get("was_observed")
        }
        seen = [drawn.get(id(value), value) for value in args]
        named = {name: drawn.get(id(value), value) for name, value in kwargs.items()}
        if not any(id(value) in drawn for value in (*args, *kwargs.values())):
            raise ValueError(
                "sleep shows the guide data that the model drew, in place of the argument that is "
                "its observed data, and no argument is: hand the data over unchanged, or sleep=0"
            )
        trace = poutine.trace(poutine.replay(guide, dream)).get_trace(*seen, **named)
        trace.compute_log_prob()
        return add(site["log_prob"].sum() for site in samples(trace) if latent(site))
