"""Training curves: what a choice of gradient estimator is worth in steps and in seconds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyro
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.checks import whole
from ...core.seeding import seeded
from ...data.counts import Counts
from ...data.rows import HELD_OUT, Rows
from ...infer.estimators.soundness import check_and_nest
from ...infer.training import binarize as bits
from ...infer.training.fit import fit
from ...infer.training.settings import Binarize
from ...infer.training.step import NonFiniteLossError
from ...model.entry import of_face
from ...model.face import Face
from .comparison import make_estimators, unique
from .references import EstimatorLike

if TYPE_CHECKING:
    from xarray import Dataset

__all__ = ["train_estimators"]

ABOUT = {  # variable: what it is, and its unit
    "elbo_train": ("ELBO of training data", "nats per observation"),
    "elbo_validation": ("ELBO of validation data", "nats per observation"),
    "log_likelihood": ("E[log p(x|z)]", "nats per observation"),
    "kl": ("KL(q(z|x) || p(z))", "nats per observation"),
    "seconds": ("training so far", "s"),
}
EXAMPLE = 1000  # observations that an estimator is tried on
OWN = ("estimator", "out", "resume", "patience")  # arguments of fit that have no meaning here


@of_face
def train_estimators(
    vae: Face,
    x: Tensor | Rows | Counts | ArrayLike,
    estimators: Sequence[EstimatorLike],
    *,
    epochs: int = 100,
    batch_size: int = 100,
    binarize: Binarize = None,
    validation: Tensor | float | None = None,
    seed: int = 0,
    **settings: object,
) -> "Dataset":
    """Train a copy of one model with each estimator, from the same start, and compare the ELBOs.

    The copies share weights, data, seed and all settings; the order of the data is the same for all
    in the first epoch, and depends on the draws of each after it. The ELBO is compared, of the same
    data with the same noise, whichever bound an estimator ascends. The model itself stays as it is.

    Args:
        vae: the model whose copies are trained, or a :class:`Program`, which carries its x
            and is as it was after each training.
        x: data, ``(N, *x_shape)``.
        estimators: lines, or Pyro ``ELBO`` objects.
        epochs: passes over the data.
        batch_size: observations per step.
        binarize: as in :func:`~pyro_vae.fit`, as are the further arguments.
        validation: as in ``fit``.
        seed: of each training.
        settings: of ``fit``: ``lr``, ``optimizer``, ``beta``, ``compile``, ``progress``.

    Returns:
        A dataset over (estimator, epoch): ``elbo_train``, ``elbo_validation``, ``log_likelihood``
        and ``kl`` in nats per observation, and ``seconds`` of training so far, with compiling.
        The coordinate ``step`` counts gradients. Ctrl-C gives the epochs that have ended.

    Raises:
        ValueError: an estimator that cannot serve the guide, before any is trained; an argument of
            ``fit`` that has no meaning here.
        NonFiniteLossError: with the estimator and the site that caused it.

    >>> from pyro_vae import VAE
    >>> vae = VAE(4, latent_dim=2, likelihood="Normal", encoder="MLP([3])", seed=0)
    >>> lines = ["Trace_ELBO", "Trace_ELBO(gradient=score)"]
    >>> dataset = train_estimators(vae, [[0.0, 1.0, 0.0, 1.0]] * 20, lines, epochs=2, batch_size=5)
    >>> dataset.elbo_train.shape, dataset.step.to_numpy()
    ((2, 2), array([4, 8]))
    """
    if odd := [name for name in OWN if name in settings]:
        raise ValueError(f"each estimator trains from the same start to the end: leave out {odd}")
    lines = make_estimators(estimators)
    epochs, batch_size = whole("epochs", epochs), whole("batch_size", batch_size)
    x = x if isinstance(x, Rows) else vae.as_data(x)
    with seeded(seed), pyro.get_param_store().scope(), vae.copied() as trial:
        example = vae.as_data(x[torch.arange(min(len(x), EXAMPLE))])
        trial.start_from(example)
        batch = example[:batch_size]
        batch = bits.binarize(batch) if binarize else batch
        for estimator in lines:
            check_and_nest(estimator, trial.model, trial.guide, batch)
    options: Any = {"binarize": binarize, "validation": validation, "seed": seed, **settings}
    options |= {"epochs": epochs, "batch_size": batch_size}
    histories = {}
    for name, estimator in zip(unique(lines), lines, strict=True):
        try:
            with vae.copied() as copy:
                fitted = fit(copy, x, estimator=estimator, **options)  # pyrefly: ignore[bad-argument-type]
        except NonFiniteLossError as problem:
            raise NonFiniteLossError(f"{name}: {problem}") from None
        if len(fitted.history):
            histories[name] = fitted.history[list(ABOUT)]
        if fitted.interrupted:
            break
    if not histories:
        raise KeyboardInterrupt
    dataset = pd.concat(histories, names=["estimator"]).to_xarray()
    for name, (text, unit) in ABOUT.items():
        dataset[name].attrs = {"long_name": text, "units": unit}
    held_out = round(validation * len(x)) if isinstance(validation, float) else 0
    n = len(x) - (min(held_out, HELD_OUT) if isinstance(x, Rows) else held_out)
    steps = dataset.epoch * -(-n // batch_size)
    return dataset.assign_coords(step=steps).assign_attrs(seed=seed, batch_size=batch_size)
