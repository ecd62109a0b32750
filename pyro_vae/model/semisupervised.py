"""A label as a second, discrete latent that is observed for some of the data: model M2."""

from typing import Any, ClassVar, cast

import pyro
import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..core.acting import evaluates
from ..core.checks import number, whole
from ..data.tables import Table
from ..families.part import Line
from .blocks import Block
from .labels import NEVER, Labelled, LabelledGuide, LabelledPrior
from .record import Record
from .sequences import is_sequences
from .vae import VAE

__all__ = ["M2"]


class M2(VAE):
    r"""A VAE with the class of an observation as a second latent, known for some of the data.

    .. math:: p(x, y, z) = p(y)\, p(z)\, p(x \mid y, z), \quad
        q(y, z \mid x) = q(y \mid x)\, q(z \mid x, y)

    Where the label is known q(y|x) is the point that it names, so the ELBO bounds log p(x, y), and
    log p(x) elsewhere. ``y`` is an ordinary site, a one-hot vector: ``TraceEnum_ELBO`` sums over it
    exactly, other estimators draw it. The ELBO of labelled data does not teach q(y|x), ``alpha``
    does, by :math:`\alpha \log q(y \mid x)` as a factor of the guide: ``fit`` ascends it, reported
    ELBOs are without it, and estimators whose guide has another objective (``RWS``) refuse it.

    Args:
        x_shape: the shape of one observation without its label; or a :class:`Record` of it and what
            is beside it, such as a condition or a weight, to which the label is added.
        latent_dim: of z, a number; a small one where labels are few, as a large z can hold the
            class itself, and y is then free to say something else.
        classes: how many labels there are.
        alpha: the weight of log q(y|x) at labelled data.
        labels: p(y), ``"OneHotCategorical(logits=learned)"`` if classes are not equally frequent.
        merge: a network from the encoder's features of x, beside y, to those of q(z|x, y).
        prior: of z; ``guide`` is of z given x and y.
        parts: as for :class:`VAE`. In one array y and z lie side by side, y first.

    References:
        Kingma, Rezende, Mohamed & Welling (2014), arXiv:1406.5298.

    >>> vae = M2(784, latent_dim=20, classes=10, seed=0)
    >>> data = vae.labelled(torch.zeros(3, 784), [7, -1, 2])
    >>> data.shape, vae.classify(data).probs.shape
    (torch.Size([3, 794]), torch.Size([3, 10]))
    """

    ROLES: ClassVar[dict[str, str]] = VAE.ROLES | {
        "prior": "prior.family",
        "guide": "approximation.family",
        "merge": "approximation.merge",
    }

    def __init__(
        self,
        x_shape: int | tuple[int, ...] | Record,
        latent_dim: int,
        classes: int,
        *,
        alpha: float = 0.0,
        labels: Line = "OneHotCategorical",
        merge: Line = "MLP([200])",
        prior: Line = "Normal",
        guide: Line = "Normal",
        missing: bool = False,
        **parts: Any,  # noqa: ANN401
    ) -> None:
        classes, alpha = whole("classes", classes, 2), number("alpha", alpha, 0)
        if isinstance(x_shape, Table):
            raise ValueError(
                "M2 is of arrays: of a table the label is a column, VAE(table, 50), which "
                "vae.impute fills where it is missing and vae.sample(n, given={'label': ...}) sets"
            )
        if is_sequences(x_shape):
            raise ValueError(
                "M2 is of arrays of one shape, not of sequences of any length: give sequences of "
                "one length as arrays, M2((16, 12), 50, classes=10, encoder='GRU(64)', "
                "decoder='GRU(64)'), or let the labels be a condition, VAE((None, 12), 50, "
                "condition=10)"
            )
        if isinstance(x_shape, Record) and (type(x_shape) is not Record or x_shape.has("label")):
            raise ValueError(
                "M2 takes a Record of plain blocks, and adds the label to it: "
                "M2(Record([Block('x', 784)]), 50, classes=10)"
            )
        if said := [name for name in ("condition", "offset", "weight") if name in parts]:
            raise ValueError(
                f"M2 takes {said[0]}= as a block: M2(Record([Block('x', 784), Block('c', 3, "
                "'context')]), 50, classes=10); its role may be offset or weight, of one number"
            )
        label = Block("label", classes, role="label")
        super().__init__(
            Record([*Record.of(x_shape, missing).blocks, label]),
            whole("latent_dim", latent_dim) + classes,
            prior=LabelledPrior(labels, prior, classes),
            guide=LabelledGuide(merge, guide, classes),
            **parts,
        )
        self.classes, self.alpha = classes, alpha

    def guide(self, x: Tensor) -> Tensor:
        """q(y, z|x): sites ``y`` and ``z``, and the factor ``classification``, in ``data``."""
        self._register("encoder", "approximation")
        known, q = self._known(x), self._unlabelled(x)
        with pyro.plate("data", len(x)), self.record.weighted(x):
            if self.alpha:
                log_q = (known * q.first.logits).sum(-1)
                pyro.factor("classification", -self.alpha * log_q, has_rsample=True)
            return self.latents.draw(q.at(known))

    @evaluates
    @torch.no_grad()
    def classify(self, x: Tensor | ArrayLike) -> dist.OneHotCategorical:
        """q(y|x), of batch shape ``(N,)``; labels that come with the data are not looked at."""
        return self._unlabelled(self.as_data(x)).first

    def approximate_posterior(self, x: Tensor) -> dist.TorchDistribution:
        """q(y, z|x) as one distribution of y and z side by side; known labels are kept."""
        return self._unlabelled(x).at(self._known(x))

    def labelled(self, x: Tensor | ArrayLike, labels: Tensor | ArrayLike) -> Tensor:
        """Each observation beside its label, ``(N, D + classes)``: the data for ``fit``.

        Labels are whole numbers from 0, ``(N,)``; -1 or NaN where they are not known. Where there
        are more blocks x is a dict of them.
        """
        self.record.name_columns(x)
        x = self.as_data(x)
        return self.record.pack({**self.record.unpack(x), "label": labels}).to(x)

    def describe(self) -> dict[str, Any]:
        """What makes this model again: the arguments of :class:`M2`, as plain values."""
        prior: Any = self.prior
        about = super().describe()
        del about["blocks"]
        about |= Record([b for b in self.record.blocks if b.role != "label"]).describe()
        own = {"classes": self.classes, "alpha": self.alpha, "labels": str(prior.label.spec)}
        return about | own | {"latent_dim": [self.z_shape[0] - self.classes]}

    @classmethod
    def arguments(cls, about: dict[str, Any]) -> dict[str, Any]:
        """The arguments again, from what :meth:`describe` gives."""
        own = {name: about[name] for name in ("classes", "alpha", "labels")}
        return super().arguments(about) | own | {"latent_dim": about["latent_dim"][0]}

    def _known(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.record.part(x, "label"))

    def _unlabelled(self, x: Tensor) -> Labelled:
        return cast("Labelled", super().approximate_posterior(x))

    def _draw_prior(self, x: Tensor | None) -> Tensor:
        both = super()._draw_prior(x)
        if x is not None:
            pyro.factor("label", -self.ruled_out(both, x))
        return both

    def ruled_out(self, z: Tensor, x: Tensor) -> Tensor:
        """Zero where y is the label, and what rules it out elsewhere."""
        return NEVER * (self._known(x) * (1 - z[..., : self.classes])).sum(-1)
