"""A label as a second, discrete latent that is observed for some of the data: model M2."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..distributions import Layered
from ..families.guides import SemiAmortized
from ..families.networks import batched, build_network, make_network, spec_of
from ..families.part import Ends, Part, connect
from ..language.spec import Spec, as_spec
from .vae import VAE, point

__all__ = ["M2", "Labelled"]

NEVER = 1e4  # nats: the exponential of minus it is 0, and 0 times it is 0 too


class M2(VAE):
    r"""A VAE with the class of a datum as a second latent, known for some of the data.

    .. math:: p(x, y, z) = p(y)\, p(z)\, p(x \mid y, z), \quad
        q(y, z \mid x) = q(y \mid x)\, q(z \mid x, y)

    Where the label is known q(y|x) is the point that it names, so the ELBO bounds log p(x, y), and
    log p(x) elsewhere. ``y`` is an ordinary site, a one-hot vector: ``TraceEnum_ELBO`` sums over it
    exactly, other estimators draw it. With ``alpha`` the guide is asked for the labels, too, which
    the ELBO of labelled data does not do:

    .. math:: L(x, y) + \alpha \log q(y \mid x)

    It is a factor of the guide: ``fit`` ascends it, and the ELBOs that are reported are without it.
    Estimators whose guide follows another objective (``RWS``, ``CUBO``) refuse it.

    Data are x beside the label as a one-hot vector, all zeros where it is not known, as
    :meth:`labelled` makes them; x alone has no labels.

    Args:
        x_shape: the shape of one datum without its label.
        latent_dim: of z, a number.
        classes: how many labels there are.
        alpha: the weight of log q(y|x) at labelled data.
        labels: p(y), ``"OneHotCategorical(logits=learned)"`` where classes are not equally
            frequent.
        merge: a network from the encoder's features of x, beside y, to those of q(z|x, y).
        prior: of z.
        guide: of z, given x and y.
        parts: as for :class:`VAE`; the encoder reads x once for q(y|x) and q(z|x, y), the decoder
            reads y and z as one vector. Latents of the two are set side by side, y first, wherever
            one array holds them (``encode``, ``decode``).

    Raises:
        ValueError: as :class:`VAE`.

    References:
        Kingma, Rezende, Mohamed & Welling (2014), arXiv:1406.5298.

    >>> vae = M2(784, latent_dim=20, classes=10, seed=0)
    >>> data = vae.labelled(torch.zeros(3, 784), [7, -1, 2])
    >>> data.shape, vae.classify(data).probs.shape
    (torch.Size([3, 794]), torch.Size([3, 10]))
    """

    ROLES: ClassVar[dict[str, str]] = VAE.ROLES | {
        "prior": "prior.prior", "guide": "posterior.posterior", "merge": "posterior.merge",
    }  # fmt: skip

    def __init__(
        self,
        x_shape: int | tuple[int, ...],
        latent_dim: int,
        classes: int,
        *,
        alpha: float = 0.0,
        labels: str | Spec = "OneHotCategorical",
        merge: str | Spec | nn.Module = "MLP([200])",
        prior: str | Spec | nn.Module = "Normal",
        guide: str | Spec | nn.Module = "Normal",
        **parts: Any,  # noqa: ANN401
    ) -> None:
        for name, value in (("latent_dim", latent_dim), ("classes", classes)):
            least = 1 if name == "latent_dim" else 2
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} is a whole number of at least {least}, got {value!r}")
        if not (alpha >= 0 and math.isfinite(alpha)):
            raise ValueError(f"alpha is a number of at least 0, got {alpha}")
        sides = {
            "prior": _LabelledPrior(labels, prior, classes),
            "guide": _LabelledGuide(merge, guide, classes),
        }
        super().__init__(x_shape, latent_dim + classes, **sides, **parts)
        self.classes, self.alpha = classes, alpha

    # The two functions of Pyro's.

    def model(self, x: Tensor | None = None) -> Tensor:
        """p(x, y, z): sites ``y``, ``z`` and ``x``, and the factor ``label``, in ``data``.

        Args:
            x: data as :meth:`labelled` makes them; ``None`` draws one datum.
        """
        self._register("prior", "decoder", "likelihood")
        with pyro.plate("data", 1 if x is None else len(x)):
            both = self.prior().draw_sites()
            if x is not None:  # zero where y is the label, and what rules it out elsewhere
                wrong = self.split(x)[1] * (1 - both[..., : self.classes])
                pyro.factor("label", -NEVER * wrong.sum(-1))
            p, x = self._observe(self.decode(both), x)
            return pyro.sample("x", p, obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """q(y, z|x): sites ``y`` and ``z``, and the factor ``classification``, in ``data``.

        Args:
            x: data as :meth:`labelled` makes them.
        """
        self._register("encoder", "posterior")
        known = self.split(x)[1]
        q: Any = super().encode(x)
        with pyro.plate("data", len(x)):
            if self.alpha:
                log_q = (known * q.first.logits).sum(-1)
                pyro.factor("classification", -self.alpha * log_q, has_rsample=True)
            return q.at(known).draw_sites()

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the latent sites, whose values side by side are z."""
        return "y", "z"

    # What users ask of a trained model.

    def classify(self, x: Tensor | ArrayLike) -> dist.OneHotCategorical:
        """q(y|x), of batch shape ``(B,)``; labels that come with the data are not looked at.

        Args:
            x: ``(B, *x_shape)``, with or without labels.
        """
        q: Any = super().encode(self.as_data(x))
        return q.first

    def encode(self, x: Tensor) -> dist.TorchDistribution:
        """q(y, z|x) as one distribution of y and z side by side; known labels are kept.

        Args:
            x: data as :meth:`labelled` makes them.
        """
        q: Any = super().encode(x)
        return q.at(self.split(x)[1])

    # Data: x beside its label.

    def labelled(self, x: Tensor | ArrayLike, labels: Tensor | ArrayLike) -> Tensor:
        """Data for ``fit`` and all else: each datum beside its label.

        Args:
            x: ``(N, *x_shape)``.
            labels: ``(N,)`` whole numbers from 0; -1 or NaN where the label is not known.

        Returns:
            ``(N, D + classes)``: the D cells of x, and a one-hot vector, or zeros.

        Raises:
            ValueError: data that are not the model's, or labels that are no classes.
        """
        x = self._cells(self.as_data(x))
        y = torch.as_tensor(labels, device=x.device).double().nan_to_num(-1)
        if y.shape != (len(x),):
            raise ValueError(
                f"expected a label for each datum, ({len(x)},), got {tuple(y.shape)}: "
                "give -1 where it is not known"
            )
        wrong = y[(y != y.round()) | (y < -1) | (y >= self.classes)]
        if len(wrong):
            raise ValueError(
                f"labels are whole numbers from 0 to {self.classes - 1}, or -1 where they are not "
                f"known, got {wrong[0].item():g}"
            )
        one_hot = y[:, None] == torch.arange(self.classes, device=x.device)
        return torch.cat([x.flatten(1), one_hot.to(x)], 1)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data into x, ``(N, *x_shape)``, and labels, ``(N, classes)``, zeros where not known."""
        if x.shape[1:] == self.x_shape:
            return x, x.new_zeros(len(x), self.classes)
        cells = math.prod(self.x_shape)
        return x[:, :cells].reshape(-1, *self.x_shape), x[:, cells:]

    def describe(self) -> dict[str, Any]:
        """What makes this model again: the arguments of :class:`M2`, as plain values."""
        prior: Any = self.prior
        return super().describe() | {
            "latent_dim": [self.z_shape[0] - self.classes], "classes": self.classes,
            "alpha": self.alpha, "labels": str(prior.label.spec),
        }  # fmt: skip

    @classmethod
    def _described(cls, about: dict[str, Any]) -> dict[str, Any]:
        own = {k: about[k] for k in ("classes", "alpha", "labels")}
        return super()._described(about) | own | {"latent_dim": about["latent_dim"][0]}

    def _array(self, x: Tensor | ArrayLike) -> Tensor:
        """x as :meth:`labelled` makes it; x alone has no labels."""
        if tuple(getattr(x, "shape", ()))[1:] != (math.prod(self.x_shape) + self.classes,):
            x = super()._array(x)
            return torch.cat([x.flatten(1), x.new_zeros(len(x), self.classes)], 1)
        cells, known = self.split(torch.as_tensor(x))
        cells = super()._array(cells)
        known = known.to(cells)
        if not (((known == 0) | (known == 1)).all() and (known.sum(1) <= 1).all()):
            raise ValueError(
                f"the last {self.classes} columns are a label as a one-hot vector, or zeros: "
                "make data by vae.labelled(x, labels)"
            )
        return torch.cat([cells.flatten(1), known], 1)

    def _read(self, x: Tensor) -> Tensor:
        return super()._read(self._cells(x))

    def _cells(self, x: Tensor) -> Tensor:
        return self.split(x)[0]

    def _with_cells(self, x: Tensor, cells: Tensor) -> Tensor:
        return torch.cat([cells.flatten(1), self.split(x)[1]], 1)


class Labelled(Layered):
    r"""A label and z given the label, as one distribution of both side by side.

    .. math:: p(y, z) = p(y)\, p(z \mid y)

    Args:
        label: a ``OneHotCategorical``, of batch shape ``(B,)`` or ``()``.
        given: from y, ``(..., K)``, to the distribution of z.
        latent_dim: of z.
    """

    def __init__(
        self,
        label: dist.TorchDistribution,
        given: Callable[[Tensor], dist.TorchDistribution],
        latent_dim: int,
    ) -> None:
        super().__init__((label.event_shape[0], latent_dim), (0, 1), label, [given])

    @property
    def mean(self) -> Tensor:
        """Labels have none."""
        raise NotImplementedError

    @property
    def mode(self) -> Tensor:
        """The most probable label, and beside it a point of z given that label."""
        logits: Any = self.first.logits
        y = nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits)
        return side_by_side(y, point(self.given[0](y)))

    def at(self, known: Tensor) -> "Labelled":
        """The same, the label at its place where it is known.

        Args:
            known: ``(B, K)``, one-hot vectors, or zeros.
        """
        free: Any = self.first.logits
        logits = torch.where(known.any(-1, keepdim=True), NEVER * (known - 1), free)
        return Labelled(dist.OneHotCategorical(logits=logits), self.given[0], self.sizes[1])

    def draw_sites(self) -> Tensor:
        """The sites ``y`` and ``z``, in that order."""
        names = "y", "z"
        return self._along(lambda layer, d: pyro.sample(names[layer], d))


class _LabelledPrior(Part):
    """p(y) p(z)."""

    def __init__(self, labels: str | Spec, prior: str | Spec | nn.Module, classes: int) -> None:
        super().__init__()
        self.labels, self.line, self.classes = as_spec(labels), prior, classes

    def build(self, ends: Ends) -> None:
        self.latent_dim = ends.shape[0] - self.classes
        self.label = ends.make(self.labels, shape=(self.classes,))
        self.prior = ends.make(self.line, shape=(self.latent_dim,))
        self.spec = spec_of(self.prior)

    def connect(self, ends: Ends) -> None:
        connect(self.prior, replace(ends, encode=None))  # q(z|x) comes with a label

    def forward(self, features: None = None) -> Labelled:
        p = self.prior()
        return Labelled(self.label(), lambda y: p.expand(y.shape[:-1]), self.latent_dim)


class _LabelledGuide(Part):
    """q(y|x) q(z|x, y)."""

    def __init__(
        self, merge: str | Spec | nn.Module, guide: str | Spec | nn.Module, classes: int
    ) -> None:
        super().__init__()
        self.merge, self.line, self.classes = make_network(merge), guide, classes

    def build(self, ends: Ends) -> None:
        self.latent_dim = ends.shape[0] - self.classes
        self.label = ends.make("OneHotCategorical", shape=(self.classes,))
        width = math.prod(ends.feature_shape or ()) + self.classes
        h = build_network(self.merge, torch.zeros(1, width), (self.latent_dim,), "merge")
        guide = {"shape": (self.latent_dim,), "feature_shape": h}
        self.posterior = ends.make(self.line, whole=True, **guide)
        if isinstance(self.posterior, SemiAmortized):
            raise ValueError("SemiAmortized is of the whole guide, not of a part of it")
        self.spec = spec_of(self.posterior)

    def connect(self, ends: Ends) -> None:
        prior = ends.partner and ends.partner.prior
        connect(self.posterior, replace(ends, partner=prior))

    def forward(self, features: Tensor) -> Labelled:
        flat = features.flatten(1)

        def given(y: Tensor) -> dist.TorchDistribution:
            return self.posterior(batched(self.merge, side_by_side(flat, y), 1))

        return Labelled(self.label(features), given, self.latent_dim)


def side_by_side(first: Tensor, second: Tensor) -> Tensor:
    """Vectors ``(..., A)`` and ``(..., B)`` as ``(..., A + B)``; leading dimensions broadcast."""
    lead = torch.broadcast_shapes(first.shape[:-1], second.shape[:-1])
    return torch.cat([first.expand(*lead, -1), second.expand(*lead, -1)], -1)
