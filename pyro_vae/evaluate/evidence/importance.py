"""The marginal likelihood log p(x) by importance sampling from the guide, with its error."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.checks import share, whole
from ...core.pareto import RELIABLE, tail_shape
from ...model.entry import of_face
from ...model.face import Face
from ...model.joint import reading
from ...model.pieces import pieces
from ..statistics import Sample, combined_error, log_mean_exp, mean, standard_error
from .ladder import ANNEALED, Rung, climb
from .proposals import log_weights, widened

__all__ = ["Evidence", "Sandwich", "log_evidence"]

CELLS = 2**20  # numbers of x-hat at once: they stay in the cache
PARTS = ("log_evidence", "standard_error", "khat", "rise")  # of an estimate, by observation
RISE = 0.05  # nats between K / 4 and K draws, above which the estimate has not converged


@dataclass(frozen=True)
class Evidence:
    """An estimate of the marginal likelihood log p(x) in nats per observation, with its error.

    ``khat`` and ``rise`` look at the weights that were drawn, and see no mass of the posterior that
    no draw has reached. ``simulated`` does: of data drawn from the model an exact draw of the
    posterior is known, the z that each was drawn with, and is weighted among the others. It says
    how much is missed on such data; :func:`bdmc` and :func:`ais` look without the guide.

    Attributes:
        log_evidence: ``(N,)``.
        standard_error: the Monte Carlo error by the delta method, ``(N,)``.
        khat: Pareto's shape of the largest weights, ``(N,)``; NaN of fewer than 25 draws. Above 0.7
            the estimate and its standard error are too low. At or below 0.7 they may be so too: a
            guide that is too narrow by half passes.
        num_samples: K, draws of z per observation.
        rise: estimate of K draws minus the mean of four of K / 4 draws, ``(N,)``; ``None`` where it
            is not known. At least 0, and 1.5 squared standard errors where the estimate has
            converged. A larger rise says that it goes on with more draws.
        simulated: log p(x) of data drawn from the model, from both sides, by the same proposal and
            as many draws; ``None`` where it was not asked for, the model says which cells are
            missing, or its probabilities are estimates (``Dequantized``).
        proposals: of each observation, what z was drawn from, where that was chosen.
        evaluations: of log p(x, z), ``(N,)``, that an observation has cost, a gradient counted as
            three.
        chains: of an observation that was annealed, in the place of K draws; 0 where none was.
        weights: of the observations, ``(N,)``, by which ``mean`` and its errors count them, as a
            survey's do; ``None`` where the model was told of none.
    """

    log_evidence: Tensor
    standard_error: Tensor
    khat: Tensor
    num_samples: int
    rise: Tensor | None = None
    simulated: "Sandwich | None" = None
    proposals: tuple[str, ...] = ()
    evaluations: Tensor | None = None
    chains: int = 0
    weights: Tensor | None = None

    @classmethod
    def from_weights(cls, log_w: Tensor) -> "Evidence":
        """The logarithm of the mean of K weights, with its checks, from ``(K, N)``."""
        value, error = log_mean_exp(log_w)
        return cls(value, error, tail_shape(log_w), len(log_w), _rise(log_w, value))

    @classmethod
    def join(cls, parts: "Sequence[Evidence]") -> "Evidence":
        """The estimates of several parts of the data as one."""
        joined: dict[str, Any] = {
            name: torch.cat([getattr(part, name) for part in parts]) for name in PARTS
        }
        weights = [part.weights for part in parts if part.weights is not None]
        joined["weights"] = torch.cat(weights) if weights else None
        return cls(num_samples=parts[0].num_samples, **joined)

    @property
    def mean(self) -> float:
        """Over the data, nats per observation."""
        return mean(self.log_evidence, self.weights).item()

    @property
    def mean_error(self) -> float:
        """Standard error of the mean over data of the same kind."""
        return standard_error(self.log_evidence, self.weights).item()

    @property
    def monte_carlo_error(self) -> float:
        """Standard error of the mean over these data, from drawing z."""
        return combined_error(self.standard_error, self.weights).item()

    def summary(self) -> str:
        """The figure in words, with what its checks say."""
        n = len(self.log_evidence)
        each, over = " per observation", f"over {n} observations {self.mean_error:.2g}, "
        text = (
            f"log p(x) = {self.mean:.2f} nats{each if n > 1 else ''}, by {self.num_samples} draws "
            f"of z (standard error {over if n > 1 else ''}of drawing z "
            f"{self.monte_carlo_error:.2g})."
        )
        if self.khat.isnan().all():
            return f"{text} Too few draws for k-hat: it is a lower bound, how loose is not known."
        doubtful = (self.khat > RELIABLE).double().mean().item()
        if doubtful:
            text += (
                f" {doubtful:.1%} of the observations have k-hat > {RELIABLE}: "
                "for them this figure is a loose lower bound."
            )
        else:
            text += (
                f" No observation has k-hat > {RELIABLE}; that tells nothing of mass that the "
                "guide never draws."
            )
        if self.evaluations is not None:
            counts = Counter(self.proposals)
            shares = ", ".join(f"{name} {k / n:.0%}" for name, k in counts.most_common())
            if self.chains:
                shares += f" ({self.chains} chains each, in the place of draws)"
            text += (
                f" z was drawn from: {shares}; {self.evaluations.double().mean().item():,.0f} "
                "evaluations of log p(x, z) an observation. In expectation it is a lower bound."
            )
        rise = math.nan if self.rise is None else mean(self.rise, self.weights).item()
        if rise > RISE:
            text += (
                f" From {self.num_samples // 4} to {self.num_samples} draws it rose by {rise:.2g} "
                "nats, and goes on rising: a lower bound."
            )
        return text if self.simulated is None else f"{text} {_of_simulated(self.simulated)}"


@dataclass(frozen=True)
class Sandwich:
    """log p(x) of data drawn from the model, from below and from above, nats per observation."""

    x: Tensor
    lower: Evidence
    upper: Evidence

    @property
    def gap(self) -> float:
        """Upper minus lower bound, mean over the data: what the estimate does not know."""
        return (self.upper.log_evidence - self.lower.log_evidence).mean().item()

    @property
    def gap_error(self) -> float:
        """Standard error of the gap, over the data."""
        return standard_error(self.upper.log_evidence - self.lower.log_evidence).item()

    @property
    def loose(self) -> bool:
        """Whether the gap is more than .05 nats; its noise is small where the gap is."""
        return self.gap > RISE

    def summary(self) -> str:
        """The figures in words."""
        n = len(self.lower.log_evidence)
        return (
            f"log p(x) of {n} observations drawn from the model is between "
            f"{self.lower.mean:.2f} and {self.upper.mean:.2f} nats per observation, in expectation "
            f"(gap {self.gap:.2g}, standard error {self.gap_error:.2g})."
        )


def _of_simulated(found: Sandwich) -> str:
    gap = f"{found.gap:.2g} nats (standard error {found.gap_error:.2g})"
    n = len(found.lower.log_evidence)
    on = f"On {n} observations drawn from the model such draws leave {gap}"
    if not found.loose:
        return f"{on} between a lower and an upper bound."
    return (
        f"{on} between a lower and an upper bound: the guide misses mass of the posterior, "
        "whatever k-hat says, and this figure may be as much too low. "
        "log_evidence(..., wide=0.5) draws wider; ais and bdmc do without the guide."
    )


@of_face
@torch.no_grad()
def log_evidence(
    vae: Face,
    x: Tensor | ArrayLike,
    *,
    num_samples: int = 5000,
    wide: float = 0.0,
    proposal: Literal["guide", "auto"] = "guide",
    num_simulated: int = 50,
    seed: int | None = None,
) -> Evidence:
    r"""log p(x) of each observation, estimated by importance sampling from the guide.

    .. math:: \log \hat p(x) = \log \frac1K \sum_{k=1}^K w_k, \quad
        w_k = \frac{p(x, z_k)}{q(z_k|x)}, \quad z_k \sim q(z|x)

    In expectation it is the importance-weighted bound: below log p(x), by half the square of the
    standard error where that is small. A Pareto k-hat of the weights above 0.7 says that it is not:
    the guide misses mass of the posterior, and both the figure and its standard error are too low.
    A k-hat at or below 0.7 does not prove the contrary, for it sees only weights that were drawn: a
    guide that is too narrow by half passes on half of the data. ``rise``, from K / 4 to K draws, is
    a second check, and ``simulated`` a third: data drawn from the model, where the z of each is an
    exact draw of its posterior and bounds log p(x) from above,

    .. math:: E\left[\log \frac1K \left(w(z^*) + \sum_{k=2}^K w_k\right)\right] \ge \log p(x),
        \quad z^* \sim p(z|x).

    See :func:`bdmc` for tighter bounds.

    Args:
        vae: a trained model, or a :class:`Program`, which carries its x.
        x: ``(N, *x_shape)``; a loader is read piece by piece where the proposal is the guide.
        num_samples: K, draws of z per observation. Memory does not grow with it.
        wide: the share of draws from a wider proposal, in [0, 1): normal with twice the standard
            deviations of the guide, the prior for a discrete z.
        proposal: what z is drawn from. ``"auto"`` is for data of which many have a k-hat above 0.7:
            each observation has draws of a normal with the curvature at its posterior's mode,
            beside the guide's, and where these have a k-hat above 0.7 too it is annealed from
            there, which is taken unless its k-hat is no better; ``proposals`` says which. A
            discrete z of a VAE has the guide alone; a program's is refused, and so is one that
            makes its draws one by one.
        num_simulated: how many observations are drawn from the model for ``simulated``, at most as
            many as x has, beside what random ones of x have beside them; 0 leaves them out, as does
            ``proposal="auto"``.
        seed: of the draws.

    Returns:
        :class:`Evidence`: ``log_evidence``, ``standard_error``, ``khat``, ``rise``, ``(N,)`` each,
        and ``simulated``; ``summary()`` says them in words.

    Raises:
        ValueError: data that the model refuses, or fewer than two draws.

    References:
        Burda, Grosse & Salakhutdinov (2016), arXiv:1509.00519; Geweke (1989), Econometrica 57, and
        Hesterberg (1995), Technometrics 37, for the fitted proposals; Vehtari et al. (2024),
        arXiv:1507.02646, for k-hat; Brekelmans et al. (2022), arXiv:2303.06992, for the
        upper bound.

    >>> from pyro_vae import VAE
    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> evidence = log_evidence(vae, torch.zeros(3, 2), num_samples=200, seed=0)
    >>> evidence.log_evidence.shape, evidence.khat.shape
    (torch.Size([3]), torch.Size([3]))
    """
    num_samples = whole("num_samples", num_samples, 2)
    num_simulated = whole("num_simulated", num_simulated, 0)
    if proposal not in ("guide", "auto"):
        raise ValueError(f"proposal is 'guide' or 'auto', got {proposal!r}")
    if share("wide", wide) and proposal == "auto":
        raise ValueError("wide= widens the guide, and proposal='auto' chooses itself: give one")
    vae.check_separate("log_evidence")
    if proposal == "guide":
        vae.check_guide("log_evidence")
    rows = max(1, CELLS // max(1, vae.cells))
    with reading(vae, seed):
        if proposal == "auto":
            x = vae.check(x)
            found = _by_rungs(climb(vae, x, num_samples, rows), num_samples)
            return replace(found, weights=vae.weights_of(x))
        at: Any = partial(widened, vae, share=wide) if wide else vae.densities()
        size = max(1, rows // num_samples)

        def weights(some: Tensor, exact: object = None) -> list[Tensor]:
            joint = at(some)
            log_w = log_weights(joint, num_samples, rows // len(some))
            if exact is None:
                return [log_w]
            return [log_w, torch.cat([joint.log_weight(joint.at(exact)), log_w[1:]])]

        parts, kept = [], Sample(num_simulated)  # of a loader no more rows are kept
        for some in pieces(vae, x, size):
            part = Evidence.from_weights(weights(some)[0])
            parts.append(replace(part, weights=vae.weights_of(some)))
            kept.add(some)
        found, given = Evidence.join(parts), kept.rows
        n = 0 if given is None else min(num_simulated, vae.count(given))
        if n < 2 or vae.why_not_simulated:
            return found
        simulated = vae.simulate(n, given, size, holes=True)
        sides = zip(*(weights(data, z) for z, data in simulated), strict=True)
        bounds = (Evidence.from_weights(torch.cat(side, 1)) for side in sides)
        data = torch.cat([data for _, data in simulated])
        return replace(found, simulated=Sandwich(data, *bounds))


def _by_rungs(rungs: Iterable[Rung], num_samples: int) -> Evidence:
    """The estimates of each rung, in the order of the observations."""
    rungs = [rung for rung in rungs if len(rung.index)]
    found = Evidence.join([Evidence.from_weights(rung.log_w) for rung in rungs])
    order = torch.cat([rung.index for rung in rungs]).argsort()
    names = [rung.name for rung in rungs for _ in rung.index]
    spent = torch.cat([torch.full_like(rung.index, rung.evaluations) for rung in rungs])
    parts: dict[str, Any] = {k: getattr(found, k)[order] for k in PARTS}
    proposals = tuple(names[i] for i in order.tolist())
    chains = max((len(rung.log_w) for rung in rungs if rung.name == ANNEALED), default=0)
    how: dict[str, Any] = {"proposals": proposals, "evaluations": spent[order], "chains": chains}
    return Evidence(num_samples=num_samples, **how, **parts)


def _rise(log_w: Tensor, value: Tensor) -> Tensor:
    """The estimate of all draws minus the mean of those of four quarters, ``(N,)``."""
    size = len(log_w) // 4
    if not size:
        return torch.full_like(value, math.nan)
    quarters = log_w[: 4 * size].double().unflatten(0, (4, size))
    return value - (quarters.logsumexp(1) - math.log(size)).mean(0)
