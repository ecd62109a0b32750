"""Cells that are missing not at random: p(mask | x), beside the model of x."""

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from ..core.checks import whole
from ..distributions import Joined
from ..language.spec import Spec, as_spec, nearest
from .candidates import MOST, candidates, greatest
from .likelihoods import parts_of
from .part import Part, Role, construct
from .support import innermost

__all__ = ["Logistic", "Missingness", "SelfMasking", "make_missingness"]


SAID = {  # families as lines name them
    "WithSpike": "Hurdle",
    "MixtureSameFamily": "Mixture",
    "RightCensored": "Censored",
    "LogisticLevels": "DiscretizedLogistic",
    "DequantizedLevels": "Dequantized",
}


class Missingness(Part):
    r"""p(mask | x), where whether a cell is missing depends on its value.

    The mask is observed beside the cells that are there. Those that are not are drawn from
    p(x|z), once for each z, and the bound is of

    .. math:: \log p(x_{obs}, m) \ge E\left[\log \frac{p(x_{obs} \mid z)\,
        p(m \mid x_{obs}, x_{mis})\, p(z)}{q(z \mid x_{obs})}\right],
        \quad x_{mis} \sim p(x \mid z)

    Numbers are read with the mean and the standard deviation of the observed training data taken
    out.

    References:
        Ipsen, Mattei & Frellsen (2021), arXiv:2006.12871 (not-MIWAE).
    """

    roles: ClassVar[frozenset[Role]] = frozenset()
    advice: ClassVar[str] = "choose a likelihood such as Normal or StudentT"
    loc: Tensor
    scale: Tensor
    started: Tensor

    def __init__(self) -> None:  # a line has no other arguments
        super().__init__()

    def make(self, p: dist.TorchDistribution, largest: Mapping[int, float]) -> None:
        """Make the parameters.

        Args:
            p: p(x|z) at some z.
            largest: the greatest of the counts in a cell, by its place, where that is known.
        """
        self.shape, self.layout = p.event_shape, p.layout if isinstance(p, Joined) else None
        places = self.layout.places if self.layout else [range(self.shape.numel())]
        self.last: list[int] = []
        self.cells = 0  # numbers that an observation is compared with at one z
        self.unserved: list[tuple[int, dist.TorchDistribution]] = []
        for part, cells in zip(map(innermost, parts_of(p)), places, strict=True):
            seen = {i: largest.get(i, math.inf) for i in cells}
            last = {n: self.greatest(part, n) for n in {*seen.values()}}
            self.unserved += [(i, part) for i, n in seen.items() if last[n] is None]
            self.last.append(max(n or 0 for n in last.values()))
            self.cells += len(seen) * (1 + self.last[-1])
        self.register_buffer("loc", torch.zeros(self.shape))
        self.register_buffer("scale", torch.ones(self.shape))
        self.register_buffer("started", torch.tensor(False))

    def greatest(self, p: dist.TorchDistribution, largest: float) -> int | None:
        """Of the values of p to sum over, the last; ``None`` where cells of p are not served."""
        return 0 if p.has_rsample else None

    def check(self, columns: Sequence[str] | None) -> None:
        """Raise if there are cells that cannot be missing so, with the names of their columns."""
        if not self.unserved:
            return
        named: dict[str, list[str]] = {}
        for i, p in self.unserved:
            family = SAID.get(name := type(p).__name__, name)
            named.setdefault(family, []).extend([repr(columns[i])] if columns else [])
        words = [
            f"{family} of column{'s' * (len(names) > 1)} {', '.join(names)}" if names else family
            for family, names in named.items()
        ]
        raise ValueError(
            f"missing={str(self.spec)!r} draws missing cells along gradients, which "
            f"{' and '.join(words)} {'has' if len(named) == 1 else 'have'} not: {self.advice}, or "
            "missing=True"
        )

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
        """Of being missing, ``(..., *shape)``, from complete cells of that shape."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """p(mask | x): 1 where a cell goes missing; from complete cells ``(..., B, *shape)``."""
        return self._bits(self.logits(x))

    def complete(self, p: dist.TorchDistribution, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Cells ``(B, *shape)``, those that are missing drawn from p(x|z), and their logits."""
        completed = torch.where(cells.isnan(), p.rsample(), cells)
        return completed, self.logits(completed)

    def marginal(self, p: dist.TorchDistribution, cells: Tensor) -> Tensor:
        """The logits of cells ``(B, *shape)``, of those that are missing given z."""
        return self.complete(p, cells)[1]

    def observe(self, p: dist.TorchDistribution, cells: Tensor) -> None:
        """The site ``mask`` of a model, whose x given z is p."""
        mask = cells.isnan().to(cells.dtype)
        pyro.sample("mask", self._bits(self.marginal(p, cells)), obs=mask)

    def log_prob(self, logits: Tensor, cells: Tensor) -> Tensor:
        """log p(mask | x) of cells that are missing where they are, ``(..., B)``."""
        return self._bits(logits).log_prob(cells.isnan().to(cells.dtype))

    def _bits(self, logits: Tensor) -> dist.TorchDistribution:
        return dist.Bernoulli(logits=logits).to_event(len(self.shape))


class SelfMasking(Missingness):
    r"""Whether a cell is missing depends on its own value.

    .. math:: \mathrm{logit}\, p(m_j = 1 \mid x) = a_j x_j + b_j

    Levels without an order have a logit each. So cells go missing independently given z, and of
    levels, bits and counts the sum over the values that a missing cell may have is taken,

    .. math:: p(m_j = 1 \mid z) = \sum_v p(x_j = v \mid z)\, p(m_j = 1 \mid v)

    instead of a draw. A count above twice the largest that was seen is counted there.

    Args:
        sign: of every a of numbers, counts and ordered levels: 1 where large values go missing, -1
            where small ones do, 0 if not known.

    >>> p = dist.Normal(torch.zeros(1, 2), 1.0).to_event(1)
    >>> missing = make_missingness("SelfMasking(sign=1)", p)
    >>> missing(torch.zeros(3, 2)).mean[0]
    tensor([0.5000, 0.5000], grad_fn=<SelectBackward0>)
    """

    advice = (
        f"sums stand for draws of levels, and of counts up to {MOST} that a table has; choose a "
        "likelihood such as Normal or StudentT"
    )

    def __init__(self, sign: int = 0) -> None:
        super().__init__()
        self.sign = whole("sign", sign, -1, 1)

    def make(self, p: dist.TorchDistribution, largest: Mapping[int, float]) -> None:
        """A slope and an intercept for each cell, or a logit for each of its levels."""
        super().make(p, largest)
        parts = [innermost(part) for part in parts_of(p)]
        self.signed = [not isinstance(part, dist.Bernoulli) and self.sign for part in parts]
        shapes = [cells.shape for cells in self._split(torch.zeros(self.shape))]
        self.levels = nn.ParameterDict()
        for i, (part, shape) in enumerate(zip(parts, shapes, strict=True)):
            if isinstance(part, dist.Categorical) and not isinstance(part, dist.OrderedLogistic):
                self.levels[str(i)] = torch.zeros(part.logits.shape[-1], *shape)
        if len(self.levels) < len(parts):
            self.slope, self.bias = (nn.Parameter(torch.zeros(self.shape)) for _ in range(2))

    def greatest(self, p: dist.TorchDistribution, largest: float) -> int | None:
        """That of the sum, 0 of a draw along gradients; ``None`` where there is neither."""
        return greatest(p, largest)

    def logits(self, x: Tensor) -> Tensor:
        """Of being missing, from complete cells."""
        return self._join([self._logits(i, part) for i, part in enumerate(self._split(x))])

    def complete(self, p: dist.TorchDistribution, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Cells, those that are missing drawn from p(x | z, mask), and the logits given z."""
        values, logits = zip(*self._parts(p, cells, draw=True), strict=True)
        return self._join(values), self._join(logits)

    def marginal(self, p: dist.TorchDistribution, cells: Tensor) -> Tensor:
        """The logits of cells, of those that are missing given z."""
        return self._join([logits for _, logits in self._parts(p, cells)])

    def _parts(
        self, p: dist.TorchDistribution, cells: Tensor, *, draw: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each block its cells, completed where they are drawn, and their logits."""
        for i, (part, own) in enumerate(zip(parts_of(p), self._split(cells), strict=True)):
            gone, known = own.isnan(), own.nan_to_num(0.0)
            values, log_p = candidates(innermost(part), self.last[i], own)
            each = self._logits(i, values)
            both = [(log_p + logsigmoid(sign * each)).logsumexp(0) for sign in (1, -1)]
            if draw:
                weights = (log_p + logsigmoid(each)).movedim(0, -1)
                chosen = dist.Categorical(logits=weights).sample()
                own = torch.where(gone, values.gather(0, chosen[None])[0], own)
            yield own, torch.where(gone, both[0] - both[1], self._logits(i, known))

    def _logits(self, i: int, x: Tensor) -> Tensor:
        """Of being missing, from values ``(..., *shape)`` of the cells of a block."""
        if str(i) in self.levels:
            levels = self.levels[str(i)]
            return levels.gather(0, x.reshape(-1, *levels.shape[1:]).long()).reshape(x.shape)
        slope, bias, loc, scale = (
            self._split(v)[i] for v in (self.slope, self.bias, self.loc, self.scale)
        )
        slope = self.signed[i] * softplus(slope) if self.signed[i] else slope
        x = x.clamp(max=self.last[i]) if self.last[i] else x
        return slope * (x - loc) / scale + bias

    def _split(self, cells: Tensor) -> Sequence[Tensor]:
        """The cells of each block."""
        return self.layout.split(cells) if self.layout else [cells]

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        """The cells of blocks."""
        return self.layout.join(parts) if self.layout else parts[0]


class Logistic(Missingness):
    """Whether a cell is missing depends on all cells: its logit is linear in x."""

    advice = "SelfMasking serves levels and counts; choose a likelihood such as Normal or StudentT"

    def make(self, p: dist.TorchDistribution, largest: Mapping[int, float]) -> None:
        """A row of slopes and an intercept for each cell."""
        super().make(p, largest)
        width = self.shape.numel()
        self.linear = nn.Linear(width, width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def logits(self, x: Tensor) -> Tensor:
        """Of being missing, from complete cells."""
        x = (x - self.loc) / self.scale
        return self.linear(x.flatten(x.ndim - len(self.shape))).reshape(x.shape)


MODELS = {"SelfMasking": SelfMasking, "Logistic": Logistic}


def make_missingness(
    line: str | Spec | None,
    p: dist.TorchDistribution,
    largest: Mapping[int, float] = MappingProxyType({}),
) -> Missingness | None:
    """p(mask | x) from its line; ``None`` where there is none.

    Args:
        line: ``"SelfMasking"`` or ``"Logistic"``.
        p: p(x|z) at some z, ``(1,)``.
        largest: the greatest of the counts in a cell, by its place, where that is known.

    Raises:
        SpecError: an unknown name, or an argument that it does not take.
    """
    if line is None:
        return None
    spec = as_spec(line)
    if spec.name not in MODELS:
        raise spec.error(f"unknown missingness {spec.name!r}{nearest(spec.name, MODELS)}")
    model = construct(MODELS[spec.name], spec)
    model.spec = spec
    model.make(p, largest)
    return model
