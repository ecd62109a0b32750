"""The linear mixed model as a prior: fixed effects, and effects of a subject's own."""

import re
from typing import ClassVar

import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from ..core.checks import whole
from ..distributions import Trajectories
from ..language.spec import Spec, SpecError, Value
from .parameters import GlobalParameter, positive_parameter
from .part import Ends, Role
from .support import transform
from .units import read_without
from .visits import VisitPart, check_visit_ends, visit_features

__all__ = ["LinearMixed"]

SUBJECT = re.compile(r"\|\s*(`[^`]+`|\w+)\s*\)")
NO_CONSTANT = re.compile(r"(^|\+)\s*0\s*(\+|$)|-\s*1\s*(\+|$)")


class LinearMixed(VisitPart):
    r"""A linear mixed model along each latent dimension: effects of visits, and of subjects.

    .. math:: z_{td} = (x_t - \bar x)^T \beta_d + r_t^T u_d + \epsilon_{td}, \quad
        u_d \sim N(0, D_d), \quad \epsilon_{td} \sim N(0, \sigma_d^2)

    so that a subject's z in a dimension is
    :math:`N((X - \bar X) \beta_d, R D_d R^T + \sigma_d^2 I)`, with the means of training data. An
    observation is a subject, and so is the unit of the plate, of batches and of every figure. There
    is no constant among the fixed effects: the decoder has it. The scale of z is arbitrary beside a
    decoder that can learn any, so :math:`\sigma` is 1 unless it is said.

    Args:
        formula: as lme4 writes it, ``"time + (1 + time | subject)"``; columns of a table, one
            grouping factor. The columns in it are read and not modelled.
        scale: :math:`\sigma`: a number, a list of one for each dimension, or ``learned``.
        visits: the most visits of a subject that the model can read; by default those of the
            table that it is made of.

    References:
        Laird & Ware (1982), Biometrics 38; Bates et al. (2015), Journal of Statistical Software 67;
        Ramchandran et al. (2021), arXiv:2006.09763, for additive processes in a longitudinal VAE.
    """

    roles: ClassVar[frozenset[Role]] = frozenset({"prior"})
    centre: Tensor
    unit: Tensor
    started: Tensor

    def __init__(self, formula: str, scale: Value = 1.0, visits: int | None = None) -> None:
        super().__init__()
        self.formula, self.scale = str(formula), scale
        self.visits = None if visits is None else whole("visits", visits)
        fixed, random, self.by = _read(self.formula)
        self.formulas = {"fixed": fixed, "random": random[0]}
        self.constants = frozenset({"random"} if random[1] else ())
        options = {} if visits is None else {"visits": visits}
        self.spec = Spec("LinearMixed", self.formula, scale=scale, **options)

    def build(self, ends: Ends) -> None:
        """Make the effects for draws of this shape."""
        check_visit_ends(ends, "LinearMixed", getattr(self, "columns", None))
        dims, p, r = ends.shape[-1], len(self.columns["fixed"]), len(self.columns["random"])
        self.coefficients = nn.Parameter(torch.zeros(dims, p))
        eye = (0.5 * torch.eye(r)).expand(dims, r, r)
        self.factor = GlobalParameter(eye, (dims, r, r), transform(constraints.lower_cholesky))
        self.noise = positive_parameter("scale", self.scale, (dims,))
        self.register_buffer("centre", torch.zeros(p + r))
        read_without(self, {"centre": 0.0})
        self.register_buffer("unit", torch.ones(p + r))
        self.register_buffer("started", torch.tensor(False))

    @torch.no_grad()
    def start_from(self, x: Tensor) -> None:
        """Learn centres and units of the effects in training, from designs ``(N, T, ...)``, once.

        A column may be centred where a constant beside it, or the decoder's, makes up for it: of
        one that lies far from 0, such as a year, slope and constant are hardly told apart.
        """
        if self.started:
            return
        rows, fixed = x[x[..., self.width] > 0][:, : self.width], self.coefficients.shape[1]
        constant = "random" in self.constants
        self.centre.copy_(rows.mean(0))
        self.centre[fixed : fixed + 1 if constant else None] = 0.0
        size = (rows - self.centre).square().mean(0).sqrt()
        self.unit.copy_(torch.where(size > 0, size, 1.0))
        self.started.fill_(True)

    @property
    def fixed_effects(self) -> Tensor:
        r""":math:`\beta`, ``(L, p)``: by how much z moves with one unit of each fixed column."""
        return self.coefficients / self.unit[: self.coefficients.shape[1]]

    @property
    def random_covariance(self) -> Tensor:
        """D, ``(L, r, r)``: the covariance of a subject's own effects."""
        fixed = self.coefficients.shape[1]
        tril = self.factor(None) / self.unit[fixed:, None]
        if "random" in self.constants:  # of the level at 0, not at the centre
            level = tril[:, :1] - self.centre[None, fixed + 1 :] @ tril[:, 1:]
            tril = torch.cat([level, tril[:, 1:]], 1)
        return tril @ tril.mT

    def forward(self, features: Tensor | None = None) -> Trajectories:
        """The trajectories at designs ``(B, T, ...)``, of batch shape ``(B,)``."""
        design = visit_features(features)
        p, there = self.coefficients.shape[1], design[..., self.width] > 0
        columns = (design[..., : self.width] - self.centre) / self.unit
        own = columns[:, None, :, p:] @ self.factor(None)
        noise = self.noise(None).square()[:, None, None]
        eye = torch.eye(design.shape[1], dtype=own.dtype, device=own.device)
        loc = (columns[..., :p] @ self.coefficients.mT).mT
        return Trajectories.of(loc, own @ own.mT + noise * eye, there)


def _split(formula: str) -> tuple[str, str, str] | None:
    """What stands beside the term of a subject's own effects, its columns, and the subject."""
    bar, depth, start = formula.find("|"), 1, 0
    for start in range(bar - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(formula[start], 0)
        if not depth:
            break
    subject = SUBJECT.match(formula, bar)
    if formula.count("|") != 1 or depth or subject is None:
        return None
    rest = f"{formula[:start]}0{formula[subject.end() :]}"
    return rest, formula[start + 1 : bar], subject[1]


def _read(formula: str) -> tuple[str | None, tuple[str | None, bool], str]:
    """The fixed part, the random part with whether it has a constant, and the grouping column."""
    if (found := _split(formula)) is None:
        raise SpecError(
            f"the formula {formula!r} has one term of a subject's own effects, such as "
            "(1 | subject) or (1 + time | subject): 'time + (1 + time | subject)'"
        )
    rest, random, by = found
    fixed = [term for term in rest.strip().removeprefix("~").split("+") if term.strip() != "0"]
    constant = not NO_CONSTANT.search(random.strip())
    own = None if random.strip() in ("1", "", "0") else random.strip()
    if own is None and not constant:
        raise SpecError(f"the formula {formula!r} gives a subject no effect: (1 | {by})")
    words = "+".join(fixed).strip()
    return (None if words in ("", "1") else words), (own, constant), by.strip("`")
