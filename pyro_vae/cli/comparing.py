"""``pyro-vae compare``: on trained models, or by training with each choice."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.files import replacing, uncompressed
from ..core.toml import read_config
from ..infer.training.settings import CONFIG, FROM_PYTHON
from ..runs.settings import SETTINGS, RunSettings, merge, read_settings
from .parts import EvidenceDraws, Folder, Modules, Seed, check_data, load_run, with_settings

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["SWEPT", "estimators", "runs", "sweep"]

SWEPT = ("prior", "likelihood", "guide")

DataOption = Annotated[
    str | None,
    typer.Option(
        "--data", help="Other data than the run's own test data, as in fit.", metavar="DATA"
    ),
]
DOUBTFUL = "doubtful is the share of observations with k-hat > 0.7"
NO_DIFFERENCE = (
    "NaN: that line saw other data (bits or grey values) or gives densities beside probabilities, "
    "so there is no difference"
)


def runs(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders; the others are compared with the first.",
            metavar="RUN RUN ...",
            show_default=False,
            exists=True,
            file_okay=False,
        ),
    ],
    data: DataOption = None,
    num_samples: EvidenceDraws = 1000,
    seed: Seed = 0,
    modules: Modules = None,
) -> None:
    """Held-out log p(x) of trained runs, and paired differences with standard errors."""
    check_data(data)
    from ..runs.comparisons import compare_runs

    models = {folder: load_run(folder, modules) for folder in folders}
    table = compare_runs(models, data=data, num_samples=num_samples, seed=seed)
    typer.echo(f"nats per observation, difference to the first run on the same data; {DOUBTFUL}\n")
    typer.echo(table.to_string(float_format="{:.2f}".format))


@with_settings("epochs", "compile", "seed", default="the run's")
def estimators(
    run: Folder,
    estimator: Annotated[
        list[str],
        typer.Option(help="As in fit; give it once for each.", metavar="LINE", show_default=False),
    ],
    num_draws: Annotated[
        int | None, typer.Option(help="Of each [default: 1000]", metavar="N", min=4)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Test observations [default: 100]", metavar="N", min=1)
    ] = None,
    train: Annotated[
        bool,
        typer.Option(
            "--train",
            help="Train the run's model anew with each, and compare the ELBO by steps and by "
            "seconds: RUN/compare/training.csv, .png.",
        ),
    ] = False,
    data: DataOption = None,
    modules: Modules = None,
    **flags: object,
) -> None:
    """Variance, bias and time of gradient estimators: a table, RUN/compare/estimators.csv, .png."""
    measured = {"num_draws": num_draws, "batch_size": batch_size, "data": data, "modules": modules}
    idle = measured if train else dict(flags)
    idle.pop("seed", None)
    for name, value in idle.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{flag} goes {'without --train: leave out one' if train else 'with --train'}"
            )
    check_data(data)
    if train:
        _compare_training(run, merge(flags, read_config(run / CONFIG)), estimator)
        return
    seed = read_settings(run).seed if flags["seed"] is None else merge(flags, {}).seed
    _compare_gradients(run, seed, estimator, num_draws or 1000, batch_size or 100, data, modules)


def _compare_gradients(
    run: Path,
    seed: int,
    lines: list[str],
    num_draws: int,
    batch_size: int,
    data: str | None,
    modules: Path | None,
) -> None:
    import torch

    from .. import plots
    from ..evaluate.gradients.comparison import as_table, compare_estimators
    from ..runs.held_out import held_out

    vae = load_run(run, modules)
    x, _ = held_out(run, vae, data)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    x = x[order[:batch_size]]
    comparison = compare_estimators(vae, x, lines, num_draws=num_draws, seed=seed)
    table = as_table(comparison)
    typer.echo(f"{len(x)} test observations, {num_draws} draws, all parameters\n")
    typer.echo(table.drop(columns=["bound", "reference"]).T.to_string(float_format="{:.4g}".format))
    for reference, rows in table.groupby("reference", sort=False):
        typer.echo(f"\nreference for the {rows.bound.iloc[0]}: {reference}", nl=False)
    typer.echo("\n")
    _keep(run, "estimators", table, plots.gradient_variance(comparison))


def _compare_training(run: Path, settings: RunSettings, lines: list[str]) -> None:
    from matplotlib import pyplot

    from .. import plots
    from ..evaluate.gradients.training import train_estimators
    from ..runs.folder import new_model
    from ..runs.held_out import run_data

    if settings.data == FROM_PYTHON:
        raise ValueError(
            f"{run} is a run of pv.fit, whose data and model are yours: "
            "pv.train_estimators(vae, x, [...])"
        )
    data = run_data(settings)
    options = settings.fit_options("estimator", "patience")
    comparison = train_estimators(new_model(settings, data), data.train, lines, **options)
    curves = comparison.to_dataframe().dropna(subset="seconds")
    table = curves.groupby("estimator", sort=False).tail(1).reset_index("epoch")
    table["ms_per_step"] = 1000 * table.seconds / table.step
    count = len(data.train)
    typer.echo(f"{count} training observations, from the same start; nats per observation\n")
    typer.echo(table.dropna(axis=1, how="all").T.to_string(float_format="{:.4g}".format) + "\n")
    axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")[1]
    plots.training_curves(comparison, axes[0], "steps")
    _keep(run, "training", curves, plots.training_curves(comparison, axes[1], "seconds"))


def _keep(run: Path, name: str, table: "pd.DataFrame", ax: "Axes") -> None:
    """Write a table and a picture into the run's folder ``compare``, and print where."""
    from .. import plots

    folder = run / "compare"
    folder.mkdir(exist_ok=True)
    with replacing(folder / f"{name}.csv") as new:
        table.to_csv(new)
    plots.save(ax, folder / f"{name}.png")
    typer.echo(f"{folder / name}.csv\n{folder / name}.png")


def sweep(setting: str) -> Callable[..., None]:
    """``compare SETTINGs``: the flags of ``fit``, one of them given several times."""

    @with_settings(*(name for name in SETTINGS if name != setting))
    def command(
        choices: Annotated[
            list[str],
            typer.Option(
                f"--{setting}",
                help="Give it once for each; the first is what the others are compared with.",
                metavar="LINE",
                show_default=False,
            ),
        ],
        config: Annotated[
            Path | None,
            typer.Option(help="A TOML file of settings; a flag beats it.", metavar="FILE"),
        ] = None,
        seeds: Annotated[int, typer.Option(help="Runs of each.", metavar="N", min=1)] = 1,
        num_samples: EvidenceDraws = 1000,
        jobs: Annotated[int, typer.Option(help="Runs at a time.", metavar="N", min=1)] = 1,
        address: Annotated[
            str | None,
            typer.Option(
                help="Of a Ray cluster: auto, ray://HOST:10001; local starts one.",
                metavar="ADDRESS",
            ),
        ] = None,
        out: Annotated[
            Path | None,
            typer.Option(
                help=f"The folder of the runs [default: runs/DATA-{setting}s]", metavar="DIR"
            ),
        ] = None,
        **flags: object,
    ) -> None:
        if len(set(choices)) < 2:
            raise ValueError(f"nothing to compare: give --{setting} at least twice")
        settings = merge(flags, read_config(config) if config else {})
        check_data(settings.data)
        changes: list[dict[str, Any]] = [
            {setting: choice, "seed": settings.seed + i} for choice in choices for i in range(seeds)
        ]
        configs = [asdict(replace(settings, **change)) for change in changes]
        name = uncompressed(settings.data).stem
        out = out or Path("runs") / f"{name}-{setting}s"
        table = _train_all(configs, out, jobs, address)
        _show_differences(table, setting, name, out, num_samples)

    command.__name__ = f"{setting}s"
    command.__doc__ = f"Train with several {setting}s; held-out log p(x), paired differences."
    return command


def _train_all(
    configs: Sequence[dict[str, object]], out: Path, jobs: int, address: str | None
) -> "pd.DataFrame":
    from ..runs.sweeps import sweep

    table = sweep(configs, out, jobs=jobs, address=address)
    with replacing(out / "runs.csv") as new:
        table.to_csv(new, index=False)
    if len(failed := table[table.error != ""]):
        each = [f"{folder}: {e}" for folder, e in zip(failed.folder, failed.error, strict=True)]
        raise ValueError("\n".join([f"{len(failed)} of {len(table)} runs failed", *each]))
    return table


def _show_differences(
    table: "pd.DataFrame", setting: str, name: str, out: Path, num_samples: int
) -> None:
    from ..runs.comparisons import paired_differences

    rows = paired_differences(table, setting, num_samples=num_samples)
    with replacing(out / f"{setting}s.csv") as new:
        rows.to_csv(new)
    typer.echo(
        f"{name}: held-out log p(x) by {num_samples} draws, nats per observation; difference to "
        f"the first line on the same data; {DOUBTFUL}\n"
    )
    typer.echo(rows.dropna(axis=1, how="all").to_string(float_format="{:.2f}".format))
    if rows.difference.isna().any():
        typer.echo(f"\n{NO_DIFFERENCE}")
    files = [out / f"{setting}s.csv", out / "runs.csv", *_prior_samples(table, setting, out)]
    typer.echo("\n".join(["", *map(str, files), f"{out}: a folder a run"]))


def _prior_samples(table: "pd.DataFrame", setting: str, out: Path) -> list[Path]:
    """A picture with a row of prior samples for each line, where the data are images."""
    from .. import plots
    from ..model.saving import load
    from ..plots.pictures import has_images

    vaes = {str(v): load(rows.folder.iloc[0]) for v, rows in table.groupby(setting, sort=False)}
    if not all(map(has_images, vaes.values())):
        return []
    return [plots.save(plots.samples_by(vaes), out / "samples.png")]
