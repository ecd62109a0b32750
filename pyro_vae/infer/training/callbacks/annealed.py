"""Draws of the guide that are annealed towards the posterior, under a bound that trains: DAIS."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro import infer
from pyro.infer import ELBO, Trace_ELBO
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ....core.checks import fraction, positive, whole
from ....core.leapfrog import Chain, can_move
from ...estimators.multisample import add
from ...estimators.renyi import RenyiELBO
from ...sites import family_name, latent, samples, unweighted
from ..run import Callback

__all__ = ["DAIS"]

SERVED: tuple[type[ELBO], ...] = (Trace_ELBO, infer.RenyiELBO, RenyiELBO)


class DAIS(Callback):
    r"""Anneal the guide's draws to the posterior by Hamiltonian steps, within the bound.

    .. math:: \log w = \log p(x, z_T) - \log q(z_0|x)
        + \sum_{t=1}^T \log \frac{N(v_t; 0, I)}{N(v'_t; 0, I)}, \quad
        \log \gamma_\beta = (1 - \beta) \log q(z|x) + \beta \log p(x, z)

    A leapfrog step on :math:`\gamma_{\beta_t}`, which is never rejected, takes :math:`z_{t-1}` and
    a momentum :math:`v'_t` to :math:`z_t, v_t`; the next momentum is :math:`\eta v_t` and fresh
    noise. Leapfrog steps keep volumes, so w is an unbiased estimate of p(x), and a bound on
    log p(x) in expectation, tighter than the ELBO of the guide alone once the step lengths, the
    temperatures and :math:`\eta` are learned, with model and guide. Every particle is such a chain:
    under ``RenyiELBO`` it is the importance-weighted bound of chains. T + 1 evaluations of the
    likelihood and its gradient a particle, and a second derivative.

    Give it to ``fit`` as a callback, or wrap functions of your own:
    ``Trace_ELBO().loss(*dais.around(model, guide), x)``. Evaluations see the guide as it is.

    Args:
        steps: T.
        step: the length of the leapfrog steps at the start.
        damping: :math:`\eta` at the start, in (0, 1).

    References:
        Zhang, Hsu, Li, Finn & Grosse (2021), arXiv:2107.10150; Geffner & Domke (2021),
        arXiv:2107.04150, uncorrected Hamiltonian annealing.
    """

    def __init__(self, steps: int = 8, step: float = 0.1, damping: float = 0.5) -> None:
        steps, step = whole("steps", steps), positive("step", step)
        self.chain = Chain(steps, step, fraction("damping", damping))

    def around(self, model: Callable, guide: Callable) -> tuple[Callable, Callable]:
        """Model and guide whose bound is the annealed one; they themselves are not changed."""

        def annealed(*args: object, **kwargs: object) -> object:
            pyro.module("DAIS", self.chain)
            with _Draw() as drawn:
                guide(*args, **kwargs)
            starts = {n: site["value"] for n, site in drawn.sites.items()}
            path = _Path(model, guide, args, kwargs, torch.is_grad_enabled())
            ends, ratios = self.chain(path, starts)
            known = {}
            for name, site in drawn.sites.items():
                log_q = site["fn"].log_prob(site["value"]) - ratios[name]
                known[name] = dist.Delta(ends[name], log_q, event_dim=site["fn"].event_dim)
            with _Redraw(known):
                return guide(*args, **kwargs)

        return model, annealed

    def wrap(self, model: Callable, guide: Callable) -> tuple[Callable, Callable]:
        """Wrap model and guide of a training run.

        Raises:
            ValueError: a bound that does not take a draw's density from the guide as it is.
        """
        estimator = self.run.estimator
        if type(estimator.elbo) not in SERVED or estimator.gradient not in (None, "pathwise"):
            raise ValueError(
                f"DAIS anneals the draws within a pathwise bound, which {estimator} is not: "
                "use Trace_ELBO or RenyiELBO"
            )
        _, first = next(iter(self.run.vae.named_parameters()))
        self.chain.to(first)
        return self.around(model, guide)

    def state_dict(self) -> dict[str, object]:
        """What is learned of the chain."""
        return dict(self.chain.state_dict())

    def load_state_dict(self, state: dict) -> None:
        """Go on with what was learned."""
        self.chain.load_state_dict(state)


class _Path:
    """The slopes of log q(z|x) and log p(x, z) in z, by runs of guide and model at given draws."""

    def __init__(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict, learn: bool
    ) -> None:
        self.model, self.guide, self.args, self.kwargs = model, guide, args, kwargs
        self.learn = learn
        self.event_dims: dict[str, int] = {}

    def slopes(
        self, z: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """The draws, of which there is a gradient, and both slopes."""
        with torch.enable_grad():
            z = {n: v if self.learn and v.requires_grad else v.detach().requires_grad_()
                 for n, v in z.items()}  # fmt: skip
            return z, self._slope(self.guide, z), self._slope(self.model, z)

    def _slope(self, function: Callable, z: dict[str, Tensor]) -> dict[str, Tensor]:
        with poutine.block():
            given = poutine.condition(function, z)
            trace: Any = poutine.trace(given).get_trace(*self.args, **self.kwargs)
        trace.compute_log_prob()
        self.event_dims = {n: trace.nodes[n]["fn"].event_dim for n in z}
        value = add(unweighted(site).sum() for site in samples(trace))
        found = torch.autograd.grad(
            value, list(z.values()), create_graph=self.learn, materialize_grads=True
        )
        return dict(zip(z, found, strict=True))


class _Draw(Messenger):
    """Draw the guide's sites unseen by the trace around it."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: dict[str, Any] = {}

    def _pyro_sample(self, msg: dict) -> None:
        name, fn = msg["name"], msg["fn"]
        if msg["infer"].get("is_auxiliary"):
            raise ValueError(
                f"DAIS anneals the draws of sites that the model has, and {name!r} is auxiliary, "
                "as those of Pyro's AutoGuides are: write a guide that draws the model's sites"
            )
        msg["infer"] = {**msg["infer"], "is_auxiliary": True, "_do_not_trace": True}
        if site_is_subsample(msg):  # pyrefly: ignore[bad-argument-type]
            if (fn.subsample_size or fn.size) < fn.size:
                raise ValueError(f"DAIS runs the guide more than once, and {name!r} subsamples it")
            return
        if not latent(msg):
            raise ValueError(f"DAIS anneals draws, and site {name!r} of the guide is none")
        if not can_move(fn):
            raise ValueError(
                f"DAIS moves draws along the gradient, on the real line, which "
                f"{family_name(fn)} at site {name!r} does not allow: use guide='Normal'"
            )

    def _pyro_post_sample(self, msg: dict) -> None:
        if latent(msg):
            self.sites[msg["name"]] = msg


class _Redraw(Messenger):
    """Give the sites of a guide known draws, with their densities."""

    def __init__(self, known: dict[str, dist.Delta]) -> None:
        super().__init__()
        self.known = known

    def _pyro_sample(self, msg: dict) -> None:
        if latent(msg):
            msg["fn"] = self.known[msg["name"]]
