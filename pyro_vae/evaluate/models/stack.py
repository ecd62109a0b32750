"""A stack: the mixture of several models, by weights such as those of a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.checks import number, whole
from ...core.seeding import seeded
from ...data.ragged import joined
from ...language.arguments import suggests
from ...model.joint import reading
from ...model.simulation import simulate
from ...model.vae import VAE
from ..evidence.importance import Evidence, log_evidence
from .comparison import Comparison, named, weights_of
from .measures import check_one_measure

__all__ = ["Stack", "stack"]

PART = 0.01  # of an observation's density, from which on a model's k-hat counts


class Stack:
    r"""The mixture of models, of which one is drawn for each observation.

    .. math:: p(x) = \sum_m w_m\, p_m(x)

    It draws x and scores it. The models have latent variables of their own, so there is no q(z|x)
    of the whole: nothing is encoded, reconstructed or imputed by it.

    Attributes:
        models: by name.
        weights: ``(M,)``, in the same order.
    """

    def __init__(self, models: Mapping[str, VAE], weights: Sequence[float]) -> None:
        self.models = dict(models)
        self.weights = tuple(weights)

    def __repr__(self) -> str:
        parts = zip(self.weights, self.models, strict=True)
        return f"Stack({' + '.join(f'{w:.3f} {name}' for w, name in parts)})"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_") or not hasattr(VAE, name):
            raise AttributeError(f"a Stack has no {name!r}: it has sample and log_evidence")
        raise AttributeError(
            f"a Stack has no {name!r}, for its models have latent variables of their own: ask one, "
            f"stack.models[{next(iter(self.models))!r}].{name}"
        )

    @suggests
    @torch.no_grad()
    def sample(
        self,
        num_samples: int = 1,
        *,
        given: Tensor | ArrayLike | None = None,
        seed: int | None = None,
    ) -> Any:  # noqa: ANN401
        """Draws of x, ``(num_samples, *x_shape)``; a frame, for models of tables.

        Args:
            num_samples: how many.
            given: N observations whose context and offset are taken: the draws are
                ``(num_samples, N, *x_shape)``.
            seed: of the draws.

        Raises:
            ValueError: cells of a table as ``given``, which would change the weights.
        """
        num_samples = whole("num_samples", num_samples)
        first = next(iter(self.models.values()))
        known = None if given is None else _known(first, given)
        rows_known = (
            known is not None
            and first.record.given(given) is not None
            and not first.record.cells(known).isnan().all()
        )
        if rows_known:
            raise ValueError(
                "a Stack does not draw the other cells of a table given some of them, as the "
                "weights of its models would change: give the columns of the condition alone, or "
                "ask one model, stack.models[...].sample(given=...)"
            )
        n = 1 if known is None else len(known)
        with seeded(seed):
            weights = torch.tensor(self.weights, dtype=torch.double)
            which = torch.multinomial(weights, num_samples * n, replacement=True)
            each = [(which == i).nonzero()[:, 0] for i in range(len(self.models))]
            pairs = zip(self.models.values(), each, strict=True)
            parts = [self._draw(m, at, given).to(first.example) for m, at in pairs if len(at)]
        drawn = joined(parts)[torch.cat(each).argsort().to(parts[0].device)]
        if given is None:
            return first.record.answer(drawn)
        drawn = drawn.unflatten(0, (num_samples, n))
        return first.record.answer(drawn, known)

    def _draw(self, vae: VAE, rows: Tensor, given: Any) -> Tensor:  # noqa: ANN401
        """Observed cells of one model, of rows that are counted along all draws."""
        if given is not None:
            x = _known(vae, given)
            given = x[rows.to(x.device) % len(x)]
        with reading(vae, None):
            return vae.record.cells(simulate(vae, len(rows), given)[1])

    def log_evidence(
        self, x: Tensor | ArrayLike, *, num_samples: int = 1000, seed: int | None = None
    ) -> Evidence:
        r"""log p(x) of each observation, from those of the models.

        .. math:: \log \sum_m w_m\, \hat p_m(x)

        Args:
            x: ``(N, *x_shape)``.
            num_samples: draws of z per observation and model.
            seed: of the draws.

        Returns:
            :class:`Evidence`: its error is theirs by the delta method, and its k-hat the largest of
            the models that have at least 1 % of the observation's density.

        Raises:
            ValueError: data that one of the models refuses, or that they read in different units.
        """
        data = {name: vae.check(x) for name, vae in self.models.items()}
        check_one_measure(self.models, data)
        with seeded(seed):  # draws of each model's own: their errors are independent
            found = [
                log_evidence(vae, data[name], num_samples=num_samples, num_simulated=0)
                for (name, vae), w in zip(self.models.items(), self.weights, strict=True)
                if w
            ]
        log_w = torch.tensor([w for w in self.weights if w]).log().double()[:, None]
        log_p = torch.stack([each.log_evidence.double().cpu() for each in found]) + log_w
        share = log_p.softmax(0)
        errors = torch.stack([each.standard_error.double().cpu() for each in found])
        khat = torch.stack([each.khat.cpu() for each in found])
        return Evidence(
            log_p.logsumexp(0),
            (share * errors).square().sum(0).sqrt(),
            torch.where(share >= PART, khat, -torch.inf).amax(0),
            num_samples,
            weights=weights_of(found),
        )


def _known(vae: VAE, given: Any) -> Tensor:  # noqa: ANN401
    """What is known of the observations that are drawn, as a model packs it."""
    rows = vae.record.given(given)
    known = given if rows is None else rows
    return vae.as_data(vae.record.take_known(known, vae.example))


def _vaes(models: Sequence[VAE] | Mapping[str, VAE]) -> dict[str, VAE]:
    """Models by name.

    Raises:
        ValueError: a program, which carries its data and draws no others.
    """
    vaes: dict[str, VAE] = {}
    for name, vae in named(models).items():
        if not isinstance(vae, VAE):
            raise ValueError(
                f"{name} is a {type(vae).__name__}, which is of its own data: a stack draws and "
                "scores others, so give pyro_vae.VAE models"
            )
        vaes[name] = vae
    return vaes


@suggests
def stack(
    vaes: Sequence[VAE] | Mapping[str, VAE],
    weights: "Comparison | Mapping[str, float] | Sequence[float] | ArrayLike",
) -> Stack:
    """The mixture of several models: it draws x and scores it.

    Weights of a comparison are the best for the data of that comparison: score the stack on others.

    Args:
        vaes: the models, ``[a, b]`` or ``{"flow": a, "normal": b}``.
        weights: a :class:`Comparison` of the same models, or a number for each.

    Returns:
        :class:`Stack`, with ``sample`` and ``log_evidence``.

    Raises:
        ValueError: weights that are not at least 0 or do not sum to 1, or of other models; models
            of different cells, or of probabilities beside densities.

    References:
        Yao, Vehtari, Simpson & Gelman (2018), arXiv:1704.02030.

    >>> a, b = (VAE(2, latent_dim=1, likelihood="Normal", seed=seed) for seed in (0, 1))
    >>> stack({"a": a, "b": b}, [0.3, 0.7]).sample(5, seed=0).shape
    torch.Size([5, 2])
    """
    models = _vaes(vaes)
    if isinstance(weights, Comparison):
        weights = weights.weights.to_dict()
    if isinstance(weights, Mapping):
        if weights.keys() != models.keys():
            raise ValueError(
                f"weights are of {', '.join(map(str, weights))}, and the models are "
                f"{', '.join(models)}: give the same names"
            )
        weights = [weights[name] for name in models]
    values = [number("a weight", w, 0) for w in np.asarray(weights, dtype=object).tolist()]
    if len(values) != len(models):
        raise ValueError(f"{len(models)} models need as many weights, got {len(values)}")
    if abs(total := sum(values) - 1) > 1e-6:
        raise ValueError(f"weights sum to 1, got {total + 1:g}: divide them by it")
    empty = {name: vae.example.new_zeros(1, *vae.record.shape) for name, vae in models.items()}
    check_one_measure(models, empty)
    return Stack(models, values)
