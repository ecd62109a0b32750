"""The VAE: ``model(x)`` and ``guide(x)``, two ordinary Pyro functions over three families."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..core.modes import untouched
from ..core.seeding import seeded
from ..core.sizes import bounded, memory
from ..families.layers import layer_sizes
from ..families.networks import MLP, batched, build_network, make_network, spec_of
from ..families.part import Ends, Line, Part, connect
from ..families.registry import make_layers, make_part
from ..families.support import innermost, support_of
from .blocks import shape_of
from .files import CUSTOM, write_model
from .inference import Inference
from .joint import Joint
from .latents import Latents, check_supports
from .record import Record

__all__ = ["VAE"]

BYTES = 64  # of memory for a number of a model: its gradient, Adam's moments, and room for data
MOST_TENSORS = 20_000  # of what a model's lines may make
DRAWS = 8  # of z, at which the likelihood's support is looked at


class VAE(Inference):
    r"""A variational autoencoder: a prior p(z), a likelihood p(x|z) and a guide q(z|x).

    .. math:: \log p(x) \ge E_{q(z|x)}[\log p(x|z)] - KL(q(z|x) \| p(z))

    Args:
        x_shape: the shape of one observation, ``(784,)`` or ``(1, 28, 28)``; a number for a vector.
            A :class:`Record` in its place says x as named blocks, each with a role.
        latent_dim: the shape of one z; a number for a vector.
        layers: in its place, the widths of stochastic layers, from x upward: ``[100, 50]``. The
            sites are ``z1``, ``z2`` ..., z is all of them side by side, the decoder reads ``z1``.
            A prior's line is then of the top layer (:class:`Hierarchy` says more), a guide's of
            each layer, going up (:class:`BottomUp`); :class:`TopDown` and :class:`Ladder` go down.
        prior: a line such as ``"Normal"``, or any module with ``forward() -> distribution``.
        likelihood: a line, or a module with ``forward(features) -> distribution``.
        guide: a line, or a module with ``forward(features) -> distribution``.
        encoder: from x to features; ``MLP([200, 200])`` where it is not given.
        decoder: from z to features; ``MLP([200, 200])`` where it is not given.
        missing: whether x may hold NaN. Those cells drop out of the likelihood, and the encoder
            reads x with zeros there, beside a mask of the observed cells (twice the channels:
            :meth:`Record.see` says along which dimension).
        seed: of the initial weights; the global generator's state where it is not given.

    Raises:
        SpecError: an unknown family or parameter, or a number outside its constraint.
        ValueError: guide and prior have different supports, or shapes that do not fit.

    References:
        Kingma & Welling (2014), arXiv:1312.6114; Rezende et al. (2014), arXiv:1401.4082.

    >>> vae = VAE((784,), latent_dim=50, likelihood="Bernoulli", encoder=MLP([200]), seed=0)
    >>> vae.sample(3, seed=0).shape
    torch.Size([3, 784])
    """

    # What a line, or a class of the user's, says: the argument, and the module that it makes.
    ROLES: ClassVar[dict[str, str]] = {
        "prior": "prior",
        "likelihood": "likelihood",
        "guide": "approximation",
        "encoder": "encoder",
        "decoder": "decoder",
    }

    def __init__(
        self,
        x_shape: int | tuple[int, ...] | Record,
        latent_dim: int | tuple[int, ...] | None = None,
        *,
        layers: Sequence[int] | None = None,
        prior: Line = "Normal",
        likelihood: Line = "Bernoulli",
        guide: Line = "Normal",
        encoder: Line | None = None,
        decoder: Line | None = None,
        missing: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.record = Record.of(x_shape, missing)
        z_shape, layers = _latent_shape(latent_dim, layers)
        with seeded(seed), bounded(memory() // BYTES, MOST_TENSORS, "the model asks for"):
            self.encoder = make_network(MLP() if encoder is None else encoder, "encoder")
            self.decoder = make_network(MLP() if decoder is None else decoder, "decoder")
            if self.encoder is self.decoder:
                raise ValueError("encoder and decoder are one module: give each its own")
            x = self.record.see(torch.zeros(1, *self.record.shape))
            h = build_network(self.encoder, x, self.x_shape, "encoder")
            ends = Ends(z_shape, "guide", h, layers, self.encoder)
            if layers:
                self.prior, self.approximation = make_layers(prior, guide, ends, self.decoder)
            else:
                self.approximation = make_part(guide, ends)
            q = self.approximation(torch.zeros(1, *h))
            _check_event(q, z_shape, "guide")
            self.latents = Latents.of(q)
            if "y" not in self.latents.sites and self.record.has("label"):
                raise ValueError("a label block is of M2: M2(x_shape, latent_dim, classes)")
            z = self.latents.features(torch.zeros(1, *z_shape), torch.get_default_dtype())
            z, _ = self.record.context(z, torch.zeros(1, *self.record.shape), self.latents.read_dim)
            h = build_network(self.decoder, z, self.x_shape, "decoder")
            line = self.record.likelihood or likelihood
            self.likelihood = make_part(line, Ends(self.x_shape, "likelihood", h))
            p = self.likelihood(torch.zeros(1, *h))
            if not layers:
                self.prior = make_part(prior, Ends(z_shape, "prior"))
            self._connect(replace(ends, x_shape=self.x_shape, x_support=support_of(p)))
        self._check_parts(q, p)

    # The two functions of Pyro's.

    def model(self, x: Tensor | None = None) -> Tensor:
        """p(x, z) = p(z) p(x|z): the sites of z (``z``) and ``x`` in the plate ``data``.

        Args:
            x: ``(B, *x_shape)``, or as :attr:`record` packs it; ``None`` draws one observation.
        """
        self._register("prior", "decoder", "likelihood")
        with pyro.plate("data", 1 if x is None else len(x)), self.record.weighted(x):
            z = self._draw_prior(x)
            p, cells = self.record.observe(self.decode(z, x), x)
            return pyro.sample("x", p, obs=cells)

    def guide(self, x: Tensor) -> Tensor:
        """q(z|x): the sites of z (``z``) in the plate ``data``.

        Args:
            x: as for :meth:`model`.
        """
        self._register("encoder", "approximation")
        with pyro.plate("data", len(x)), self.record.weighted(x):
            return self.latents.draw(self.approximate_posterior(x))

    def _draw_prior(self, x: Tensor | None) -> Tensor:
        return self.latents.draw(self.prior())

    def start_from(self, x: Tensor) -> None:
        """Give data to what starts from data (a VampPrior's pseudo-inputs), once.

        ``fit`` does so; with ``SVI`` it is yours to do. A second call changes nothing.

        Args:
            x: training data, ``(N, *x_shape)``.
        """
        for part in self.modules():
            if isinstance(part, Part):
                part.start_from(self.record.cells(x))

    def approximate_posterior(self, x: Tensor) -> dist.TorchDistribution:
        """q(z|x) with its graph, for training: batch shape ``(B,)``, event shape of z.

        Args:
            x: as for :meth:`model`, a tensor of the model's type.
        """
        features = self.encoder(self.record.see(x))
        if isinstance(self.approximation, Part):
            features = self.approximation.improve(features, Joint(self, x).log_joint)
        return self.approximation(features)

    def decode(self, z: Tensor, x: Tensor | None = None) -> dist.TorchDistribution:
        """p(x|z): batch shape ``(...)``, event shape of x.

        Args:
            z: ``(..., *z_shape)``.
            x: ``(B, ...)`` for z ``(..., B, *z_shape)``: where the context or the offset that come
                with an observation are read; not needed where the record has none.
        """
        h = self.latents.features(z, self.example.dtype)
        h, event_dim = self.record.context(h, x, self.latents.read_dim)
        return self.record.shift(self.likelihood(batched(self.decoder, h, event_dim)), x)

    # The boundary: what comes in is checked once.

    @torch.no_grad()
    def check(self, x: Tensor | ArrayLike) -> Tensor:
        """:meth:`as_data`, and every cell in the support of the likelihood.

        Raises:
            ValueError: data outside the support, with the first such value.
        """
        x = self.as_data(x)
        spec = spec_of(self.likelihood)
        name = spec.name if spec else type(self.likelihood).__name__
        with seeded(0), untouched(self):
            z = self.prior().expand([DRAWS]).sample()
            self.record.check(x, [self.decode(one, x[:1]) for one in z.split(1)], name)
        return x

    # Saved as weights and a readable description; nothing is unpickled.

    def describe(self) -> dict[str, Any]:
        """What makes this model again: the arguments of its class, as plain values."""
        latents = self.latents.layers
        return {
            "kind": self.kind(),
            **self.record.describe(),
            **({"layers": latents} if latents else {"latent_dim": self.z_shape}),
            **{role: _line(self.get_submodule(path)) for role, path in self.ROLES.items()},
            "dtype": str(self.example.dtype).removeprefix("torch."),
        }

    @classmethod
    def arguments(cls, about: dict[str, Any]) -> dict[str, Any]:
        """The constructor's arguments again, from what :meth:`describe` gives.

        Raises:
            KeyError: the description lacks one.
        """
        latent = "layers" if "layers" in about else "latent_dim"
        latent_dim = {latent: tuple(about[latent])}
        return Record.arguments(about) | latent_dim | {k: about[k] for k in cls.ROLES}

    @classmethod
    def kind(cls) -> str:
        """The name of the class, with its module where it is none of the package's."""
        own = cls.__module__.split(".")[0] != __name__.split(".")[0]
        return f"{cls.__module__}.{cls.__qualname__}" if own else cls.__qualname__

    def save(self, folder: str | Path) -> Path:
        """Write ``model.toml`` and ``model.safetensors`` into a folder, which is made."""
        return write_model(folder, self.describe(), self.state_dict())

    def _connect(self, ends: Ends) -> None:
        """Let prior and guide take notice of the other parts."""
        encode = None if self.record.has("context") else self.approximate_posterior
        ends = replace(ends, encode=encode)
        connect(self.prior, replace(ends, role="prior", partner=self.approximation))
        connect(self.approximation, replace(ends, partner=self.prior))

    def _register(self, *names: str) -> None:
        """Tell Pyro of the parameters; two models under one name would share them silently."""
        for name in names:
            for key, value in getattr(self, name).named_parameters(name):
                if value.requires_grad and pyro.param(key, value).data_ptr() != value.data_ptr():
                    raise ValueError(
                        f"Pyro's parameter store holds another model's {key!r}, so this one would "
                        "not be trained: call pyro.clear_param_store(), or work within "
                        "`with pyro.get_param_store().scope():`"
                    )

    def _check_parts(self, q: dist.TorchDistribution, p_x: dist.TorchDistribution) -> None:
        """Raise unless prior, guide and likelihood, at some features, go together."""
        p = self.prior()
        _check_event(p, self.z_shape, "prior")
        _check_event(p_x, self.x_shape, "likelihood")
        check_supports(p, q, _line(self.prior), _line(self.approximation))
        self.record.shift(p_x, torch.zeros(1, *self.record.shape))
        if self.record.missing and innermost(p_x).event_dim:
            raise ValueError("missing cells need a likelihood of independent cells")


def _check_event(d: dist.TorchDistribution, shape: tuple[int, ...], name: str) -> None:
    if d.event_shape != shape:
        raise ValueError(
            f"the {name} has events of shape {tuple(d.event_shape)}, expected {shape}: "
            "declare the dimensions of one draw by .to_event()"
        )


def _latent_shape(
    latent_dim: int | tuple[int, ...] | None, layers: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of z, and the widths of stochastic layers where there are several."""
    if (latent_dim is None) == (layers is None):
        raise ValueError("say latent_dim=50, or for stochastic layers layers=[100, 50]")
    if latent_dim is not None:
        return shape_of(latent_dim, "latent_dim", least=1), ()
    sizes = layer_sizes(layers)
    return (sum(sizes),), sizes if len(sizes) > 1 else ()


def _line(module: nn.Module) -> str:
    spec = spec_of(module)
    own = f"{type(module).__module__}.{type(module).__qualname__}"
    return str(spec) if spec else f"{CUSTOM}{own}"
