"""A new estimator: one file in ``pyro_vae/infer/estimators``, and its class in ``table.OURS``."""

from typing import Unpack

from torch import Tensor

from pyro_vae.core.checks import number
from pyro_vae.infer.estimators.multisample import (
    MultiSampleELBO,
    Plates,
    Run,
    add,
    log_weight,
    own,
    total,
)  # fmt: skip
from pyro_vae.infer.estimators.profile import of_scores
from pyro_vae.infer.sites import samples


class CyclicBaseline(MultiSampleELBO):
    """The ELBO by the score function, each particle's baseline the cost of the one before it."""

    least = 2
    profile = of_scores("any", "unbiased; another draw as baseline; one evaluation a particle", ())

    def __init__(
        self, num_particles: int = 2, share: float = 1.0, **plates: Unpack[Plates]
    ) -> None:
        super().__init__(num_particles, **plates)
        self.share = number("share", share)

    def _estimate(self, run: Run) -> tuple[Tensor, Tensor]:
        """The bound, and what has the gradient: of log p by itself, of log q by its score."""
        cost, k = log_weight(run.model, run.guide), self.num_particles
        surrogate = add(site["log_prob"].sum() for site in samples(run.model))
        for site in samples(run.guide):
            f, score = own(cost, site), site["score_parts"].score_function
            surrogate = surrogate + ((f - self.share * f.roll(1, 0)) * score).sum()
        return total(cost) / k, surrogate / k
