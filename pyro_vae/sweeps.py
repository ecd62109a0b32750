"""Many runs of ``fit``, side by side on this machine or over a cluster, and their comparison."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from .evaluate import elbo, log_evidence
from .evaluate.evidence import RELIABLE
from .infer import CHECKPOINT
from .runs import RESULTS, TEST, held_out, read_results
from .seeding import seeded
from .settings import CONFIG, DEFAULTS, merge, read_config, write_toml
from .vae import VAE, load

__all__ = ["compare_runs", "paired_differences", "sweep"]

APART = ("data", "data_root", "device", "checkpoint_every")  # not worth a word in a folder's name


def sweep(
    configs: Iterable[Mapping[str, object]],
    out: str | Path,
    *,
    jobs: int = 1,
    address: str | None = None,
) -> pd.DataFrame:
    """Train each configuration in a folder of its own; those that are finished are not run again.

    A run is ``pyro-vae fit`` in a process of its own. One that was interrupted goes on, one that
    fails is a row with its error, and the others finish.

    Args:
        configs: settings of ``pyro-vae fit`` by name; what is not given has its default.
        out: the folder of the run folders.
        jobs: how many run at a time on this machine, which share its cores.
        address: of a Ray cluster (``"auto"``, ``"ray://HOST:10001"``; ``"local"`` starts one here),
            which then decides how many run at a time. Its machines must have the package, and
            named data or a folder that all see.

    Returns:
        A row a run, in the order of ``configs``: what tells them apart, the figures of
        ``results.toml`` (nats per datum), ``folder`` and ``error``.

    Raises:
        ValueError: no configurations, an unknown setting, or no Ray for ``address``.

    >>> sweep([{"prior": "Normal"}, {"prior": "Laplace", "epoch": 3}], "runs/priors")
    Traceback (most recent call last):
    ValueError: the configuration has an unknown key 'epoch'; did you mean epochs?
    """
    told = [_settled(config) for config in configs]
    if not told:
        raise ValueError("there is nothing to run: give at least one configuration")
    if jobs < 1:
        raise ValueError(f"jobs must be a whole number of at least 1, got {jobs}")
    folders = [Path(out) / _name(settings) for settings in told]
    waiting = {
        folder: settings
        for folder, settings in zip(folders, told, strict=True)
        if not (folder / RESULTS).exists()
    }
    errors = _on_ray(waiting, address) if address else _here(waiting, jobs)
    varied = [k for k in told[0] if len({str(t[k]) for t in told}) > 1]
    rows = [
        {k: settings[k] for k in varied} | read_results(folder)
        | {"folder": str(folder), "error": errors.get(folder, "")}
        for settings, folder in zip(told, folders, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def paired_differences(table: pd.DataFrame, setting: str) -> pd.DataFrame:
    r"""Test ELBOs by one setting, each minus the first one's on the same data.

    .. math:: \bar d = \tfrac{1}{SN} \sum_{s,n} \big(L_{sn} - L^{(1)}_{sn}\big)

    over seeds s and test data n. Pairing takes out what the data have in common: the standard error
    of the difference is mostly far below those of the two ELBOs.

    Args:
        table: of :func:`sweep`, finished.
        setting: the column to compare by, ``"prior"``.

    Returns:
        A row a value: ``elbo_test``, ``standard_error``, ``difference``,
        ``difference_standard_error`` (over the data, the seeds as they are), ``difference_seed_sd``
        (standard deviation between seeds, where there are several), ``training_seconds``, ``runs``.

    Raises:
        ValueError: a run is not finished, or runs have no partner of the same seed.
    """
    if undone := [folder for folder in table.folder if not (Path(folder) / RESULTS).exists()]:
        raise ValueError(f"{len(undone)} runs are not finished: {', '.join(undone)}")
    seeds = table["seed"] if "seed" in table else pd.Series(0, table.index)
    elbos = {
        value: {
            seed: np.load(Path(folder) / TEST)
            for seed, folder in zip(seeds[rows.index], rows.folder, strict=True)
        }
        for value, rows in table.groupby(setting, sort=False)
    }
    first = next(iter(elbos.values()))
    found = []
    for value, runs in elbos.items():
        if runs.keys() != first.keys() or any(len(runs[s]) != len(first[s]) for s in runs):
            raise ValueError(f"{setting}={value} has other seeds or data than the first one")
        gaps = [runs[seed] - first[seed] for seed in runs]
        means = [gap.mean() for gap in gaps]
        found.append({
            setting: value,
            "elbo_test": np.mean([x.mean() for x in runs.values()]),
            "standard_error": _standard_error(list(runs.values())),
            "difference": np.mean(means),
            "difference_standard_error": _standard_error(gaps),
            "difference_seed_sd": np.std(means, ddof=1) if len(means) > 1 else np.nan,
            "training_seconds": table.training_seconds[table[setting] == value].mean(),
            "runs": len(runs),
        })  # fmt: skip
    return pd.DataFrame(found).set_index(setting)


def compare_runs(
    runs: Sequence[str | Path], *, num_samples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    r"""Held-out log p(x) of trained runs, each minus the first one's on the same data.

    .. math:: \bar d = \tfrac1N \sum_n \big(\log \hat p(x_n) - \log \hat p^{(1)}(x_n)\big)

    Models whose ELBOs do not compare, as their guides are loose in different ways, compare by this
    figure, as far as k-hat allows.

    Args:
        runs: run folders of ``pyro-vae fit``.
        num_samples: draws of z per datum.
        seed: of the draws.

    Returns:
        A row a run: ``log_evidence`` with ``standard_error`` over the data, ``difference`` with
        ``difference_standard_error``, ``doubtful``, the share of data with k-hat above 0.7, for
        which the estimate is too low, and ``elbo``.

    Raises:
        ValueError: fewer than two runs, other test data than the first run's, bits beside grey
            values, or a density beside probabilities.

    References:
        Burda, Grosse & Salakhutdinov (2016), arXiv:1509.00519.
    """
    if len(runs) < 2:
        raise ValueError(f"a comparison needs two runs or more, got {len(runs)}")
    told = [read_config(Path(run) / CONFIG) for run in runs]
    vaes = [load(run) for run in runs]
    x, kind = held_out(told[0])[0], _measure(vaes[0])
    rows, first = {}, torch.empty(0)
    for run, settings, vae in zip(runs, told, vaes, strict=True):
        if not np.array_equal(held_out(settings)[0], x, equal_nan=True):
            raise ValueError(
                f"{run} has other test data than {runs[0]}: a random split and random bits are by "
                "the seed, so compare runs of the same data, seed and binarize"
            )
        if _measure(vae) != kind:
            raise ValueError(f"{run} gives {_measure(vae)} of x, {runs[0]} {kind}: no common unit")
        found = log_evidence(vae, x, num_samples=num_samples, seed=seed)
        values = found.log_evidence.cpu()
        first = values if not rows else first
        gaps = (values - first).numpy()
        rows[str(run)] = {
            "log_evidence": found.mean,
            "standard_error": found.mean_error,
            "difference": gaps.mean(),
            "difference_standard_error": _standard_error([gaps]),
            "doubtful": (found.khat > RELIABLE).double().mean().item(),
            "elbo": elbo(vae, x, seed=seed).mean().item(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")


def _measure(vae: VAE) -> str:
    with seeded(0), torch.no_grad():
        support = vae.decode(vae.prior().expand([1]).sample()).support
    return "probabilities" if support.is_discrete else "densities"  # pyright: ignore


def _standard_error(samples: Sequence[np.ndarray]) -> float:
    """Of the mean over seeds and data; a datum's values of several seeds are taken as one draw."""
    return float(np.mean(samples, axis=0).std(ddof=1) / len(samples[0]) ** 0.5)


def _settled(config: Mapping[str, object]) -> dict[str, object]:
    settings = merge({}, {k: v for k, v in config.items() if v is not None})
    if Path(data := str(settings["data"])).is_file():  # machines of a cluster stand elsewhere
        settings["data"] = str(Path(data).resolve())
    return settings


def _name(settings: Mapping[str, object]) -> str:
    """A folder's name: what is not the default, and a digest of all the settings."""
    words = [f"{k} {v}" for k, v in settings.items() if k not in APART and v != DEFAULTS[k]]
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()[:8]
    return re.sub(r"[^\w.]+", "-", " ".join(words))[:100].strip("-") + f"-{digest}"


def _command(settings: Mapping[str, object], folder: Path, threads: int) -> str:
    """One run in a process of its own, the same command as a user's; its error, if any."""
    command = [sys.executable, "-m", "pyro_vae", "fit"]
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch, CONFIG)
        write_toml(config, settings, "one run of a sweep")
        if (folder / CHECKPOINT).exists():
            command += ["--resume", str(folder)]
        else:
            command += ["--config", str(config), "--out", str(folder)]
        done = subprocess.run(
            command, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]


def _here(waiting: Mapping[Path, Mapping[str, object]], jobs: int) -> dict[Path, str]:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    errors: dict[Path, str] = {}
    with ThreadPoolExecutor(jobs) as pool, _bar(len(waiting)) as bar:
        runs = {pool.submit(_command, s, folder, threads): folder for folder, s in waiting.items()}
        try:
            for run in as_completed(runs):
                errors[runs[run]] = run.result()
                bar.update()
        except KeyboardInterrupt:  # those that run have heard it too, and keep a checkpoint
            pool.shutdown(cancel_futures=True)
            raise
    return errors


def _on_ray(waiting: Mapping[Path, Mapping[str, object]], address: str) -> dict[Path, str]:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError("address= needs Ray: pip install 'pyro-vae[ray]'") from None
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    remote: Callable[..., Any] = ray.remote(num_cpus=1)(_elsewhere).remote
    errors = {}
    try:
        folders = {remote(dict(settings)): folder for folder, settings in waiting.items()}
        left = list(folders)
        with _bar(len(left)) as bar:
            while left:
                (done,), left = ray.wait(left)
                folder = folders[done]
                errors[folder], files = ray.get(done)
                for name, content in files.items():
                    path = folder / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                bar.update()
    finally:
        ray.shutdown()
    return errors


def _elsewhere(settings: dict[str, object]) -> tuple[str, dict[str, bytes]]:
    """A run on a machine that shares no disk with this one: its error, and the folder's files."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "run")
        error = _command(settings, folder, 1)
        files = (p for p in folder.rglob("*") if p.is_file())
        return error, {str(p.relative_to(folder)): p.read_bytes() for p in files}


def _bar(total: int) -> tqdm:
    return tqdm(total=total, disable=None, unit="run", desc="runs")
