"""A label as a second, discrete latent that is observed for some of the data: model M2."""

from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..core.checks import number, whole
from ..language.spec import Spec
from .labels import NEVER, Labelled, LabelledGuide, LabelledPrior
from .record import Block, Record
from .vae import VAE

__all__ = ["M2"]


class M2(VAE):
    r"""A VAE with the class of an observation as a second latent, known for some of the data.

    .. math:: p(x, y, z) = p(y)\, p(z)\, p(x \mid y, z), \quad
        q(y, z \mid x) = q(y \mid x)\, q(z \mid x, y)

    Where the label is known q(y|x) is the point that it names, so the ELBO bounds log p(x, y), and
    log p(x) elsewhere. ``y`` is an ordinary site, a one-hot vector: ``TraceEnum_ELBO`` sums over it
    exactly, other estimators draw it. With ``alpha`` the guide is asked for the labels, too, which
    the ELBO of labelled data does not do:

    .. math:: L(x, y) + \alpha \log q(y \mid x)

    It is a factor of the guide: ``fit`` ascends it, and the ELBOs that are reported are without it.
    Estimators whose guide follows another objective (``RWS``, ``CUBO``) refuse it.

    The record has the blocks ``x`` and ``label``, as :meth:`labelled` packs them; x alone has no
    labels.

    Args:
        x_shape: the shape of one observation without its label.
        latent_dim: of z, a number.
        classes: how many labels there are.
        alpha: the weight of log q(y|x) at labelled data.
        labels: p(y), ``"OneHotCategorical(logits=learned)"`` where classes are not equally
            frequent.
        merge: a network from the encoder's features of x, beside y, to those of q(z|x, y).
        prior: of z.
        guide: of z, given x and y.
        missing: as for :class:`VAE`.
        parts: as for :class:`VAE`; the encoder reads x once for q(y|x) and q(z|x, y), the decoder
            reads y and z as one vector. Latents of the two are set side by side, y first, wherever
            one array holds them (``encode``, ``decode``).

    Raises:
        ValueError: as :class:`VAE`.

    References:
        Kingma, Rezende, Mohamed & Welling (2014), arXiv:1406.5298.

    >>> import torch
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
        x_shape: int | tuple[int, ...],
        latent_dim: int,
        classes: int,
        *,
        alpha: float = 0.0,
        labels: str | Spec = "OneHotCategorical",
        merge: str | Spec | nn.Module = "MLP([200])",
        prior: str | Spec | nn.Module = "Normal",
        guide: str | Spec | nn.Module = "Normal",
        missing: bool = False,
        **parts: Any,  # noqa: ANN401
    ) -> None:
        classes, latent_dim = whole("classes", classes, 2), whole("latent_dim", latent_dim)
        alpha = number("alpha", alpha, 0)
        shape = Record.of(x_shape, missing).x_shape
        label = Block("label", classes, role="label")
        super().__init__(
            Record([Block("x", shape, missing=missing), label]),
            latent_dim + classes,
            prior=LabelledPrior(labels, prior, classes),
            guide=LabelledGuide(merge, guide, classes),
            **parts,
        )
        self.classes, self.alpha = classes, alpha

    def guide(self, x: Tensor) -> Tensor:
        """q(y, z|x): sites ``y`` and ``z``, and the factor ``classification``, in ``data``.

        Args:
            x: observations as :meth:`labelled` makes them.
        """
        self._register("encoder", "approximation")
        known, q = self.record.part(x, "label"), self._unlabelled(x)
        with pyro.plate("data", len(x)):
            if self.alpha:
                log_q = (known * q.first.logits).sum(-1)
                pyro.factor("classification", -self.alpha * log_q, has_rsample=True)
            return self.latents.draw(q.at(known))

    def classify(self, x: Tensor | ArrayLike) -> dist.OneHotCategorical:
        """q(y|x), of batch shape ``(B,)``; labels that come with the data are not looked at.

        Args:
            x: ``(B, *x_shape)``, with or without labels.
        """
        return self._unlabelled(self.as_data(x)).first

    def approximate_posterior(self, x: Tensor) -> dist.TorchDistribution:
        """q(y, z|x) as one distribution of y and z side by side; known labels are kept."""
        return self._unlabelled(x).at(self.record.part(x, "label"))

    def labelled(self, x: Tensor | ArrayLike, labels: Tensor | ArrayLike) -> Tensor:
        """Data for ``fit`` and all else: each observation beside its label.

        Args:
            x: ``(N, *x_shape)``.
            labels: ``(N,)`` whole numbers from 0; -1 or NaN where the label is not known.

        Returns:
            ``(N, D + classes)``: the D cells of x, and a one-hot vector, or zeros.

        Raises:
            ValueError: data that are not the model's, or labels that are no classes.
        """
        x = self.as_data(x)
        return self.record.pack({"x": self.record.cells(x), "label": labels}).to(x)

    def describe(self) -> dict[str, Any]:
        """What makes this model again: the arguments of :class:`M2`, as plain values."""
        prior: Any = self.prior
        plain = Record.of(self.x_shape, self.record.missing).describe()
        about = {k: v for k, v in super().describe().items() if k != "blocks"} | plain
        own = {"classes": self.classes, "alpha": self.alpha, "labels": str(prior.label.spec)}
        return about | own | {"latent_dim": [self.z_shape[0] - self.classes]}

    @classmethod
    def arguments(cls, about: dict[str, Any]) -> dict[str, Any]:
        """The arguments again, from what :meth:`describe` gives."""
        own = {k: about[k] for k in ("classes", "alpha", "labels")}
        return super().arguments(about) | own | {"latent_dim": about["latent_dim"][0]}

    def _unlabelled(self, x: Tensor) -> Labelled:
        """q(y, z|x) as if no label were known."""
        return super().approximate_posterior(x)  # pyright: ignore[reportReturnType]

    def _draw_prior(self, x: Tensor | None) -> Tensor:
        both = super()._draw_prior(x)
        if x is not None:  # zero where y is the label, and what rules it out elsewhere
            wrong = self.record.part(x, "label") * (1 - both[..., : self.classes])
            pyro.factor("label", -NEVER * wrong.sum(-1))
        return both
