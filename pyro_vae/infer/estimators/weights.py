"""Bounds that are functions of log weights, with gradients weighted particle by particle."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from pyro.infer.util import get_dependent_plate_dims, is_validation_enabled
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ...core.slight import not_slight
from ..sites import is_learned_point, latent, samples
from .bounds import Bound, renyi
from .multisample import MultiSampleELBO, Run, add
from .profile import WEIGHTS_ARE_IN_IT, Profile
from .rules import (
    Trial,
    copies_have_a_density,
    no_factor_has_a_slope_of_its_own,
    no_point_is_weighted,
    paths_are_whole,
    paths_exist,
    the_score_has_mean_zero,
)

__all__ = [
    "LogWeights",
    "WeightedELBO",
    "Weights",
    "along_path",
    "log_weights",
    "of_paths",
    "partial_slopes",
    "replace_each",
    "sum_inside",
    "weights_serve",
    "widen",
]


class LogWeights(NamedTuple):
    r"""The log weights of a run, :math:`\log w_k = \log p(x, z_k) - \log q(z_k)`.

    A plate that holds all sites, such as the one over data points, stays outside the bound, and so
    does a scale that all sites share (minibatches).

    Attributes:
        log_p: ``(K, *plates)``, with ones for plates inside the bound; one particle has no K.
        log_q: likewise.
        scale: of all sites.
        inside: the plates that not all sites share, as dimensions.
        lead: log w without gradient, ``(K, *plates)`` for one particle too.
    """

    log_p: Tensor
    log_q: Tensor
    scale: Tensor | float
    inside: list[int]
    lead: Tensor


def log_weights(elbo: MultiSampleELBO, run: Run) -> LogWeights:
    """The log weights that a bound is a function of.

    Raises:
        ValueError: sites of different scale.
    """
    sites = [*samples(run.model), *samples(run.guide)]
    scale = sites[0]["scale"]
    if any(_differ(site["scale"], scale) for site in sites[1:]):
        raise ValueError(
            f"{type(elbo).__name__} takes the logarithm of a sum over particles, where sites "
            "of different scale (a KL weight; minibatches beside a global latent site) give "
            "no bound: use Trace_ELBO or RLOO, or one scale for all sites"
        )
    inside = get_dependent_plate_dims(run.model.nodes.values())
    log_p, log_q = (
        add(sum_inside(site["log_prob"], inside) for site in samples(trace)) / scale
        for trace in (run.model, run.guide)
    )
    log_w = (log_p - log_q).detach()
    return LogWeights(log_p, log_q, scale, inside, log_w if elbo.num_particles > 1 else log_w[None])


def _differ(one: Tensor | float, other: Tensor | float) -> bool:
    """Whether two scales differ; weights of observations, tensors, are looked at in validation."""
    if isinstance(one, Tensor) and isinstance(other, Tensor) and not is_validation_enabled():
        return False
    return bool(torch.as_tensor(one != other).any())


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


class WeightedELBO(MultiSampleELBO):
    r"""A bound whose gradient is weighted particle by particle; a subclass says how.

    .. math:: L_K = E\left[\hat L(\log w_1, \dots, \log w_K)\right],
        \quad w_k = \frac{p(x, z_k)}{q(z_k)}

    Where a subclass says no other, :math:`\hat L = \log \frac{1}{K} \sum_k w_k`.

    References:
        Burda, Grosse & Salakhutdinov (2016), arXiv:1509.00519.
    """

    instead = "VIMCO"  # for guides that this one cannot serve

    @property
    def bound(self) -> Bound:
        """The function of the log weights that is the value."""
        return renyi(0.0, self.num_particles)

    def _weights(self, log_w: Tensor) -> Weights:
        """From the log weights, ``(K, ...)``; by default the bound's own slopes, along paths."""
        return Weights(*self.bound.slopes(log_w), None)

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> Run:
        paths = TwoPaths()
        return self._run(model, paths(guide), args, kwargs, self.max_plate_nesting, paths.draws)

    def _estimate(self, run: Run) -> tuple[Tensor, Tensor]:
        logs = log_weights(self, run)
        shape, scale = logs.log_p.shape, logs.scale
        *paths, s = self._weights(logs.lead)
        a, c = map(not_slight, paths)
        sites = [site for site in samples(run.guide) if latent(site)]
        kept = run.alone[0].kept if run.alone else run.kept
        rigid = [site["name"] for site in sites if site["name"] not in kept]
        if rigid and (s is None or len(rigid) < len(sites)):
            points = any(is_learned_point(site["fn"]) for site in sites)  # which no rule scores
            instead = f"VIMCO(num_particles={self.num_particles})" if points else self.instead
            raise ValueError(
                f"{type(self).__name__} needs a reparameterized sampler, which site {rigid[0]!r} "
                f"has not: use {instead}"
            )
        if s is not None and rigid:
            weighted = a.reshape(shape) * logs.log_p + not_slight(s).reshape(shape) * logs.log_q
            surrogate = (scale * weighted).sum()
        else:
            a, c = (scale * weight.reshape(shape) for weight in (a, c))
            runs = [(run, logs, a, c)]
            if run.alone:
                each = [log_weights(self, one) for one in run.alone]
                runs = zip(run.alone, each, a, c, strict=True)
            surrogate = add(self._along(*one) for one in runs)
        return (scale * self._value(logs.lead)).sum(), surrogate

    def _value(self, log_w: Tensor) -> Tensor:
        """The bound's estimate, ``(...)``."""
        return self.bound(log_w)

    def _along(self, run: Run, logs: LogWeights, a: Tensor, c: Tensor) -> Tensor:
        """The surrogate for reparameterized sites, from the scaled weights of model and path."""
        surrogate = (a * logs.log_p.reshape(a.shape)).sum()
        sites = [s for s in samples(run.guide) if latent(s) and s["value"].requires_grad]
        if logs.log_q.requires_grad and sites:
            path = (c * logs.log_q.reshape(c.shape)).sum()
            surrogate = surrogate - along_path(path, [run.kept[site["name"]] for site in sites])
        again = torch.where(a == 0, 0.0, c / a)
        for site in sites:  # what log p sends back to the guide is weighted by c, not by a
            times = widen(again, site)
            site["value"].register_hook(lambda gradient, times=times: gradient * times)
        return surrogate


def weights_serve(trial: Trial) -> None:
    """What weighted gradients ask of a guide."""
    the_score_has_mean_zero(trial)
    no_point_is_weighted(trial)
    if trial.gradient != "score":  # whose own rules ask for it
        copies_have_a_density(trial)
        paths_are_whole(trial)
        no_factor_has_a_slope_of_its_own(trial)


def of_paths(note: str, ascends: Literal["both", "model"] = "both") -> Profile:
    """The profile of a bound whose guide is doubly reparameterized."""
    return Profile(
        gradients=("pathwise",),
        guides="reparameterized",
        note=f"{note}; doubly reparameterized; one evaluation a particle",
        needs=(weights_serve, paths_exist),
        refused=(("score", "it reparameterizes twice: use VIMCO"), WEIGHTS_ARE_IN_IT),
        weighted=False,
        ascends=ascends,
    )


class TwoPaths(Messenger):
    """Give a draw to the guide's later sites, and a copy of it to the densities and the model.

    Only the copy's gradient is to be weighted: what comes back from a later site is already. Sites
    without ``rsample`` are left as they are.

    Attributes:
        draws: the draws themselves, by site.
    """

    def __init__(self) -> None:
        super().__init__()
        self.draws: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: dict) -> None:
        if latent(msg) and msg["value"] is None and msg["fn"].has_rsample:
            self.draws[msg["name"]] = draw = msg["fn"].rsample()
            msg["value"] = draw.clone()

    def _pyro_post_sample(self, msg: dict) -> None:
        msg["value"] = self.draws.get(msg["name"], msg["value"])  # the trace has the copy by now


def along_path(value: Tensor, draws: list[Tensor]) -> Tensor:
    """A surrogate for the gradient of ``value`` through the draws, its other parameters fixed.

    Args:
        value: a number that depends on the draws, and on parameters in other ways too.
        draws: in their order; later ones may depend on earlier ones.
    """
    slopes = partial_slopes(value, draws)
    return add((slope * z).sum() for slope, z in zip(slopes, draws, strict=True))


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
    """Weights, broadcast against the values of a site; plates that it does not lie in have size 1.

    Raises:
        RuntimeError: weights that differ along a plate that the site does not lie in.
    """
    spare = max(weights.ndim - len(site["fn"].batch_shape), 0)
    return weights.reshape(weights.shape[spare:] + (1,) * site["fn"].event_dim)


def sum_inside(value: Tensor, dims: list[int]) -> Tensor:
    """Sum out the plates that not all sites share; their dimensions stay, with size 1."""
    dims = [d for d in dims if d >= -value.ndim]
    return value.sum(dims, keepdim=True) if dims else value
