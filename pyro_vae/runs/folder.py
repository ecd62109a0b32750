"""A run and its folder: the model, what it was told, its history, results and pictures."""

import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyro
import torch
from torch import Tensor

from .. import plots
from ..core.files import locked, replacing, write_whole
from ..core.seeding import seeded
from ..core.toml import read_config, write_toml
from ..data import Data, load_data
from ..infer.elbo_terms import elbo_terms
from ..infer.engine.distributed import local_rank, processes
from ..infer.training.checkpoint import CHECKPOINT
from ..infer.training.fit import Fit, fit
from ..language.spec import parse
from ..model.vae import VAE
from ..plots.pictures import has_images
from .settings import CONFIG, RunSettings

__all__ = [
    "HISTORY",
    "RESULTS",
    "Run",
    "held_out",
    "new_model",
    "read_results",
    "run_data",
    "train",
]

RESULTS, HISTORY, PICTURES = "results.toml", "history.csv", "pictures"
TEST = "elbo_test.npy"  # of each test observation, in nats
PLOTTED = 5000  # points in a picture of the latent space, at most


@dataclass(frozen=True)
class Run:
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


def train(settings: RunSettings, out: Path | None = None, *, resume: bool = False) -> Run:
    """Train and test one model, and keep everything in a folder, which is locked meanwhile.

    Of several processes (``torchrun``) the first one writes.

    Args:
        settings: what to do.
        out: the run folder; ``runs/DATA-TIME``, a new one, where it is not given.
        resume: go on with the run that the folder holds.

    Raises:
        ValueError: settings that cannot be served, with the folder as it was before; a folder that
            holds a run already, or that another process is writing to.
    """
    with ExitStack() as held:
        with processes() as team:
            with team.in_turn():
                data = run_data(settings)
            grey_bits = data.grey and parse(settings.likelihood).name == "Bernoulli"
            if settings.binarize is None and grey_bits:
                settings = replace(settings, binarize="dynamic")
            vae = new_model(settings, data)
            vae.as_data(data.test)
            options = settings.fit_options()
            leads = team.rank == 0
            folder = out or Path("runs")
            if leads:
                folder = held.enter_context(_claim(out, settings.data, resume))
            with _announced(folder, settings, resume) if leads else nullcontext():
                fitted = fit(vae, data.train, **{"resume" if resume else "out": folder}, **options)
        if not leads:
            return Run(folder, data, fitted, {})
        (folder / RESULTS).unlink(missing_ok=True)  # the figures of other weights
        vae.save(folder)
        with replacing(folder / HISTORY) as new:
            fitted.history.to_csv(new)
        figures = {} if fitted.interrupted else _test(vae, fitted, data, settings, folder)
    return Run(folder, data, fitted, figures)


def run_data(settings: RunSettings) -> Data:
    """The data of a run."""
    return load_data(settings.data, settings.data_root, seed=settings.seed)


def new_model(settings: RunSettings, data: Data) -> VAE:
    """The model of a run, at its start."""
    vae = VAE(
        tuple(data.train.shape[1:]),
        settings.latent_dim if settings.layers is None else None,
        layers=settings.layers,
        prior=settings.prior,
        likelihood=settings.likelihood,
        guide=settings.guide,
        encoder=settings.encoder,
        decoder=settings.decoder,
        missing=data.missing if settings.missing is None else settings.missing,
        seed=settings.seed,
    )
    device = settings.device
    if device == "auto":
        device = f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"
    try:
        return vae.to(device)
    except (RuntimeError, AssertionError) as problem:  # torch without CUDA asserts
        reason = str(problem).split("\n")[0]
        raise ValueError(f"device {device!r} cannot be used: {reason}") from None


@contextmanager
def _claim(out: Path | None, data: str, resume: bool) -> Iterator[Path]:
    """Make the folder and lock it; one that was made and is still empty afterwards is removed."""
    new = out is None or not out.exists()
    folder = _new_folder(data) if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):
            if (folder / CHECKPOINT).exists() and not resume:
                raise ValueError(
                    f"{folder} holds a run already: --resume {folder}, or choose another --out"
                )
            yield folder
    finally:
        if new and not any(folder.iterdir()):
            folder.rmdir()


def _new_folder(data: str) -> Path:
    """A folder that no other process has made."""
    name = f"{Path(data).stem}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = Path("runs", name), 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
            folder = folder.with_name(f"{name}-{number}")


@contextmanager
def _announced(folder: Path, settings: RunSettings, resume: bool) -> Iterator[None]:
    """The configuration, written first, so that a run that is killed can be resumed.

    Where ``fit`` refuses the arguments, it is as it was before.
    """
    config = folder / CONFIG
    before = config.read_bytes() if config.exists() else None
    comment = "pyro-vae fit --config this file trains this model again"
    if resume and read_config(config).get("epochs") != settings.epochs:
        comment = "resumed with another --epochs: a schedule over all epochs had another length"
    write_toml(config, asdict(settings), comment)
    try:
        yield
    except ValueError:
        if before is not None:
            write_whole(config, before)
        elif not (folder / CHECKPOINT).exists():
            config.unlink()
        raise


@torch.no_grad()
def _test(
    vae: VAE, fitted: Fit, data: Data, settings: RunSettings, folder: Path
) -> dict[str, float]:
    """Measure the trained model on the test data; write the numbers, then the pictures."""
    test = vae.as_data(_as_seen(data.test, settings))
    with seeded(0), pyro.get_param_store().scope():
        likelihood, kl = elbo_terms(vae.model, vae.guide, test, num_samples=10)
    bound = likelihood - kl
    last = fitted.history.iloc[-1]
    figures = {
        "elbo_train": float(last.elbo_train),
        "elbo_validation": float(last.elbo_validation),
        "elbo_test": bound.mean().item(),
        "elbo_test_standard_error": (bound.std() / len(bound) ** 0.5).item(),
        "log_likelihood_test": likelihood.mean().item(),
        "kl_test": kl.mean().item(),
        "training_seconds": float(last.seconds),
        "epochs": float(fitted.history.index[-1]),
        "parameters": float(sum(p.numel() for p in vae.parameters())),
    }
    with replacing(folder / TEST) as new:
        np.save(new, bound.numpy(force=True))
    comment = "nats per observation, on the data as the model sees them"
    write_toml(folder / RESULTS, figures, comment)
    _draw(vae, fitted, test, data.test_labels, folder / PICTURES)
    return figures


def _draw(vae: VAE, fitted: Fit, test: Tensor, labels: Tensor | None, folder: Path) -> None:
    labels = None if labels is None else labels[:PLOTTED]
    plots.save(plots.learning_curves(fitted.history), folder / "learning_curves.png")
    plots.save(plots.latent_space(vae, test[:PLOTTED], labels), folder / "latent_space.png")
    if has_images(vae):
        plots.save(plots.reconstructions(vae, test[:36]), folder / "reconstructions.png")
        plots.save(plots.samples(vae), folder / "samples.png")


def held_out(settings: RunSettings, name: str | None = None) -> tuple[Tensor, Tensor | None]:
    """The test data of a run as its model sees them, and their labels.

    Args:
        settings: the run's.
        name: of other data, as in :func:`~pyro_vae.load_data`; of a file without a test part, all.

    Returns:
        ``(N, *x_shape)``, drawn as bits by the run's seed where it was trained on bits; ``(N,)``.
    """
    if name is None:
        data = run_data(settings)
    else:
        data = load_data(name, settings.data_root, seed=settings.seed, held_out=1.0)
    return _as_seen(data.test, settings), data.test_labels


def _as_seen(x: Tensor, settings: RunSettings) -> Tensor:
    if settings.binarize is None:
        return x
    with seeded(settings.seed):
        return torch.bernoulli(x)


def read_results(folder: Path) -> dict[str, float]:
    """The figures that :func:`train` wrote; empty where there are none."""
    path = folder / RESULTS
    return tomllib.loads(path.read_text("utf-8")) if path.exists() else {}
