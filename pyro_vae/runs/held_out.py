"""The data of a run, those it is tested on, and other data in their place."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..core.files import uncompressed
from ..core.seeding import seeded
from ..core.toml import read_config
from ..data import SOURCES, Data, load_data
from ..data.counts import Counts
from ..data.rows import Rows
from ..data.tables import Table, naming, read_file
from ..infer.training.preparation import check_grey, fingerprint
from ..infer.training.settings import CONFIG, FROM_PYTHON
from ..model.tables import TableRecord
from ..model.vae import VAE
from ..model.visits import VisitsRecord
from .settings import RunSettings, read_settings

__all__ = ["as_seen", "held_out", "name_of", "run_data"]


def run_data(settings: RunSettings) -> Data:
    """The data of a run."""
    options: Any = settings.of_table | settings.of_counts
    options |= {"size": settings.size, "layout": settings.layout}
    return load_data(settings.data, settings.data_root, seed=settings.seed, **options)


def held_out(
    run: str | Path,
    vae: VAE,
    data: str | Tensor | ArrayLike | None = None,
    *,
    grey: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The test data of a run as its model sees them, and their labels.

    Args:
        run: the folder.
        vae: its model.
        data: others, by name as in :func:`~pyro_vae.load_data` (of a file without a test part,
            all), or ``(N, *x_shape)``.
        grey: give grey values as they are, of which bits are drawn by the run's seed.

    Returns:
        ``(N, *x_shape)``, drawn as bits by the run's seed where it was trained on bits; ``(N,)``.

    Raises:
        ValueError: the run does not know its data, and no others are given.
    """
    run, settings = Path(run), read_settings(run)
    settings = replace(settings, binarize=None) if grey else settings
    if data is None:
        found = _own(run, settings, vae)
    elif not isinstance(data, str | Path):
        return vae.as_data(as_seen(vae.as_data(data), settings)), None
    elif isinstance(vae.record, TableRecord | VisitsRecord) and str(data) not in SOURCES:
        frame = read_file(data, vae.record.words)
        with naming(data):
            return vae.as_data(frame), None
    else:
        options: Any = settings.of_counts | {"size": settings.size if Path(data).is_dir() else None}
        if Path(data).suffix in (".npy", ".npz"):
            options["layout"] = settings.layout
        options |= {"seed": settings.seed, "held_out": 1.0, "tokens": settings.tokens}
        found = load_data(str(data), settings.data_root, **options)
        if found.vocabulary is not None:  # its numbers are not those of the model
            return vae.as_data(found.texts), None
    return vae.as_data(as_seen(found.test, settings)), found.test_labels


def _own(run: Path, settings: RunSettings, vae: VAE) -> Data:
    """The data that a run was told, from where they are now; a warning where they are others."""
    if settings.data == FROM_PYTHON:
        raise ValueError(
            f"{run} does not know its test data, which were given in Python: name a file of them, "
            f"pyro-vae report {run} X.npy, or give them, data=x"
        )
    told = read_config(run / CONFIG)
    file = str(told.get("data_file", ""))
    if settings.data not in SOURCES and not Path(settings.data).exists() and Path(file).exists():
        settings = replace(settings, data=file)
    data = run_data(settings)
    train = data.train
    x: Any = train if isinstance(train, Rows) else vae.record.rows(train)  # as fit hashed them
    x = vae.as_data(data.train) if x is None else x
    if told.get("data_hash", expected := fingerprint(x)[1]) != expected:
        warnings.warn(
            f"the data of {run} have changed since it was trained: {settings.data} is another one, "
            "so what is held out of it now may have been trained on",
            stacklevel=3,
        )
    return data


def name_of(settings: RunSettings, data: object = None) -> str:
    """How data are called in files and headings."""
    name = settings.data if data is None else data if isinstance(data, str | Path) else "data"
    return uncompressed(name).stem


def as_seen(x: Tensor | Table | Counts, settings: RunSettings) -> Any:  # noqa: ANN401
    """Data as the model of a run sees them: as bits, where it was trained on bits."""
    if settings.binarize is None or isinstance(x, Table | Counts):
        return x
    check_grey(x)
    with seeded(settings.seed):
        return torch.bernoulli(x)
