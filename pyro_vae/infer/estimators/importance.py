"""Bounds of importance weights, with gradients that hold up for many particles: VIMCO and DReG."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pyro.distributions.util import is_identically_zero
from pyro.infer.util import get_dependent_plate_dims
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..sites import latent
from .bounds import Bound, renyi
from .multisample import MultiSampleELBO, samples

__all__ = ["VIMCO", "DReG", "ImportanceWeighted", "Weighted", "Weights"]


class ImportanceWeighted(MultiSampleELBO):
    r"""What bounds share that are functions of the K log weights of each datum.

    .. math:: L_K = E\left[\hat L(\log w_1, \dots, \log w_K)\right],
        \quad w_k = \frac{p(x, z_k)}{q(z_k)}

    Where a subclass says no other, :math:`\hat L = \log \frac{1}{K} \sum_k w_k`. A plate that
    holds all sites, such as the one over data, stays outside :math:`\hat L`, and so does a scale
    that all sites share (minibatches).

    References:
        Burda, Grosse & Salakhutdinov (2016), arXiv:1509.00519.
    """

    @property
    def bound(self) -> Bound:
        """The function of the log weights that is the value."""
        return renyi(0.0, self.num_particles)

    def _log_weights(
        self, model_trace: Trace, guide_trace: Trace
    ) -> tuple[Tensor, Tensor, Tensor | float, list[int]]:
        """log p and log q, ``(K, *plates)`` with ones for plates inside; scale; plates inside."""
        inside = get_dependent_plate_dims(model_trace.nodes.values())
        scale = self._scale([*samples(model_trace), *samples(guide_trace)])

        def summed(trace: Trace) -> Tensor:
            terms: Any = sum(sum_inside(site["log_prob"], inside) for site in samples(trace))
            return terms / scale

        return summed(model_trace), summed(guide_trace), scale, inside

    def _scale(self, sites: list[Any]) -> Tensor | float:
        first = sites[0]["scale"]
        if any(torch.as_tensor(site["scale"] != first).any() for site in sites[1:]):
            raise ValueError(
                f"{type(self).__name__} takes the logarithm of a sum over particles, where sites "
                "of different scale (a KL weight; minibatches beside a global latent site) give "
                "no bound: use Trace_ELBO or RLOO, or one scale for all sites"
            )
        return first

    def _lead(self, log_w: Tensor) -> Tensor:
        """Log weights without gradient; one particle gets the dimension that Pyro spares it."""
        return log_w.detach() if self.num_particles > 1 else log_w.detach()[None]


class VIMCO(ImportanceWeighted):
    r"""The importance-weighted bound by the score function, with a control variate per particle.

    .. math:: \nabla_\phi L_K \approx \sum_{k=1}^K
        \left(\hat L - \hat L_{-k}\right) \nabla_\phi \log q_\phi(z_k)
        + \sum_{k=1}^K \tilde w_k \nabla_\phi \log w_k

    where :math:`\hat L_{-k}` is the bound's estimate with :math:`w_k` replaced by the geometric
    mean of the others, and :math:`\tilde w` are the normalized weights. Reparameterized sites keep
    their pathwise gradient; wrap the guide in :class:`ScoreFunction` to switch them. Unbiased for
    the bound, for any guide; one evaluation a particle.

    Args:
        num_particles: K, at least 2.
        max_plate_nesting: as in every Pyro ``ELBO``.
        vectorize_particles: must stay true.

    Raises:
        ValueError: fewer than 2 particles; in a step, sites of different scale.

    References:
        Mnih & Rezende (2016), arXiv:1602.06725.

    >>> VIMCO(num_particles=10).num_particles
    10
    """

    least = 2

    def _estimate(self, model_trace: Trace, guide_trace: Trace) -> tuple[Tensor, Tensor]:
        log_p, log_q, scale, inside = self._log_weights(model_trace, guide_trace)
        log_w, k = log_p - log_q, self.num_particles
        lead = self._lead(log_w)
        bound, (weights, _) = self.bound(lead), self.bound.slopes(lead)
        others = (lead.sum(0) - lead) / (k - 1)  # logarithm of the geometric mean
        signal = bound - self.bound(replace_each(lead, others))
        surrogate = (scale * weights * log_w).sum()
        for site in samples(guide_trace):
            score = site["score_parts"].score_function
            if not is_identically_zero(score):
                surrogate = surrogate + (scale * signal * sum_inside(score, inside)).sum()
        return (scale * bound).sum(), surrogate


class Weights(NamedTuple):
    r"""What weights each particle's gradients, ``(K, ...)`` each.

    .. math:: \nabla_\theta \approx \sum_k a_k \nabla_\theta \log p_\theta(x, z_k), \qquad
        \nabla_\phi \approx \sum_k c_k \frac{\partial \log w_k}{\partial z_k}
        \frac{\partial z_k}{\partial \phi} \;\text{ or }\; \sum_k s_k \nabla_\phi \log q_\phi(z_k)

    Attributes:
        model: a.
        path: c, where all sites of the guide are reparameterized.
        score: s, where none is; ``None`` refuses such guides.
    """

    model: Tensor
    path: Tensor
    score: Tensor | None


class Weighted(ImportanceWeighted):
    """A bound whose gradient is weighted particle by particle; a subclass says how."""

    instead = "VIMCO"  # for guides that this one cannot serve
    copies = True  # whether it asks for log q at other tensors than the draws themselves

    @abstractmethod
    def _weights(self, log_w: Tensor) -> Weights:
        """From the log weights, ``(K, ...)``."""

    def _get_trace(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Trace, Trace]:
        return super()._get_trace(model, TwoPaths()(guide), args, kwargs)

    def _estimate(self, model_trace: Trace, guide_trace: Trace) -> tuple[Tensor, Tensor]:
        log_p, log_q, scale, _ = self._log_weights(model_trace, guide_trace)
        lead = self._lead(log_p - log_q)
        a, c, s = self._weights(lead)
        sites = [site for site in samples(guide_trace) if latent(site)]
        rigid = [site for site in sites if "draw" not in site["infer"]]
        if rigid and (s is None or len(rigid) < len(sites)):
            raise ValueError(
                f"{type(self).__name__} needs a reparameterized sampler, which site "
                f"{rigid[0]['name']!r} has not: use {self.instead}"
            )
        if s is not None and rigid:
            weighted = a.reshape(log_p.shape) * log_p + s.reshape(log_p.shape) * log_q
            surrogate = (scale * weighted).sum()
        else:
            a, c = (scale * weight.reshape(log_p.shape) for weight in (a, c))
            surrogate = self._along(log_p, log_q, a, c, model_trace, sites)
        return (scale * self.bound(lead)).sum(), surrogate

    def _along(
        self, log_p: Tensor, log_q: Tensor, a: Tensor, c: Tensor, model: Trace, sites: list[Any]
    ) -> Tensor:
        """The surrogate for reparameterized sites."""
        surrogate = (a * log_p).sum()
        sites = [site for site in sites if site["value"].requires_grad]
        if log_q.requires_grad and sites:
            path = (c * log_q).sum()
            surrogate = surrogate - along_path(path, [site["infer"]["draw"] for site in sites])
        again = torch.where(a == 0, 0.0, c / a)
        for site in sites:  # what log p sends back to the guide is weighted by c, not by a
            times = widen(again, site)
            site["value"].register_hook(lambda gradient, times=times: gradient * times)
        return surrogate


class DReG(Weighted):
    r"""The importance-weighted bound with a doubly reparameterized gradient of the guide.

    .. math:: \nabla_\phi L_K \approx \sum_{k=1}^K \tilde w_k^2
        \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi},
        \quad \nabla_\theta L_K \approx \sum_{k=1}^K \tilde w_k \nabla_\theta \log p_\theta(x, z_k)

    with normalized weights :math:`\tilde w`. The guide's signal-to-noise ratio grows with K, where
    that of the standard gradient falls. With one particle it is sticking the landing. Right for
    guides of several sites too: :math:`z_k` is all of them, with the paths from one to the next.
    Unbiased for the bound, for reparameterized guides; one evaluation a particle.

    Args:
        num_particles: K.
        max_plate_nesting: as in every Pyro ``ELBO``.
        vectorize_particles: must stay true.

    Raises:
        ValueError: in a step, a site without ``rsample``, or sites of different scale.

    References:
        Tucker et al. (2019), arXiv:1810.04152; Bauer & Mnih (2021), arXiv:2101.11046, for several
        sites; Rainforth et al. (2018), arXiv:1802.04537, for the signal-to-noise ratio.

    >>> DReG(num_particles=50).num_particles
    50
    """

    def _weights(self, log_w: Tensor) -> Weights:
        return Weights(*self.bound.slopes(log_w), None)


class TwoPaths(Messenger):
    """Give a draw to the guide's later sites, and a copy of it to the densities and the model.

    Only the copy's gradient is to be weighted: what comes back from a later site is already. Sites
    without ``rsample`` are left as they are.
    """

    def _pyro_sample(self, msg: dict) -> None:
        if latent(msg) and msg["value"] is None and msg["fn"].has_rsample:
            draw = msg["fn"].rsample()
            msg["infer"] = {**msg["infer"], "draw": draw}
            msg["value"] = draw.clone()

    def _pyro_post_sample(self, msg: dict) -> None:
        msg["value"] = msg["infer"].get("draw", msg["value"])  # the trace has the copy by now


def along_path(value: Tensor, draws: list[Tensor]) -> Tensor:
    """A surrogate for the gradient of ``value`` through the draws, its other parameters fixed.

    Args:
        value: a number that depends on the draws, and on parameters in other ways too.
        draws: in their order; later ones may depend on earlier ones.
    """
    slopes = partial_slopes(value, draws)
    surrogate: Any = sum((slope * z).sum() for slope, z in zip(slopes, draws, strict=True))
    return surrogate


def partial_slopes(value: Tensor, draws: list[Tensor]) -> list[Tensor]:
    """The derivatives of ``value`` in each draw, the other draws fixed; see :func:`along_path`."""
    if not value.requires_grad:  # of a Delta
        return [torch.zeros_like(draw) for draw in draws]
    slopes = list(torch.autograd.grad(value, draws, retain_graph=True, materialize_grads=True))
    for i in reversed(range(len(draws) - 1)):  # z1's slope counts its way through z2: take it off
        (chained,) = torch.autograd.grad(
            draws[i + 1 :], draws[i], slopes[i + 1 :], retain_graph=True, materialize_grads=True
        )
        slopes[i] = slopes[i] - chained
    return slopes


def replace_each(log_w: Tensor, others: Tensor) -> Tensor:
    """Sets of log weights ``(K, K, ...)``: the k-th, ``[:, k]``, has ``others[k]`` for its own."""
    k = len(log_w)
    eye = torch.eye(k, dtype=torch.bool, device=log_w.device)
    return torch.where(eye.reshape(k, k, *[1] * (log_w.ndim - 1)), others, log_w[:, None])


def widen(weights: Tensor, site: Any) -> Tensor:  # noqa: ANN401
    """Weights of particles, broadcast against the values of a site."""
    return weights.reshape(weights.shape + (1,) * site["fn"].event_dim)


def sum_inside(value: Tensor, dims: list[int]) -> Tensor:
    """Sum out the plates that not all sites share; their dimensions stay, with size 1."""
    dims = [d for d in dims if d >= -value.ndim]
    return value.sum(dims, keepdim=True) if dims else value
