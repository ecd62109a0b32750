"""A run and its folder: the model, what it was told, its history, results and pictures."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch

from .. import plots
from ..core.seeding import seeded
from ..core.toml import read_config, write_toml
from ..data import Data, load_data
from ..infer.elbo_terms import elbo_terms
from ..infer.engine.distributed import Processes, local_rank, processes
from ..infer.training.checkpoint import CHECKPOINT
from ..infer.training.fit import Fit, fit
from ..language.spec import parse
from ..model.vae import VAE
from ..plots.pictures import has_images
from .settings import CONFIG

__all__ = ["picture", "read_results", "results", "run"]

RESULTS, HISTORY, PICTURES = "results.toml", "history.csv", "pictures"
TEST = "elbo_test.npy"  # of each test datum, in nats


def run(settings: Mapping[str, object], out: Path, *, resume: bool = False) -> tuple[Fit, Data]:
    """Train one model as told and keep everything in a folder.

    Of several processes (``torchrun``) the first one writes.

    Args:
        settings: all of :data:`pyro_vae.runs.settings.DEFAULTS`.
        out: the run folder.
        resume: go on with the run that the folder holds.

    Returns:
        The fit, and the data it was made on.
    """
    with processes() as team:
        return _run(dict(settings), out, resume, team)


def _run(told: dict[str, object], out: Path, resume: bool, team: Processes) -> tuple[Fit, Data]:
    root, seed = told["data_root"], int(str(told["seed"]))
    with team.in_turn():
        data = load_data(str(told["data"]), None if root is None else str(root), seed=seed)
    if (
        told["binarize"] is None
        and data.grey
        and parse(str(told["likelihood"])).name == "Bernoulli"
    ):
        told["binarize"] = "dynamic"
    vae = new_model(told, data)
    vae.as_data(data.test)
    how = ("estimator", "patience", "checkpoint_every", "compile")
    options = {**training_settings(told), **{k: told[k] for k in how}}
    with _announced(out, told, resume) if team.rank == 0 else nullcontext():
        fitted = fit(vae, data.train, **{"resume" if resume else "out": out}, **options)
    if team.rank == 0:
        vae.save(out)
        fitted.history.to_csv(out / HISTORY)
    return fitted, data


def new_model(told: Mapping[str, object], data: Data) -> VAE:
    """The model of a run, at its start."""
    parts = {k: str(told[k]) for k in ("prior", "likelihood", "guide", "encoder", "decoder")}
    layers = _widths(told.get("layers"))
    vae = VAE(
        tuple(data.train.shape[1:]), int(str(told["latent_dim"])) if layers is None else None,
        layers=layers, **parts, missing=data.missing, seed=int(str(told["seed"])),
    )  # fmt: skip
    _place(vae, str(told["device"]))
    return vae


def training_settings(told: Mapping[str, object]) -> dict[str, Any]:
    """What a run tells ``fit`` of the training, whatever the estimator."""
    how = ("epochs", "batch_size", "optimizer", "binarize", "validation")
    options = {k: told[k] for k in how} | {k: _schedule(told[k]) for k in ("lr", "beta")}
    return {**options, "seed": int(str(told["seed"]))}


@contextmanager
def _announced(out: Path, told: Mapping[str, object], resume: bool) -> Iterator[None]:
    """The configuration, written first, so that a run that is killed can be resumed.

    Where ``fit`` refuses the arguments, the folder is as it was before.
    """
    made, config = not out.exists(), out / CONFIG
    before = config.read_text() if config.exists() else None
    comment = "pyro-vae fit --config this file trains this model again"
    if (out / CHECKPOINT).exists() and not resume:
        raise ValueError(f"{out} holds a run already: --resume {out}, or choose another --out")
    if resume and read_config(config).get("epochs") != told["epochs"]:
        comment = "resumed with another --epochs: a schedule over all epochs had another length"
    out.mkdir(parents=True, exist_ok=True)
    write_toml(config, told, comment)
    try:
        yield
    except ValueError:
        if before is not None:
            config.write_text(before)
        elif not (out / CHECKPOINT).exists():
            config.unlink()
            if made:
                out.rmdir()
        raise


def _place(vae: VAE, device: str) -> None:
    if device == "auto":
        device = f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"
    try:
        vae.to(device)
    except (RuntimeError, AssertionError) as problem:  # torch without CUDA asserts
        reason = str(problem).split("\n")[0]
        raise ValueError(f"device {device!r} cannot be used: {reason}") from None


@torch.no_grad()
def results(fitted: Fit, data: Data, out: Path) -> dict[str, float]:
    """Measure the trained model on the test data; write the numbers and the pictures.

    Returns:
        A figure by name, in nats per datum where nothing else is said.
    """
    vae: VAE = fitted.vae  # pyright: ignore[reportAssignmentType]
    told = read_config(out / CONFIG)
    test = vae.as_data(_as_seen(data.test, told))
    with seeded(0), pyro.get_param_store().scope():
        likelihood, kl = elbo_terms(vae.model, vae.guide, test, num_samples=10)
    bound = likelihood - kl
    last = fitted.history.iloc[-1]
    found = {
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
    np.save(out / TEST, bound.numpy(force=True))
    _pictures(fitted, data, test, out / PICTURES)
    write_toml(out / RESULTS, found, "nats per datum, on the data as the model sees them")
    return found


def held_out(
    told: Mapping[str, object], name: str | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The test data of a run as its model sees them, and their labels.

    Args:
        told: the run's configuration.
        name: of other data, as in :func:`~pyro_vae.load_data`; of a file without a test part, all.

    Returns:
        ``(N, *x_shape)``, drawn as bits by the run's seed where it was trained on bits; ``(N,)``.
    """
    root = told.get("data_root")
    source, seed = name or str(told["data"]), int(str(told["seed"]))
    share = 0.1 if name is None else 1.0
    data = load_data(source, None if root is None else str(root), seed=seed, held_out=share)
    return _as_seen(data.test, told), data.test_labels


def _as_seen(x: torch.Tensor, told: Mapping[str, object]) -> torch.Tensor:
    if not told.get("binarize"):
        return x
    with seeded(int(str(told["seed"]))):
        return torch.bernoulli(x)


def picture(vae: VAE, path: Path, num_samples: int, seed: int) -> Path:
    """A picture of samples, where the data are images."""
    return plots.save(plots.samples(vae, num_samples, seed=seed), path)


def read_results(out: Path) -> dict[str, float]:
    """The figures that :func:`results` wrote; empty where there are none."""
    path = out / RESULTS
    return tomllib.loads(path.read_text()) if path.exists() else {}


def _pictures(fitted: Fit, data: Data, test: torch.Tensor, folder: Path) -> None:
    vae: VAE = fitted.vae  # pyright: ignore[reportAssignmentType]
    plots.save(plots.learning_curves(fitted.history), folder / "learning_curves.png")
    drawn = plots.latent_space(vae, test[:5000], _head(data.test_labels, 5000))
    plots.save(drawn, folder / "latent_space.png")
    if has_images(vae):
        plots.save(plots.reconstructions(vae, test[:36]), folder / "reconstructions.png")
        plots.save(plots.samples(vae), folder / "samples.png")


def _head(labels: torch.Tensor | None, n: int) -> torch.Tensor | None:
    return None if labels is None else labels[:n]


def _widths(value: object) -> Sequence[int] | None:
    """A list, or its text: ``[100, 50]``."""
    if not isinstance(value, str):
        return value  # pyright: ignore[reportReturnType]
    given: Any = parse(f"layers({value})").args
    return given[0] if len(given) == 1 and isinstance(given[0], tuple) else given


def _schedule(value: object) -> float | str:
    """A number where the flag's text is one, else a line."""
    try:
        return float(str(value))
    except ValueError:
        return str(value)
