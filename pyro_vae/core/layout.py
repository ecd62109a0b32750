"""How the plates of a Pyro program stand, which evaluation has to know."""

from dataclasses import dataclass
from typing import Any

__all__ = ["MANY", "Layout"]

MANY = (
    "written for a plate on their left, sites allow many draws at once: (x * w).sum(-1) for x @ w, "
    "theta[..., group] for theta[group]"
)


@dataclass(frozen=True)
class Layout:
    """The plates of a model and its guide.

    Attributes:
        data: the plate whose members are the observations; ``None`` where there is one evidence.
        size: N, the members of that plate when it is whole; 1 without a plate.
        nesting: how many plates stand within one another, as Pyro's ``max_plate_nesting``.
        why_loop: why draws are made one by one; empty where one run makes many, by an outer plate.
        whole: whether the arguments are not cut into observations, so that x has one row.
        full: whether a plate draws a subsample in training, and has all members in evaluation.
        shared: latent sites outside the data plate, which all observations share.
        partial: plates of which a part is given, so that they cannot be whole.
        marginal: whether the model has sites that are enumerated, and so summed out.
    """

    data: str | None
    size: int = 1
    nesting: int = 1
    why_loop: str = ""
    whole: bool = True
    full: bool = False
    shared: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    marginal: bool = False

    @property
    def how(self) -> dict[str, Any]:
        """What a run of the program is told of its plates."""
        return {"nesting": self.nesting, "full": self.full}

    @property
    def separate(self) -> bool:
        """Whether rows of x are observations that share no latent variable."""
        return not self.whole and not self.shared
