"""Any Pyro model and guide, with their arguments, as evaluation and training ask for them."""

import math
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from pyro.poutine.messenger import Messenger
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..core.acting import evaluating
from ..core.files import replacing
from ..core.layout import MANY, Layout
from ..core.seeding import LOCK
from ..infer.draws import Traces, full_plates, read, run_once
from ..infer.guides import without_the_data
from ..infer.sites import scored_cells
from ..model.face import Face
from .joint import ProgramDensities
from .measure import MASK, check_draws, check_sites, is_cut, measure, points, why_one_by_one
from .packing import Packing
from .simulation import Simulation
from .weights import Weights, modules_of

__all__ = ["Program"]

WEIGHTS = "program.safetensors"


class Program(Face):
    r"""A Pyro model and its guide, with their arguments.

    .. math:: \log p(x) = \log E_{q(z)}\left[\frac{p(x, z)}{q(z)}\right]

    What evaluates a VAE evaluates a program, which carries its observations:
    ``elbo(program)``, ``compare_estimators(program, lines)``, ``log_evidence(program)``,
    ``fit(program)``. Many draws are made in one run, by a plate outside the program's own; where
    the program does not allow that, one by one, which is said once. Sites of the model that are
    marked ``infer={"enumerate": "parallel"}`` and that the guide does not draw are summed out.
    Plates that draw a subsample do so in training and in gradients, and have all members in
    evaluation. ``poutine.scale`` is of the objective, and in no evaluation.

    Args:
        model: a Pyro model.
        guide: its guide, an ``AutoGuide`` of Pyro's too.
        args: of both.
        data: the plate whose members are the observations; ``None`` where all there is has one
            evidence.
        kwargs: of both.

    Raises:
        ValueError: no such plate; a guide with auxiliary sites, or that does not draw what the
            model does.

    >>> import pyro, pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     scale = pyro.param("scale", torch.tensor(1.0))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(x / 2, scale))
    >>> Program(model, guide, torch.zeros(5))
    Program(model, guide: 5 observations in the plate 'data', latent z)
    """

    layout: Layout  # pyrefly: ignore[bad-override-mutable-attribute]
    observations: Tensor  # pyrefly: ignore[bad-override-mutable-attribute]

    def __init__(
        self,
        model: Callable,
        guide: Callable,
        *args: Any,  # noqa: ANN401
        data: str | None = "data",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        for role, function in (("model", model), ("guide", guide)):
            if isinstance(function, type):
                name = function.__name__
                raise ValueError(f"the {role} is a function, got a class: make one, {name}(model)")
            if not callable(function):
                raise ValueError(f"the {role} is a function, got {type(function).__name__}")
        self._functions, self._run_as = (model, guide), (model, without_the_data(guide))
        self.packing, self.weights = Packing(args, kwargs), Weights()
        with LOCK, torch.random.fork_rng():
            whole = self.packing.pack()
            both = self._bound(self.packing)
            try:
                nesting = run_once(*both, whole, enumerate=False).nesting
            except (RuntimeError, ValueError):
                check_draws(*both, whole)
                raise
            first = run_once(*both, whole, nesting=nesting)
            self.weights = Weights.of(first.model, first.guide)
            self.found = nn.ModuleList(modules_of(model, guide, args, kwargs))
            check_sites(first)
            with evaluating(self), torch.no_grad():
                self._measure(first, data)
        self.points = points(first)
        if self.layout.why_loop:
            warnings.warn(
                f"draws of this program are made one by one ({self.layout.why_loop})\n{MANY}",
                stacklevel=2,
            )

    def _measure(self, first: Traces, data: str | None) -> None:
        """Run the program a few times more, and learn its layout."""
        packing = self.packing
        whole = partial(run_once, *self._bound(packing), packing.pack())
        layout = measure(whole, first, data)
        cutting = Packing(packing.args, packing.kwargs, layout.size) if data else packing
        if data and layout.size > 1 and cutting.tensors:
            rows, both = cutting.pack(), self._bound(cutting)
            if is_cut(whole, lambda some: partial(run_once, *both, rows[some]), layout):
                layout, self.packing = replace(layout, whole=False), cutting
        why = why_one_by_one(whole, layout)
        self.layout = replace(layout, why_loop=why)
        self.observations = self.packing.pack()
        run = whole(**layout.how)
        self.drawn = read(run, layout)
        self.simulation = Simulation(run, self.packing, self.layout)
        self.simulation.try_once(self.model, self.guide, self.observations)
        self.example = run
        sizes = (v.numel() for v in (*self.drawn.values.values(), *self.drawn.observed.values()))
        self._cells = math.ceil(sum(sizes) / self.packing.rows)

    def _bound(self, packing: Packing) -> tuple[Callable, Callable]:
        """Model and guide as functions of rows."""

        def bind(function: Callable, x: Tensor) -> object:
            self.weights.lend()
            args, kwargs = packing.unpack(x)
            return function(*args, **kwargs)

        model, guide = self._run_as
        return partial(bind, model), partial(bind, guide)

    # The two functions of Pyro's, of rows.

    def model(self, x: Tensor) -> object:
        """p(x, z) at some rows; what all observations share counts by the share of these."""
        return self._run(0, x)

    def guide(self, x: Tensor) -> object:
        """q(z) at some rows, likewise."""
        return self._run(1, x)

    def _run(self, side: int, x: Tensor) -> object:
        self.weights.lend()
        args, kwargs = self.packing.unpack(x)
        function, layout = self._run_as[side], self.layout
        if layout.whole or len(x) == layout.size:
            return function(*args, **kwargs)
        with Share(layout.data, len(x) / layout.size):
            return function(*args, **kwargs)

    def check(self, x: Tensor | ArrayLike) -> Tensor:
        """Rows as the program has them, ``(B, F)``.

        Raises:
            ValueError: rows of another width.
        """
        width = self.observations.shape[1]
        if not (isinstance(x, Tensor) and x.ndim == 2 and x.shape[1] == width and len(x)):
            raise ValueError(
                f"a Program carries its observations, {width} numbers each: leave x out, or give "
                "rows of program.observations"
            )
        if self.layout.whole and len(x) != 1:
            raise ValueError("the arguments of this program are not cut into observations")
        return x.to(self.observations)

    as_data = check

    def count(self, x: Tensor) -> int:
        """How many observations there are in x."""
        return self.layout.size if self.layout.whole else len(x)

    @property
    def cells(self) -> int:
        """Numbers that an evaluation has in memory for one row of x and one draw."""
        return self._cells

    @property
    def coordinates(self) -> list[str]:
        """Names of the latent coordinates of an observation, ``z[0]`` ..."""
        names: list[str] = []
        for name, value in self.drawn.values.items():
            own = name not in self.layout.shared and self.layout.data is not None
            size = math.prod(value.shape[2 if own else 1 :])
            names += [name] if size == 1 else [f"{name}[{i}]" for i in range(size)]
        return names

    def densities(self) -> Callable[[Tensor], ProgramDensities]:
        """From rows to log p(x, z) and log q(z) at them."""
        return lambda x: ProgramDensities(self.model, self.guide, x, self.layout)

    @property
    def why_not_separate(self) -> str:
        """Why an observation has no evidence of its own; empty where it has."""
        layout = self.layout
        if layout.data and layout.shared:
            return (
                f"is of each member of the plate {layout.data!r}, and they share "
                f"{', '.join(map(repr, layout.shared))} outside it: Program(..., data=None) has "
                "one evidence of all"
            )
        if layout.partial and layout.partial != (layout.data,):
            plate = layout.partial[0]
            return f"needs all members of the plate {plate!r}, whose part is given: pass all data"
        if self.points:
            return f"needs a density of z, and the guide sets {self.points[0]!r} to a point"
        return ""

    @property
    def why_not_drawn(self) -> str:
        """Why the model cannot be drawn from; empty where it can."""
        site = self.simulation.factor
        return f"the factor {site!r} is no distribution" if site else ""

    @property
    def why_not_simulated(self) -> str:
        """Why log p(x) of simulated observations cannot be bounded; empty where it can."""
        return self.simulation.why_not or self.simulation.why_not_weighed

    def simulate(
        self, num_data: int, given: Tensor | None, size: int, *, holes: bool = False
    ) -> list[tuple[Any, Tensor]]:
        """Observations drawn from the model with the z of each, in parts of ``size`` rows.

        Args:
            num_data: how many, at least.
            given: rows whose other arguments are taken in turn; the program's own by default.
            size: rows of a part.
            holes: of a VAE alone.

        Raises:
            ValueError: the model cannot be drawn from, and why.
        """
        x = self.observations if given is None else given
        return self.simulation.draw(self.model, num_data, x, size)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_"):
                raise
            raise AttributeError(
                f"a Program has no {name!r}, for its model and guide are yours: functions such as "
                "pv.elbo(program), pv.log_evidence and pv.posterior ask them"
            ) from None

    def __repr__(self) -> str:
        model, guide = (getattr(f, "__name__", type(f).__name__) for f in self._functions)
        n, plate = self.layout.size, self.layout.data
        where = f"{n} observations in the plate {plate!r}" if plate else "one evidence"
        return (
            f"Program({model}, {guide}: {where}, latent {', '.join(self.drawn.values) or 'none'})"
        )

    def posterior_model(self, x: Tensor) -> Callable:
        """The model with whole plates and without scales, which Markov chains run on.

        Raises:
            ValueError: a latent variable is discrete, or there is none.
        """
        if not self.drawn.values:
            raise ValueError(
                "this program has no latent variable but those that are summed out, so there is no "
                "draw to make or to move: log_evidence(program) is exact"
            )
        for name in self.drawn.values:
            site: Any = self.example.model.nodes[name]
            if site["fn"].support.is_discrete:
                raise ValueError(
                    f"{name!r} is discrete, and has no gradient to move along: sum it out in the "
                    "model, infer={'enumerate': 'parallel'}, or use log_evidence with the guide's "
                    "own draws"
                )
            if not scored_cells(site).all():
                raise ValueError(f"cells of {name!r} are masked, and have no density: {MASK}")

        def model(x: Tensor) -> object:
            with full_plates(), PlatesAlone():
                return self.model(x)

        return model

    def join(self, samples: Mapping[str, Tensor]) -> Tensor:
        """Draws of all latent sites, ``(S, ...)`` each, as coordinates ``(S, N, D)``."""
        parts = []
        for name in self.drawn.values:
            site: Any = self.example.model.nodes[name]
            frames = site["cond_indep_stack"]
            value = samples[name]
            dims = [f.dim - site["fn"].event_dim for f in frames if f.name == self.layout.data]
            value = value.movedim(dims[0], 1) if dims else value[:, None]
            parts.append(value.reshape(*value.shape[:2], -1))
        return torch.cat(parts, 2)

    # Parameters, wherever they are kept.

    def named_parameters(self, *args: object, **kwargs: object) -> Iterator[tuple[str, Any]]:
        """The unconstrained parameters that model and guide ask Pyro for, by name."""
        return iter(self.weights.values.items())

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:  # pyrefly: ignore[bad-override]
        """Parameters and buffers, by name."""
        return dict(self.named_parameters()) | dict(self.named_buffers())

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Tensor], *args: object) -> None:  # pyrefly: ignore[bad-override]
        """Take up parameters and buffers of :meth:`state_dict`.

        Raises:
            KeyError: they are not this program's.
        """
        own = self.state_dict()
        if odd := own.keys() ^ state_dict.keys():
            raise KeyError(f"not the parameters of this program: {', '.join(sorted(odd))}")
        for name, value in own.items():
            value.copy_(state_dict[name])

    @contextmanager
    def copied(self) -> "Generator[Program]":
        """Within it this program, to train; afterwards its weights are as they were."""
        before = {name: value.detach().clone() for name, value in self.state_dict().items()}
        try:
            yield self
        finally:
            self.load_state_dict(before)

    def describe(self) -> dict[str, object]:
        """What tells this program from others, whose runs it does not resume."""
        names = {
            role: getattr(f, "__qualname__", type(f).__qualname__)
            for role, f in zip(("model", "guide"), self._functions, strict=True)
        }
        return {"kind": "Program", **names, "plate": self.layout.data}

    def save(self, folder: str | Path) -> Path:
        """Write the parameters and buffers into a folder, which is made.

        ``program.load(folder)`` takes them up again; model and guide are code, and stay yours.
        """
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        with replacing(path / WEIGHTS) as new:
            save_file({k: v.detach().contiguous() for k, v in self.state_dict().items()}, new)
        return path

    def load(self, folder: str | Path) -> "Program":
        """Take up the parameters and buffers that :meth:`save` wrote.

        Raises:
            KeyError: they are not this program's.
        """
        self.load_state_dict(load_file(Path(folder) / WEIGHTS))
        return self

    def parameter_groups(self) -> dict[str, list[str]]:
        """Names of the trainable parameters of the model and of the guide."""
        sides = {"model": self.weights.of_model, "guide": self.weights.of_guide}
        return {k: [n for n in self.trainable if n in side] for k, side in sides.items()}

    def guide_parameters(self) -> set[str]:
        """Names of the parameters that the guide reads."""
        return set(self.weights.of_guide)


class PlatesAlone(Messenger):
    """Sites have the scale of their plates, and no other."""

    def _pyro_sample(self, msg: dict) -> None:
        sizes = [(frame.full_size, frame.size) for frame in msg["cond_indep_stack"]]
        msg["scale"] = math.prod(whole / part for whole, part in sizes)


class Share(Messenger):
    """Scale the sites outside a plate by the share of its members that are present."""

    def __init__(self, plate: str | None, share: float) -> None:
        super().__init__()
        self.plate, self.share = plate, share

    def _pyro_sample(self, msg: dict) -> None:
        if all(frame.name != self.plate for frame in msg["cond_indep_stack"]):
            msg["scale"] = msg["scale"] * self.share
