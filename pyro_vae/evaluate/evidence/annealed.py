"""log p(x) by annealed importance sampling, and from both sides on data drawn from the model."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.checks import whole
from ...model.entry import of_model
from ...model.joint import Joint, reading
from ...model.simulation import simulate
from ...model.vae import VAE
from ..statistics import chunks
from .importance import Evidence, Sandwich

__all__ = ["ais", "bdmc"]

CELLS = 2**22  # numbers of the likelihood's parameters at once
ACCEPTANCE = 0.65  # what leapfrog steps of the best length have
PILOT = 200  # moves at least, of the chains that find the lengths of the steps
GAIN = 0.2  # of the step's logarithm, per unit of acceptance above that


@of_model
def ais(
    vae: VAE,
    x: Tensor | ArrayLike,
    *,
    temperatures: int = 1000,
    chains: int = 16,
    start: Literal["prior", "guide"] = "prior",
    leapfrog: int = 10,
    seed: int | None = None,
) -> Evidence:
    r"""log p(x) of each observation, by annealed importance sampling with Hamiltonian steps.

    .. math:: \log \hat p(x) = \log \frac1C \sum_c w_c, \quad
        w_c = \prod_{t=1}^T \left(\frac{p(x, z_{t-1})}{\pi_0(z_{t-1})}\right)^{\beta_t-\beta_{t-1}},
        \quad z_t \sim \mathrm{HMC}(z_{t-1}; \pi_0^{1-\beta_t} p(x, \cdot)^{\beta_t})

    where :math:`\pi_0` is the prior or the guide. It finds modes that the guide has missed, so it
    is what to ask where :func:`log_evidence` has a large k-hat. In expectation it is a lower bound
    that rises to log p(x) with the temperatures. Each observation and temperature has a step length
    of its own, tuned on a pilot run and then held, so that the bound is exact.

    Args:
        vae: a trained model, z continuous.
        x: ``(N, *x_shape)``.
        temperatures: T; one gradient per leapfrog step, chain and observation at each.
        chains: C, per observation.
        start: the distribution at which the path begins.
        leapfrog: leapfrog steps per temperature.
        seed: of the draws.

    Returns:
        :class:`Evidence`; its standard error is over the chains, by the delta method.

    Raises:
        ValueError: data that the model refuses, a discrete z, or a number that is too small.

    References:
        Neal (2001), Statistics and Computing 11; Wu et al. (2017), arXiv:1611.04273.

    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> ais(vae, torch.zeros(3, 2), temperatures=20, chains=4, seed=0).log_evidence.shape
    torch.Size([3])
    """
    plan = Plan(temperatures, chains, start, leapfrog)
    x = vae.check(x)
    with reading(vae, seed):
        parts = [Path(vae, some, plan).forward() for some in plan.split(x, x)]
    return Evidence.from_weights(torch.cat(parts, 1))


@of_model
def bdmc(
    vae: VAE,
    num_data: int = 100,
    *,
    given: Tensor | ArrayLike | None = None,
    temperatures: int = 1000,
    chains: int = 16,
    start: Literal["prior", "guide"] = "prior",
    leapfrog: int = 10,
    seed: int | None = None,
) -> Sandwich:
    r"""log p(x) of data drawn from the model, from both sides: bidirectional Monte Carlo.

    The z that an observation was drawn with is an exact draw of its posterior. Annealing from there
    back to the start estimates 1 / p(x) without bias, and so bounds log p(x) from above in
    expectation; :func:`ais` bounds it from below. The gap between them bounds the error of both on
    data drawn from the model; on real data the error may be larger.

    Args:
        vae: a trained model, z continuous.
        num_data: how many observations to draw.
        given: observations whose context and offset are taken in turn, where the model reads any.
        temperatures: as in :func:`ais`.
        chains: per observation and direction; those backwards share their first z.
        start: as in :func:`ais`.
        leapfrog: as in :func:`ais`.
        seed: of the draws.

    Returns:
        :class:`Sandwich`: ``x``, ``lower``, ``upper``, ``gap``, ``gap_error``.

    Raises:
        ValueError: a discrete z, a number that is too small, or a model that reads a context or an
            offset without ``given``.

    References:
        Grosse, Ghahramani & Adams (2015), arXiv:1511.02543; Wu et al. (2017), arXiv:1611.04273.

    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> bdmc(vae, 5, temperatures=20, chains=4, seed=0).x.shape
    torch.Size([5, 2])
    """
    plan = Plan(temperatures, chains, start, leapfrog)
    num_data = whole("num_data", num_data, 2)
    given = None if given is None else vae.as_data(given)
    up, down = [], []
    with reading(vae, seed):
        z, x = simulate(vae, num_data, given)
        for some_x, some_z in zip(plan.split(x, x), plan.split(z, x), strict=True):
            path = Path(vae, some_x, plan)
            up.append(path.forward())
            down.append(path.backward(some_z))
    lower, inverse = (Evidence.from_weights(torch.cat(parts, 1)) for parts in (up, down))
    upper = Evidence(-inverse.log_evidence, inverse.standard_error, inverse.khat, plan.chains)
    return Sandwich(x, lower, upper)


@dataclass
class Plan:
    """The arguments of :func:`ais`, checked."""

    temperatures: int
    chains: int
    start: str
    leapfrog: int

    def __post_init__(self) -> None:
        self.temperatures = whole("temperatures", self.temperatures, 2)
        self.chains = whole("chains", self.chains, 2)
        self.leapfrog = whole("leapfrog", self.leapfrog)
        if self.start not in ("prior", "guide"):
            raise ValueError(f"start is 'prior' or 'guide', got {self.start!r}")

    def split(self, values: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """Parts of the observations, as many as have room for their chains."""
        return chunks(values, self.chains * x[0].numel(), CELLS)

    def betas(self, like: Tensor) -> Tensor:
        """Inverse temperatures from 0 to 1, dense at both ends, ``(T + 1,)``."""
        s = torch.linspace(-4, 4, self.temperatures + 1, dtype=torch.float64).sigmoid()
        return ((s - s[0]) / (s[-1] - s[0])).to(like)


class Path:
    r"""Densities between a start and p(x, z), on the real line, and the steps that move along them.

    .. math:: \log f_\beta(u) = (1 - \beta) \log \pi_0(T(u)) + \beta \log p(x, T(u)) + \log |T'(u)|

    A state is u ``(C, B, *shape)`` with both ends' log densities ``(2, C, B)`` and their gradients
    ``(2, *u.shape)``: a change of temperature costs no evaluation. The step lengths ``(T + 1, B)``
    are tuned by a few chains of their own before any other draw.
    """

    def __init__(self, vae: VAE, x: Tensor, plan: Plan) -> None:
        with torch.no_grad():
            self.joint = Joint(vae, x)
        self.transform = self.joint.to_support("annealing")
        self.plan, self.batch = plan, len(x)
        self.from_guide = plan.start == "guide"
        self.betas = plan.betas(x)
        self.steps = self._tune(max(4, plan.chains // 4))

    def forward(self) -> Tensor:
        """Log weights ``(C, B)`` of chains from the start to p(x, z): of mean p(x)."""
        return self._walk(self.draw(self.plan.chains), self.betas, self.steps)

    def backward(self, z: Tensor) -> Tensor:
        """Log weights ``(C, B)`` of chains from posterior draws to the start: of mean 1 / p(x)."""
        u = self.unconstrain(z).expand(self.plan.chains, *[-1] * z.ndim)
        return self._walk(u, self.betas.flip(0), self.steps.flip(0))

    @torch.no_grad()
    def draw(self, chains: int) -> Tensor:
        """Draws from the start, ``(C, B, *shape)``."""
        if self.from_guide:
            return self.unconstrain(self.joint.guide.sample(torch.Size([chains])))
        return self.unconstrain(self.joint.prior.expand([chains, self.batch]).sample())

    def unconstrain(self, z: Tensor) -> Tensor:
        """From the support of z to the real line."""
        return self.transform.inv(z)  # pyright: ignore[reportReturnType, reportOptionalCall]

    def _tune(self, chains: int) -> Tensor:
        step = torch.full((self.batch,), 0.1).to(self.betas)
        state = self._at(self.draw(chains))
        steps = [step]
        for beta in self.betas[1:]:
            for _ in range(max(1, PILOT // len(self.betas))):
                state, accepted = self._move(state, beta, step)
                step = step * (GAIN * (accepted.mean(0) - ACCEPTANCE)).exp()
            steps.append(step)
        return torch.stack(steps)

    def _walk(self, u: Tensor, betas: Tensor, steps: Tensor) -> Tensor:
        state = self._at(u)
        log_w = torch.zeros_like(state[1][0])
        for t in range(1, len(betas)):
            start, target = state[1]
            log_w += (betas[t] - betas[t - 1]) * (target - start)
            if t < len(betas) - 1:
                state, _ = self._move(state, betas[t], steps[t])
        return log_w

    def _move(
        self, state: tuple[Tensor, Tensor, Tensor], beta: Tensor, step: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """One Hamiltonian step at one temperature, and its acceptance probability ``(C, B)``."""
        mix = torch.stack([1 - beta, beta])
        u, ends, slopes = state
        rest = list(range(2, u.ndim))
        shorter = 0.2 + 0.8 * torch.rand_like(ends[0])  # no orbit of all chains ends where it began
        step = (step * shorter).reshape(*shorter.shape, *[1] * len(rest))

        def slope() -> Tensor:
            return torch.tensordot(mix, slopes, 1)

        start = momentum = torch.randn_like(u)
        for _ in range(self.plan.leapfrog):
            momentum = momentum + 0.5 * step * slope()
            u, ends, slopes = self._at(u + step * momentum)
            momentum = momentum + 0.5 * step * slope()
        energy = torch.tensordot(mix, ends - state[1], 1)
        energy = energy + 0.5 * (start.square() - momentum.square()).sum(rest)
        accepted = energy.nan_to_num(nan=-math.inf, posinf=-math.inf).exp().clamp(max=1.0)
        take = torch.rand_like(accepted) < accepted
        wide = take.reshape(*take.shape, *[1] * len(rest))
        moved = (
            torch.where(wide, u, state[0]),
            torch.where(take, ends, state[1]),
            torch.where(wide, slopes, state[2]),
        )
        return moved, accepted

    def _at(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The state at u: both log densities and their gradients."""
        u = u.detach().requires_grad_()
        with torch.enable_grad():
            z: Any = self.transform(u)
            volume = self.transform.log_abs_det_jacobian(u, z)
            volume = volume.reshape(*volume.shape[:2], -1).sum(-1)
            prior = self.joint.log_prior(z)
            start = self.joint.log_guide(z) if self.from_guide else prior
            ends = [start + volume, self.joint.log_likelihood(z) + prior + volume]
            slopes = [torch.autograd.grad(end.sum(), u, retain_graph=True)[0] for end in ends]
        return u.detach(), torch.stack(ends).detach(), torch.stack(slopes)
