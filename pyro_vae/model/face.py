"""The face of a model and its guide: what evaluation asks of them, a VAE or any Pyro program."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..core.layout import Layout

__all__ = ["Densities", "Face"]


class Densities:
    """Draws from the guide at B observations, and log densities ``(S, B)`` at them.

    What a draw is, only a subclass knows: a tensor of a VAE's z, as here, or a program's sites.

    Attributes:
        x: the observations.
        guide: q(z|x), which may be replaced by another distribution of z.
    """

    x: Tensor
    guide: Any

    def draw(self, num_samples: int) -> Any:  # noqa: ANN401
        """Draws of the guide, ``(S, B, *z_shape)``."""
        return self.guide.sample(torch.Size([num_samples]))

    def at(self, z: Any) -> Any:  # noqa: ANN401
        """One draw, at given z."""
        raise NotImplementedError

    def flat(self, z: Any) -> Tensor:  # noqa: ANN401
        """The coordinates of z, ``(S, B, D)``."""
        return z.flatten(2)

    def join(self, z: Any) -> Tensor:  # noqa: ANN401
        """z as one tensor."""
        return z

    def log_prior(self, z: Any, /) -> Tensor:  # noqa: ANN401
        """log p(z)."""
        raise NotImplementedError

    def log_likelihood(self, z: Any, /) -> Tensor:  # noqa: ANN401
        """log p(x|z)."""
        raise NotImplementedError

    def log_guide(self, z: Any) -> Tensor:  # noqa: ANN401
        """log q(z|x)."""
        return self.guide.log_prob(z)

    def log_joint(self, z: Any) -> Tensor:  # noqa: ANN401
        """log p(x, z)."""
        return self.log_likelihood(z) + self.log_prior(z)

    def log_weight(self, z: Any) -> Tensor:  # noqa: ANN401
        """log p(x, z) - log q(z|x)."""
        return self.log_joint(z) - self.log_guide(z)


class Face(nn.Module):
    """A Pyro model and its guide, functions of one tensor of observations, ``(B, ...)``.

    Attributes:
        layout: how the plates of a program stand; ``None`` of a VAE, whose sites all lie in one
            plate over the observations.
        observations: those that it carries; ``None`` of a VAE, which is given them.
    """

    layout: Layout | None = None
    observations: Tensor | None = None
    points: Sequence[str] = ()  # sites that the guide sets to a point

    def model(self, x: Tensor) -> object:
        """p(x, z)."""
        raise NotImplementedError

    def guide(self, x: Tensor) -> object:
        """q(z|x)."""
        raise NotImplementedError

    def check(self, x: Tensor | ArrayLike) -> Tensor:
        """Observations as a tensor of the model's, checked."""
        raise NotImplementedError

    def as_data(self, x: Any) -> Tensor:  # noqa: ANN401
        """Observations as a tensor of the model's."""
        raise NotImplementedError

    def save(self, folder: str | Path) -> Path:
        """Write what was trained into a folder."""
        raise NotImplementedError

    def start_from(self, x: Tensor) -> None:
        """Give training data to what starts from data."""

    @contextmanager
    def copied(self) -> "Generator[Face]":
        """Within it a copy to train."""
        yield deepcopy(self)

    def count(self, x: Tensor) -> int:
        """How many observations there are in x."""
        return len(x)

    def weights_of(self, x: Tensor) -> Tensor | None:
        """The weight that each observation was given, ``(N,)``; ``None`` where there are none."""

    @property
    def separate(self) -> bool:
        """Whether rows of x are observations that share no latent variable."""
        return self.layout is None or self.layout.separate

    @property
    def cells(self) -> int:
        """Numbers that an evaluation has in memory for one row of x and one draw."""
        raise NotImplementedError

    @property
    def coordinates(self) -> list[str]:
        """Names of the latent coordinates of an observation."""
        raise NotImplementedError

    def densities(self) -> Callable[[Tensor], Densities]:
        """From checked observations to log p(x, z) and log q(z|x) at them."""
        raise NotImplementedError

    def simulate(
        self, num_data: int, given: Tensor | None, size: int, *, holes: bool = False
    ) -> list[tuple[Any, Tensor]]:
        """Observations drawn from the model with the z of each, in parts of ``size`` rows.

        Args:
            num_data: how many, at least.
            given: observations whose context is taken in turn.
            size: rows of a part.
            holes: whether the missing cells of ``given`` are missing in them too.

        Raises:
            ValueError: the model cannot be drawn from, and why.
        """
        raise NotImplementedError

    @property
    def why_not_drawn(self) -> str:
        """Why the model cannot be drawn from; empty where it can."""
        return ""

    @property
    def why_not_bounded(self) -> str:
        """Why what was drawn is no exact draw of a posterior; empty where it is."""
        return ""

    @property
    def why_not_simulated(self) -> str:
        """Why log p(x) of simulated observations cannot be bounded; empty where it can."""
        return ""

    @property
    def why_not_separate(self) -> str:
        """Why an observation has no evidence of its own; empty where it has."""
        return ""

    def check_separate(self, who: str) -> None:
        """Raise where an observation has no evidence of its own.

        Raises:
            ValueError: observations share latent variables, a plate is not whole, or the guide
                draws a point.
        """
        if self.why_not_separate:
            raise ValueError(f"{who} {self.why_not_separate}")

    def check_guide(self, who: str) -> None:
        """Raise where the guide has no density of z.

        Raises:
            ValueError: it sets a site to a point.
        """
        if self.points:
            raise ValueError(
                f"{who} needs a density of z, and the guide sets {self.points[0]!r} to a point: "
                "log_evidence(vae, x, proposal='auto') does without it"
            )

    def posterior_model(self, x: Tensor) -> Callable:
        """The model of these observations, without weights, which Markov chains run on.

        Raises:
            ValueError: a latent variable is discrete.
        """
        raise NotImplementedError

    def join(self, samples: Mapping[str, Tensor]) -> Tensor:
        """Draws of all latent sites, ``(S, ...)`` each, as coordinates ``(S, B, ...)``."""
        raise NotImplementedError

    @property
    def latent_axes(self) -> tuple[str, ...]:
        """Names of the dimensions of those coordinates."""
        return ("latent_dim",)

    def parameter_groups(self) -> dict[str, list[str]]:
        """Names of the trainable parameters by the parts of the model."""
        raise NotImplementedError

    def guide_parameters(self) -> set[str]:
        """Names of the trainable parameters that the guide reads."""
        raise NotImplementedError

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that have a gradient, by name."""
        return {k: p for k, p in self.named_parameters() if p.requires_grad}
