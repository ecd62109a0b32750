"""The exact posterior of z by Markov chains on the model, beside the approximate posterior."""

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from pyro.infer import MCMC, NUTS
from pyro.infer.mcmc import RandomWalkKernel
from torch import Tensor

from ...core.acting import differentiates
from ...core.checks import whole
from ...model.entry import of_face
from ...model.face import Face
from ...model.joint import reading
from ..inference_data import container, latent_coords

if TYPE_CHECKING:
    from arviz import InferenceData

__all__ = ["posterior", "sliced_wasserstein"]

KERNELS = {"nuts": NUTS, "metropolis": RandomWalkKernel}


@of_face
@differentiates
def posterior(
    vae: Face,
    x: Tensor | ArrayLike,
    *,
    method: Literal["nuts", "metropolis"] = "nuts",
    num_samples: int = 500,
    warmup: int = 300,
    chains: int = 2,
    seed: int = 0,
) -> "InferenceData":
    r"""p(z|x) of each observation by NUTS or random-walk Metropolis, beside the guide.

    The chains do not use the guide, so they tell how good q(z|x) is for each observation, as far as
    they have converged: see ``arviz.summary`` for :math:`\hat R` and the effective sample size.
    They run one observation at a time, seconds each; a random walk needs many more draws.

    Args:
        vae: a trained model, z continuous; or a :class:`Program`, whose sites are side by side in
            ``z``. Where its rows are not cut, one chain has all observations.
        x: ``(N, *x_shape)``, a few observations.
        method: ``"nuts"`` or ``"metropolis"``, both Pyro's.
        num_samples: draws per chain.
        warmup: steps before them, which adapt the kernel.
        chains: per observation.
        seed: of the chains and of the guide's draws.

    Returns:
        ``InferenceData`` (a ``DataTree`` under ArviZ 1.x): ``posterior`` and ``guide`` hold ``z``
        (chain, draw, observation, latent_dim). ``agreement`` holds ``mean_shift`` (guide minus
        posterior, in posterior standard deviations) and ``sd_ratio`` (observation, latent_dim), and
        by observation ``sliced_wasserstein`` of guide and posterior, and
        ``sliced_wasserstein_floor`` of two halves of the chains.

    Raises:
        ValueError: data that the model refuses, a discrete z, an unknown method, too few draws,
            or NUTS of ``Dequantized``, whose probabilities are estimates.

    References:
        Hoffman & Gelman (2014), arXiv:1111.4246; Bonneel et al. (2015), Journal of Mathematical
        Imaging and Vision 51, for the sliced distance.

    >>> from pyro_vae import VAE
    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> x = torch.zeros(1, 2)
    >>> draws = posterior(vae, x, method="metropolis", num_samples=20, warmup=10)
    >>> draws.posterior["z"].shape
    (2, 20, 1, 1)
    """
    if method not in KERNELS:
        raise ValueError(f"method is 'nuts' or 'metropolis', got {method!r}")
    num_samples, warmup = whole("num_samples", num_samples, 4), whole("warmup", warmup)
    chains = whole("chains", chains)
    x = vae.check(x)
    with reading(vae, seed):
        vae.check_separate("posterior")
        vae.posterior_model(x[:1])
        if method == "nuts" and (why := vae.why_not_bounded):
            raise ValueError(f"NUTS follows one density of z, and {why}: use method='metropolis'")
        with torch.no_grad():
            joint = vae.densities()(x)
            q = joint.join(joint.draw(chains * num_samples)).unflatten(0, (chains, num_samples))
        runs = [
            torch.stack([_chain(vae, some, method, num_samples, warmup) for _ in range(chains)])
            for some in x.split(1)
        ]
    p = torch.cat(runs, 2)
    latent = vae.latent_axes
    dims = ("chain", "draw", "observation", *latent)
    groups = {
        "posterior": {"z": (dims, p.cpu().numpy())},
        "guide": {"z": (dims, q.cpu().numpy())},
        "agreement": _agreement(p.flatten(0, 1), q.flatten(0, 1), latent, seed),
    }
    return container(groups, {**latent_coords(vae), "observation": np.arange(p.shape[2])})


def sliced_wasserstein(a: Tensor, b: Tensor, *, num_projections: int = 200, seed: int = 0) -> float:
    r"""Wasserstein distance of two samples, root mean square over random directions.

    .. math:: \left(E_{\|u\|=1} \int_0^1 (F^{-1}_{u \cdot a}(t) - F^{-1}_{u \cdot b}(t))^2 \, dt
        \right)^{1/2}

    The samples are ``(S, D)`` each; ``seed`` is that of the directions.

    >>> z = torch.randn(100, 3)
    >>> sliced_wasserstein(z, z)
    0.0
    """
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(a.shape[1], num_projections, generator=generator, dtype=torch.float64)
    u = (u / u.norm(dim=0)).to(a)
    gaps = (a @ u).sort(0).values - (b @ u).sort(0).values
    return gaps.square().mean().sqrt().item()


def _chain(vae: Face, x: Tensor, method: str, num_samples: int, warmup: int) -> Tensor:
    """One chain for one row of x, ``(S, B, *z_shape)``."""
    kernel = KERNELS[method](vae.posterior_model(x))
    run = MCMC(kernel, num_samples=num_samples, warmup_steps=warmup, disable_progbar=True)
    run.run(x)
    return vae.join(run.get_samples()).detach()


def _agreement(p: Tensor, q: Tensor, latent: tuple[str, ...], seed: int) -> dict:
    """Agreement of draws p and q, ``(S, B, *z_shape)``, by observation and latent dimension."""
    shift = (q.mean(0) - p.mean(0)) / p.std(0)
    ratio = q.std(0) / p.std(0)
    half = len(p) // 2
    p, q = p.flatten(2), q.flatten(2)
    halves = (p[:half], p[half : 2 * half])
    distance, floor = [], []
    for i in range(p.shape[1]):
        first, second = (h[:, i] for h in halves)
        apart = [sliced_wasserstein(q[:half, i], h, seed=seed) for h in (first, second)]
        distance.append(sum(apart) / 2)
        floor.append(sliced_wasserstein(first, second, seed=seed))
    return {
        "mean_shift": (("observation", *latent), shift.cpu().numpy()),
        "sd_ratio": (("observation", *latent), ratio.cpu().numpy()),
        "sliced_wasserstein": (("observation",), np.array(distance)),
        "sliced_wasserstein_floor": (("observation",), np.array(floor)),
    }
