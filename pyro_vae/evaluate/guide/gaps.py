"""Decompose log p(x) - ELBO into approximation and amortization gaps."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.distributions.transforms import Transform

from ...core.acting import differentiates
from ...core.checks import whole
from ...model.entry import of_face
from ...model.joint import Joint, reading
from ...model.vae import VAE
from ...program.line import RealLine
from ...program.program import Program
from ..evidence.importance import Evidence
from ..evidence.paths import joint_of
from ..statistics import by_observation, standard_error

__all__ = ["gaps"]

BLOCK = 100  # observations that are fitted together
PARTICLES, RATE = 16, 0.02  # draws of z in a step of the ascent, and its learning rate
Sampler = Callable[[int], tuple[Tensor, Tensor]]  # S to z (S, B, *z_shape) and log q(z) (S, B)


@of_face
@differentiates
@torch.no_grad()
def gaps(
    vae: VAE | Program,
    x: Tensor | ArrayLike,
    *,
    steps: int = 300,
    num_samples: int = 1000,
    seed: int | None = None,
) -> pd.DataFrame:
    r"""Approximation and amortization gap of each observation, by guides of its own.

    .. math:: \log p(x) - L[q] = \underbrace{\log p(x) - L[q^*]}_{\text{approximation}} +
        \underbrace{L[q^*] - L[q]}_{\text{amortization}}, \quad
        \log p(x) - L[q] = KL(q(z|x) \| p(z|x))

    where :math:`q^*` is the best guide of the family for this observation, found by ascent from
    the encoder's. A large amortization gap asks for a better encoder, a large approximation gap
    for a richer family: what a full covariance would gain is found likewise. log p(x) is by
    importance sampling from the richest of these guides.

    Args:
        vae: a trained model; a reparameterized guide and a continuous z. Or a :class:`Program`,
            whose guide has no family that could be fitted for each observation: of it there are
            ``gap``, ``log_evidence`` minus ``elbo``, and what a full covariance would gain.
        x: ``(N, *x_shape)``.
        steps: of Adam, for each guide.
        num_samples: fresh draws of z, per observation and guide, behind the figures.
        seed: of the draws.

    Returns:
        A row for each observation, nats. ``log_evidence`` with ``log_evidence_error`` and ``khat``;
        ``elbo`` of the encoder's guide, ``elbo_local`` of the best of its family, ``elbo_full`` of
        the best with a full covariance, with ``..._error``; ``approximation``, ``amortization``.
        The ascent may stop short, so a gap may come out a little below 0.

    Raises:
        ValueError: data that the model refuses, a discrete z, or a guide without ``rsample``.

    References:
        Cremer, Li & Duvenaud (2018), arXiv:1801.03558.

    >>> vae = VAE(2, latent_dim=2, likelihood="Normal", seed=0)
    >>> table = gaps(vae, torch.randn(3, 2), steps=5, num_samples=50, seed=0)
    >>> table[["approximation", "amortization"]].shape
    (3, 2)
    """
    steps, num_samples = whole("steps", steps), whole("num_samples", num_samples, 2)
    x = vae.check(x)
    vae.check_separate("gaps")
    vae.check_guide("gaps")
    with reading(vae, seed):
        rows = [x] if isinstance(vae, Program) else x.split(BLOCK)
        parts = [_gaps(vae, some, steps, num_samples) for some in rows]
    return by_observation({k: torch.cat([part[k] for part in parts]) for k in parts[0]})


def _gaps(vae: VAE | Program, x: Tensor, steps: int, num_samples: int) -> dict[str, Tensor]:
    joint = joint_of(vae, x)
    transform = joint.to_support("a guide for each observation")
    log_w: dict[str, Tensor] = {}
    guides: dict[str, Sampler] = {}
    if isinstance(vae, Program):
        log_w["elbo"] = vae.densities()(x).draw(num_samples).log_weight.double()
        start = joint.draw(1000)
    else:
        local = vae.refine(x, steps=steps, num_particles=PARTICLES)
        guides = {"elbo": _sampler(joint.guide), "elbo_local": _sampler(local)}
        start = local.sample(torch.Size([1000]))
    guides["elbo_full"] = _ascend(FullCovariance(transform, start), joint, steps)
    for name, guide in guides.items():
        z, log_q = guide(num_samples)
        log_w[name] = (joint.log_joint(z) - log_q).double()
    found = _bounds(log_w)
    if isinstance(vae, Program):
        return {**found, "gap": found["log_evidence"] - found["elbo"]}
    return {
        **found,
        "approximation": found["log_evidence"] - found["elbo_local"],
        "amortization": found["elbo_local"] - found["elbo"],
    }


def _bounds(log_w: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """log p(x) by the last guide, the richest, and the bound of each with its error."""
    bounds: dict[str, Tensor] = {}
    for name, values in log_w.items():
        bounds[name] = values.mean(0)
        bounds[f"{name}_error"] = standard_error(values)
    evidence = Evidence.from_weights(list(log_w.values())[-1])
    return {
        "log_evidence": evidence.log_evidence,
        "log_evidence_error": evidence.standard_error,
        "khat": evidence.khat,
        **bounds,
    }


class FullCovariance(nn.Module):
    """A normal with a full covariance for each observation, on the real line that maps to z.

    It starts from the moments of draws z, ``(S, B, *z_shape)``.
    """

    def __init__(self, transform: Transform, z: Tensor) -> None:
        super().__init__()
        self.transform = transform
        u: Any = transform.inv(z)
        self.shape = u.shape[1:]
        u = u.flatten(2)
        self.loc = nn.Parameter(u.mean(0))
        self.raw = nn.Parameter(torch.diag_embed(u.std(0).log()))

    def forward(self, num_samples: int) -> tuple[Tensor, Tensor]:
        """Draws of z, and their log density."""
        diagonal = self.raw.diagonal(dim1=-2, dim2=-1).exp()
        scale = self.raw.tril(-1) + torch.diag_embed(diagonal)
        normal = MultivariateNormal(self.loc, scale_tril=scale)
        v = normal.rsample(torch.Size([num_samples]))
        u, log_q = v.reshape(-1, *self.shape), normal.log_prob(v)
        z: Any = self.transform(u)
        volume = self.transform.log_abs_det_jacobian(u, z)
        return z, log_q - volume.reshape(*log_q.shape, -1).sum(-1)


def _ascend(guide: nn.Module, joint: Joint | RealLine, steps: int) -> Sampler:
    """Fit a guide to the posterior of each observation by its ELBO."""
    parameters = list(guide.parameters())
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with torch.enable_grad():
        for _ in range(steps):
            z, log_q = guide(PARTICLES)
            loss = -(joint.log_joint(z) - log_q).mean(0).sum()
            for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                p.grad = g
            optimizer.step()
            schedule.step()
    return guide


def _sampler(q: Any) -> Sampler:  # noqa: ANN401
    def sample(num_samples: int) -> tuple[Tensor, Tensor]:
        z = q.sample(torch.Size([num_samples]))
        return z, q.log_prob(z)

    return sample
