"""Many runs of ``fit``, side by side on this machine or over a cluster."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn
from torch.distributions import Distribution
from tqdm.auto import tqdm

from ..core.checks import whole
from ..core.files import write_whole
from ..core.seeding import seeded
from ..core.toml import write_toml
from ..families.networks import spec_of
from ..infer.training.checkpoint import is_kept
from ..infer.training.fit import Terminated
from ..infer.training.folder import RESULTS
from ..language.spec import Spec
from ..model.files import CUSTOM
from ..model.vae import VAE
from .folder import read_results, train
from .settings import CONFIG, SETTINGS, RunSettings, merge

__all__ = ["files_of", "sweep", "train_elsewhere"]

UNNAMED = {"data", "data_root", "device", "checkpoint_every", "checkpoint_minutes", "progress"}


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
        configs: settings of ``pyro-vae fit`` by name; what is not given has its default. The parts
            of the model may be modules of your own, or functions that make them: such runs train
            in this process, one after another, each with a copy.
        out: the folder of the run folders.
        jobs: how many run at a time on this machine, which share its cores.
        address: of a Ray cluster (``"auto"``, ``"ray://HOST:10001"``; ``"local"`` starts one here),
            which then decides how many run at a time. Its machines must have the package, and
            named data or a folder that all see.

    Returns:
        A row a run, in the order of ``configs``, those that are the same once: what tells them
        apart, the figures of ``results.toml`` (nats per observation), ``folder`` and ``error``.

    Raises:
        ValueError: no configurations, an unknown setting, or no Ray for ``address``.

    >>> sweep([{"prior": "Normal"}, {"prior": "Laplace", "epoch": 3}], "runs/priors")
    Traceback (most recent call last):
    ValueError: the configuration has an unknown key 'epoch'; did you mean epochs?
    """
    jobs = whole("jobs", jobs)
    settled = [_settled(config) for config in configs]
    runs = {_folder(Path(out), settings): settings for settings, _ in settled}
    if not runs:
        raise ValueError("there is nothing to run: give at least one configuration")
    own = {_folder(Path(out), settings): parts for settings, parts in settled if parts}
    waiting = {folder: s for folder, s in runs.items() if not (folder / RESULTS).exists()}
    lines = {folder: settings for folder, settings in waiting.items() if folder not in own}
    errors = _on_ray(lines, address) if address else _here(lines, jobs)
    for folder in waiting.keys() & own.keys():
        errors[folder] = _in_process(waiting[folder], folder, own[folder])
    settings = {folder: asdict(each) for folder, each in runs.items()}
    varied = [k for k in SETTINGS if len({str(each[k]) for each in settings.values()}) > 1]
    rows = [
        {**{k: settings[folder][k] for k in varied}, **read_results(folder), "folder": str(folder)}
        for folder in runs
    ]
    return pd.DataFrame(rows).assign(error=[errors.get(folder, "") for folder in runs])


def _settled(config: Mapping[str, object]) -> tuple[RunSettings, dict[str, object]]:
    """The settings of a configuration, and the parts of its model that no line says."""
    given = {k: v for k, v in config.items() if v is not None}
    seed, parts = whole("seed", given.get("seed", 0), 0), {}
    for role in VAE.ROLES.keys() & given.keys():
        if isinstance(given[role], str | Spec):
            given[role] = str(given[role])
            continue
        with seeded(seed):
            part: Any = _make(given[role])
        spec = spec_of(part)
        if spec is None:
            parts[role] = part
        given[role] = str(spec or f"{CUSTOM}{type(part).__name__}-{_digest(part)}")
    settings = merge({}, given)
    if Path(settings.data).is_file():  # machines of a cluster stand elsewhere
        settings = replace(settings, data=str(Path(settings.data).resolve()))
    return settings, parts


def _make(part: object) -> object:
    """A module of a run's own: a copy, or what a class or a function gives."""
    if isinstance(part, nn.Module | Distribution) or not callable(part):
        return deepcopy(part)
    return part()


def _digest(part: object) -> str:
    """What tells parts of one class apart: how they print, and their weights."""
    digest = hashlib.sha256(repr(part).encode())
    for tensor in part.state_dict().values() if isinstance(part, nn.Module) else ():
        digest.update(tensor.numpy(force=True).tobytes())
    return digest.hexdigest()[:8]


def _folder(out: Path, settings: RunSettings) -> Path:
    """Named after what is not the default, with a digest of all the settings and a data file."""
    values, default = asdict(settings), asdict(RunSettings())
    words = [f"{k} {v}" for k, v in values.items() if k not in UNNAMED and v != default[k]]
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    if Path(settings.data).is_file():
        with Path(settings.data).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    name = re.sub(r"[^\w.]+", "-", " ".join(words))[:100].strip("-")
    return out / f"{name}-{digest.hexdigest()[:8]}"


def _train(settings: RunSettings, folder: Path, threads: int) -> str:
    """One run in a process of its own, the same command as a user's; its error, if any."""
    command = [sys.executable, "-m", "pyro_vae", "fit"]
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch, CONFIG)
        write_toml(config, asdict(settings), "one run of a sweep")
        if is_kept(folder):
            command += ["--resume", str(folder)]
        else:
            command += ["--config", str(config), "--out", str(folder)]
        done = subprocess.run(
            command,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    if done.returncode == 0:
        return ""
    said = done.stderr.strip()
    found = re.search(r"(?m)^error: ", said)  # a message may have several lines
    last = (said.splitlines() or [f"ended with {done.returncode}"])[-1]
    return said[found.start() :] if found else last


def _in_process(settings: RunSettings, folder: Path, parts: Mapping[str, object]) -> str:
    """One run in this process; its error, if any."""
    try:
        outcome = train(settings, folder, resume=is_kept(folder), parts=parts)
    except (ValueError, FloatingPointError, OSError) as problem:
        return f"error: {problem}"
    if outcome.fitted.signal not in (None, signal.SIGINT):
        raise Terminated(outcome.fitted)
    if outcome.fitted.interrupted:
        raise KeyboardInterrupt
    return ""


def _here(waiting: Mapping[Path, RunSettings], jobs: int) -> dict[Path, str]:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    errors: dict[Path, str] = {}
    with ThreadPoolExecutor(jobs) as pool, _bar(len(waiting)) as bar:
        runs = {pool.submit(_train, s, folder, threads): folder for folder, s in waiting.items()}
        try:
            for run in as_completed(runs):
                errors[runs[run]] = run.result()
                bar.update()
        except KeyboardInterrupt:  # those that run have heard it too, and keep a checkpoint
            pool.shutdown(cancel_futures=True)
            raise
    return errors


def _on_ray(waiting: Mapping[Path, RunSettings], address: str) -> dict[Path, str]:
    try:
        import ray
    except ImportError:
        raise ValueError("address= needs Ray: pip install 'pyro-vae[ray]'") from None
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    remote: Callable[..., Any] = ray.remote(num_cpus=1)(train_elsewhere).remote
    errors = {}
    try:
        folders = {remote(s, files_of(folder)): folder for folder, s in waiting.items()}
        left = list(folders)
        with _bar(len(left)) as bar:
            while left:
                (done,), left = ray.wait(left)
                folder = folders[done]
                errors[folder], files = ray.get(done)
                _write(folder, files)
                bar.update()
    finally:
        ray.shutdown()
    return errors


def train_elsewhere(
    settings: RunSettings, files: Mapping[str, bytes]
) -> tuple[str, dict[str, bytes]]:
    """A run on a machine that shares no disk with this one: its error, and the folder's files.

    Args:
        settings: of the run.
        files: what its folder holds so far, from which an interrupted run goes on.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "run")
        _write(folder, files)
        return _train(settings, folder, 1), files_of(folder)


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their paths in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name in sorted(files, key=RESULTS.__eq__):  # that run is finished comes last
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, files[name])


def _bar(total: int) -> tqdm:
    return tqdm(total=total, disable=None, unit="run", desc="runs")
