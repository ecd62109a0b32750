"""Treatments of posterior collapse: free bits, and a guide that is trained ahead of the model."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from ..engine.distributed import Processes
from ..estimators.rloo import RLOO
from ..sites import latent, same_order
from .checkpoint import Inner

__all__ = ["AggressiveGuide", "check_free_bits", "mutual_information", "with_free_bits"]

SERVED: tuple[type[ELBO], ...] = (Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO, RLOO)
WINDOW = 10  # steps whose mean loss says whether the guide still improves (He et al.)
LONGEST = 100  # steps of the guide alone
ENCODED = 500  # data whose mutual information with z is measured


def with_free_bits(model: Callable, guide: Callable, minimum: float) -> tuple[Callable, Callable]:
    r"""Model and guide under which the first nats of each latent dimension cost nothing.

    .. math:: E_q[\log p(x|z)] - \sum_j \max\left(\lambda, \overline{KL}_j\right), \quad
        \overline{KL}_j = \frac1B \sum_n KL(q(z_j|x_n) \| p(z_j))

    It is the ELBO and a factor in the model, :math:`-\sum_j (\lambda - \overline{KL}_j)_+`, with
    the KL in closed form, so its gradient is exact under every bound that estimates the ELBO. A
    site whose coordinates are not independent under guide and prior alike is one "dimension".
    The factor has the weight of the KL, :class:`KLWeight`.

    Args:
        model: a Pyro model whose latent sites have batch dimensions of data alone.
        guide: its guide.
        minimum: :math:`\lambda`, in nats per datum and dimension.

    Returns:
        The two to be given to ``SVI``; model and guide themselves are not changed.

    Raises:
        ValueError: in a step, a guide whose KL to the prior has no closed form.

    References:
        Kingma et al. (2016), arXiv:1606.04934, appendix C.8.

    >>> model, guide = lambda: pyro.sample("z", dist.Normal(0, 1)), lambda: pyro.sample(
    ...     "z", dist.Normal(torch.tensor(1.0), 1))
    >>> Trace_ELBO().loss(*with_free_bits(model, guide, 3.0)) - Trace_ELBO().loss(model, guide) > 0
    True
    """
    posteriors: dict[str, Distribution] = {}
    return _Factor(posteriors, minimum)(model), _Remember(posteriors)(guide)


class _Remember(Messenger):
    """Keep what each latent site of a guide is drawn from."""

    def __init__(self, posteriors: dict[str, Distribution]) -> None:
        super().__init__()
        self.posteriors = posteriors

    def _pyro_sample(self, msg: dict) -> None:
        if latent(msg):
            self.posteriors[msg["name"]] = msg["fn"]


class _Factor(Messenger):
    """Give back, at each latent site of a model, what its KL is short of the minimum."""

    def __init__(self, posteriors: dict[str, Distribution], minimum: float) -> None:
        super().__init__()
        self.posteriors, self.minimum = posteriors, minimum

    def _pyro_post_sample(self, msg: dict) -> None:
        q = self.posteriors.pop(msg["name"], None) if latent(msg) else None
        if q is None:
            return
        short = (self.minimum - kl_by_dimension(q, msg["fn"], msg["name"])).relu().sum()
        factor = dist.Unit((-short).expand(msg["fn"].batch_shape))
        empty, infer = short.new_empty(*msg["fn"].batch_shape, 0), {"of_kl": True}
        pyro.sample(f"{msg['name']}_free_bits", factor, obs=empty, infer=infer)  # pyright: ignore


def kl_by_dimension(q: Distribution, p: Distribution, name: str) -> Tensor:
    """The mean over data of KL(q || p), for each dimension if both have independent ones.

    Args:
        q: of a guide.
        p: of the model.
        name: of the site, for messages.

    Raises:
        ValueError: no KL in closed form is known.
    """
    batch = max(len(q.batch_shape), len(p.batch_shape))
    while isinstance(q, Independent) and isinstance(p, Independent):
        q, p = q.base_dist, p.base_dist
    try:
        kl = kl_divergence(q, p)
    except NotImplementedError:
        raise ValueError(
            f"free bits take the KL in closed form, and none of {type(q).__name__} and "
            f"{type(p).__name__} (site {name!r}) is registered: use prior='Normal' with "
            "guide='Normal', or beta='cyclical(0, 1)' in place of free_bits"
        ) from None
    return kl.flatten(0, batch - 1).mean(0) if batch else kl


@torch.no_grad()
def check_free_bits(elbo: ELBO, model: Callable, guide: Callable, x: Tensor) -> None:
    """Raise where free bits do not go with this bound, or with this model and guide.

    Args:
        elbo: the bound; it must estimate the ELBO, and follow the model's gradient as it is.
        model: of :func:`with_free_bits`.
        guide: of :func:`with_free_bits`.
        x: a batch.

    Raises:
        ValueError: with the bounds that they go with.
    """
    if type(elbo) not in SERVED:
        served = ", ".join(made.__name__ for made in SERVED)
        raise ValueError(
            f"free_bits adds a factor with a gradient of its own, which {type(elbo).__name__} "
            f"does not follow: use one of {served}"
        )
    with poutine.block():
        replayed = poutine.trace(guide).get_trace(x)
        model_trace = poutine.trace(poutine.replay(model, replayed)).get_trace(x)
    if not same_order(model_trace, replayed):
        raise ValueError(
            "free bits take the KL in closed form, which is biased where the guide draws its sites "
            "in another order than the model: use a guide that goes down (TopDown, Ladder), or "
            "beta='cyclical(0, 1)' in place of free_bits"
        )


class AggressiveGuide:
    r"""When to train the guide alone, so that it does not lag behind the model's posterior.

    A guide that lags sees a posterior that does not depend on x yet, and follows the prior. So the
    model stays until ten steps of the guide alone no longer lower the mean loss (or for 100
    steps), and then moves for one. At the end of an epoch in which the mutual information of x and
    z under the guide has not risen, or after so many epochs, both are trained at every step.

    Args:
        epochs: the most that it lasts.
        model: a Pyro model.
        guide: its guide.
        x: a batch.
        progress: where it is; part of a checkpoint.
        processes: who must decide alike.

    References:
        He et al. (2019), "Lagging inference networks and posterior collapse in variational
        autoencoders", arXiv:1901.05534.
    """

    def __init__(
        self,
        epochs: int,
        model: Callable,
        guide: Callable,
        x: Tensor,
        progress: Inner,
        processes: Processes,
    ) -> None:
        self.epochs, self.guide, self.progress, self.processes = epochs, guide, progress, processes
        self.x = x[:ENCODED]
        self.parameters = _parameters(model, x[:1]) - _parameters(guide, x[:1])

    @property
    def frozen(self) -> frozenset[str]:
        """The parameters that the next step leaves as they are: the model's, or none."""
        return frozenset() if self.progress.moves or self.progress.over else self.parameters

    def step(self, loss: float, count: int) -> None:
        """Hear of a step: its summed loss, and its number of data."""
        now = self.progress
        if now.over:
            return
        if now.moves:
            self.progress.start_anew()
            return
        now.loss, now.count, now.steps = now.loss + loss, now.count + count, now.steps + 1
        if now.steps % WINDOW:
            return
        summed, data = self.processes.total(now.loss, now.count)
        mean = summed / data
        now.moves = now.steps >= LONGEST or (now.before is not None and mean >= now.before)
        now.before, now.loss, now.count = mean, 0.0, 0.0

    def epoch(self, epoch: int) -> None:
        """Hear of an epoch's end, ``epoch`` of them are over."""
        now = self.progress
        if now.over:
            return
        found = mutual_information(self.guide, self.x).double()
        found = self.processes.first(found).item()
        now.over = epoch >= self.epochs or (
            now.information is not None and found <= now.information
        )
        now.information = found


def _parameters(fn: Callable, x: Tensor) -> frozenset[str]:
    with torch.no_grad(), torch.random.fork_rng(), poutine.block():
        return frozenset(poutine.trace(fn, param_only=True).get_trace(x).param_nodes)


@torch.no_grad()
def mutual_information(guide: Callable, x: Tensor) -> Tensor:
    r"""The mutual information of z and which of the N data it was drawn for, by one draw each.

    .. math:: I = \frac1N \sum_n \left[\log q(z_n|x_n)
        - \log \frac1N \sum_m q(z_n|x_m)\right] \le \log N

    Args:
        guide: a Pyro guide whose sites all lie in one plate over data, at dimension -1.
        x: ``(N, ...)``; it takes memory for N squared draws.

    References:
        Hoffman & Johnson (2016), "ELBO surgery".
    """
    n = len(x)
    with poutine.block():
        drawn = poutine.trace(guide).get_trace(x)
        sites: dict[str, Any] = {k: site for k, site in drawn.nodes.items() if latent(site)}
        values: dict[str, Tensor] = {
            k: site["value"].unsqueeze(1).expand(n, *site["value"].shape)
            for k, site in sites.items()
        }
        crossed = pyro.plate("drawn_for", n, dim=-2)(poutine.condition(guide, values))
        trace = poutine.trace(crossed).get_trace(x)
    trace.compute_log_prob()
    nodes: dict[str, Any] = dict(trace.nodes)
    log_q = torch.stack([nodes[name]["log_prob"] for name in values]).sum(0)
    return (log_q.diagonal() - log_q.logsumexp(1)).mean() + torch.tensor(float(n)).log()
