"""Guides whose draws go on towards the posterior by leapfrog steps: Hamiltonian, Langevin."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from ..core.checks import fraction, positive, whole
from ..core.leapfrog import Chain, can_move
from ..language.spec import Spec, as_spec
from .guides import WithSteps
from .part import Ends

__all__ = ["Hamiltonian", "Langevin"]


class Hamiltonian(WithSteps):
    r"""A guide whose draws are annealed towards the posterior by leapfrog steps (DAIS, UHA).

    .. math:: z_0 \sim \mathrm{Family}, \quad
        (z_t, v_t) = \mathrm{leapfrog}_{\gamma_{\beta_t}}(z_{t-1}, v'_t), \quad
        \log q = \log q(z_0|x) - \sum_{t=1}^T \log \frac{N(v_t; 0, I)}{N(v'_t; 0, I)}

    with :math:`\log \gamma_\beta = (1 - \beta) \log q(z|x) + \beta \log p(x, z)`. What stands
    for log q is of z and all momenta, so every bound and :func:`~pyro_vae.log_evidence` are of the
    annealed draws: :math:`p(x, z_T) / q` is unbiased for p(x). It is known at the guide's own draws
    alone; what asks for it elsewhere (sticking the landing, DReG, ``wide=``) is refused.
    Step lengths, temperatures and the damping :math:`\eta` of momenta are learned with the rest.
    T + 1 gradients of the likelihood for each draw; second derivatives in training.

    Args:
        guide: the family of :math:`z_0`, reparameterized, on the real line: ``"Normal"``.
        steps: T.
        step: the length of the leapfrog steps at the start.
        damping: :math:`\eta` at the start, in (0, 1).

    References:
        Zhang, Hsu, Li, Finn & Grosse (2021), arXiv:2107.10150; Geffner & Domke (2021),
        arXiv:2107.04150.

    >>> Hamiltonian("Normal", steps=3).spec
    Hamiltonian(Normal, steps=3)
    """

    asks, instead = "draw from", "guide='Normal'"
    own_draws_alone: ClassVar[bool] = True

    def __init__(
        self, guide: str | Spec = "Normal", steps: int = 5, step: float = 0.1, damping: float = 0.5
    ) -> None:
        super().__init__()
        self._set(guide, steps, step, fraction("damping", damping))

    def _set(self, guide: str | Spec, steps: int, step: float, damping: float | None) -> None:
        self.start = as_spec(guide)
        self.chain = Chain(whole("steps", steps), positive("step", step), damping)
        usual = {"step": (step, 0.1), "damping": (damping, 0.5 if damping is not None else None)}
        options = {name: value for name, (value, common) in usual.items() if value != common}
        self.spec = Spec(type(self).__name__, self.start, steps=steps, **options)

    def build(self, ends: Ends) -> None:
        """Make the family for draws of this shape."""
        if not can_move(self.make_family(ends)):
            name = type(self).__name__
            raise ValueError(
                f"{name} moves draws along gradients, on the real line, which {self.start.name} "
                f"does not allow: use {name}(Normal)"
            )

    def approximate(
        self, features: Tensor, log_joint: Callable[[Tensor], Tensor]
    ) -> dist.TorchDistribution:
        """The guide at features, whose draws move towards the posterior."""
        return Annealed(self.family(features), self.chain, log_joint)


class Langevin(Hamiltonian):
    r"""A guide whose draws take unadjusted Langevin steps: :class:`Hamiltonian`, momenta all fresh.

    .. math:: z_t = z_{t-1} + \tfrac{\epsilon_t^2}{2} \nabla \log \gamma_{\beta_t}(z_{t-1})
        + \epsilon_t v'_t, \quad v'_t \sim N(0, I)

    Args:
        guide: the family of :math:`z_0`, reparameterized, on the real line.
        steps: T.
        step: :math:`\epsilon` at the start; it is learned.

    References:
        Thin, Kotelevskii, Doucet, Durmus, Moulines & Panov (2021), arXiv:2106.15921.

    >>> Langevin("Normal", steps=3, step=0.05).spec
    Langevin(Normal, steps=3, step=0.05)
    """

    def __init__(self, guide: str | Spec = "Normal", steps: int = 5, step: float = 0.1) -> None:
        WithSteps.__init__(self)
        self._set(guide, steps, step, None)


class Annealed(dist.TorchDistribution):
    """Draws at the ends of chains; their log density is known of the last draws alone.

    Args:
        start: of the chains.
        chain: its steps.
        log_joint: from z, ``(..., B, *z_shape)``, to log p(x, z), ``(..., B)``.
    """

    arg_constraints = {}
    has_rsample = True
    own_draws_alone = True

    def __init__(
        self,
        start: dist.TorchDistribution,
        chain: Chain,
        log_joint: Callable[[Tensor], Tensor],
    ) -> None:
        self.start, self.chain, self.log_joint = start, chain, log_joint
        self.event_dims = {"z": len(start.event_shape)}
        self._last: tuple[Tensor, Tensor] | None = None
        super().__init__(start.batch_shape, start.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint | None:
        """That of the chains' start, the real line."""
        return self.start.support

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "Annealed":
        """The same chains, side by side."""
        return Annealed(self.start.expand(batch_shape), self.chain, self.log_joint)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The ends of chains from fresh draws."""
        start = self.start.rsample(torch.Size(sample_shape))
        ends, ratios = self.chain(self, {"z": start})
        log_q = self.start.log_prob(start) - ratios["z"]
        self._last = ends["z"] if torch.is_grad_enabled() else ends["z"].detach(), log_q
        return self._last[0]

    def log_prob(self, value: Tensor) -> Tensor:
        """Of the last draws, log q(z_0) less the log ratio of their momenta's densities.

        Raises:
            NotImplementedError: any other value.
        """
        own = self._last and self._last[0]
        if self._last is None or not (value is own or value._base is own):  # a view of it
            raise NotImplementedError(
                "the density of annealed draws is known at the guide's last own draws alone: use "
                "log_evidence with proposal='guide', or guide='Normal'"
            )
        return self._last[1]

    def slopes(
        self, z: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """The draws, of which there is a gradient, and the slopes of both ends of the path."""
        learn = torch.is_grad_enabled()
        with torch.enable_grad():
            at = z["z"] if learn and z["z"].requires_grad else z["z"].detach().requires_grad_()
            of_q, of_p = (
                {"z": torch.autograd.grad(f(at).sum(), at, create_graph=learn)[0]}
                for f in (self.start.log_prob, self.log_joint)
            )
        return {"z": at}, of_q, of_p
