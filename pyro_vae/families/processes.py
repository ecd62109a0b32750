"""Gaussian processes as priors: z along an index, such as time or place."""

import math
from collections.abc import Callable
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..core.checks import positive, whole
from ..distributions import Trajectories
from ..language.spec import Spec, Value, learned, nearest
from .parameters import positive_parameter
from .part import Ends, Role
from .units import read_without
from .visits import VisitPart, check_visit_ends, visit_features

__all__ = ["KERNELS", "GaussianProcess"]

# Correlations as functions of the distance in units of the lengthscale.
KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "RBF": lambda r: (-0.5 * r.square()).exp(),
    "Matern12": lambda r: (-r).exp(),
    "Matern32": lambda r: (1 + math.sqrt(3) * r) * (-math.sqrt(3) * r).exp(),
    "Matern52": lambda r: (1 + math.sqrt(5) * r + 5 / 3 * r.square()) * (-math.sqrt(5) * r).exp(),
    "Periodic": lambda r: (-0.5 * r.square()).exp(),  # of the chord of the circle: see `distances`
}


class GaussianProcess(VisitPart):
    r"""Gaussian processes over an index, time or place: one of a model, or one of each subject.

    .. math:: p(z) = \prod_l N(z_l; 0, \sigma_l^2 (K_l + \epsilon I) + c_l^2 + n_l^2 I), \quad
        K_{l,ij} = k(|t_i - t_j| / \ell_l)

    With an ``index``, z has shape ``(T,)``, or ``(L, T)`` for L independent processes at the same T
    points. A data point is a whole series (or map): of a table sorted by time with T rows there is
    one, ``x = torch.tensor(table.values)[None]``, and ``index`` holds the times. The guide
    ``MultivariateNormal`` has the full covariance along the index, and its KL in closed form.

    With ``over`` and ``by``, columns of a table, an observation is a subject, whose rows are its
    visits, at times of its own: so is the unit of the plate, of batches and of every figure. Then z
    is ``(T, L)``, with L processes for each subject, and the guide ``Conjugate`` goes with it.

    Args:
        kernel: k: ``RBF``, ``Matern12``, ``Matern32``, ``Matern52`` or ``Periodic``
            (:math:`\exp(-2 \sin^2(\pi d / p) / \ell^2)`).
        lengthscale: :math:`\ell`, in units of the index (of ``Periodic`` without one): a number, a
            list of one for each process, or ``learned``. 1 by default; ``learned`` with ``over``,
            from a quarter of the range of the data, in which it is counted then.
        scale: :math:`\sigma`, as ``lengthscale``; 1 by default.
        period: p, of ``Periodic`` alone; as ``lengthscale``.
        index: t, T numbers, or T points of as many coordinates each; 0, 1, ... T - 1 by
            default.
        jitter: :math:`\epsilon`, which keeps the Cholesky factor stable.
        constant: c, of a level of its own, as ``scale``; none by default.
        noise: n, of each point's own, as ``scale``; none by default.
        over: the column that is the index, or a formula of several; it is read, not modelled.
        by: the column that says whose visit a row is.
        visits: the most visits of a subject that the model can read; by default those of the
            table that it is made of.

    Raises:
        ValueError: an unknown kernel, numbers that are not positive, or an index of another length.

    References:
        Rasmussen & Williams (2006), "Gaussian processes for machine learning"; Casale et al.
        (2018), arXiv:1810.11738, and Fortuin et al. (2020), arXiv:1907.04155, in VAEs; Ramchandran
        et al. (2021), arXiv:2006.09763, by subject.

    >>> prior = GaussianProcess("Matern32", lengthscale=5.0)
    >>> prior.build(Ends((2, 100), "prior"))
    >>> prior().sample((3,)).shape
    torch.Size([3, 2, 100])
    """

    roles: ClassVar[frozenset[Role]] = frozenset({"prior"})
    distance: Tensor
    started: Tensor
    unit: Tensor

    def __init__(
        self,
        kernel: str | Spec = "Matern32",
        lengthscale: Value = None,
        scale: Value = 1.0,
        period: Value = None,
        index: Value = None,
        jitter: float = 1e-4,
        constant: Value = None,
        noise: Value = None,
        over: str | Spec | None = None,
        by: str | Spec | None = None,
        visits: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel = str(kernel)
        if self.kernel not in KERNELS:
            raise ValueError(f"unknown kernel {self.kernel!r}{nearest(self.kernel, KERNELS)}")
        if (period is None) == (self.kernel == "Periodic"):
            raise ValueError(f"a period goes with the kernel Periodic, got {self.kernel} {period=}")
        if (over is None) != (by is None) or (over is not None and index is not None):
            raise ValueError("over='time' and by='subject' go together, without an index")
        if over is not None and over == by:
            raise ValueError(f"over= is a column of times, and by= one of subjects, got {over!r}")
        self.from_range = over is not None and lengthscale is None and self.kernel != "Periodic"
        if lengthscale is None:
            lengthscale = 1.0 if over is None else learned(1.0)
        values = {"lengthscale": lengthscale, "scale": scale, "period": period}
        values |= {"constant": constant, "noise": noise}
        self.values = {name: value for name, value in values.items() if value is not None}
        self.index, self.jitter = index, positive("jitter", jitter)
        self.by = None if by is None else str(by)
        self.formulas = {} if over is None else {"over": str(over)}
        self.visits = None if visits is None else whole("visits", visits)
        said = {"index": index, "over": over and str(over), "by": self.by, "visits": self.visits}
        options = {name: value for name, value in said.items() if value is not None}
        said = {k: v for k, v in self.values.items() if k != "lengthscale" or not self.from_range}
        self.spec = Spec("GaussianProcess", Spec(self.kernel), **said, **options, jitter=jitter)

    def build(self, ends: Ends) -> None:
        """Make the parameters for draws of this shape."""
        if self.by is not None:
            check_visit_ends(ends, "GaussianProcess(over=, by=)", getattr(self, "columns", None))
            shape = ends.shape[-1:]
            self.register_buffer("unit", torch.ones(()))
            read_without(self, {"unit": 1.0})
            self.register_buffer("started", torch.tensor(not self.from_range))
        else:
            *processes, points = ends.shape
            shape = tuple(processes)
            self.register_buffer("distance", self._distances(points), persistent=False)
            self.register_buffer("unit", torch.ones(()), persistent=False)
        self.parameters_of = nn.ModuleDict(
            {name: positive_parameter(name, value, shape) for name, value in self.values.items()}
        )

    def _distances(self, points: int) -> Tensor:
        """Between the points of the index, ``(T, T)``: a part of the description."""
        t = torch.as_tensor(list(range(points)) if self.index is None else self.index).double()
        if t.ndim not in (1, 2) or len(t) != points or not t.isfinite().all():
            raise ValueError(
                f"index has {points} numbers here, or points, one for each entry of z's last "
                f"dimension; got an array of shape {tuple(t.shape)}"
            )
        t = t.reshape(points, -1)
        return (t[:, None] - t).norm(dim=-1).to(torch.get_default_dtype())

    @torch.no_grad()
    def start_from(self, x: Tensor) -> None:
        """Count the lengthscale in quarters of the range of the index, ``(N, T, ...)``, once."""
        if self.by is None or self.started:
            return
        rows = x[x[..., self.width] > 0][:, : self.width]
        extent = (rows.max(0).values - rows.min(0).values).max() / 4
        if extent > 0:
            self.unit.copy_(extent)
        self.started.fill_(True)

    def covariance(self, distance: Tensor | None = None) -> Tensor:
        """That of each process, ``(L, T, T)``; at distances ``(B, 1, T, T)`` between visits too."""
        value = {name: source(None)[..., None, None] for name, source in self.parameters_of.items()}
        d = self.distance if distance is None else distance
        eye = torch.eye(d.shape[-1], dtype=d.dtype, device=d.device)
        if "period" in value:
            d = 2 * (math.pi * d / value["period"]).sin().abs()
        k = KERNELS[self.kernel](d / (value["lengthscale"] * self.unit))
        k = value["scale"].square() * (k + self.jitter * eye)
        if "constant" in value:
            k = k + value["constant"].square()
        return k + value["noise"].square() * eye if "noise" in value else k

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """All processes, of batch shape (); those of subjects at designs ``(B, T, ...)``."""
        if self.by is None:
            tril = torch.linalg.cholesky(self.covariance())
            p = dist.MultivariateNormal(tril.new_zeros(tril.shape[:-1]), scale_tril=tril)
            return p.to_event(tril.ndim - 2)
        features = visit_features(features)
        t, there = features[..., : self.width], features[..., self.width] > 0
        apart = (t[:, :, None] - t[:, None]).square().sum(-1).sqrt()  # its gradient is never asked
        covariance = self.covariance(apart[:, None])
        return Trajectories.of(covariance.new_zeros(covariance.shape[:-1]), covariance, there)
