"""A VAE as scikit-learn's estimators: to impute, to reduce dimensions, to score rows."""

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from .core.checks import whole
from .core.seeding import seeded
from .evaluate.evidence.importance import log_evidence
from .infer.training.fit import fit
from .model.latents import point
from .model.vae import VAE

__all__ = ["EXPECTED_FAILED_CHECKS", "VAEImputer", "VAETransformer"]

# Of sklearn.utils.estimator_checks.check_estimator.
EXPECTED_FAILED_CHECKS = {
    name: "score_samples draws z: a row's figure moves within its Monte Carlo error"
    for name in ("check_methods_subset_invariance", "check_methods_sample_order_invariance")
}
MAX_SEED = 2**31


class _Estimator(TransformerMixin, BaseEstimator):
    """What the two share: parameters, training, log p(x) and draws."""

    def __init__(
        self,
        latent_dim: int = 8,
        *,
        likelihood: str = "Normal(scale=learned)",
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
            X: ``(N, D)``; NaN is missing.
            y: not used.

        Raises:
            ValueError: a column without any number, or numbers that the likelihood cannot have.
        """
        x = self._read(X, reset=True)
        known = ~np.isnan(x)
        if (empty := np.flatnonzero(~known.any(0))).size:
            raise ValueError(f"column {empty[0]} has no observed cell: leave it out")
        self.seed_ = int(check_random_state(self.random_state).randint(MAX_SEED))
        lines: dict[str, Any] = {k: getattr(self, k) for k in ("likelihood", "prior", "guide")}
        networks: dict[str, Any] = {k: getattr(self, k) for k in ("encoder", "decoder")}
        ends: dict[str, Any] = {"missing": True, "units": "data", "seed": self.seed_}
        vae = VAE(x.shape[1], self.latent_dim, **lines, **networks, **ends).double()
        options: dict[str, Any] = {
            k: getattr(self, k) for k in ("estimator", "epochs", "batch_size", "lr")
        }
        run = fit(vae, torch.tensor(x), **options, seed=self.seed_, progress=False)
        self.history_ = run.history
        self.vae_ = vae
        return self

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """log p(x) of the observed cells of each row, ``(N,)``, nats in the units of X.

        By importance sampling with ``num_samples`` draws of z, always the same ones for the same X.
        """
        check_is_fitted(self)
        x = self._read(X)
        k = whole("num_samples", self.num_samples, 2)
        found = log_evidence(self.vae_, torch.tensor(x), num_samples=k, seed=self.seed_)
        return found.log_evidence.numpy()

    def score(self, X: ArrayLike, y: object = None) -> float:
        """The mean of :meth:`score_samples`, by which ``GridSearchCV`` chooses among lines."""
        return float(self.score_samples(X).mean())

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> np.ndarray:
        """New rows from p(x), ``(n_samples, D)``.

        Args:
            n_samples: how many.
            random_state: of the draws; that of the estimator where it is not given.
        """
        check_is_fitted(self)
        state = self.random_state if random_state is None else random_state
        seed = int(check_random_state(state).randint(MAX_SEED))
        return self.vae_.sample(whole("n_samples", n_samples), seed=seed).numpy()

    def _read(self, x: Any, reset: bool = False) -> np.ndarray:  # noqa: ANN401
        options: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}
        least = 2 if reset else 1
        found: Any = validate_data(self, x, reset=reset, ensure_min_samples=least, **options)
        return found

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.non_deterministic = False
        return tags


class VAEImputer(OneToOneFeatureMixin, _Estimator):
    """Fill missing cells with their means given the other cells of the row, under a VAE.

    The columns may be of any scale.

    Args:
        latent_dim: the dimension of z.
        likelihood: a line, as all of these; ``GridSearchCV`` may choose among lines.
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

    def transform(self, X: ArrayLike) -> np.ndarray:
        """X with its NaN cells filled, ``(N, D)``; the other cells are as they were."""
        check_is_fitted(self)
        x = self._read(X)
        if not np.isnan(x).any():
            return x
        rows = torch.tensor(x)
        return self.vae_.impute(rows, num_samples=self.num_samples, seed=self.seed_).numpy()


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
            z = point(self.vae_.encode(torch.tensor(self._read(X))))
        return z.double().numpy()

    @torch.no_grad()
    def inverse_transform(self, X: ArrayLike) -> np.ndarray:
        """The means of p(x|z) for rows z, ``(N, D)``."""
        check_is_fitted(self)
        z = np.asarray(check_array(X), np.float64)
        if z.shape[1] != self._n_features_out:
            raise ValueError(f"expected {self._n_features_out} columns of z, got {z.shape[1]}")
        with seeded(self.seed_):
            return point(self.vae_.decode(torch.tensor(z))).numpy()

    @property
    def _n_features_out(self) -> int:
        return int(np.prod(self.vae_.z_shape))
