"""The command line; nothing heavy is imported before a command runs."""

import inspect
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from .settings import CONFIG, DEFAULTS, merge, read_config

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from .data import Data

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Variational autoencoders in Pyro: say them in a line, train them, see them.",
)

compare_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Compare what a choice costs: on a trained model, or by training with each.",
)
app.add_typer(compare_app, name="compare")


def _flag(name: str, text: str, metavar: str = "LINE") -> object:
    default = DEFAULTS.get(name)
    return typer.Option(
        f"--{name.replace('_', '-')}",
        help=text + (f" [default: {default}]" if default is not None else ""),
        metavar=metavar,
        show_default=False,
    )


Text = Optional[str]  # noqa: UP045
Whole = Optional[int]  # noqa: UP045
Number = Optional[float]  # noqa: UP045


@app.command("fit")
def fit_command(
    data: Annotated[
        Text,
        typer.Argument(
            help="digits, mnist, fashion-mnist, kmnist, emnist, omniglot, or a .npy or .npz file "
            "[default: digits]",
            metavar="[DATA]", show_default=False,
        ),
    ] = None,
    config: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--config", help="A TOML file of these settings; a flag beats it."),
    ] = None,
    likelihood: Annotated[Text, _flag("likelihood", "p(x|z): a family of Pyro.")] = None,
    prior: Annotated[Text, _flag("prior", "p(z).")] = None,
    guide: Annotated[Text, _flag("guide", "q(z|x).")] = None,
    estimator: Annotated[
        Text, _flag("estimator", "The bound and its gradient, TraceGraph_ELBO(gradient=score).")
    ] = None,
    latent_dim: Annotated[Whole, _flag("latent_dim", "Dimensions of z.", "N")] = None,
    layers: Annotated[
        Text, _flag("layers", "Widths of stochastic layers, from x upward, in place of latent_dim.",
                    "[N,N]"),
    ] = None,
    encoder: Annotated[Text, _flag("encoder", "From x to features; ConvEncoder([32, 64]).")] = None,
    decoder: Annotated[Text, _flag("decoder", "From z to features; ConvDecoder([64, 32]).")] = None,
    epochs: Annotated[Whole, _flag("epochs", "Passes over the data.", "N")] = None,
    batch_size: Annotated[Whole, _flag("batch_size", "Data per step.", "N")] = None,
    lr: Annotated[Text, _flag("lr", "Learning rate: a number, or a schedule.")] = None,
    optimizer: Annotated[Text, _flag("optimizer", "Of torch.optim; Adam(clip_norm=10).")] = None,
    beta: Annotated[
        Text, _flag("beta", "Weight of the KL: a number, or linear(0, 1, epochs=10).")
    ] = None,
    binarize: Annotated[
        Optional[Literal["dynamic", "static"]],  # noqa: UP045
        _flag("binarize", "Draw bits from grey values, at each visit or once; dynamic for images "
              "with a Bernoulli likelihood.", "dynamic|static"),
    ] = None,
    validation: Annotated[Number, _flag("validation", "Fraction held out.", "X")] = None,
    patience: Annotated[
        Whole, _flag("patience", "Stop after N epochs without a better validation ELBO.", "N")
    ] = None,
    checkpoint_every: Annotated[
        Whole, _flag("checkpoint_every", "Epochs between checkpoints.", "N")
    ] = None,
    seed: Annotated[Whole, _flag("seed", "Of weights, order, bits and draws.", "N")] = None,
    data_root: Annotated[
        Text, _flag("data_root", "Folder of torchvision's files; else they are downloaded.", "DIR")
    ] = None,
    device: Annotated[Text, _flag("device", "auto, cpu, cuda ...", "NAME")] = None,
    compile: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--compile/--no-compile", show_default=False,
                     help="Compile the step [default: from 5,000 steps on]"),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", help="The run folder [default: runs/DATA-TIME]", metavar="DIR",
                     show_default=False),
    ] = None,
    resume: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--resume", help="Go on with the run in this folder.", metavar="RUN",
                     show_default=False),
    ] = None,
) -> None:  # fmt: skip
    """Train a VAE and keep weights, description, history and pictures in a run folder."""
    flags = {k: v for k, v in locals().items() if k in DEFAULTS}
    if resume is not None:
        told = {k: v for k, v in flags.items() if v is not None}
        if set(told) - {"epochs", "device"} or config or out:
            raise ValueError(
                "a resumed run keeps its settings: only --epochs and --device go along"
            )
        config, out = resume / CONFIG, resume
        if not config.exists():
            raise ValueError(f"{resume} is no run folder: it holds no {CONFIG}")
    settings = merge(flags, read_config(config) if config else {})
    if out is None:
        name = Path(str(settings["data"])).stem
        out = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    from . import runs
    from .infer.distributed import leads

    fitted, loaded = runs.run(settings, out, resume=resume is not None)
    if not leads():
        return
    if fitted.interrupted:
        typer.echo(f"go on with: pyro-vae fit --resume {out}")
        raise typer.Exit(130)
    found = runs.results(fitted, loaded, out)
    typer.echo(f"\n{loaded.name}: {loaded.description}; {len(loaded.train)} data to train on\n")
    _table(found)
    typer.echo(f"\nrun folder: {out}\n" + "\n".join(f"  {p}" for p in _contents(out)))


@app.command("sample")
def sample_command(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    num_samples: Annotated[int, typer.Option(help="How many.", metavar="N", min=1)] = 64,
    seed: Annotated[int, typer.Option(help="Of the draws.", metavar="N")] = 0,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The .npy file [default: RUN/samples.npy]", show_default=False),
    ] = None,
) -> None:
    """Draw data from a trained model into a .npy file, and a picture where they are images."""
    import numpy as np

    from . import runs
    from .plots.pictures import has_images
    from .vae import load

    vae = load(run)
    path = (out or run / "samples.npy").with_suffix(".npy")
    np.save(path, vae.sample(num_samples, seed=seed).numpy())
    typer.echo(f"{num_samples} samples of shape {vae.x_shape}: {path}")
    if has_images(vae):
        typer.echo(f"picture: {runs.picture(vae, path.with_suffix('.png'), num_samples, seed)}")


@app.command("compress")
def compress_command(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    data: Annotated[Path, typer.Argument(help="A .npy file of discrete data.", metavar="X.npy")],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The file [default: X.pvc]", show_default=False),
    ] = None,
) -> None:
    """Code data without loss, at a rate near the model's negative ELBO."""
    import numpy as np

    from .evaluate import compress
    from .vae import load

    coded = compress(load(run), np.load(data, allow_pickle=False))
    path = (out or data).with_suffix(".pvc")
    path.write_bytes(bytes(coded))
    typer.echo(
        f"{coded.num_data} data, {coded.bits_per_dimension:.3f} bits per dimension: "
        f"{path}, {path.stat().st_size} bytes"
    )


@app.command("decompress")
def decompress_command(
    run: Annotated[Path, typer.Argument(help="The run folder that compressed.", metavar="RUN")],
    coded: Annotated[Path, typer.Argument(help="What compress wrote.", metavar="X.pvc")],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The file [default: X.npy]", show_default=False),
    ] = None,
) -> None:
    """Give back the data that compress coded."""
    import numpy as np

    from .evaluate import Compressed, decompress
    from .vae import load

    x = decompress(load(run), Compressed.from_bytes(coded.read_bytes()))
    path = (out or coded).with_suffix(".npy")
    np.save(path, x.numpy())
    typer.echo(f"{len(x)} data of shape {tuple(x.shape[1:])}: {path}")


@app.command("show")
def show_command(run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]) -> None:
    """Show what a run folder holds: the model, what it was told, and its figures."""
    from .runs import read_results
    from .vae import DESCRIPTION

    if not (run / DESCRIPTION).exists():
        raise ValueError(f"{run} is no run folder: it holds no {DESCRIPTION}")
    for name in (DESCRIPTION, CONFIG):
        if (run / name).exists():
            typer.echo(f"{name}\n" + "".join(f"  {line}\n" for line in _lines(run / name)))
    _table(read_results(run))
    typer.echo("\n" + "\n".join(str(p) for p in _contents(run)))


STEPS = typer.Option(
    help="Of the ascent to a datum's own guide, and temperatures of annealing.", metavar="N", min=2
)


@app.command("evaluate")
def evaluate_command(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    data: Annotated[
        Text,
        typer.Argument(help="Other data to judge it on, as in fit; of a file without a test part, "
                       "all [default: the run's test data]", metavar="[DATA]", show_default=False),
    ] = None,
    num_samples: Annotated[
        int, typer.Option(help="Draws of z per datum, for log p(x).", metavar="N", min=2)
    ] = 1000,
    steps: Annotated[int, STEPS] = 200,
    num_data: Annotated[
        Whole, typer.Option(help="The first N data [default: all]", metavar="N", min=1,
                            show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.", metavar="N")] = 0,
) -> None:  # fmt: skip
    """log p(x) with its error, gaps, collapse and calibration: RUN/evaluate/DATA.csv."""
    from .evaluate import assess
    from .runs import held_out
    from .vae import load

    vae, told = load(run), read_config(run / CONFIG)
    x, labels = held_out(told, data)
    x, labels = x[:num_data], None if labels is None else labels[:num_data]
    found = assess(vae, x, labels, num_samples=num_samples, steps=steps, seed=seed)
    name = Path(data or str(told["data"])).stem
    typer.echo(f"{name}: {len(x)} data, nats per datum\n")
    typer.echo(found.table.to_string(float_format="{:.2f}".format))
    for what, verdict in found.verdicts.items():
        typer.echo(f"\n{what}: {verdict}")
    folder = run / "evaluate"
    folder.mkdir(exist_ok=True)
    found.by_datum.to_csv(folder / f"{name}.csv")
    typer.echo(f"\n{folder / name}.csv: a row a datum")


@app.command("report")
def report_command(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    num_samples: Annotated[
        int, typer.Option(help="Draws of z per datum, for log p(x).", metavar="N", min=2)
    ] = 1000,
    steps: Annotated[int, STEPS] = 200,
    seed: Annotated[int, typer.Option(help="Of the draws.", metavar="N")] = 0,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The file [default: RUN/report.html]", metavar="FILE",
                     show_default=False),
    ] = None,
) -> None:  # fmt: skip
    """Figures, verdicts and pictures of a run in one HTML file that needs no network."""
    from .report import write_report

    typer.echo(str(write_report(run, out, num_samples=num_samples, steps=steps, seed=seed)))


@compare_app.command("runs")
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
    from .comparisons import compare_runs

    found = compare_runs(runs, num_samples=num_samples, seed=seed)
    typer.echo(
        "nats per datum, difference to the first run on the same data; "
        "doubtful is the share of data with k-hat > 0.7\n"
    )
    typer.echo(found.to_string(float_format="{:.2f}".format))


@compare_app.command("estimators")
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
    from . import plots
    from .evaluate import as_table, compare_estimators
    from .vae import load

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

    from . import plots
    from .evaluate import train_estimators
    from .runs import new_model, training_settings

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


def _sweep_command(setting: str) -> Callable[..., None]:
    """``compare SETTINGs``: the flags of ``fit``, one of them given several times."""

    def command(**told: Any) -> None:  # noqa: ANN401
        choices, seeds, jobs = told.pop(setting), told.pop("seeds"), told.pop("jobs")
        address, out, config = told.pop("address"), told.pop("out"), told.pop("config")
        num_samples = told.pop("num_samples")
        settings = merge(told, read_config(config) if config else {})
        name = Path(str(settings["data"])).stem
        out = out or Path("runs") / f"{name}-{setting}s"
        first = int(str(settings["seed"]))
        from .comparisons import paired_differences
        from .sweeps import sweep

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
    from . import plots
    from .plots.pictures import has_images
    from .vae import load

    vaes = {str(v): load(rows.folder.iloc[0]) for v, rows in table.groupby(setting, sort=False)}
    if not all(map(has_images, vaes.values())):
        return []
    return [plots.save(plots.samples_by(vaes), out / "samples.png")]


for _setting in ("prior", "likelihood", "guide"):
    compare_app.command(f"{_setting}s")(_sweep_command(_setting))


def main() -> None:
    """The entry point: bad input is a message, not a traceback."""
    try:
        app()
    except (ValueError, FloatingPointError, OSError) as problem:
        typer.echo(f"error: {problem}", err=True)
        sys.exit(2)


def _test_batch(run: Path, batch_size: int, seed: int) -> "Tensor":
    """Some of a run's test data, as bits where it was trained on bits."""
    import torch

    from .infer.batches import binarize
    from .seeding import seeded

    told = read_config(run / CONFIG)
    data = _data(told)
    with seeded(seed):
        x = data.test[torch.randperm(len(data.test))[:batch_size]]
        return binarize(x) if told.get("binarize") else x


def _data(told: Mapping[str, object]) -> "Data":
    """The data of a run."""
    from .data import load_data

    root = told.get("data_root")
    return load_data(
        str(told["data"]), None if root is None else str(root), seed=int(str(told["seed"]))
    )


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def _contents(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


ROWS = {
    "elbo_train": "ELBO, training data",
    "elbo_validation": "ELBO, validation data",
    "elbo_test": "ELBO, test data",
    "log_likelihood_test": "  E[log p(x|z)]",
    "kl_test": "  KL(q(z|x) || p(z))",
}


def _table(found: dict[str, float]) -> None:
    if not found:
        return
    typer.echo(f"{'nats per datum':<24}{'mean':>10}{'standard error':>17}")
    for key, label in ROWS.items():
        error = found.get(f"{key}_standard_error")
        shown = "" if error is None else f"{error:.2f}"
        typer.echo(f"{label:<24}{found[key]:>10.2f}{shown:>17}")
    typer.echo(
        f"\n{found['epochs']:.0f} epochs in {found['training_seconds']:.1f} s of training, "
        f"{found['parameters']:,.0f} parameters"
    )
