"""A run and its folder: the model, what it was told, its history, results and pictures."""

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .. import plots
from ..core.acting import evaluating
from ..core.files import replacing, uncompressed
from ..core.seeding import seeded
from ..core.toml import read_config, write_toml
from ..data import SOURCES, Data
from ..evaluate.bits import bits_per_dimension, has_levels
from ..evaluate.statistics import chosen_rows, mean, mean_and_error
from ..infer.elbo_terms import elbo_terms
from ..infer.engine.distributed import local_rank, processes
from ..infer.training.fit import Fit, Terminated, fit
from ..infer.training.folder import HISTORY, RESULTS, RunFolder
from ..model.files import DESCRIPTION
from ..model.sequences import Sequences
from ..model.vae import VAE
from ..plots.pictures import has_images
from .held_out import as_seen, run_data
from .settings import RunSettings

__all__ = ["TEST", "Outcome", "new_model", "read_history", "read_results", "train"]

PICTURES = "pictures"
TEST = "elbo_test.npy"  # of each test observation, in nats
LEVELS = "DiscretizedLogistic(components=5"  # of 8-bit images, where no likelihood is said
TOLD = ("layers", "condition", "inputs", "offset", "weight", "units", "seed")  # as to a model
PLOTTED = 5000  # points in a picture of the latent space, at most


@dataclass(frozen=True)
class Outcome:
    """What a run has given.

    Attributes:
        folder: where it is kept.
        data: what it was trained and tested on.
        fitted: the model and its history.
        results: a figure by name, in nats per observation where nothing else is said; empty for
            a run that was interrupted, and in all processes but the first.
    """

    folder: Path
    data: Data
    fitted: Fit
    results: dict[str, float]


def train(
    settings: RunSettings,
    out: Path | None = None,
    *,
    resume: bool = False,
    parts: Mapping[str, object] = MappingProxyType({}),
) -> Outcome:
    """Train and test one model, and keep everything in a folder, which is locked meanwhile.

    Of several processes (``torchrun``) the first one writes.

    Args:
        settings: what to do.
        out: the run folder; ``runs/DATA-TIME``, a new one, where it is not given.
        resume: go on with the run that the folder holds.
        parts: of the model, by role, in place of the settings' lines.

    Raises:
        ValueError: settings that cannot be served, with the folder as it was before; a folder that
            holds a run already, or that another process is writing to.
    """
    with ExitStack() as held:
        with processes() as team:
            with team.in_turn():
                data = run_data(settings)
            grey_bits = data.grey and str(settings.likelihood).split("(")[0] == "Bernoulli"
            if settings.binarize is None and grey_bits:
                settings = replace(settings, binarize="dynamic")
            if (data.levels or 0) > 2 and settings.likelihood == RunSettings.likelihood:  # pyrefly: ignore[missing-attribute]
                settings = replace(settings, likelihood=f"{LEVELS}, levels={data.levels})")
            vae = new_model(settings, data, parts)
            with _rows_of_source(vae, data, settings):
                vae.check(as_seen(data.test, settings))
            leads = team.rank == 0
            folder = _run_folder(settings, out, leads)
            if leads:
                held.enter_context(folder.held(resume=resume))
            where: dict[str, Any] = {"resume" if resume else "out": folder}
            try:
                with _rows_of_source(vae, data, settings):
                    fitted = fit(vae, data.train, **where, **settings.fit_options())
            except Terminated as stop:  # the command line says how to go on, and ends with it
                fitted = stop.fitted
        done = leads and fitted.signal is None and not fitted.interrupted
        figures = _test(vae, fitted, data, settings, folder.path) if done else {}
    return Outcome(folder.path, data, fitted, figures)


@contextmanager
def _rows_of_source(vae: VAE, data: Data, settings: RunSettings) -> Generator[None]:
    """Errors of a cell say its row in the file, which may be another one of its part."""
    try:
        yield
    except ValueError as problem:
        if data.order is not None and not settings.binarize and "(first in row " in str(problem):
            parts: Any = data.test, data.train
            vae.check(torch.cat(parts)[data.order.argsort()])
        raise


def _run_folder(settings: RunSettings, out: Path | None, leads: bool) -> RunFolder:
    """The folder of a run; where none is named, the first process makes one."""
    told = asdict(settings)
    if settings.data not in SOURCES and Path(settings.data).exists():
        told["data_file"] = str(Path(settings.data).resolve())
    new = out is None and leads
    return RunFolder(_new_folder(settings.data) if new else out or "runs", told, made=new)


def new_model(
    settings: RunSettings, data: Data, parts: Mapping[str, object] = MappingProxyType({})
) -> VAE:
    """The model of a run, at its start."""
    lines: Any = {role: getattr(settings, role) for role in VAE.ROLES}
    if data.ragged:
        plain = type(settings)()
        lines = {k: None if v == getattr(plain, k) else v for k, v in lines.items()}
        lines |= {role: getattr(settings, role) for role in ("prior", "guide")}
    if data.is_table:
        lines["likelihood"] = settings.by_column
    elif isinstance(settings.likelihood, tuple):
        raise ValueError("likelihoods by column are of a table: a .csv, .tsv or .parquet file")
    vae = VAE(
        data.x_shape,
        settings.latent_dim if settings.layers is None else None,
        covariates=settings.of_condition,
        missing=data.missing if settings.missing is None else settings.missing,
        **{name: getattr(settings, name) for name in TOLD},
        **lines | dict(parts),
    )
    device = settings.device
    if device == "auto":
        device = f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"
    try:
        return vae.to(device)
    except (RuntimeError, AssertionError) as problem:  # torch without CUDA asserts
        reason = str(problem).split("\n")[0]
        raise ValueError(f"device {device!r} cannot be used: {reason}") from None


def _new_folder(data: str) -> Path:
    """A folder that no other process has made."""
    name = f"{uncompressed(data).stem}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = Path("runs", name), 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
            folder = folder.with_name(f"{name}-{number}")


@torch.no_grad()
def _test(
    vae: VAE, fitted: Fit, data: Data, settings: RunSettings, folder: Path
) -> dict[str, float]:
    """Measure the trained model on the test data; write the numbers, then the pictures."""
    test = vae.as_data(as_seen(data.test, settings))
    with evaluating(vae, 0):
        likelihood, kl = elbo_terms(vae.model, vae.guide, test, num_samples=10)
    bound = likelihood - kl
    weights, last = vae.weights_of(test), fitted.history.iloc[-1]
    value, error = mean_and_error(bound, weights)
    figures = {
        "elbo_train": float(last.elbo_train),
        "elbo_validation": float(last.elbo_validation),
        "elbo_test": value,
        "elbo_test_standard_error": error,
        "log_likelihood_test": mean(likelihood, weights).item(),
        "kl_test": mean(kl, weights).item(),
        **_bits(vae, bound, weights),
        "training_seconds": float(last.seconds),
        "epochs": float(fitted.history.index[-1]),
        "parameters": float(sum(p.numel() for p in vae.parameters())),
    }
    with replacing(folder / TEST) as new:
        np.save(new, bound.numpy(force=True))
    comment = "nats per observation, on the data as the model sees them"
    weights = read_config(folder / DESCRIPTION)["checksum"]
    write_toml(folder / RESULTS, {**figures, "weights": weights}, comment)
    _draw(vae, fitted, test, data.test_labels, folder / PICTURES)
    return figures


def _bits(vae: VAE, bound: Tensor, weights: Tensor | None) -> dict[str, float]:
    """The bound in bits per dimension, and its error, where x are levels."""
    if not has_levels(vae):
        return {}
    bits: Any = bits_per_dimension(vae, bound)
    name = "bits_per_dimension_test"
    return dict(zip((name, f"{name}_standard_error"), mean_and_error(bits, weights), strict=True))


def _draw(vae: VAE, fitted: Fit, test: Tensor, labels: Tensor | None, folder: Path) -> None:
    with seeded(0):
        rows = chosen_rows(test, PLOTTED)
    labels = None if labels is None else labels[rows.to(labels.device)]
    plots.save(plots.learning_curves(fitted.history), folder / "learning_curves.png")
    plots.save(plots.latent_space(vae, test[rows], labels), folder / "latent_space.png")
    if has_images(vae):
        plots.save(plots.reconstructions(vae, test[:36]), folder / "reconstructions.png")
        plots.save(plots.samples(vae), folder / "samples.png")
    if isinstance(vae.record, Sequences) and vae.record.vocabulary is None:
        plots.save(plots.reconstructed_rolls(vae, test), folder / "reconstructions.png")
        plots.save(plots.piano_roll(vae.sample(16, seed=0)), folder / "samples.png")


def read_history(folder: Path) -> pd.DataFrame | None:
    """The history of a run, by epoch; nothing where there is none.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / HISTORY
    if not path.exists():
        return None
    try:
        history = pd.read_csv(path.absolute(), index_col="epoch")
        numbers = history[["elbo_train", "elbo_validation"]].astype(float)
        history.index.astype(int)
    except (ValueError, KeyError, TypeError, OverflowError) as problem:
        raise ValueError(f"{path} is no history of a run: {problem}") from None
    if numbers.empty:
        raise ValueError(f"{path} is no history of a run: it has no epoch")
    return history


def read_results(folder: Path) -> dict[str, float]:
    """The figures that :func:`train` wrote; empty where there are none of the model's weights."""
    if not (folder / RESULTS).exists():
        return {}
    found = read_config(folder / RESULTS)
    of, about = found.pop("weights", None), folder / DESCRIPTION
    if of is not None and (not about.exists() or read_config(about).get("checksum") != of):
        return {}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
