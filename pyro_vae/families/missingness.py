"""Cells that are missing not at random: p(mask | x), beside the model of x."""

from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..core.checks import whole
from ..language.spec import Spec, as_spec, nearest
from .part import Part, Role, construct

__all__ = ["Logistic", "Missingness", "SelfMasking", "make_missingness"]


class Missingness(Part):
    r"""p(mask | x), where whether a cell is missing depends on its value.

    The mask is observed beside the cells that are there. Those that are not are drawn from
    p(x|z), once for each z, and the bound is of

    .. math:: \log p(x_{obs}, m) \ge E\left[\log \frac{p(x_{obs} \mid z)\,
        p(m \mid x_{obs}, x_{mis})\, p(z)}{q(z \mid x_{obs})}\right],
        \quad x_{mis} \sim p(x \mid z)

    Cells are read with the mean and the standard deviation of the observed training data taken out.

    References:
        Ipsen, Mattei & Frellsen (2021), arXiv:2006.12871 (not-MIWAE).
    """

    roles: ClassVar[frozenset[Role]] = frozenset()
    loc: Tensor
    scale: Tensor
    started: Tensor

    def __init__(self) -> None:  # a line has no other arguments
        super().__init__()

    def make(self, shape: tuple[int, ...]) -> None:
        """Make the parameters for cells of this shape."""
        self.shape = shape
        self.register_buffer("loc", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("started", torch.tensor(False))

    def start_from(self, x: Tensor) -> None:
        """Take mean and standard deviation of the observed cells of ``x``, once."""
        if self.started:
            return
        there = ~x.isnan()
        n = there.sum(0).clamp(min=1)
        mean = x.nansum(0) / n
        spread = ((x - mean).square().nansum(0) / n).sqrt()
        self.loc.copy_(mean)
        self.scale.copy_(torch.where(spread > 0, spread, 1.0))
        self.started.fill_(True)

    def logits(self, x: Tensor) -> Tensor:
        """Of being missing, ``(..., *shape)``, from standardized cells."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """p(mask | x): 1 where a cell goes missing; from complete cells ``(..., B, *shape)``."""
        logits = self.logits((x - self.loc) / self.scale)
        return dist.Bernoulli(logits=logits).to_event(len(self.shape))

    def complete(self, p: dist.TorchDistribution, cells: Tensor) -> Tensor:
        """Cells ``(B, *shape)``, those that are missing drawn from p(x|z)."""
        drawn = p.rsample() if p.has_rsample else p.sample()
        return torch.where(cells.isnan(), drawn, cells)

    def observe(self, p: dist.TorchDistribution, cells: Tensor) -> None:
        """The site ``mask`` of a model, whose x given z is p."""
        mask = cells.isnan().to(cells.dtype)
        pyro.sample("mask", self(self.complete(p, cells)), obs=mask)

    def log_prob(self, completed: Tensor, cells: Tensor) -> Tensor:
        """log p(mask | x) of cells that were completed, ``(..., B)``."""
        return self(completed).log_prob(cells.isnan().to(cells.dtype))


class SelfMasking(Missingness):
    r"""Whether a cell is missing depends on its own value.

    .. math:: \mathrm{logit}\, p(m_j = 1 \mid x) = a_j x_j + b_j

    Args:
        sign: of every a: 1 where large values go missing, -1 where small ones do, 0 if not known.

    >>> missing = make_missingness("SelfMasking(sign=1)", (2,))
    >>> missing(torch.zeros(3, 2)).mean[0]
    tensor([0.5000, 0.5000], grad_fn=<SelectBackward0>)
    """

    def __init__(self, sign: int = 0) -> None:
        super().__init__()
        self.sign = whole("sign", sign, -1, 1)

    def make(self, shape: tuple[int, ...]) -> None:
        """A slope and an intercept for each cell."""
        super().make(shape)
        self.slope, self.bias = (nn.Parameter(torch.zeros(shape)) for _ in range(2))

    def logits(self, x: Tensor) -> Tensor:
        """Of being missing, from standardized cells."""
        slope = self.sign * nn.functional.softplus(self.slope) if self.sign else self.slope
        return slope * x + self.bias


class Logistic(Missingness):
    """Whether a cell is missing depends on all cells: its logit is linear in x."""

    def make(self, shape: tuple[int, ...]) -> None:
        """A row of slopes and an intercept for each cell."""
        super().make(shape)
        width = int(torch.Size(shape).numel())
        self.linear = nn.Linear(width, width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def logits(self, x: Tensor) -> Tensor:
        """Of being missing, from standardized cells."""
        return self.linear(x.flatten(x.ndim - len(self.shape))).reshape(x.shape)


MODELS = {"SelfMasking": SelfMasking, "Logistic": Logistic}


def make_missingness(line: str | Spec, shape: tuple[int, ...]) -> Missingness:
    """p(mask | x) from its line, for cells of this shape.

    Raises:
        SpecError: an unknown name, or an argument that it does not take.
    """
    spec = as_spec(line)
    if spec.name not in MODELS:
        raise spec.error(f"unknown missingness {spec.name!r}{nearest(spec.name, MODELS)}")
    model = construct(MODELS[spec.name], spec)
    model.spec = spec
    model.make(shape)
    return model
