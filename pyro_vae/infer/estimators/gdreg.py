"""Doubly reparameterized gradients for the parameters of the prior too: GDReG."""

from dataclasses import replace

import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor

from ..sites import latent, replayed, samples, unwrapped
from .multisample import Run
from .rules import Trial, UnsoundError, paths_exist
from .weights import LogWeights, WeightedELBO, of_paths, partial_slopes, weights_serve, widen

__all__ = ["GDReG"]


def draws_can_be_inverted(trial: Trial) -> None:
    """The prior's draws can be inverted; whether it is learned is seen by its gradient."""
    with torch.enable_grad(), poutine.block():
        model_trace = replayed(trial.model, trial.guide_trace, *trial.args)
        for site in filter(latent, samples(model_trace)):
            try:
                redraw(site["fn"], site["value"], site["name"])
            except ValueError as problem:
                raise UnsoundError(str(problem)) from None


class GDReG(WeightedELBO):
    r"""The importance-weighted bound, doubly reparameterized in guide and prior alike.

    A draw of the guide is also one of the prior, :math:`z = T_p(\epsilon; \theta)`, of the noise
    :math:`\epsilon = T_p^{-1}(z; \theta)`. The guide's gradient is that of :class:`DReG`, and

    .. math:: \nabla_\theta L_K \approx \sum_{k=1}^K \left(
        \tilde w_k \frac{\partial}{\partial z_k} \log \frac{p(x, z_k)}{p_\theta(z_k)}
        - \tilde w_k^2 \frac{\partial}{\partial z_k} \log w_k \right)
        \left. \frac{\partial T_p(\epsilon; \theta)}{\partial \theta}
        \right|_{\epsilon = T_p^{-1}(z_k; \theta)}

    for the parameters of every latent site of the model, with its parents fixed where there is a
    hierarchy. Unbiased for the bound, for reparameterized guides and learned priors of location and
    scale (MultivariateNormal too), or transformed ones with inverses. It pays where the likelihood
    tells less of z than the prior's score varies: measure it. One evaluation a particle, and one
    more backward pass to z.

    Args:
        num_particles: K.

    Raises:
        ValueError: in a step, a site without ``rsample``, sites of different scale, or a learned
            prior whose draws cannot be inverted.

    References:
        Bauer & Mnih (2021), arXiv:2101.11046.
    """

    profile = replace(
        of_paths(""),
        guides="reparameterized, with a prior of location and scale, or transformed",
        note="importance-weighted bound, unbiased for it; doubly reparameterized in the prior's "
        "parameters too; one evaluation a particle and a further backward pass",
        needs=(weights_serve, paths_exist, draws_can_be_inverted),
    )

    def _along(self, run: Run, logs: LogWeights, a: Tensor, c: Tensor) -> Tensor:
        surrogate = (a * logs.log_p.reshape(a.shape)).sum()
        priors = {site["name"]: site for site in samples(run.model) if latent(site)}
        sites = [s for s in samples(run.guide) if latent(s) and s["value"].requires_grad]
        moved = {site["name"] for site in sites}
        again = {
            name: redraw(site["fn"], site["value"], name)
            for name, site in priors.items()
            if name in moved
        }
        again = {name: z for name, z in again.items() if z.requires_grad}
        values, draws = [s["value"] for s in sites], [run.kept[s["name"]] for s in sites]
        if not (torch.is_grad_enabled() and sites):
            return surrogate
        of_p = torch.autograd.grad(
            logs.log_p.sum(), values, retain_graph=True, materialize_grads=True
        )
        of_q = partial_slopes(logs.log_q.sum(), draws)
        for site, draw, p, q in zip(sites, draws, of_p, of_q, strict=True):
            name, along = site["name"], widen(c, site) * (p - q)
            surrogate = surrogate + (along * draw).sum()
            if name in again:
                own = priors[name]["log_prob"] / priors[name]["scale"]
                (slope,) = torch.autograd.grad(own.sum(), site["value"], retain_graph=True)
                prior_path = (widen(a, site) * (p - slope) - along).detach() * again[name]
                surrogate = surrogate - (a * own).sum() + prior_path.sum()
        for value in values:  # their part is in the slopes
            value.register_hook(torch.zeros_like)
        return surrogate


def redraw(fn: dist.TorchDistribution, z: Tensor, name: str) -> Tensor:
    """The value of z again, as a draw of ``fn`` whose noise is held fixed.

    Returns:
        A tensor that equals z; it has a gradient where ``fn`` has learned parameters.

    Raises:
        ValueError: a learned distribution whose draws are not to be inverted.
    """
    fn, z = unwrapped(fn), z.detach()
    if not fn.log_prob(z).requires_grad:
        return z
    if isinstance(fn, torch.distributions.TransformedDistribution):
        with torch.no_grad():
            for transform in reversed(fn.transforms):
                z = transform.inv(z)
        # a copy: no cache of a transform knows it
        z = redraw(fn.base_dist, z.clone(), name)  # pyrefly: ignore[bad-argument-type]
        for transform in fn.transforms:
            z = transform(z)
        return z
    if isinstance(fn, torch.distributions.MultivariateNormal):
        scale = fn.scale_tril
        with torch.no_grad():
            noise = torch.linalg.solve_triangular(scale, (z - fn.loc)[..., None], upper=False)
        return fn.loc + (scale @ noise)[..., 0]
    others = {k for k in fn.arg_constraints if k not in ("loc", "scale")}
    known = {"loc", "scale"} <= set(fn.arg_constraints)
    if not known or any(getattr(fn, k).requires_grad for k in others):
        raise ValueError(
            f"it inverts draws of location and scale, which {type(fn).__name__} at site {name!r} "
            "of the model has not: use DReG"
        )
    return fn.loc + fn.scale * ((z - fn.loc) / fn.scale).detach()
