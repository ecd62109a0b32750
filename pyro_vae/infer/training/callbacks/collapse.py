"""Treatments of posterior collapse: free bits, and a guide that is trained ahead of the model."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from ....core.acting import untouched
from ....core.checks import positive, whole
from ...estimators.rloo import RLOO
from ...sites import latent, replayed, same_order, unweighted
from ..run import Callback

__all__ = ["AggressiveGuide", "FreeBits", "mutual_information", "with_free_bits"]

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
        minimum: :math:`\lambda`, in nats per observation and dimension.

    Returns:
        The two to be given to ``SVI``; model and guide themselves are not changed.

    Raises:
        ValueError: in a step, a guide whose KL to the prior has no closed form.

    References:
        Kingma et al. (2016), arXiv:1606.04934, appendix C.8.

    >>> model, guide = lambda: pyro.sample("z", dist.Normal(0, 1)), lambda: pyro.sample(
    ...     "z", dist.Normal(torch.tensor(1.0), 1))
    >>> losses = []
    >>> for pair in (with_free_bits(model, guide, 3.0), (model, guide)):
    ...     pyro.set_rng_seed(0)
    ...     losses.append(Trace_ELBO().loss(*pair))
    >>> print(round(losses[0] - losses[1], 4))  # the KL is 0.5
    2.5
    """
    posteriors, minimum = {}, positive("minimum", minimum)
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
        kl = kl_by_dimension(q, msg["fn"], msg["name"], msg["scale"])
        short = (self.minimum - kl).relu().sum()
        factor = dist.Unit((-short).expand(msg["fn"].batch_shape))
        empty, infer = short.new_empty(*msg["fn"].batch_shape, 0), {"of_kl": True}
        pyro.sample(f"{msg['name']}_free_bits", factor, obs=empty, infer=infer)  # pyrefly: ignore[bad-argument-type]


def kl_by_dimension(q: Distribution, p: Distribution, name: str, scale: object = 1.0) -> Tensor:
    """The mean over data of KL(q || p), for each dimension if both have independent ones.

    Args:
        q: of a guide.
        p: of the model.
        name: of the site, for messages.
        scale: of the site; where observations have weights, ``(B,)``, so has the mean.

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
    if isinstance(scale, Tensor) and scale.ndim:
        share = scale / scale.mean().clamp_min(torch.finfo(scale.dtype).tiny)  # beta may be 0
        kl = kl * share.reshape(*share.shape, *[1] * (kl.ndim - batch))
    return kl.flatten(0, batch - 1).mean(0) if batch else kl


class FreeBits(Callback):
    """Train with free bits: :func:`with_free_bits`.

    Args:
        minimum: KL of each latent dimension below which it is not penalized, in nats.

    Raises:
        ValueError: when training starts, a bound, model or guide that they do not go with.
    """

    def __init__(self, minimum: float) -> None:
        self.minimum = positive("free_bits", minimum)

    @torch.no_grad()
    def wrap(self, model: Callable, guide: Callable) -> tuple[Callable, Callable]:
        """Add the factor to the model."""
        elbo = self.run.estimator.elbo
        if type(elbo) not in SERVED:
            served = ", ".join(cls.__name__ for cls in SERVED)
            raise ValueError(
                f"free_bits adds a factor with a gradient of its own, which {type(elbo).__name__} "
                f"does not follow: use one of {served}"
            )
        model, guide = with_free_bits(model, guide, self.minimum)
        with poutine.block():
            guide_trace = poutine.trace(guide).get_trace(self.run.example)
            model_trace = replayed(model, guide_trace, self.run.example)
        if not same_order(model_trace, guide_trace):
            raise ValueError(
                "free bits take the KL in closed form, which is biased where the guide draws its "
                "sites in another order than the model: use a guide that goes down (TopDown, "
                "Ladder), or beta='cyclical(0, 1)' in place of free_bits"
            )
        return model, guide


@dataclass
class Inner:
    """How far the guide is ahead of the model.

    Attributes:
        steps: of the guide alone, since the model moved.
        loss: summed over the latest of them, and ``count`` their observations.
        before: the mean loss of those just before these.
        moves: whether the model moves at the next step.
        information: the mutual information at the last epoch's end.
        over: whether both are trained at every step from now on.
    """

    steps: int = 0
    loss: float = 0.0
    count: float = 0.0
    before: float | None = None
    moves: bool = False
    information: float | None = None
    over: bool = False


class AggressiveGuide(Callback):
    r"""Train the guide ahead of the model, so that it does not lag behind the model's posterior.

    A guide that lags sees a posterior that does not depend on x yet, and follows the prior. So the
    model stays until ten steps of the guide alone no longer lower the mean loss (or for 100
    steps), and then moves for one. At the end of an epoch in which the mutual information of x and
    z under the guide has not risen, or after so many epochs, both are trained at every step.

    Args:
        epochs: the most that it lasts.

    References:
        He et al. (2019), "Lagging inference networks and posterior collapse in variational
        autoencoders", arXiv:1901.05534.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs, self.progress = whole("aggressive", epochs), Inner()

    def start(self) -> None:
        """Find the parameters that are the model's alone."""
        vae, x = self.run.vae, self.run.sample[:1]
        with untouched(vae):  # pyrefly: ignore[bad-argument-type]
            self.parameters = _parameters(vae.model, x) - _parameters(vae.guide, x)

    def before_step(self, time: float) -> None:
        """Leave the model's parameters as they are, or none."""
        moves = self.progress.moves or self.progress.over
        self.run.optim.frozen = frozenset() if moves else self.parameters

    def after_step(self, loss: float, n: int) -> None:
        """Decide whether the model moves at the next step."""
        now = self.progress
        if now.over:
            return
        if now.moves:
            self.progress = Inner(information=now.information)
            return
        now.loss, now.count, now.steps = now.loss + loss, now.count + n, now.steps + 1
        if now.steps % WINDOW:
            return
        summed, count = self.run.processes.total(now.loss, now.count)
        mean = summed / count
        now.moves = now.steps >= LONGEST or (now.before is not None and mean >= now.before)
        now.before, now.loss, now.count = mean, 0.0, 0.0

    def after_epoch(self, row: dict[str, float]) -> None:
        """Decide whether it is over."""
        now = self.progress
        if now.over:
            return
        information = mutual_information(self.run.vae.guide, self.run.sample[:ENCODED]).double()
        information = self.run.processes.first(information).item()
        risen = now.information is None or information > now.information
        now.over, now.information = self.run.epoch >= self.epochs or not risen, information

    def state_dict(self) -> dict[str, object]:
        """How far it is, over all processes."""
        loss, count = self.run.processes.total(self.progress.loss, self.progress.count)
        return {**asdict(self.progress), "loss": loss, "count": count}

    def load_state_dict(self, state: dict) -> None:
        """Take it up; what is summed over processes is the first one's."""
        self.progress = Inner(**state)
        if self.run.processes.rank:
            self.progress.loss = self.progress.count = 0.0


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
    log_q = torch.stack([unweighted(nodes[name]) for name in values]).sum(0)
    return (log_q.diagonal() - log_q.logsumexp(1)).mean() + torch.tensor(float(n)).log()
