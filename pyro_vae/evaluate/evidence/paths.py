"""Paths of annealing, between a start and log p(x, z), and the Hamiltonian steps along them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.checks import whole
from ...infer.engine.capture import CaptureError, capture_function
from ...model.face import Face
from ...model.joint import Joint
from ...program.line import RealLine
from ...program.program import Program

__all__ = ["Path", "Plan", "joint_of"]

State = tuple[Tensor, Tensor, Tensor]  # u, both ends' log densities, and their gradients

CELLS = 2**22  # numbers of the likelihood's parameters at once
ACCEPTANCE = 0.65  # what leapfrog steps of the best length have
PILOT = 200  # moves at least, of the chains that find the lengths of the steps
GAIN = 0.2  # of the step's logarithm, per unit of acceptance above that
WORTH = 200  # evaluations at one shape, from which on a graph of them pays for its making
SMALL = 2**18  # cells of all chains, above which Python takes no share of note


def joint_of(vae: Face, x: Tensor) -> Joint | RealLine:
    """The densities at some rows, along which z can be moved.

    Raises:
        ValueError: a program of which a latent site is discrete, or draws are made one by one.
    """
    return RealLine(vae, x) if isinstance(vae, Program) else Joint(vae, x)  # pyrefly: ignore[bad-argument-type]


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

    def room(self, cells: int) -> int:
        """How many observations have room for their chains, at so many numbers each."""
        return max(1, CELLS // (self.chains * cells))

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

    def __init__(self, joint: Joint | RealLine, plan: Plan) -> None:
        self.joint = joint
        self.transform = joint.to_support("annealing")
        self.plan, self.batch = plan, joint.count
        self.from_guide = plan.start == "guide"
        self.betas = plan.betas(joint.example)
        self.tuning_chains = max(4, plan.chains // 4)
        self.graphs: dict[torch.Size, Callable[[Tensor], State]] = {}
        self.steps = self._tune(self.tuning_chains)

    @property
    def gradients(self) -> int:
        """Gradients of log p(x, z) for each observation, of the chains and of their tuning."""
        tuning, walking = self._moves
        return self.plan.leapfrog * (self.tuning_chains * tuning + self.plan.chains * walking)

    @property
    def _moves(self) -> tuple[int, int]:
        """Of each chain that tunes, and of each of the others."""
        n = self.plan.temperatures
        return n * self._repeats, n - 1

    @property
    def _repeats(self) -> int:
        """Moves of the tuning chains at each temperature."""
        return max(1, PILOT // len(self.betas))

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
        return self.unconstrain(self.joint.from_prior(chains))

    def unconstrain(self, z: Tensor) -> Tensor:
        """From the support of z to the real line."""
        return self.transform.inv(z)

    def _tune(self, chains: int) -> Tensor:
        step = torch.full((self.batch,), 0.1).to(self.betas)
        state = self._at(self.draw(chains))
        steps = [step]
        for beta in self.betas[1:]:
            for _ in range(self._repeats):
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

    def _move(self, state: State, beta: Tensor, step: Tensor) -> tuple[State, Tensor]:
        """One Hamiltonian step at one temperature, and its acceptance probability ``(C, B)``."""
        mix = torch.stack([1 - beta, beta])
        u, ends, slopes = state
        rest = list(range(2, u.ndim))
        shorter = 0.2 + 0.8 * torch.rand_like(ends[0])  # no orbit of all chains ends where it began
        step = (step * shorter).reshape(*shorter.shape, *[1] * len(rest))

        def slope() -> Tensor:
            return torch.tensordot(mix, slopes, 1)

        start = momentum = torch.randn_like(u)
        push = 0.5 * step * slope()
        for _ in range(self.plan.leapfrog):
            momentum = momentum + push
            u, ends, slopes = self._at(u + step * momentum)
            push = 0.5 * step * slope()
            momentum = momentum + push
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

    def _at(self, u: Tensor) -> State:
        """The state at u, by a graph where there are many to come and Python would take a share."""
        if u.shape not in self.graphs:
            self.graphs[u.shape] = self._graph(u)
        return self.graphs[u.shape](u)

    def _graph(self, u: Tensor) -> Callable[[Tensor], State]:
        """What gives the state at a u of this shape: a graph has the same bits in less time."""
        if not isinstance(self.joint, Joint):
            return self._evaluate
        chains = self.tuning_chains, self.plan.chains
        moves = sum(n for n, c in zip(self._moves, chains, strict=True) if c == u.shape[0])
        if self.plan.leapfrog * moves < WORTH or u.shape[0] * self.joint.x.numel() > SMALL:
            return self._evaluate
        try:
            with torch.random.fork_rng():
                module, live = capture_function(lambda u: self._evaluate(u), u)
        except CaptureError:  # the decoder looks at values
            return self._evaluate
        return torch.no_grad()(lambda u: module(u, *live))

    def _evaluate(self, u: Tensor) -> State:
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
