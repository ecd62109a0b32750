"""A VAE as scikit-learn's estimators: to impute, to reduce dimensions, to score rows."""

from collections.abc import Mapping
from typing import Any, Self

import narwhals as nw
import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data  # pyrefly: ignore[missing-module-attribute]

from .core.checks import whole
from .core.seeding import seeded
from .data.tables import Table
from .evaluate.evidence.importance import log_evidence
from .infer.training.fit import fit
from .model.latents import point
from .model.tables import TableRecord
from .model.vae import VAE

__all__ = ["EXPECTED_FAILED_CHECKS", "VAEImputer", "VAETransformer"]

# Of sklearn.utils.estimator_checks.check_estimator.
EXPECTED_FAILED_CHECKS = {
    name: "score_samples draws z: a row's figure moves within its Monte Carlo error"
    for name in ("check_methods_subset_invariance", "check_methods_sample_order_invariance")
}
NUMBERS = "Normal(scale=learned)"  # the likelihood of an array, where none is said
MAX_SEED = 2**31


class _Estimator(TransformerMixin, BaseEstimator):
    """What the two share: parameters, training, log p(x) and draws."""

    feature_names_in_: np.ndarray

    def __init__(
        self,
        latent_dim: int = 8,
        *,
        likelihood: str | Mapping[str, str] | None = None,
        prior: str = "Normal",
        guide: str = "Normal",
        encoder: str = "MLP([64, 64])",
        decoder: str = "MLP([64, 64])",
        estimator: str = "Trace_ELBO",
        epochs: int = 100,
        batch_size: int = 100,
        lr: float | str = 1e-3,
        num_samples: int = 100,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        self.prior = prior
        self.guide = guide
        self.encoder = encoder
        self.decoder = decoder
        self.estimator = estimator
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.num_samples = num_samples
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Train on rows.

        Args:
            X: ``(N, D)``; NaN is missing. A data frame with words, categories, booleans or dates,
                or lines by column, is modelled as a :class:`pyro_vae.Table`.
            y: not used.

        Raises:
            ValueError: a column without any number, or cells that the likelihood cannot have.
        """
        by_column = self.likelihood == "auto" or isinstance(self.likelihood, Mapping)
        mixed = by_column or _is_mixed(X, likelihood=self.likelihood)
        x = self._read(X, reset=True, mixed=mixed)
        self.seed_ = int(check_random_state(self.random_state).randint(MAX_SEED))
        parts: dict[str, Any] = {
            k: getattr(self, k) for k in ("prior", "guide", "encoder", "decoder")
        }
        if isinstance(x, np.ndarray):
            if by_column:
                raise ValueError(
                    "likelihood by column, and 'auto', need a data frame with named columns, got "
                    f"{type(X).__name__}"
                )
            known = ~np.isnan(x)
            if (empty := np.flatnonzero(~known.any(0))).size:
                name = getattr(self, "feature_names_in_", range(x.shape[1]))[empty[0]]
                raise ValueError(f"column {name!r} has no observed cell: leave it out")
            parts |= {"missing": True, "units": "data"}
        data = torch.tensor(x) if isinstance(x, np.ndarray) else Table.from_frame(x)
        shape = data if isinstance(data, Table) else data.shape[1]
        line = NUMBERS if self.likelihood is None and isinstance(shape, int) else self.likelihood
        vae = VAE(shape, self.latent_dim, likelihood=line, **parts, seed=self.seed_).double()
        options: dict[str, Any] = {
            k: getattr(self, k) for k in ("estimator", "epochs", "batch_size", "lr")
        }
        run = fit(vae, data, **options, seed=self.seed_, progress=False)
        self.history_ = run.history
        self.vae_ = vae
        return self

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """log p(x) of the observed cells of each row, ``(N,)``, nats in the units of X.

        By importance sampling with ``num_samples`` draws of z, always the same ones for the same X.
        """
        check_is_fitted(self)
        k = whole("num_samples", self.num_samples, 2)
        found = log_evidence(self.vae_, self._rows(X), num_samples=k, seed=self.seed_)
        return found.log_evidence.numpy()

    def score(self, X: ArrayLike, y: object = None) -> float:
        """The mean of :meth:`score_samples`, by which ``GridSearchCV`` chooses among lines."""
        return float(self.score_samples(X).mean())

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> Any:  # noqa: ANN401
        """New rows from p(x), ``(n_samples, D)``; a frame where it was trained on a mixed one.

        Args:
            n_samples: how many.
            random_state: of the draws; that of the estimator where it is not given.
        """
        check_is_fitted(self)
        state = self.random_state if random_state is None else random_state
        seed = int(check_random_state(state).randint(MAX_SEED))
        return _answer(self.vae_.sample(whole("n_samples", n_samples), seed=seed))

    def _rows(self, x: Any) -> Any:  # noqa: ANN401
        """Rows as the model takes them: a tensor of numbers, or a frame."""
        found = self._read(x, mixed=isinstance(self.vae_.record, TableRecord))
        return torch.tensor(found) if isinstance(found, np.ndarray) else found

    def _read(self, x: Any, *, mixed: bool, reset: bool = False) -> Any:  # noqa: ANN401
        """Numbers as an array; a mixed frame as it is, its columns checked."""
        if not mixed or (reset and not hasattr(x, "columns")):
            options: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}
            least = 2 if reset else 1
            return validate_data(self, x, reset=reset, ensure_min_samples=least, **options)
        validate_data(self, x, reset=reset, skip_check_array=True)
        if not hasattr(x, "columns"):  # of a frame that a step before has made an array
            x = pd.DataFrame(x, columns=self.feature_names_in_).infer_objects()
        return x

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401
        tags = super().__sklearn_tags__()  # pyrefly: ignore[missing-attribute]
        tags.input_tags.allow_nan = True
        tags.non_deterministic = False
        return tags


def _is_mixed(x: Any, likelihood: object) -> bool:  # noqa: ANN401
    """Whether a frame holds more than numbers; with a line for all columns bits are numbers."""
    if not hasattr(x, "columns"):
        return False
    bits = likelihood is not None
    kinds = nw.from_native(x, eager_only=True).schema.values()
    return not all(kind.is_numeric() or (bits and kind == nw.Boolean) for kind in kinds)


def _answer(x: Any) -> Any:  # noqa: ANN401
    """Tensors as arrays, frames as they are."""
    return x.numpy() if isinstance(x, torch.Tensor) else x


class VAEImputer(OneToOneFeatureMixin, _Estimator):
    """Fill missing cells with their means given the other cells of the row, under a VAE.

    The columns may be of any scale. Those of a data frame may be of words, categories, booleans or
    dates too: each then has a likelihood of its own, and its levels are those of the frame that it
    was fitted to. Give them pandas' type ``category`` where a part of the rows, as in a
    cross-validation, may lack some. Categories are filled with the most probable level.

    Args:
        latent_dim: the dimension of z.
        likelihood: a line, as all of these; ``GridSearchCV`` may choose among lines. Where it is
            not given, ``Normal(scale=learned)`` for an array of numbers, and for a mixed frame
            ``"auto"``, which decides by column. ``{"Income": "LogNormal"}`` says some columns' own.
        prior: of z.
        guide: the family of q(z|x).
        encoder: from x to features.
        decoder: from z to features.
        estimator: the bound that is maximized, and its gradient.
        epochs: passes over the rows.
        batch_size: rows a step.
        lr: the learning rate, or a schedule.
        num_samples: draws of z for each row in :meth:`transform` and :meth:`score_samples`.
        random_state: of weights, order and draws.

    Attributes:
        vae_: the trained :class:`pyro_vae.VAE`, in the units of the data.
        history_: a row an epoch.

    References:
        Mattei & Frellsen (2019), arXiv:1812.02633.

    >>> x = np.random.default_rng(0).normal(size=(40, 3))
    >>> x[0, 1] = np.nan
    >>> np.isnan(VAEImputer(latent_dim=1, epochs=2, random_state=0).fit_transform(x)).any()
    np.False_
    """

    def transform(self, X: ArrayLike) -> Any:  # noqa: ANN401
        """X with its missing cells filled, ``(N, D)``; the other cells are as they were.

        A mixed frame comes back as a frame, with its types, its order and its index.
        """
        check_is_fitted(self)
        rows = self._rows(X)
        if isinstance(rows, torch.Tensor) and not rows.isnan().any():
            return rows.numpy()
        return _answer(self.vae_.impute(rows, num_samples=self.num_samples, seed=self.seed_))


class VAETransformer(ClassNamePrefixFeaturesOutMixin, _Estimator):
    """Rows as the means of q(z|x), and back; missing cells are allowed.

    The arguments and attributes are those of :class:`VAEImputer`.

    References:
        Kingma & Welling (2014), arXiv:1312.6114.

    >>> x = np.random.default_rng(0).normal(size=(40, 3))
    >>> reduced = VAETransformer(latent_dim=2, epochs=2, random_state=0).fit_transform(x)
    >>> reduced.shape
    (40, 2)
    """

    def transform(self, X: ArrayLike) -> np.ndarray:
        """The means of q(z|x), ``(N, latent_dim)``."""
        check_is_fitted(self)
        with seeded(self.seed_):
            z = point(self.vae_.encode(self._rows(X)))
        return z.double().numpy()

    @torch.no_grad()
    def inverse_transform(self, X: ArrayLike) -> Any:  # noqa: ANN401
        """The means of p(x|z) for rows z, ``(N, D)``; of categories the most probable ones.

        Of a mixed frame they are a frame.
        """
        check_is_fitted(self)
        z = np.asarray(check_array(X), np.float64)
        if z.shape[1] != self._n_features_out:
            raise ValueError(f"expected {self._n_features_out} columns of z, got {z.shape[1]}")
        with seeded(self.seed_):
            cells = point(self.vae_.decode(torch.tensor(z)))
        return _answer(self.vae_.record.answer(cells, mean=True))

    @property
    def _n_features_out(self) -> int:
        return int(np.prod(self.vae_.z_shape))
