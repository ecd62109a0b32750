"""What an estimator says of itself: its gradient rules, the guides that it serves, its bound."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pyro.infer import ELBO

from .bounds import Bound
from .rules import Rule

__all__ = ["DISCRETE", "STL_ELSEWHERE", "WEIGHTS_ARE_IN_IT", "Profile", "of_scores"]

DISCRETE = "Bernoulli, OneHotCategorical"
STL_ELSEWHERE = "use Trace_ELBO(gradient=stl)"
WEIGHTS_ARE_IN_IT = ("stl", "it has that and the weights' part already: leave gradient out")
OF_EVERY_BOUND = ("num_particles", "max_plate_nesting", "vectorize_particles", "rule")


def own_bound(elbo: ELBO) -> Bound:
    """The bound that an object of ours says it estimates; the ELBO where it says none."""
    return getattr(elbo, "bound", Bound())


@dataclass(frozen=True)
class Profile:
    """What the table says of an estimator; it stands in the estimator's class.

    Attributes:
        gradients: its gradient rules.
        guides: for which guides, in words.
        note: unbiased or not, and the cost of a gradient.
        build: what makes the ``ELBO``, a class of ours by itself; its keywords are the options.
        needs: what is asked of a guide beside the needs of the gradient rule, in this order.
        refused: gradient rules that exist but do not serve this bound, and why.
        gradient: the default rule; ``None`` leaves it to each site.
        of_guide: options that say how the guide is wrapped, which are :class:`Estimator`'s.
        weighted: whether a KL weight (beta) leaves it a bound.
        bound: what the value of such an ``ELBO`` object estimates.
        ascends: whose gradient is that bound's; elsewhere it is of another objective.
        biased: those of its gradient rules that are biased for it.
    """

    gradients: tuple[str, ...]
    guides: str
    note: str
    build: Callable[..., ELBO] = ELBO
    needs: tuple[Rule, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    gradient: str | None = None
    of_guide: tuple[str, ...] = ()
    weighted: bool = True
    bound: Callable[[ELBO], Bound] = own_bound
    ascends: Literal["both", "model", "none"] = "both"
    biased: tuple[str, ...] = ()

    @property
    def least(self) -> int:
        """How many particles it needs."""
        return getattr(self.build, "least", 1)

    @property
    def num_particles(self) -> int:
        """How many particles it has by default."""
        return inspect.signature(self.build).parameters["num_particles"].default

    @property
    def options(self) -> tuple[str, ...]:
        """The names of further arguments."""
        parameters = inspect.signature(self.build).parameters.values()
        own = (p.name for p in parameters if p.kind is not p.VAR_KEYWORD)
        return (*(name for name in own if name not in OF_EVERY_BOUND), *self.of_guide)


def of_scores(guides: str, note: str, needs: tuple[Rule, ...], *, weighted: bool = True) -> Profile:
    """The profile of an estimator that is for sites without a path."""
    instead = {"pathwise": "use Trace_ELBO", "stl": STL_ELSEWHERE}
    refused = tuple((r, f"it is for sites without a path: {use}") for r, use in instead.items())
    return Profile(
        ("score",), guides, note, ELBO, needs, refused, gradient="score", weighted=weighted
    )
