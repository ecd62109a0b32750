"""Doubly reparameterized gradients for the parameters of the prior too: GDReG."""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..sites import latent, unwrapped
from .importance import DReG, partial_slopes, widen
from .multisample import samples

__all__ = ["GDReG"]


class GDReG(DReG):
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
        max_plate_nesting: as in every Pyro ``ELBO``.
        vectorize_particles: must stay true.

    Raises:
        ValueError: in a step, a site without ``rsample``, sites of different scale, or what
            :meth:`check` refuses.

    References:
        Bauer & Mnih (2021), arXiv:2101.11046.

    >>> GDReG(num_particles=50).num_particles
    50
    """

    def check(self, model: Trace) -> None:
        """Whether each latent site of a traced model is one of those that it serves.

        Raises:
            ValueError: a learned prior whose draws cannot be inverted.
        """
        for site in samples(model):
            if latent(site):
                redraw(site["fn"], site["value"], site["name"])

    def _along(
        self, log_p: Tensor, log_q: Tensor, a: Tensor, c: Tensor, model: Trace, sites: list[Any]
    ) -> Tensor:
        surrogate = (a * log_p).sum()
        priors: dict[str, Any] = {s["name"]: s for s in samples(model) if latent(s)}
        again = {name: redraw(site["fn"], site["value"], name) for name, site in priors.items()}
        again = {name: z for name, z in again.items() if z.requires_grad}
        values = [site["value"] for site in sites]
        if not (torch.is_grad_enabled() and (again or any(z.requires_grad for z in values))):
            return surrogate
        draws = [site["infer"]["draw"] for site in sites]
        of_p = torch.autograd.grad(log_p.sum(), values, retain_graph=True, materialize_grads=True)
        of_q = partial_slopes(log_q.sum(), draws)
        for site, value, draw, p, q in zip(sites, values, draws, of_p, of_q, strict=True):
            name, along = site["name"], widen(c, site) * (p - q)
            surrogate = surrogate + (along * draw).sum()
            if name in again:
                own = priors[name]["log_prob"] / priors[name]["scale"]
                (slope,) = torch.autograd.grad(own.sum(), value, retain_graph=True)
                prior_path = (widen(a, site) * (p - slope) - along).detach() * again[name]
                surrogate = surrogate - (a * own).sum() + prior_path.sum()
        for value in values:  # their part is in the slopes
            if value.requires_grad:
                value.register_hook(torch.zeros_like)
        return surrogate


def redraw(fn: dist.TorchDistribution, z: Tensor, name: str) -> Tensor:
    """The value of z again, as a draw of ``fn`` whose noise is held fixed.

    Args:
        fn: the prior of a site.
        z: a value in its support.
        name: of the site, for the message.

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
        z = redraw(fn.base_dist, z.clone(), name)  # a copy: no cache of a transform knows it
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
    return fn.loc + fn.scale * ((z - fn.loc) / fn.scale).detach()  # pyright: ignore
