"""Gaussian processes as priors: z along an index, such as time or place."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from ..core.checks import positive
from ..language.spec import Source, Spec, Value, nearest
from .parameters import Fixed, GlobalParameter
from .part import Ends, Part, Role
from .support import transform

__all__ = ["KERNELS", "GaussianProcess"]

# Correlations as functions of the distance in units of the lengthscale.
KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "RBF": lambda r: (-0.5 * r.square()).exp(),
    "Matern12": lambda r: (-r).exp(),
    "Matern32": lambda r: (1 + math.sqrt(3) * r) * (-math.sqrt(3) * r).exp(),
    "Matern52": lambda r: (1 + math.sqrt(5) * r + 5 / 3 * r.square()) * (-math.sqrt(5) * r).exp(),
    "Periodic": lambda r: (-0.5 * r.square()).exp(),  # of the chord of the circle: see `distances`
}


class GaussianProcess(Part):
    r"""Gaussian processes over an index, time or place: the last dimension of z.

    .. math:: p(z) = \prod_l N(z_l; 0, \sigma_l^2 (K_l + \epsilon I)), \quad
        K_{l,ij} = k(|t_i - t_j| / \ell_l)

    z has shape ``(T,)``, or ``(L, T)`` for L independent processes at the same T points. A data
    point is a whole series (or map): of a table sorted by time with T rows there is one,
    ``x = torch.tensor(table.values)[None]``, and ``index`` holds the times. The guide
    ``MultivariateNormal`` has the full covariance along the index, and its KL in closed form.

    Args:
        kernel: k: ``RBF``, ``Matern12``, ``Matern32``, ``Matern52`` or ``Periodic``
            (:math:`\exp(-2 \sin^2(\pi d / p) / \ell^2)`).
        lengthscale: :math:`\ell`, in units of the index (of ``Periodic`` without one): a number, a
            list of one for each process, or ``learned``.
        scale: :math:`\sigma`, as ``lengthscale``.
        period: p, of ``Periodic`` alone; as ``lengthscale``.
        index: t, T numbers, or T points of as many coordinates each; 0, 1, ... T - 1 by
            default.
        jitter: :math:`\epsilon`, which keeps the Cholesky factor stable.

    Raises:
        ValueError: an unknown kernel, numbers that are not positive, or an index of another length.

    References:
        Rasmussen & Williams (2006), "Gaussian processes for machine learning"; Casale et al.
        (2018), arXiv:1810.11738, and Fortuin et al. (2020), arXiv:1907.04155, in VAEs.

    >>> prior = GaussianProcess("Matern32", lengthscale=5.0)
    >>> prior.build(Ends((2, 100), "prior"))
    >>> prior().sample((3,)).shape
    torch.Size([3, 2, 100])
    """

    roles: ClassVar[frozenset[Role]] = frozenset({"prior"})
    distance: Tensor

    def __init__(
        self,
        kernel: str | Spec = "Matern32",
        lengthscale: Value = 1.0,
        scale: Value = 1.0,
        period: Value = None,
        index: Value = None,
        jitter: float = 1e-4,
    ) -> None:
        super().__init__()
        self.kernel = str(kernel)
        if self.kernel not in KERNELS:
            raise ValueError(f"unknown kernel {self.kernel!r}{nearest(self.kernel, KERNELS)}")
        if (period is None) == (self.kernel == "Periodic"):
            raise ValueError(f"a period goes with the kernel Periodic, got {self.kernel} {period=}")
        values = {"lengthscale": lengthscale, "scale": scale, "period": period}
        self.values = {name: value for name, value in values.items() if value is not None}
        self.index, self.jitter = index, positive("jitter", jitter)
        options = self.values if index is None else self.values | {"index": index}
        self.spec = Spec("GaussianProcess", Spec(self.kernel), **options, jitter=jitter)

    def build(self, ends: Ends) -> None:
        """Make the parameters for draws of this shape."""
        *processes, points = ends.shape
        t = torch.as_tensor(list(range(points)) if self.index is None else self.index).double()
        if t.ndim not in (1, 2) or len(t) != points or not t.isfinite().all():
            raise ValueError(
                f"index has {points} numbers here, or points, one for each entry of z's last "
                f"dimension; got an array of shape {tuple(t.shape)}"
            )
        t = t.reshape(points, -1)
        distance = (t[:, None] - t).norm(dim=-1).to(torch.get_default_dtype())
        self.register_buffer("distance", distance, persistent=False)  # a part of the description
        shape = tuple(processes)
        self.parameters_of = nn.ModuleDict(
            {name: _positive(name, value, shape) for name, value in self.values.items()}
        )

    def covariance(self) -> Tensor:
        """That of each process, ``(L, T, T)``."""
        value = {name: source(None)[..., None, None] for name, source in self.parameters_of.items()}
        d = self.distance
        if "period" in value:
            d = 2 * (math.pi * d / value["period"]).sin().abs()
        k = KERNELS[self.kernel](d / value["lengthscale"])
        eye = torch.eye(len(self.distance), dtype=d.dtype, device=d.device)
        return value["scale"].square() * (k + self.jitter * eye)

    def forward(self, features: None = None) -> dist.TorchDistribution:
        """The distribution of all processes, of batch shape ()."""
        tril = torch.linalg.cholesky(self.covariance())
        p = dist.MultivariateNormal(tril.new_zeros(tril.shape[:-1]), scale_tril=tril)
        return p.to_event(tril.ndim - 2)


def _positive(name: str, value: Value, shape: tuple[int, ...]) -> nn.Module:
    """A parameter that is a number, a list or learned."""
    if isinstance(value, Source):
        if value.kind != "learned":
            raise ValueError(f"{name} is a number, a list of them or learned, got {value}")
        small, start = () if value.shared else shape, 1.0 if value.init is None else value.init
    else:
        small, start = shape, value
    try:
        tensor: Any = torch.as_tensor(start, dtype=torch.get_default_dtype()).expand(small)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"{name} is a number, {shape[0] if shape else 'or'} of them in a list (one for each "
            f"process) or learned, got {value}"
        ) from None
    if not ((tensor > 0) & tensor.isfinite()).all():
        raise ValueError(f"{name} is greater than 0, got {value}")
    if isinstance(value, Source):
        return GlobalParameter(tensor, shape, transform(constraints.positive))
    return Fixed(tensor.clone())
