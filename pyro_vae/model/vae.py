"""The VAE: ``model(x)`` and ``guide(x)``, two ordinary Pyro functions over three families."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import pyro
import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..core.acting import untouched
from ..core.seeding import seeded
from ..core.sizes import bounded, memory
from ..families.likelihoods import check_cells, weigh
from ..families.missingness import make_missingness
from ..families.networks import build_network, spec_of
from ..families.part import Ends, Line, Part, connect, start_from
from ..families.priors import is_made_of_guide
from ..families.registry import make_layers, make_part
from ..families.support import support_of
from ..families.topics import introduce
from ..families.visits import Conjugate
from ..language.arguments import suggests
from ..language.spec import Spec
from .arguments import Condition, Given, Observations, as_record, record_arguments
from .arrangement import arranged, latent_shapes, own_shape
from .files import write_model
from .forecast import Forecasts
from .inputs import InputMode
from .joint import Joint
from .latents import Latents, check_supports
from .making import asks_for_features, example_of, joined, line_of
from .steps import make_inputs
from .trial import check_density, check_event, check_meeting, check_scale, try_part

__all__ = ["VAE", "Units"]

Units: TypeAlias = Literal["data", "none"]
BYTES = 64  # of memory for a number of a model: its gradient, Adam's moments, and room for data
MOST_TENSORS = 5_000  # of what a model's lines may make
DRAWS = 8  # of z, at which the likelihood's support is looked at


class VAE(Forecasts):
    r"""A variational autoencoder: a prior p(z), a likelihood p(x|z) and a guide q(z|x).

    .. math:: \log p(x) \ge E_{q(z|x)}[\log p(x|z)] - KL(q(z|x) \| p(z))

    Args:
        x_shape: the shape of one observation, ``(784,)`` or ``(1, 28, 28)``; a number for a vector.
            ``(None, 12)`` is :class:`Sequences` of any length, a :class:`Record` named blocks with
            a role each, a :class:`Table` columns: frames come in and go out.
        latent_dim: the shape of one z; a number for a vector.
        layers: in its place, the widths of stochastic layers, from x upward: ``[100, 50]``. The
            sites are ``z1``, ``z2`` ..., z is all of them side by side, the decoder reads ``z1``.
            A prior's line is then of the top layer (:class:`Hierarchy` says more), a guide's of
            each layer, going up (:class:`BottomUp`); :class:`TopDown` and :class:`Ladder` go down.
        prior: a line such as ``"Normal"``, or any module with ``forward() -> distribution``.
        likelihood: a line, or a module with ``forward(features) -> distribution``; ``"Bernoulli"``
            where it is not given. Of a table, lines of some columns by name; the others have what
            the table decided.
        guide: a line, or a module with ``forward(features) -> distribution``; ``"Normal"`` where it
            is not given, and of visits ``"Conjugate"``.
        encoder: from x to features; by default ``MLP([200, 200])``, of sequences ``GRU(128)``.
        decoder: from z to features, likewise; ``"Topics"`` (:class:`Topics`) of documents.
        missing: whether x may hold NaN. Those cells drop out of the likelihood, and the encoder
            reads zeros there, beside a mask of the observed cells (twice the channels, as
            :class:`Inputs` has them). A line says how that depends on values: ``"SelfMasking"`` on
            their own, ``"Logistic"``, of densities alone, on all (:class:`Missingness`).
            ``"Bernoulli"`` makes it a bit beside each column of a table that has holes, given z:
            rows are simulated with holes.
        condition: what encoder and decoder read beside x and z, and the likelihood does not score:
            of a table a formula over its columns, ``"~ age + C(batch)"``, or columns by name; of an
            array a :class:`Design`, or how many numbers c are. The model is then p(x, z | c), with
            p(z | c) where a parameter of the prior is ``amortized``, linear in c.
        covariates: of columns of the condition with holes, the families, ``"Normal"`` or, of two
            values, ``"Bernoulli"``. Where such a column is missing it is a latent with a guide
            (``TraceEnum_ELBO`` sums over bits), elsewhere it is scored: the model is p(x, c).
        offset: the column of exposures that multiply counts; ``"library"``, the total of the row.
        weight: the column of weights, greater than 0, by which each row counts.
        inputs: what the encoder reads: ``"auto"`` brings numbers to unit scale, by what training
            data say when training starts (:class:`Inputs` says how; data in [0, 1], or at unit
            scale already, stay as they are); ``"raw"`` leaves x as it is.
        units: ``"data"`` lets the parameters of the likelihood count in the data's units, and start
            at what training data say: for x that is not standardized. Numbers that a line names are
            the user's, in the units of x, either way. Models of tables and counts have them.
        seed: of the initial weights; the global generator's state where it is not given.

    Raises:
        SpecError: an unknown family or parameter, or a number outside its constraint.
        ValueError: guide and prior have different supports, or shapes that do not fit.

    References:
        Kingma & Welling (2014), arXiv:1312.6114; Rezende et al. (2014), arXiv:1401.4082.

    >>> vae = VAE((784,), latent_dim=50, likelihood="Bernoulli", encoder="MLP([200])", seed=0)
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
        guide: Line | None = None,
        encoder: Line | None = None,
        decoder: Line | None = None,
        missing: bool | str | Spec = False,
        condition: Condition | None = None,
        covariates: Mapping[str, str] | None = None,
        offset: str | None = None,
        weight: str | None = None,
        inputs: InputMode = "auto",
        units: Units | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        given = Given(condition, {"offset": offset, "weight": weight}, covariates or {}, prior)
        self.record, likelihood, line = as_record(x_shape, missing, likelihood, given)
        likelihood = joined(self.record, likelihood)
        self.units = units or ("data" if self.record.in_units else "none")
        if self.units not in get_args(Units):
            raise ValueError(f"units must be 'data' or 'none', got {units!r}")
        own, z_shape, layers = latent_shapes(self.record, latent_dim, layers)
        with seeded(seed), bounded(memory() // BYTES, MOST_TENSORS, "the model asks for"):
            example, in_units = example_of(likelihood, self.record), self.units == "data"
            self.encoder, self.decoder, likelihood, guide, prior = arranged(
                self.record, own[0], encoder, decoder, likelihood, guide, prior
            )
            self.inputs = make_inputs(
                self.record, self.encoder, self.decoder, example, inputs, in_units
            )
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
            z = self.latents.features(torch.zeros(1, *z_shape), torch.get_default_dtype())
            writer = introduce(self.decoder, z[0].numel(), q)
            z, _ = self.inputs.beside(z, torch.zeros(1, *self.record.shape), self.latents.read_dim)
            h = build_network(self.decoder, z, self.x_shape, "decoder")
            ends_x = Ends(
                self.x_shape, "likelihood", h, in_units=in_units, own=self.record.own, writer=writer
            )  # fmt: skip
            self.likelihood = make_part(self.inputs.stepwise(likelihood), ends_x)
            p = try_part(self.likelihood, "likelihood", str(likelihood), torch.zeros(1, *h))
            if not layers:
                self.prior = make_part(prior, self._prior_ends(prior, z_shape))
            self.missingness = make_missingness(line, p, self.record.largest)
            self._connect(replace(ends, x_shape=self.x_shape, x_support=support_of(p)))
        self._check_parts(q, p)

    # The two functions of Pyro's.

    def model(self, x: Tensor | None = None) -> Tensor:
        """p(x, z) = p(z) p(x|z): the sites of z (``z``) and ``x`` in the plate ``data``.

        Args:
            x: ``(B, *x_shape)``, or as :attr:`record` packs it; ``None`` draws one observation.
        """
        mask = () if self.missingness is None else ("missingness",)
        shared = ("encoder", "approximation") if is_made_of_guide(self.prior) else ()
        self._register("prior", "decoder", "likelihood", *mask, *shared)
        with pyro.plate("data", 1 if x is None else len(x)), self.record.weighted(x):
            z = self._draw_prior(x)
            p = self.decode(z, x)
            weigh(p, None if x is None else self.weights_of(x))
            if self.missingness is not None and x is not None:
                self.missingness.observe(p, self.record.cells(x))
            p, cells = self.record.observe(p, x)
            return pyro.sample("x", p, obs=cells)

    def guide(self, x: Tensor) -> Tensor:
        """q(z|x): the sites of z (``z``) in the plate ``data``.

        Args:
            x: as for :meth:`model`.
        """
        shared = ("prior",) if isinstance(self.approximation, Conjugate) else ()
        self._register("encoder", "approximation", *shared)
        with pyro.plate("data", len(x)), self.record.weighted(x):
            return self.latents.draw(self.approximate_posterior(x))

    def _draw_prior(self, x: Tensor | None) -> Tensor:
        return self.latents.draw(self.prior_at(x))

    def prior_at(self, x: Tensor | None = None) -> dist.TorchDistribution:
        """p(z), of batch shape ``()``; p(z | c) of ``(B,)``, where the prior reads a condition.

        Args:
            x: ``(B, ...)``, as for :meth:`model`.
        """
        return self.prior(self._prior_features(x)) if self.prior_reads else self.prior()

    def _prior_features(self, x: Tensor | None) -> Tensor | None:
        """What the prior reads beside z: the condition, or the design of each visit."""
        beside = self.inputs.passing
        return beside.beside(x) if beside else self.inputs.read_context(x)

    def _prior_ends(self, prior: Line, z_shape: tuple[int, ...]) -> Ends:
        """The ends of the prior: with the condition as its features, where the line asks for it."""
        features = self._prior_features(torch.zeros(1, *self.record.shape))
        asks = self.inputs.passing is not None or asks_for_features(prior)
        shape = tuple(features.shape[1:]) if features is not None and asks else None
        self.prior_reads = shape is not None
        return Ends(z_shape, "prior", shape)

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
                "VAE(..., units='data'), --units data, starts it in the data's own units",
                stacklevel=2,
            )
        self.inputs.start_from(x)
        mask = () if self.missingness is None else (self.missingness,)
        cells = self.record.cells(x)
        with seeded(0), torch.no_grad(), untouched(self):
            p = self.decode(self.prior_at(x[:1]).expand([1]).sample(), x[:1])
        start_from(self.likelihood, self.record.without_offset(x, p))
        for part in (self.approximation, *mask):
            start_from(part, cells)
        beside = self.inputs.passing
        start_from(self.prior, beside.beside(x) if beside else cells)

    def read_through(self, batches: Iterable[Tensor]) -> None:
        """Learn of all batches of a loader what some do not say: of sequences, the lengths."""
        self.inputs.read_through(batches)

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
        one = self.z_shape[bool(self.inputs.visits) :]  # of visits there may be any number
        if got[-len(one) :] != one:
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
        layers, own = self.latents.layers, own_shape(self.record, self.z_shape)
        return {
            "kind": self.kind(),
            **self.record.describe(),
            **({"missing": line_of(self.missingness)} if self.missingness else {}),
            **({"layers": layers} if layers else {"latent_dim": own}),
            **{role: line_of(self.get_submodule(path)) for role, path in self.ROLES.items()},
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
        of_prior = replace(ends, role="prior", in_units=self.units == "data")
        connect(self.prior, replace(of_prior, partner=self.approximation))
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
        if "y" not in self.latents.sites and self.record.has("label"):
            raise ValueError("a label block is of M2: M2(x_shape, latent_dim, classes)")
        example = torch.zeros(1, *self.record.shape)
        context = self._prior_features(example) if self.prior_reads else None
        p = try_part(self.prior, "prior", line_of(self.prior), context)
        with untouched(self.likelihood):  # a scale that is fitted to what is scored is not, here
            for d, role in ((p, "prior"), (q, "guide"), (p_x, "likelihood")):
                check_density(d, role, line_of(self.get_submodule(self.ROLES[role])))
        check_event(p, self.z_shape, "prior")
        check_event(p_x, self.x_shape, "likelihood")
        check_supports(p, q, line_of(self.prior), line_of(self.approximation))
        lines = [line_of(self.get_submodule(self.ROLES[role])) for role in ("prior", "guide")]
        if "Delta" in lines[1]:
            check_meeting(p, q, lines)
        check_scale(self.likelihood, self.approximation, lines[1])
        self.record.shift(p_x, torch.zeros(1, *self.record.shape))
        if self.record.missing:
            check_cells(p_x, self.record.columns, getattr(self.record, "levels", {}))
        if self.missingness and not self.record.missing:
            raise ValueError("no observed block has missing cells: Block('x', 784, missing=True)")
        if self.missingness:
            self.missingness.check(self.record.columns)
