"""The VAE: ``model(x)`` and ``guide(x)``, two ordinary Pyro functions over three families."""

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import pyro
import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..core.modes import untouched
from ..core.seeding import seeded
from ..core.sizes import bounded, memory
from ..families.joined import JoinedLikelihood
from ..families.likelihoods import has_independent_cells
from ..families.missingness import make_missingness
from ..families.networks import MLP, build_network, make_network, spec_of
from ..families.part import Ends, Line, Part, connect, start_from
from ..families.registry import make_layers, make_part
from ..families.support import support_of
from ..families.topics import introduce
from ..language.arguments import suggests
from ..language.spec import Spec, as_spec
from .arguments import Condition, Observations, as_record, record_arguments
from .files import CUSTOM, write_model
from .inference import Inference
from .inputs import InputMode
from .joint import Joint
from .latents import Latents, check_supports, latent_shape
from .record import Record
from .steps import make_inputs
from .trial import check_density, check_event, check_meeting, try_part

__all__ = ["VAE", "Units"]

Units: TypeAlias = Literal["data", "none"]
BYTES = 64  # of memory for a number of a model: its gradient, Adam's moments, and room for data
MOST_TENSORS = 5_000  # of what a model's lines may make
DRAWS = 8  # of z, at which the likelihood's support is looked at


class VAE(Inference):
    r"""A variational autoencoder: a prior p(z), a likelihood p(x|z) and a guide q(z|x).

    .. math:: \log p(x) \ge E_{q(z|x)}[\log p(x|z)] - KL(q(z|x) \| p(z))

    Args:
        x_shape: the shape of one observation, ``(784,)`` or ``(1, 28, 28)``; a number for a vector.
            ``(None, 12)`` is sequences of any length (:class:`Sequences`). A :class:`Record` says x
            as named blocks, each with a role; a :class:`Table` its columns: frames come in and out.
        latent_dim: the shape of one z; a number for a vector.
        layers: in its place, the widths of stochastic layers, from x upward: ``[100, 50]``. The
            sites are ``z1``, ``z2`` ..., z is all of them side by side, the decoder reads ``z1``.
            A prior's line is then of the top layer (:class:`Hierarchy` says more), a guide's of
            each layer, going up (:class:`BottomUp`); :class:`TopDown` and :class:`Ladder` go down.
        prior: a line such as ``"Normal"``, or any module with ``forward() -> distribution``.
        likelihood: a line, or a module with ``forward(features) -> distribution``; ``"Bernoulli"``
            where it is not given. Of a table, lines of some columns by name; the others have what
            the table decided.
        guide: a line, or a module with ``forward(features) -> distribution``.
        encoder: from x to features; ``MLP([200, 200])`` where it is not given.
        decoder: from z to features, likewise; ``"Topics"`` (:class:`Topics`) of documents.
        missing: whether x may hold NaN. Those cells drop out of the likelihood, and the encoder
            reads x with zeros there, beside a mask of the observed cells (twice the channels:
            :class:`Inputs` says along which dimension). A line says how cells come to be
            missing where that depends on their values: ``"SelfMasking"`` on their own,
            ``"Logistic"`` on all of them (:class:`Missingness`). ``"Bernoulli"`` makes it a bit
            beside each column of a table that has holes, given z: rows are simulated with holes.
        condition: what encoder and decoder read beside x and z, and the likelihood does not score:
            of a table a formula over its columns, ``"~ age + C(batch)"``, or columns by name; of an
            array a :class:`Design`, or how many numbers c are. The model is then p(x, z | c), with
            p(z | c) where a parameter of the prior is ``amortized``, linear in c.
        offset: the column of exposures, greater than 0, which multiply the mean of counts;
            ``"library"``, the total of the row.
        weight: the column of weights, greater than 0, by which each row counts.
        inputs: what the encoder reads: ``"auto"`` brings numbers to unit scale, by what training
            data say when training starts (:class:`Inputs` says how; data in [0, 1] stay as they
            are); ``"raw"`` leaves x as it is.
        units: ``"data"`` lets the parameters of the likelihood count in the data's units, and start
            at what training data say: for x that is not standardized. Numbers that a line names are
            the user's, in the units of x, either way. Models of tables and counts have them.
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
    prior_reads = False  # a condition, as its features
    ROLES: ClassVar[dict[str, str]] = {
        "prior": "prior",
        "likelihood": "likelihood",
        "guide": "approximation",
        "encoder": "encoder",
        "decoder": "decoder",
    }

    @suggests
    def __init__(
        self,
        x_shape: Observations,
        latent_dim: int | tuple[int, ...] | None = None,
        *,
        layers: Sequence[int] | None = None,
        prior: Line = "Normal",
        likelihood: Line | Mapping[str, str] | None = None,
        guide: Line = "Normal",
        encoder: Line | None = None,
        decoder: Line | None = None,
        missing: bool | str | Spec = False,
        condition: Condition | None = None,
        offset: str | None = None,
        weight: str | None = None,
        inputs: InputMode = "auto",
        units: Units | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.record, likelihood, line = as_record(
            x_shape, missing, likelihood, condition, {"offset": offset, "weight": weight}
        )
        self.missingness = None if line is None else make_missingness(line, self.x_shape)
        likelihood = _joined(self.record, likelihood)
        self.units = units or ("data" if self.record.in_units else "none")
        if self.units not in get_args(Units):
            raise ValueError(f"units must be 'data' or 'none', got {units!r}")
        z_shape, layers = latent_shape(latent_dim, layers)
        with seeded(seed), bounded(memory() // BYTES, MOST_TENSORS, "the model asks for"):
            self.encoder = make_network(MLP() if encoder is None else encoder, "encoder")
            self.decoder = make_network(MLP() if decoder is None else decoder, "decoder")
            if self.encoder is self.decoder:
                raise ValueError("encoder and decoder are one module: give each its own")
            example, in_units = _example(likelihood, self.x_shape), self.units == "data"
            networks = self.encoder, self.decoder
            self.inputs = make_inputs(self.record, example, inputs, in_units, networks)
            x = self.inputs(torch.zeros(1, *self.record.shape))
            h = build_network(self.encoder, x, self.x_shape, "encoder")
            ends = Ends(z_shape, "guide", h, layers, self.encoder)
            if layers:
                self.prior, self.approximation = make_layers(prior, guide, ends, self.decoder)
            else:
                self.approximation = make_part(guide, ends)
            q = try_part(self.approximation, "guide", str(guide), torch.zeros(1, *h))
            check_event(q, z_shape, "guide")
            self.latents = Latents.of(q)
            if "y" not in self.latents.sites and self.record.has("label"):
                raise ValueError("a label block is of M2: M2(x_shape, latent_dim, classes)")
            z = self.latents.features(torch.zeros(1, *z_shape), torch.get_default_dtype())
            introduce(self.decoder, z[0].numel(), q)
            z, _ = self.inputs.beside(z, torch.zeros(1, *self.record.shape), self.latents.read_dim)
            h = build_network(self.decoder, z, self.x_shape, "decoder")
            own = {"in_units": in_units, "writes": getattr(self.decoder, "writes", "")}
            ends_x = Ends(self.x_shape, "likelihood", h, **own)
            self.likelihood = make_part(self.inputs.stepwise(likelihood), ends_x)
            p = try_part(self.likelihood, "likelihood", str(likelihood), torch.zeros(1, *h))
            if not layers:
                self.prior = make_part(prior, self._prior_ends(prior, z_shape))
            self._connect(replace(ends, x_shape=self.x_shape, x_support=support_of(p)))
        self._check_parts(q, p)

    # The two functions of Pyro's.

    def model(self, x: Tensor | None = None) -> Tensor:
        """p(x, z) = p(z) p(x|z): the sites of z (``z``) and ``x`` in the plate ``data``.

        Args:
            x: ``(B, *x_shape)``, or as :attr:`record` packs it; ``None`` draws one observation.
        """
        mask = () if self.missingness is None else ("missingness",)
        self._register("prior", "decoder", "likelihood", *mask)
        with pyro.plate("data", 1 if x is None else len(x)), self.record.weighted(x):
            z = self._draw_prior(x)
            p = self.decode(z, x)
            if self.missingness is not None and x is not None:
                self.missingness.observe(p, self.record.cells(x))
            p, cells = self.record.observe(p, x)
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
        return self.latents.draw(self.prior_at(x))

    def prior_at(self, x: Tensor | None = None) -> dist.TorchDistribution:
        """p(z), of batch shape ``()``; p(z | c) of ``(B,)``, where the prior reads a condition.

        Args:
            x: ``(B, ...)``, as for :meth:`model`.
        """
        return self.prior(self.inputs.read_context(x)) if self.prior_reads else self.prior()

    def _prior_ends(self, prior: Line, z_shape: tuple[int, ...]) -> Ends:
        """The ends of the prior: with the condition as its features, where the line asks for it."""
        width = sum(b.width for b in self.record.blocks if b.role == "context")
        self.prior_reads = bool(width) and _asks_for_features(prior)
        return Ends(z_shape, "prior", (width,) if self.prior_reads else None)

    def start_from(self, x: Tensor) -> None:
        """Give data to what starts from data, once: encoder inputs, units, pseudo-inputs.

        ``fit`` does so; with ``SVI`` it is yours to do. A second call changes nothing.

        Args:
            x: training data, ``(N, *x_shape)``.
        """
        x = self.as_data(x)
        if self.units == "none" and (cell := self.inputs.far_cell(x)):
            warnings.warn(
                "x is far from unit scale, where this likelihood starts "
                f"(see {self.record.place(0, *cell)}): training takes long or fails. "
                "VAE(..., units='data') starts it in the data's own units",
                stacklevel=2,
            )
        self.inputs.start_from(x)
        mask = () if self.missingness is None else (self.missingness,)
        cells = self.record.cells(x)
        with seeded(0), torch.no_grad(), untouched(self):
            p = self.decode(self.prior_at(x[:1]).expand([1]).sample(), x[:1])
        start_from(self.likelihood, self.record.without_offset(x, p))
        for part in (self.approximation, self.prior, *mask):
            start_from(part, cells)

    def approximate_posterior(self, x: Tensor) -> dist.TorchDistribution:
        """q(z|x) with its graph, for training: batch shape ``(B,)``, event shape of z.

        Args:
            x: as for :meth:`model`, a tensor of the model's type.
        """
        features = self.encoder(self.inputs(x))
        if isinstance(self.approximation, Part):
            return self.approximation.approximate(features, Joint(self, x).log_joint)
        return self.approximation(features)

    def decode(self, z: Tensor, x: Tensor | None = None) -> dist.TorchDistribution:
        """p(x|z): batch shape ``(...)``, event shape of x.

        Args:
            z: ``(..., *z_shape)``.
            x: ``(B, ...)`` for z ``(..., B, *z_shape)``: where the context or the offset that come
                with an observation are read; not needed where the record has none.
        """
        got = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        if got[-len(self.z_shape) :] != self.z_shape:
            shape = ", ".join(map(str, ("...", *self.z_shape)))
            raise ValueError(f"expected z, a tensor of shape ({shape}), got {got}")
        h = self.latents.features(z, self.example.dtype)
        h, event_dim = self.inputs.beside(h, x, self.latents.read_dim)
        p = self.inputs.likelihood(self.decoder, self.likelihood, h, event_dim)
        return self.record.shift(p, x)

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
            z = self.prior_at(x[:1]).expand([DRAWS]).sample()
            self.record.check(x, [self.decode(one, x[:1]) for one in z.split(1)], name)
        return x

    # Saved as weights and a readable description; nothing is unpickled.

    def describe(self) -> dict[str, Any]:
        """What makes this model again: the arguments of its class, as plain values."""
        latents = self.latents.layers
        return {
            "kind": self.kind(),
            **self.record.describe(),
            **({"missing": _line(self.missingness)} if self.missingness else {}),
            **({"layers": latents} if latents else {"latent_dim": self.z_shape}),
            **{role: _line(self.get_submodule(path)) for role, path in self.ROLES.items()},
            "inputs": self.inputs.mode,
            "units": self.units,
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
        before = {"inputs": "raw", "units": "none"}  # of folders that do not say it
        own = {name: about.get(name, default) for name, default in before.items()}
        if isinstance(about.get("missing"), str):
            own["missing"] = about["missing"]
        return record_arguments(about) | latent_dim | own | {k: about[k] for k in cls.ROLES}

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
        encode = self.approximate_posterior if self.inputs.complete else None
        ends = replace(ends, encode=encode)
        connect(self.prior, replace(ends, role="prior", partner=self.approximation))
        connect(self.approximation, replace(ends, partner=self.prior))

    def _register(self, *names: str) -> None:
        """Tell Pyro of the parameters; two models under one name would share them silently."""
        for name in names:
            for key, value in getattr(self, name).named_parameters(name):
                if not value.is_contiguous():  # Pyro would train a copy
                    value.data = value.data.contiguous()
                if value.requires_grad and pyro.param(key, value).data_ptr() != value.data_ptr():
                    raise ValueError(
                        f"Pyro's parameter store holds another model's {key!r}, so this one would "
                        "not be trained: call pyro.clear_param_store(), or work within "
                        "`with pyro.get_param_store().scope():`"
                    )

    def _check_parts(self, q: dist.TorchDistribution, p_x: dist.TorchDistribution) -> None:
        """Raise unless prior, guide and likelihood, at some features, go together."""
        context = torch.zeros(1, *self.record.shape) if self.prior_reads else None
        context = None if context is None else self.inputs.read_context(context)
        p = try_part(self.prior, "prior", _line(self.prior), context)
        for d, role in ((p, "prior"), (q, "guide"), (p_x, "likelihood")):
            check_density(d, role, _line(self.get_submodule(self.ROLES[role])))
        check_event(p, self.z_shape, "prior")
        check_event(p_x, self.x_shape, "likelihood")
        check_supports(p, q, _line(self.prior), _line(self.approximation))
        lines = [_line(self.get_submodule(self.ROLES[role])) for role in ("prior", "guide")]
        if "Delta" in lines[1]:
            check_meeting(p, q, lines)
        self.record.shift(p_x, torch.zeros(1, *self.record.shape))
        if self.record.missing and not has_independent_cells(p_x):
            raise ValueError("missing cells need a likelihood of independent cells")
        if self.missingness and not (self.record.missing and p_x.has_rsample):
            name = _line(self.likelihood)
            raise ValueError(
                f"missing={_line(self.missingness)!r} draws missing cells along gradients, which "
                f"{name} has not: choose a likelihood such as Normal or StudentT, or missing=True"
                if self.record.missing
                else "no observed block has missing cells: Block('x', 784, missing=True)"
            )


def _joined(record: Record, likelihood: Line) -> Line:
    """The likelihood of all observed blocks, where they say their own."""
    lines = [(line or likelihood, shape[-1]) for line, shape in record.scored]
    return lines[0][0] if len(lines) == 1 else JoinedLikelihood(lines, likelihood, record.layout)


def _asks_for_features(prior: Line) -> bool:
    """Whether a line of the prior leaves a parameter to what it reads."""
    spec = spec_of(prior) if isinstance(prior, nn.Module) else as_spec(prior)
    return spec is not None and "amortized" in str(spec)


def _example(likelihood: Line, x_shape: tuple[int, ...]) -> dist.TorchDistribution | None:
    """The likelihood at some z, for what its support says; ``None`` of a module without a line."""
    line = likelihood
    if isinstance(likelihood, JoinedLikelihood):
        line = deepcopy(likelihood)
    elif isinstance(likelihood, nn.Module) and (line := spec_of(likelihood)) is None:
        return None
    with seeded(0), torch.no_grad():
        return make_part(line, Ends(x_shape, "likelihood", (1,)))(torch.zeros(1, 1))


def _line(module: nn.Module) -> str:
    spec = spec_of(module)
    own = f"{type(module).__module__}.{type(module).__qualname__}"
    return str(spec) if spec else f"{CUSTOM}{own}"
