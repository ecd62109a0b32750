"""Trained runs side by side: held-out log p(x), and differences paired by observation."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from ..core.acting import evaluating
from ..core.files import replacing
from ..core.pareto import RELIABLE
from ..core.seeding import seeded
from ..evaluate.evidence.importance import log_evidence
from ..evaluate.latent.summary import latent_summary
from ..evaluate.models.comparison import differences, stacking_weights
from ..evaluate.models.measures import base_measure, describe_measure
from ..evaluate.statistics import chosen_rows, deviations
from ..infer.elbo_terms import elbo_terms
from ..infer.training.folder import RESULTS
from ..language.spec import nearest
from ..model.files import WEIGHTS
from ..model.saving import load
from ..model.vae import VAE
from .held_out import held_out
from .settings import CONFIG

__all__ = ["Measurement", "compare_runs", "measure", "paired_differences"]

EVIDENCE = "evidence.npz"
LATENT_DATA = 2000  # of which the active units are counted


@dataclass(frozen=True)
class Measurement:
    """What a run's model says of its held-out data, ``(N,)`` each, in nats.

    ``active_units`` is NaN where a guide has no such summary. ``data`` and ``unit`` tell what may
    be compared: the same data, and densities with respect to one measure. ``weights`` are how many
    observations each stands for, ``rows`` numbers that tell them apart, of other splits too.
    """

    log_evidence: np.ndarray
    khat: np.ndarray
    elbo: np.ndarray
    kl: np.ndarray
    active_units: float
    data: str
    unit: str
    weights: np.ndarray
    rows: np.ndarray

    @property
    def row(self) -> dict[str, float]:
        """Means over the data; ``doubtful``, the share with k-hat above 0.7."""
        return {
            "doubtful": float((self.khat > RELIABLE).mean()),
            "elbo": np.average(self.elbo, weights=self.weights),
            "kl": np.average(self.kl, weights=self.weights),
            "active_units": self.active_units,
        }


def measure(
    run: str | Path,
    *,
    vae: VAE | None = None,
    data: str | torch.Tensor | ArrayLike | None = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> Measurement:
    """Measure a run on its held-out data; its folder keeps the answer.

    It is measured anew where its settings, its weights or the data have changed since.

    Args:
        run: a run folder.
        vae: its model, where that has modules of your own.
        data: other data than its own, as of :func:`compare_runs`.
        num_samples: draws of z per observation.
        seed: of the draws.
    """
    run = Path(run)
    vae = load(run) if vae is None else vae
    x = held_out(run, vae, data)[0]
    digest = hashlib.sha256(str(x.shape).encode() + x.numpy(force=True).tobytes()).hexdigest()
    config = (run / CONFIG).read_bytes() if (run / CONFIG).exists() else b""
    made_of = config + (run / WEIGHTS).read_bytes() + digest.encode()
    key = f"{num_samples} {seed} {hashlib.sha256(made_of).hexdigest()}"
    if (kept := _recall(run / EVIDENCE, key)) is not None:
        return kept
    proposal = "auto" if vae.points else "guide"
    evidence = log_evidence(vae, x, num_samples=num_samples, proposal=proposal, seed=seed)
    with evaluating(vae, seed), torch.no_grad():
        likelihood, kl = elbo_terms(vae.model, vae.guide, vae.as_data(x), num_samples=10)
    measurement = Measurement(
        log_evidence=evidence.log_evidence.numpy(force=True),
        khat=evidence.khat.numpy(force=True),
        elbo=(likelihood - kl).numpy(force=True),
        kl=kl.numpy(force=True),
        weights=vae.counts_as(vae.as_data(x)).numpy(force=True),
        active_units=_active_units(vae, x, seed),
        data=digest,
        unit=describe_measure(base_measure(vae, vae.as_data(x))),
        rows=_row_numbers(held_out(run, vae, data, grey=True)[0]),
    )
    with replacing(run / EVIDENCE) as new:
        np.savez(new, key=key, **asdict(measurement))
    return measurement


def _recall(path: Path, key: str) -> Measurement | None:
    """What was kept under this key; nothing where the file is damaged, which may raise anything."""
    with suppress(Exception), path.open("rb") as file, np.load(file) as kept:
        if str(kept["key"]) == key:
            parts = {k: kept[k] for k in Measurement.__annotations__}
            return Measurement(**{k: v if v.ndim else v.item() for k, v in parts.items()})
    return None


def paired_differences(
    table: pd.DataFrame,
    setting: str,
    *,
    models: Mapping[str, VAE] | None = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Held-out log p(x) by one setting, each minus the first one's on the same data.

    .. math:: \bar d = \tfrac{1}{SN} \sum_{s,n}
        \big(\log \hat p_s(x_{sn}) - \log \hat p_s^{(1)}(x_{sn})\big)

    over seeds s and test data n. Pairing takes out what the data have in common: the standard error
    of the difference is mostly far below those of the two figures.

    Args:
        table: of :func:`~pyro_vae.sweep`, finished.
        setting: the column to compare by, ``"prior"``.
        models: by folder, those with modules of your own.
        num_samples: draws of z per observation.
        seed: of the draws.

    Returns:
        A row a value: ``log_evidence``, ``standard_error``, ``difference``,
        ``difference_standard_error`` (over the data, the seeds as they are), ``difference_seed_sd``
        (standard deviation between seeds, where there are several), ``doubtful`` (the share of data
        with k-hat above 0.7, for which log p(x) is too low), ``elbo``, ``kl``, ``active_units``,
        ``training_seconds``, ``runs``. There is no difference (NaN) to a run that saw other data
        (bits beside grey values), or a density beside probabilities.

    Raises:
        ValueError: a run is not finished, or runs have no partner of the same seed, or several.
    """
    if undone := [folder for folder in table.folder if not (Path(folder) / RESULTS).exists()]:
        raise ValueError(f"{len(undone)} runs are not finished: {', '.join(undone)}")
    table = table if "seed" in table else table.assign(seed=0)
    if setting not in table:
        near = nearest(setting, map(str, table))
        raise ValueError(f"the table has no column {setting!r}{near}")
    if (twice := table.duplicated([setting, "seed"])).any():
        row = table.loc[twice].iloc[0]
        raise ValueError(
            f"several runs have {setting}={row[setting]} and seed {row['seed']}: give the rows "
            f"that differ in {setting} and seed alone, such as table[table.latent_dim == 8]"
        )
    groups = dict(iter(table.groupby(setting, sort=False, dropna=False)))
    runs = {
        value: {
            s: measure(folder, vae=(models or {}).get(folder), num_samples=num_samples, seed=seed)
            for s, folder in zip(rows["seed"], rows.folder, strict=True)
        }
        for value, rows in groups.items()
    }
    first = next(iter(runs.values()))
    rows = []
    for value, mine in runs.items():
        if mine.keys() != first.keys():
            raise ValueError(f"{setting}={value} has other seeds than the first one")
        gaps = [_gap(mine[s], first[s]) for s in mine]
        each, weights, ids = zip(
            *((m.log_evidence, m.weights, m.rows) for m in mine.values()), strict=True
        )
        means = [np.average(gap, weights=w) for gap, w in zip(gaps, weights, strict=True)]
        levels = [np.average(x, weights=w) for x, w in zip(each, weights, strict=True)]
        row = {
            setting: value,
            "log_evidence": np.mean(levels),
            "standard_error": _standard_error(each, weights, ids),
            "difference": np.mean(means),
            "difference_standard_error": _standard_error(gaps, weights, ids),
            "difference_seed_sd": np.std(means, ddof=1) if len(means) > 1 else np.nan,
            **pd.DataFrame([m.row for m in mine.values()]).mean(),
            "training_seconds": groups[value].training_seconds.mean(),
            "runs": len(mine),
        }
        rows.append(row)
    return pd.DataFrame(rows).set_index(setting)


def compare_runs(
    runs: Sequence[str | Path] | Mapping[str, VAE] | Mapping[Path, VAE],
    *,
    data: str | torch.Tensor | ArrayLike | None = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Held-out log p(x) of trained runs, each minus the first one's on the same data.

    .. math:: \bar d = \tfrac1N \sum_n \big(\log \hat p(x_n) - \log \hat p^{(1)}(x_n)\big)

    Models whose ELBOs do not compare, as their guides are loose in different ways, compare by this
    figure, as far as k-hat allows.

    Args:
        runs: run folders; with their models, ``{folder: pv.load(folder, encoder=Mine())}``, where
            these have modules of your own.
        data: other data than the runs' own, which runs of ``pv.fit`` need: a name or a file as of
            :func:`~pyro_vae.load_data`, or ``(N, *x_shape)``.
        num_samples: draws of z per observation.
        seed: of the draws.

    Returns:
        A row a run: ``log_evidence`` with ``standard_error`` over the data, ``difference`` with
        ``difference_standard_error``, ``weight`` (stacking), ``doubtful``, the share of data with
        k-hat above 0.7, for which the estimate is too low, ``elbo``, ``kl`` and ``active_units``.

    Raises:
        ValueError: fewer than two runs, other test data than the first run's, bits beside grey
            values, or a density beside probabilities.

    References:
        Burda, Grosse & Salakhutdinov (2016), arXiv:1509.00519; Yao, Vehtari, Simpson & Gelman
        (2018), arXiv:1704.02030, for the weights.
    """
    models = runs if isinstance(runs, Mapping) else dict.fromkeys(runs)
    if len(models) < 2:
        raise ValueError(f"a comparison needs two runs or more, got {len(models)}")
    found: dict[str, Measurement] = {}
    first: Measurement | None = None
    for run, vae in models.items():
        mine = measure(run, vae=vae, data=data, num_samples=num_samples, seed=seed)
        first = first or mine
        if mine.data != first.data:
            raise ValueError(
                f"{run} has other test data than {next(iter(runs))}: a random split and random "
                "bits are by the seed, so compare runs of the same data, seed and binarize"
            )
        if mine.unit != first.unit:
            raise ValueError(
                f"{run} gives {mine.unit} of x, {next(iter(runs))} {first.unit}: no common unit"
            )
        found[str(run)] = mine
    each = pd.DataFrame({run: mine.log_evidence for run, mine in found.items()})
    weights = torch.tensor(next(iter(found.values())).weights)
    table = differences(each, each.columns[0], weights)
    table["weight"] = stacking_weights(each.to_numpy(), weights)
    checks = pd.DataFrame({run: mine.row for run, mine in found.items()}).T
    return table.join(checks).rename_axis("run")


def _gap(one: Measurement, first: Measurement) -> np.ndarray:
    """By observation, NaN where the two do not compare."""
    if (one.data, one.unit) != (first.data, first.unit):
        return np.full_like(one.log_evidence, np.nan)
    return one.log_evidence - first.log_evidence


def _active_units(vae: VAE, x: torch.Tensor, seed: int) -> float:
    with seeded(seed):
        some = x[chosen_rows(x, LATENT_DATA)]
    try:
        return float(latent_summary(vae, some, seed=seed).active_units)
    except ValueError:
        return math.nan


def _row_numbers(x: torch.Tensor) -> np.ndarray:
    """A hash of each row, ``(N,)``; of rows that are alike the second is another than the first."""
    seen: Counter[bytes] = Counter()
    numbers = []
    for row in x.numpy(force=True):
        key = row.tobytes()
        seen[key] += 1
        digest = hashlib.blake2b(key + seen[key].to_bytes(8, "little"), digest_size=8)
        numbers.append(int.from_bytes(digest.digest(), "little", signed=True))
    return np.array(numbers)


def _standard_error(
    samples: Sequence[np.ndarray], weights: Sequence[np.ndarray], rows: Sequence[np.ndarray]
) -> float:
    """Of the mean over seeds and data; an observation's values under several seeds are one draw.

    Splits by the seed hold out other rows, of which some are the same.
    """
    parts = zip(samples, weights, strict=True)
    away = [deviations(torch.tensor(x), torch.tensor(w)).numpy() / len(x) for x, w in parts]
    _, which = np.unique(np.concatenate(rows), return_inverse=True)
    each = np.bincount(which, np.concatenate(away)) / len(samples)
    n = len(each)
    return math.sqrt(n / (n - 1) * (each**2).sum()) if n > 1 else math.nan
