"""What users ask of a trained model; no answer has a graph."""

import warnings
from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..core.acting import evaluates
from ..core.checks import boolean, positive, whole
from ..core.pareto import RELIABLE
from ..core.seeding import seeded
from ..families.guides import refine
from ..families.part import looks_at_joint
from .evaluated import Evaluated
from .imputation import Imputations, Plan, Point, impute
from .inputs import Inputs
from .joint import Joint, reading
from .latents import point
from .pieces import beside, line, line_of, pair

__all__ = ["Inference"]


class Inference(Evaluated):
    """Encode, refine, reconstruct, impute, sample and interpolate, by a model's parts.

    Attributes:
        prior: from nothing to p(z).
        inputs: from x to what the encoder reads.
        encoder: from that to features.
        approximation: from features to q(z|x).
    """

    prior: nn.Module
    inputs: Inputs
    encoder: nn.Module
    approximation: nn.Module

    @property
    def x_shape(self) -> tuple[int, ...]:
        """The shape of what the likelihood scores of one observation."""
        return self.record.x_shape

    @property
    def z_shape(self) -> tuple[int, ...]:
        """The shape of one z."""
        return self.latents.shape

    @evaluates
    @torch.no_grad()
    def encode(self, x: Tensor | ArrayLike) -> dist.TorchDistribution:
        """q(z|x): batch shape ``(N,)``, event shape of z.

        Args:
            x: ``(N, *x_shape)``, or as :attr:`record` packs it.

        Raises:
            ValueError: observations that are not the model's.
        """
        rows = self.record.rows(x)
        if rows is None or looks_at_joint(self.approximation):
            return self.approximate_posterior(self.as_data(x))
        parts = rows.checked(self.as_data)
        return self.approximation(torch.cat([self.encoder(self.inputs(part)) for part in parts]))

    @evaluates
    def refine(
        self,
        x: Tensor | ArrayLike,
        *,
        steps: int = 100,
        lr: float = 0.05,
        num_particles: int = 8,
        seed: int | None = None,
    ) -> dist.TorchDistribution:
        r"""q(z|x) improved for each observation by steps on its own ELBO.

        The steps start from the encoder's answer: what they add to the ELBO is what amortization
        cost. The weights stay as they are.

        Args:
            x: ``(B, *x_shape)``.
            steps: of Adam, on the encoder's features of each observation; the rate falls to 0.
            lr: the learning rate.
            num_particles: draws of z a step.
            seed: of the draws.

        Returns:
            A distribution of batch shape ``(B,)``, as :meth:`encode` gives.

        Raises:
            ValueError: a guide without a reparameterized sampler, or other data than the model's.

        References:
            Cremer, Li & Duvenaud (2018), arXiv:1801.03558; Kim et al. (2018), arXiv:1802.02550.
        """
        x = self.as_data(x)
        options: dict[str, Any] = {
            "steps": whole("steps", steps),
            "lr": positive("lr", lr),
            "num_particles": whole("num_particles", num_particles),
        }
        with seeded(seed):
            with torch.no_grad():
                features = self.encoder(self.inputs(x))
            return refine(self.approximation, features, Joint(self, x).log_joint, **options)

    @evaluates
    @torch.no_grad()
    def reconstruct(self, x: Tensor | ArrayLike) -> Tensor:
        """The mean of p(x|z) at the mean of q(z|x), ``(N, *x_shape)``.

        Where a family has no mean, its mode or a median of draws stands for it.
        """
        data = self.as_data(x)
        cells = point(self.decode(point(self.approximate_posterior(data)), data))
        return self.record.answer(cells, x, mean=True)

    def impute(
        self,
        x: Tensor | ArrayLike,
        *,
        draws: int | None = None,
        point: Point = "mean",
        num_samples: int = 1000,
        sweeps: int = 20,
        seed: int | None = None,
    ) -> Tensor:
        r"""x with its NaN cells filled from the model, given the cells that are there.

        .. math:: p(x_{mis} \mid x_{obs}) = \int p(x_{mis} \mid z)\, p(z \mid x_{obs})\, dz

        z is drawn from a proposal and weighted by :math:`p(x_{obs}, z)` over its density. With
        ``VAE(..., missing=True)`` the proposal is the guide, which sees what is missing. Where the
        encoder knows complete data only it mixes guides at completed rows, which are drawn by the
        same weights, anew in each sweep. The prior has a tenth of it. Both are exact in the limit
        of many draws. Rows with fewer than 100 effective draws, or a heavy tail of weights, are
        drawn anew up to three times, 7 times as many draws in all, from a proposal that is fitted
        to their former ones; a warning counts those for which that was not enough, if they are
        many, and :meth:`imputations` says which.

        Args:
            x: ``(N, *x_shape)``, with NaN.
            draws: so many draws of the missing cells (multiple imputation), not one value.
            point: the value of a cell where ``draws`` is not given: ``"mean"``, ``"median"`` or
                ``"mode"``. Numbers of categories have neither mean nor median, and are given the
                most probable category; ordered levels have a median, and are given it for a mean.
            num_samples: K, draws of z for each observation.
            sweeps: how often completed rows are drawn anew, for an encoder of complete data.
            seed: of the draws, ``seed=0``; without one another call gives other draws. A survival
                time that is missing is filled with the time until its event, which is then 1.

        Returns:
            ``(N, *x_shape)``, or ``(draws, N, *x_shape)``; the other cells as they are.

        Raises:
            ValueError: cells that are not independent given z, or without a mean.

        References:
            Mattei & Frellsen (2019), arXiv:1812.02633; Simkus & Gutmann (2023), arXiv:2308.09078.

        >>> from pyro_vae import VAE
        >>> vae = VAE(3, latent_dim=2, likelihood="Normal", missing=True, seed=0)
        >>> x = torch.tensor([[1.0, float("nan"), 2.0]])
        >>> vae.impute(x, seed=0).isnan().any(), vae.impute(x, draws=5, seed=0).shape
        (tensor(False), torch.Size([5, 1, 3]))
        """
        imputations = self.imputations(
            x, draws=draws, point=point, num_samples=num_samples, sweeps=sweeps, seed=seed
        )
        if imputations.unreliable:
            warnings.warn(imputations.summary(), stacklevel=2)
        mean = draws is None and point == "mean"
        return self.record.answer(imputations.values, x, keep=True, mean=mean)

    @torch.no_grad()
    def imputations(
        self,
        x: Tensor | ArrayLike,
        *,
        draws: int | None = None,
        point: Point = "mean",
        num_samples: int = 1000,
        sweeps: int = 20,
        seed: int | None = None,
    ) -> Imputations:
        """What :meth:`impute` gives, beside the effective draws and the k-hat of each row.

        Args:
            x: as for :meth:`impute`, like all others.
            draws: so many draws of the missing cells.
            point: the value of a cell where ``draws`` is not given.
            num_samples: K, draws of z for each observation.
            sweeps: how often completed rows are drawn anew, for an encoder of complete data.
            seed: of the draws.

        Returns:
            :class:`Imputations`: ``values``, ``ess`` and ``k_hat``; ``summary()`` in words.

        >>> from pyro_vae import VAE
        >>> vae = VAE(3, latent_dim=2, likelihood="Normal", missing=True, seed=0)
        >>> vae.imputations([[1.0, float("nan"), 2.0]], seed=0).ess > 100
        tensor([True])
        """
        plan = Plan(draws, point, num_samples, sweeps)
        x = self.record.take(x, self.example)
        with reading(self, seed):
            return impute(self, x, plan)

    @evaluates
    @torch.no_grad()
    def sample(
        self,
        num_samples: int = 1,
        *,
        given: Tensor | ArrayLike | Mapping[str, object] | None = None,
        mean: bool = False,
        seed: int | None = None,
    ) -> Tensor:
        """Draws of x from p(x), ``(num_samples, *x_shape)``; a frame, for the model of a table.

        Args:
            num_samples: how many.
            given: N observations whose context and offset are taken, or these alone by name,
                ``{"condition": c}``: the draws are ``(num_samples, N, *x_shape)``. For a model of a
                table, the cells that are known, ``{"Home": "rent", "Age": 40}``, or a frame of such
                rows, which may lack the columns that are not known: the draws are of p(the others |
                these), weighted as in :meth:`impute`; a warning counts rows whose draws are
                doubtful. Of a survival time the event is given with it. What is not given is not
                known, and not missing, where ``missing=`` says what that depends on.
            mean: give the mean of p(x|z) for each drawn z, not a draw of x.
            seed: of the draws.
        """
        whole("num_samples", num_samples)
        rows = None if given is None else self.record.given(given)
        known = given if rows is None else rows
        known = None if known is None else self.record.take_known(known, self.example)
        x = None if known is None else self.as_data(known)
        if rows is not None and not self.record.cells(x).isnan().all():  # pyrefly: ignore[bad-argument-type]
            if boolean("mean", mean):
                raise ValueError("mean=True is of draws of z alone: vae.impute(rows) gives means")
            return self._sample_given(rows, num_samples, seed)
        shape = (num_samples, *(() if x is None else (len(x),)))
        with seeded(seed):
            p = self.decode(self.prior_at(x).expand(torch.Size(shape)).sample(), x)
            cells = point(p) if boolean("mean", mean) else p.sample()
        record = self.record
        if rows is None:
            return record.answer(cells, x, mean=mean)
        return record.answer_given(cells, rows)

    def _sample_given(self, rows: object, num_samples: int, seed: int | None) -> Any:  # noqa: ANN401
        """Draws of the missing cells of rows: a frame of them for one row, else one a draw."""
        at_least = max(1000, 4 * num_samples)
        known = self.record.take_known(rows, self.example)
        plan = Plan(num_samples, "mean", at_least, sweeps=20, masked=False)
        with reading(self, seed):
            found = impute(self, known, plan)
        if found.doubtful.any():
            warnings.warn(f"{_doubt(found)}: give fewer of them, or more draws", stacklevel=3)
        return self.record.answer_given(found.values, rows)

    @torch.no_grad()
    def counterfactual(
        self,
        x: Tensor | ArrayLike | Mapping[str, Any],
        do: Mapping[str, Any],
        *,
        draws: int | None = None,
        point: Point = "mean",
        num_samples: int = 1000,
        sweeps: int = 20,
        seed: int | None = None,
    ) -> Any:  # noqa: ANN401
        r"""What the observations would have been under other conditions, were z what it was.

        .. math:: p(x' \mid x, do(c')) = \int p(x' \mid z, c')\, p(z \mid x, c)\, dz

        z is abducted from x and c, the condition is set, and x is predicted anew: its own noise
        given z is drawn again, not kept. This answers for the observation at hand, if c has no
        effect on z, nothing that is not in the model moves both c and x, and the decoder is right
        about c where the data have no such pair of z and c. It is no average treatment effect: that
        averages over the z of a population, and rests on the same assumptions. ``sample(given=)``
        asks another question: of those *seen* with c', whatever their z. A warning counts rows
        whose draws of z are doubtful, if they are many.

        Args:
            x: observations, with their conditions; of a table rows, or one row as a dict.
            do: the new condition, ``{"centre": "B"}``: one value, or one for each observation; of a
                table by column, of a record by block.
            draws: so many draws, not one value.
            point: the value of a cell where ``draws`` is not given, as for :meth:`impute`.
            num_samples: K, draws of z for each observation.
            sweeps: how often the proposal of z is adapted.
            seed: of the draws.

        Returns:
            As :meth:`impute`, all cells of the observed blocks.

        Raises:
            ValueError: what is no condition of the model, or a value that it cannot have.

        References:
            Pearl (2009), Causality, section 7.1: abduction, action, prediction.
        """
        rows = self.record.given(x)
        plan = Plan(draws, point, num_samples, sweeps, not isinstance(x, Mapping) or rows is None)
        if not isinstance(do, Mapping):
            raise ValueError(f"do is a dict by column, do={{'centre': 'B'}}, got {do!r}")
        if not do:
            raise ValueError("do= says which condition to set: do={'centre': 'B'}")
        for name in getattr(self.record, "covariates", ()):
            if name in do:
                raise ValueError(
                    f"{name!r} may have holes, so it is drawn with z and cannot be set: "
                    f"vae.sample(n, given={{{name!r}: ...}}) draws rows seen with it"
                )
        if not self.record.has("context"):
            raise ValueError(
                "this model has no condition to set: VAE(table, 8, condition='~ centre') has one"
            )
        known = x if rows is None else rows
        if isinstance(x, Mapping) and rows is not None:  # what a dict lacks is not known
            known = self.record.take_known(rows, self.example)
        data = self.as_data(known)
        other = self.record.intervene(x if rows is None else rows, do)
        with reading(self, seed):
            found = impute(self, data, plan, self.as_data(other))
        if found.unreliable:
            warnings.warn(_doubt(found), stacklevel=2)
        return self.record.answer(found.values, other, mean=draws is None and point == "mean")

    @evaluates
    @torch.no_grad()
    def interpolate(self, start: Tensor, end: Tensor, steps: int = 8) -> Tensor:
        """Means of p(x|z) on the straight line between two encoded observations.

        What is beside an array or a row, such as a condition, stays that of ``start``.

        Args:
            start: one observation, ``(*x_shape)``, or a frame of one row.
            end: another.
            steps: how many points, the ends included.

        Returns:
            ``(steps, *x_shape)``, or a frame; of sequences as many steps as the shorter has.
        """
        if self.latents.categorical:
            raise ValueError("z is categorical: there is no line between two categories")
        ends = pair(self, start, end)
        z = point(self.encode(ends))
        weight = torch.linspace(0, 1, whole("steps", steps), dtype=z.dtype, device=z.device)
        cells = point(self.decode(line(z, weight), line_of(self.record, ends, weight)))
        return self.record.answer(cells, beside(self, start, steps), mean=True)

    # The boundary: what comes in is checked once.

    @property
    def example(self) -> Tensor:
        """Some tensor of the model's type, on its device."""
        return next(self.parameters(), torch.zeros(()))

    def as_data(self, x: Any) -> Tensor:  # noqa: ANN401
        """x as a tensor of this model's type on its device, its shape checked.

        Raises:
            ValueError: empty, not numbers, of another shape than ``(N, *x_shape)``, or with NaN
                where the model was not told of missing cells.
        """
        x = self.record.take(x, self.example)
        self.record.check_complete(x)
        return x


def _doubt(found: Imputations) -> str:
    """How many rows have doubtful draws, and why, in words."""
    return (
        f"draws given the cells of {int(found.doubtful.sum())} of {len(found.ess)} rows are "
        f"doubtful: fewer than {found.enough:g} effective draws of z, or k-hat above {RELIABLE}, "
        "as where the model has hardly seen such cells together"
    )
