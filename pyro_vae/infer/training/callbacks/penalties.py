"""Penalties on the aggregated posterior (MMD, total correlation) and on slopes of the guide."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ....core.checks import number
from ...sites import latent
from ..run import Callback

__all__ = ["MMD", "Contractive", "TotalCorrelation"]

SERVED: tuple[type[ELBO], ...] = (Trace_ELBO, TraceMeanField_ELBO)
PATHWISE = (None, "pathwise")


class Weighted(Callback):
    """A penalty whose weight is that of the whole run, resumed or not."""

    weight: float

    def state_dict(self) -> dict[str, object]:
        """The weight."""
        return {"weight": self.weight}

    def load_state_dict(self, state: dict) -> None:
        """Raise where a resumed run had another weight."""
        if state["weight"] != self.weight:
            name = type(self).__name__
            raise ValueError(f"the run had {name}({state['weight']:g}), not ({self.weight:g})")


class AggregatePenalty(Weighted):
    r"""Subtract a penalty on the draws of a whole batch from the bound; a subclass says which.

    .. math:: L(x) - \lambda\, D, \quad D \text{ of } \bar q(z) = \frac1B \sum_n q(z|x_n)

    It is a factor of the model, which every observation pays. What is ascended is no bound of log
    p(x); :func:`elbo` and the ELBO of the history leave the penalty out. Give it to ``fit`` as a
    callback, or wrap functions of your own: ``model, guide = penalty.around(model, guide)``.

    Args:
        weight: :math:`\lambda`.
    """

    def __init__(self, weight: float) -> None:
        self.weight = number("weight", weight, 0)

    @abstractmethod
    def penalty(self, z: Tensor, q: Any, p: Any) -> Tensor:  # noqa: ANN401
        """D, ``(...)``.

        Args:
            z: the draws of a batch, ``(..., B, *event_shape)``.
            q: the guide at this site, of batch shape ``(..., B)``.
            p: the prior there.
        """

    def around(self, model: Callable, guide: Callable) -> tuple[Callable, Callable]:
        """Model and guide with the penalty, for ``SVI``; they themselves are not changed."""
        kept: dict[str, Any] = {}
        return _Penalize(self, kept)(model), _Keep(kept)(guide)

    def wrap(self, model: Callable, guide: Callable) -> tuple[Callable, Callable]:
        """Wrap model and guide of a training run.

        Raises:
            ValueError: a bound that does not keep to the path of the draws.
        """
        estimator = self.run.estimator
        if type(estimator.elbo) not in SERVED or estimator.gradient not in PATHWISE:
            served = " or ".join(known.__name__ for known in SERVED)
            raise ValueError(
                f"{type(self).__name__} adds a factor whose gradient follows the path of the "
                f"draws, which {estimator} does not do: use {served}"
            )
        return self.around(model, guide)


class MMD(AggregatePenalty):
    r"""Keep the aggregated posterior near the prior, by the maximum mean discrepancy.

    .. math:: \text{MMD}^2 = E_{z, z' \sim \bar q}\, k(z, z') + E_{z, z' \sim p}\, k(z, z')
        - 2\, E_{z \sim \bar q, z' \sim p}\, k(z, z'), \quad
        k(z, z') = e^{-\|z - z'\|^2 / 2 D}

    with D dimensions, at which two draws of a standard normal prior are about :math:`1 / e` alike.
    It is estimated without bias, from pairs of different observations, for the guide's mean over
    the distribution of the data. InfoVAE with :math:`\alpha = 1 - \beta` is
    ``fit(..., beta=..., callbacks=[MMD(...)])``, and a Wasserstein autoencoder is a small beta.
    What is ascended is no bound of log p(x).

    Args:
        weight: :math:`\lambda`, in nats per observation.

    References:
        Zhao, Song & Ermon (2019), arXiv:1706.02262; Tolstikhin et al. (2018), arXiv:1711.01558.
    """

    def wrap(self, model: Callable, guide: Callable) -> tuple[Callable, Callable]:
        """Wrap model and guide of a training run.

        Raises:
            ValueError: as :meth:`AggregatePenalty.wrap`, and a batch of one observation.
        """
        if self.run.batches.smallest == 1:
            raise ValueError(
                "MMD compares the draws of a batch, and one batch of an epoch has one: another "
                f"batch_size than {self.run.settings.batch_size}"
            )
        return super().wrap(model, guide)

    def penalty(self, z: Tensor, q: Any, p: Any) -> Tensor:  # noqa: ANN401
        """The squared discrepancy; as an unbiased estimate it may be negative."""
        n = q.event_dim
        other = p.expand(q.batch_shape).sample()
        z, other = (
            value.flatten(value.ndim - n) if n else value[..., None] for value in (z, other)
        )
        b = z.shape[-2]
        if b < 2:
            raise ValueError("MMD compares the draws of a batch: batch_size is at least 2, got 1")

        def alike(one: Tensor, two: Tensor) -> Tensor:
            distance = (one[..., :, None, :] - two[..., None, :, :]).square().sum(-1)
            return (-distance / (2 * one.shape[-1])).exp()

        within = (alike(v, v).sum((-1, -2)) - b for v in (z, other))
        return sum(within) / (b * (b - 1)) - 2 * alike(z, other).mean((-1, -2))


class TotalCorrelation(AggregatePenalty):
    r"""Keep the dimensions of the aggregated posterior independent: beta-TCVAE.

    .. math:: TC = KL\left(\bar q(z) \,\Big\|\, \prod_j \bar q(z_j)\right)
        \approx \frac1B \sum_n \left[\log \bar q(z_n) - \sum_j \log \bar q(z_{nj})\right]

    at the batch's draws, one of each observation, without bias for the mean of the batch's own
    posteriors. Weight :math:`\beta - 1` on top of the ELBO is beta-TCVAE. What is ascended is no
    bound of log p(x).

    Args:
        weight: :math:`\lambda`, in nats per observation.

    Raises:
        ValueError: in a step, a guide whose dimensions are not independent given x.

    References:
        Chen, Li, Grosse & Duvenaud (2018), arXiv:1802.04942.
    """

    def penalty(self, z: Tensor, q: Any, p: Any) -> Tensor:  # noqa: ANN401
        """The total correlation, of one draw for each observation."""
        if not isinstance(q, dist.Independent) or q.event_dim != q.reinterpreted_batch_ndims:
            raise ValueError(
                "TotalCorrelation takes the density of each dimension, and the guide "
                f"{type(q).__name__} is no product over dimensions: use guide='Normal'"
            )
        n = q.event_dim
        at = z.movedim(-n - 1, 0).unsqueeze(-n - 1)  # every draw at every posterior
        log_q = q.base_dist.log_prob(at).flatten(-n)  # (B draws, ..., B posteriors, D)
        log_b = math.log(log_q.shape[-2])
        joint = log_q.sum(-1).logsumexp(-1) - log_b
        single = log_q.logsumexp(-2) - log_b
        return (joint - single.sum(-1)).mean(0)


class _Keep(Messenger):
    """Keep what each latent site of a guide is drawn from."""

    def __init__(self, kept: dict[str, Any]) -> None:
        super().__init__()
        self.kept = kept

    def _pyro_post_sample(self, msg: dict) -> None:
        if latent(msg):
            self.kept[msg["name"]] = msg["fn"]


class _Penalize(Messenger):
    """Add the factor at each latent site of a model that the guide has."""

    def __init__(self, of: AggregatePenalty, kept: dict[str, Any]) -> None:
        super().__init__()
        self.of, self.kept = of, kept

    def _pyro_post_sample(self, msg: dict) -> None:
        q = self.kept.pop(msg["name"], None) if latent(msg) else None
        if q is None:
            return
        if not q.has_rsample or not q.batch_shape:
            what = "no path" if q.batch_shape else "no plate of observations"
            raise ValueError(
                f"{type(self.of).__name__} moves the draws of a batch, and site {msg['name']!r} "
                f"has {what}: use a reparameterized guide of one latent variable per observation"
            )
        if isinstance(msg["scale"], Tensor) and msg["scale"].ndim:
            raise ValueError(
                f"{type(self.of).__name__} is of the guide's mean in which each observation counts "
                "once, and these have weights: draw rows by their weight, and give none"
            )
        value = self.of.weight * self.of.penalty(msg["value"], q, msg["fn"])
        factor = dist.Unit(-value[..., None].expand(q.batch_shape))
        name = f"{msg['name']}_{type(self.of).__name__}"
        pyro.sample(name, factor, obs=value.new_empty(*q.batch_shape, 0))


class Contractive(Messenger, Weighted):
    r"""Subtract the squared slopes of the guide's mean from the bound: a contractive autoencoder.

    .. math:: L(x) - \lambda \left\| \frac{\partial\, E_q[z]}{\partial x} \right\|_F^2

    The norm is estimated without bias by one more backward pass, :math:`\|v^\top J\|^2` with
    random signs v. It is a factor of the guide, so it goes with every bound that keeps to the
    guide's gradient: ``Trace_ELBO``, ``TraceMeanField_ELBO``. Give it to ``fit`` as a callback, or
    wrap a guide of your own: ``Contractive(0.1)(guide)``.

    Args:
        weight: :math:`\lambda`.
        cells: from x to the part in which the slopes are penalized; ``vae.record.cells`` leaves out
            the context beside x. ``fit`` takes the model's.

    References:
        Rifai et al. (2011), "Contractive auto-encoders: explicit invariance during feature
        extraction"; Hutchinson (1990) for the random signs.

    >>> from pyro_vae import MLP, VAE
    >>> from pyro.infer import TraceMeanField_ELBO
    >>> vae, x = VAE(3, 2, likelihood="Normal", encoder=MLP([])), torch.zeros(5, 3)
    >>> loss = TraceMeanField_ELBO().loss
    >>> loss(vae.model, Contractive(1e4)(vae.guide), x) > loss(vae.model, vae.guide, x)
    True
    """

    def __init__(self, weight: float, cells: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.weight, self.cells = number("weight", weight, 0), cells
        self.x = self.mean = torch.empty(0)

    def __call__(self, guide: Callable) -> Callable:
        """Wrap a guide; the slopes are those in its first argument, ``(B, ...)``."""

        def contracted(x: Tensor, *args: object, **kwargs: object) -> object:
            self.x = x.detach().requires_grad_()
            with torch.enable_grad(), self:
                return guide(self.x, *args, **kwargs)

        return contracted

    def wrap(self, model: Callable, guide: Callable) -> tuple[Callable, Callable]:
        """Wrap the guide of a training run.

        Raises:
            ValueError: a bound that does not keep to the guide's gradient.
        """
        elbo = self.run.estimator.elbo
        if type(elbo) not in SERVED:
            served = " or ".join(known.__name__ for known in SERVED)
            raise ValueError(
                f"Contractive adds a factor to the guide, whose gradient {type(elbo).__name__} "
                f"does not follow: use {served}"
            )
        record = getattr(self.run.vae, "record", None)
        if self.cells is None and record is not None:
            self.cells = record.cells
        return model, self(guide)

    def _pyro_sample(self, msg: dict) -> None:
        if latent(msg):
            self.mean = msg["fn"].mean  # before particles multiply it

    def _pyro_post_sample(self, msg: dict) -> None:
        if not latent(msg):
            return
        signs = torch.randint_like(self.mean, 2).mul(2).sub(1)
        (slopes,) = torch.autograd.grad((signs * self.mean).sum(), self.x, create_graph=True)
        slopes = slopes if self.cells is None else self.cells(slopes)
        penalty = self.weight * slopes.square().flatten(1).sum(1)
        pyro.factor(f"{msg['name']}_slopes", penalty, has_rsample=True)
