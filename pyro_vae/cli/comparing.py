"""``pyro-vae compare``: on trained models, or by training with each choice."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from ..core.toml import read_config
from ..runs.settings import CONFIG, merge
from .parts import Text, Whole
from .training import fit_command

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from ..data import Data

__all__ = ["compare_estimators_command", "compare_runs_command", "sweep_command"]


def compare_runs_command(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; the others are compared with the first.",
                                   metavar="RUN RUN ...", show_default=False),
    ],
    num_samples: Annotated[
        int, typer.Option(help="Draws of z per datum.", metavar="N", min=2)
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Of the draws.", metavar="N")] = 0,
) -> None:  # fmt: skip
    """Held-out log p(x) of trained runs, and paired differences with standard errors."""
    from ..runs.comparisons import compare_runs

    found = compare_runs(runs, num_samples=num_samples, seed=seed)
    typer.echo(
        "nats per datum, difference to the first run on the same data; "
        "doubtful is the share of data with k-hat > 0.7\n"
    )
    typer.echo(found.to_string(float_format="{:.2f}".format))


def compare_estimators_command(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    estimator: Annotated[
        list[str],
        typer.Option(help="As in fit; give it once for each.", metavar="LINE", show_default=False),
    ],
    num_draws: Annotated[
        Whole, typer.Option(help="Of each [default: 1000]", metavar="N", min=4, show_default=False)
    ] = None,
    batch_size: Annotated[
        Whole, typer.Option(help="Test data [default: 100]", metavar="N", min=1, show_default=False)
    ] = None,
    seed: Annotated[
        Whole,
        typer.Option(help="Of batch and draws [default: 0], or of training [default: the run's]",
                     metavar="N", min=0, show_default=False),
    ] = None,
    train: Annotated[
        bool,
        typer.Option("--train", help="Train the run's model anew with each, and compare the ELBO "
                     "by steps and by seconds: RUN/compare/training.csv, .png."),
    ] = False,
    epochs: Annotated[
        Whole, typer.Option(help="With --train [default: the run's]", metavar="N", min=1,
                            show_default=False),
    ] = None,
    compile: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--compile/--no-compile", show_default=False,
                     help="With --train: the step [default: where it pays]"),
    ] = None,
) -> None:  # fmt: skip
    """Variance, bias and time of gradient estimators: a table, RUN/compare/estimators.csv, .png."""
    drawing = {"--num-draws": num_draws, "--batch-size": batch_size}
    training = {"--epochs": epochs, "--compile": compile}
    for flag, value in (drawing if train else training).items():
        if value is not None:
            raise ValueError(f"{flag} goes {'without' if train else 'with'} --train")
    if train:
        _compare_training(run, estimator, epochs, seed, "auto" if compile is None else compile)
    else:
        _compare_gradients(run, estimator, num_draws or 1000, batch_size or 100, seed or 0)


def _compare_gradients(
    run: Path, lines: list[str], num_draws: int, batch_size: int, seed: int
) -> None:
    from .. import plots
    from ..evaluate.gradients.comparison import as_table, compare_estimators
    from ..model.saving import load

    vae = load(run)
    x = _test_batch(run, batch_size, seed)
    found = compare_estimators(vae, x, lines, num_draws=num_draws, seed=seed)
    table = as_table(found)
    typer.echo(f"{len(x)} test data, {num_draws} draws, all parameters\n")
    typer.echo(table.drop(columns=["bound", "reference"]).T.to_string(float_format="{:.4g}".format))
    for reference, rows in table.groupby("reference", sort=False):
        typer.echo(f"\nreference for the {rows.bound.iloc[0]}: {reference}", nl=False)
    folder = run / "compare"
    folder.mkdir(exist_ok=True)
    table.to_csv(folder / "estimators.csv")
    plots.save(plots.gradient_variance(found), folder / "estimators.png")
    typer.echo(f"\n\n{folder / 'estimators.csv'}\n{folder / 'estimators.png'}")


def _compare_training(
    run: Path,
    lines: list[str],
    epochs: int | None,
    seed: int | None,
    compile: bool | Literal["auto"],
) -> None:
    from matplotlib import pyplot

    from .. import plots
    from ..evaluate.gradients.training import train_estimators
    from ..runs.folder import new_model, training_settings

    again = {k: v for k, v in {"epochs": epochs, "seed": seed}.items() if v is not None}
    as_run = read_config(run / CONFIG)
    told, data = merge(again, as_run), _data(as_run)
    found = train_estimators(
        new_model(told, data), data.train, lines, compile=compile, **training_settings(told)
    )
    curves = found.to_dataframe().dropna(subset="seconds")
    table = curves.groupby("estimator", sort=False).tail(1).reset_index("epoch")
    table["ms_per_step"] = 1000 * table.seconds / table.step
    typer.echo(f"{len(data.train)} training data, from the same start; nats per datum\n")
    typer.echo(table.dropna(axis=1, how="all").T.to_string(float_format="{:.4g}".format))
    folder = run / "compare"
    folder.mkdir(exist_ok=True)
    curves.to_csv(folder / "training.csv")
    axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")[1]
    plots.training_curves(found, axes[0], "steps")
    plots.save(plots.training_curves(found, axes[1], "seconds"), folder / "training.png")
    typer.echo(f"\n{folder / 'training.csv'}\n{folder / 'training.png'}")


def sweep_command(setting: str) -> Callable[..., None]:
    """``compare SETTINGs``: the flags of ``fit``, one of them given several times."""

    def command(**told: Any) -> None:  # noqa: ANN401
        choices, seeds, jobs = told.pop(setting), told.pop("seeds"), told.pop("jobs")
        address, out, config = told.pop("address"), told.pop("out"), told.pop("config")
        num_samples = told.pop("num_samples")
        settings = merge(told, read_config(config) if config else {})
        name = Path(str(settings["data"])).stem
        out = out or Path("runs") / f"{name}-{setting}s"
        first = int(str(settings["seed"]))
        from ..runs.comparisons import paired_differences
        from ..runs.sweeps import sweep

        configs = [
            {**settings, setting: choice, "seed": first + i}
            for choice in choices for i in range(seeds)
        ]  # fmt: skip
        table = sweep(configs, out, jobs=jobs, address=address)
        table.to_csv(out / "runs.csv", index=False)
        if len(failed := table[table.error != ""]):
            each = [f"{folder}: {e}" for folder, e in zip(failed.folder, failed.error, strict=True)]
            raise ValueError("\n".join([f"{len(failed)} of {len(table)} runs failed", *each]))
        if setting not in table:
            raise ValueError(f"nothing to compare: give --{setting} at least twice")
        found = paired_differences(table, setting, num_samples=num_samples)
        found.to_csv(out / f"{setting}s.csv")
        typer.echo(
            f"{name}: held-out log p(x) by {num_samples} draws, nats per datum; difference to the "
            "first line on the same data; doubtful is the share of data with k-hat > 0.7\n"
        )
        typer.echo(found.dropna(axis=1, how="all").to_string(float_format="{:.2f}".format))
        if found.difference.isna().any():
            typer.echo("\nNaN: that line saw other data (bits or grey values) or gives densities "
                       "beside probabilities, so there is no difference")  # fmt: skip
        written = [out / f"{setting}s.csv", out / "runs.csv", *_prior_samples(table, setting, out)]
        typer.echo("\n" + "\n".join(map(str, written)) + f"\n{out}: a folder a run")

    own = [
        (setting, Annotated[list[str], typer.Option(
            help="Give it once for each; the first is what the others are compared with.",
            metavar="LINE", show_default=False)], inspect.Parameter.empty),
        ("seeds", Annotated[int, typer.Option(help="Runs of each.", metavar="N", min=1)], 1),
        ("num_samples", Annotated[int, typer.Option(
            help="Draws of z per datum, for log p(x).", metavar="N", min=2)], 1000),
        ("jobs", Annotated[int, typer.Option(help="Runs at a time.", metavar="N", min=1)], 1),
        ("address", Annotated[Text, typer.Option(
            help="Of a Ray cluster: auto, ray://HOST:10001; local starts one.", metavar="ADDRESS",
            show_default=False)], None),
        ("out", Annotated[Optional[Path], typer.Option(  # noqa: UP045
            help=f"The folder of the runs [default: runs/DATA-{setting}s]", metavar="DIR",
            show_default=False)], None),
    ]  # fmt: skip
    shared = inspect.signature(fit_command).parameters
    kept = [p for name, p in shared.items() if name not in (setting, "out", "resume")]
    parameters = kept + [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, kind, default in own
    ]
    command.__doc__ = f"Train with several {setting}s; held-out log p(x), paired differences."
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _prior_samples(table: "pd.DataFrame", setting: str, out: Path) -> list[Path]:
    """A picture with a row of prior samples for each line, where the data are images."""
    from .. import plots
    from ..model.saving import load
    from ..plots.pictures import has_images

    vaes = {str(v): load(rows.folder.iloc[0]) for v, rows in table.groupby(setting, sort=False)}
    if not all(map(has_images, vaes.values())):
        return []
    return [plots.save(plots.samples_by(vaes), out / "samples.png")]


def _test_batch(run: Path, batch_size: int, seed: int) -> "Tensor":
    """Some of a run's test data, as bits where it was trained on bits."""
    import torch

    from ..core.seeding import seeded
    from ..infer.training.binarize import binarize

    told = read_config(run / CONFIG)
    data = _data(told)
    with seeded(seed):
        x = data.test[torch.randperm(len(data.test))[:batch_size]]
        return binarize(x) if told.get("binarize") else x


def _data(told: Mapping[str, object]) -> "Data":
    """The data of a run."""
    from ..data import load_data

    root = told.get("data_root")
    return load_data(
        str(told["data"]), None if root is None else str(root), seed=int(str(told["seed"]))
    )
