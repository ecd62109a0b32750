"""A control variate from the cost's first-order expansion at the mean: MuProp."""

from collections.abc import Callable
from typing import Any, Literal, Unpack

import torch
from pyro.infer.util import MultiFrameTensor
from torch import Tensor, nn

from .learner import Learner
from .logits import LogitELBO, Scored, linear_part, pull, spread
from .multisample import Plates, Run, add
from .relaxed import Kind
from .weights import widen

__all__ = ["MuProp"]


class MuProp(LogitELBO):
    r"""The ELBO by MuProp: the score function, less the cost's first-order expansion at the mean.

    .. math:: \nabla_\phi L \approx \left(f(b) - f(\mu) - f'(\mu)^\top (b - \mu) - r(x)\right)
        \nabla_\phi \log q_\phi(b) + f'(\mu)^\top \nabla_\phi \mu

    with :math:`\mu = E_q[b]` and :math:`f = \log p(x, z) - \log q(z)`, which the model gives at
    real values as it does at discrete ones; log masses are continued linearly. The baseline r, a
    network that reads the guide's first argument, is 0 unless it is asked for; what the expansion
    leaves has no mean of zero, so it pays once the model is trained. Unbiased, for guides whose
    sites are Bernoulli or one-hot and do not depend on each other; two evaluations a particle.

    Args:
        num_particles: K; the gradient is the mean over K draws.
        baseline: ``"neural"`` for a learned one, of one hidden layer of 100 units.

    Raises:
        ValueError: an unknown baseline; in a step, a site that is neither Bernoulli nor one-hot,
            or with a baseline one outside the plate of the data.

    References:
        Gu, Levine, Sutskever & Mnih (2016), arXiv:1511.05176.
    """

    note = "unbiased; first-order expansion at the mean; two evaluations a particle"

    def __init__(
        self,
        num_particles: int = 1,
        baseline: Literal["none", "neural"] = "none",
        **plates: Unpack[Plates],
    ) -> None:
        super().__init__(num_particles, **plates)
        if baseline not in ("none", "neural"):
            raise ValueError(f"baseline is one of none, neural, got {baseline}")
        self.baseline = baseline
        self.learner = Learner("MuProp", self._start)

    def _start(self, sites: list[Any], args: tuple) -> nn.Module:
        if self.baseline == "none":
            return nn.Module()
        width = args[0].flatten(1).shape[1]
        return nn.Sequential(nn.Linear(width, 100), nn.ReLU(), nn.Linear(100, 1))

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> Run:
        if self.baseline != "none":
            self.read = args[0].flatten(1).nan_to_num()
        return super()._get_trace(model, guide, args, kwargs)

    def _values(self, logits: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
        mean = kind.soft(logits).requires_grad_()
        return torch.stack([kind.hard(logits + kind.noise(logits)), mean]), mean

    def _gradients(self, cost: MultiFrameTensor, sites: list[Scored]) -> list[Tensor]:
        at_mean = add(value[1].sum() for value in cost.values())
        means = [one.about for one in sites]
        slopes = torch.autograd.grad(at_mean, means, retain_graph=True)
        scores = [one.site["value"][0] - mean for one, mean in zip(sites, means, strict=True)]
        gradients = []
        for one, slope, mean, score in zip(sites, slopes, means, scores, strict=True):
            f = spread(cost, one.site)
            rest = (f[0] - f[1]).detach() - linear_part(slopes, scores, sites, one.site)
            if self.baseline != "none":
                rest = rest - self._predict(one.site)
            gradients.append(rest * score + pull(slope, mean, one.kind))
        return gradients

    def _predict(self, site: Any) -> Tensor:  # noqa: ANN401
        """The baseline of each data point, to be broadcast against the site's draws."""
        sizes = [frame.size for frame in site["cond_indep_stack"] if frame.dim == -1]
        if sizes != [len(self.read)]:
            raise ValueError(
                f"a neural baseline is one for each row of the guide's first argument, here "
                f"{len(self.read)}, and site {site['name']!r} does not lie in a plate of that "
                "size: leave baseline out"
            )
        return widen(self.control(self.read).squeeze(-1), site)
