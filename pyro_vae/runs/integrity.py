"""Whether the files of a run are what was written: what ``pyro-vae check`` says."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..core.toml import read_config
from ..infer.training.checkpoint import CHECKPOINT, PREVIOUS, read_one
from ..infer.training.folder import HISTORY, RESULTS
from ..model.files import DESCRIPTION, WEIGHTS, own_parts, read_model
from ..model.saving import load
from .folder import TEST, read_history, read_results
from .settings import CONFIG, read_settings

__all__ = ["check_run"]

FIGURES = {"elbo_train", "elbo_test", "log_likelihood_test", "kl_test", "epochs", "parameters"}


def check_run(run: str | Path) -> dict[str, str]:
    """Read each file of a run folder, and compare those that have a checksum with it.

    Args:
        run: the folder.

    Returns:
        By the name of a file, what is wrong with it; ``""`` where nothing is.

    Raises:
        ValueError: the folder holds neither a model nor a checkpoint.
    """
    run = Path(run)
    found = {path.name: check for path, check in _checks(run) if path.exists()}
    if not {DESCRIPTION, WEIGHTS, CHECKPOINT, PREVIOUS} & found.keys():
        raise ValueError(f"{run} is no run folder: it holds neither a model nor a checkpoint")
    return {name: _problem(check) for name, check in found.items()}


def _checks(run: Path) -> Iterator[tuple[Path, Callable[[], object]]]:
    yield run / CONFIG, lambda: read_settings(run)
    yield run / DESCRIPTION, lambda: load(run) if not own_parts(run) else read_config(run / CONFIG)
    yield run / WEIGHTS, lambda: read_model(run)
    for name in (CHECKPOINT, PREVIOUS):
        yield run / name, lambda name=name: read_one(run / name)
    yield run / HISTORY, lambda: read_history(run)
    yield run / RESULTS, lambda: _results(run)
    yield run / TEST, lambda: np.load(run / TEST, allow_pickle=False).mean()


def _results(run: Path) -> None:
    figures = read_results(run)
    if not figures:
        raise ValueError("its figures are of other weights")
    if lacking := sorted(FIGURES - figures.keys()):
        raise ValueError(f"it lacks {', '.join(lacking)}")


def _problem(check: Callable[[], object]) -> str:
    try:
        check()
    except Exception as problem:  # whatever a damaged file can cause
        return str(problem).split("\n")[0] or type(problem).__name__
    return ""
