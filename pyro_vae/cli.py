"""The command line; nothing heavy is imported before a command runs."""

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from .settings import CONFIG, DEFAULTS, merge, read_config

if TYPE_CHECKING:
    from torch import Tensor

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
    help="Compare what a choice costs, on a trained model.",
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

    fitted, loaded = runs.run(settings, out, resume=resume is not None)
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
    from .vae import load

    vae = load(run)
    path = (out or run / "samples.npy").with_suffix(".npy")
    np.save(path, vae.sample(num_samples, seed=seed).numpy())
    typer.echo(f"{num_samples} samples of shape {vae.x_shape}: {path}")
    if len(vae.x_shape) == 3:
        typer.echo(f"picture: {runs.picture(vae, path.with_suffix('.png'), num_samples, seed)}")


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


@compare_app.command("estimators")
def compare_estimators_command(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    estimator: Annotated[
        list[str],
        typer.Option(help="As in fit; give it once for each.", metavar="LINE", show_default=False),
    ],
    num_draws: Annotated[int, typer.Option(help="Of each.", metavar="N", min=4)] = 1000,
    batch_size: Annotated[int, typer.Option(help="Test data.", metavar="N", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Of batch and draws.", metavar="N", min=0)] = 0,
) -> None:
    """Variance, bias and time of gradient estimators: a table, RUN/compare/estimators.csv, .png."""
    from . import plots
    from .evaluate import as_table, compare_estimators
    from .vae import load

    vae = load(run)
    x = _test_batch(run, batch_size, seed)
    found = compare_estimators(vae, x, estimator, num_draws=num_draws, seed=seed)
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

    from .data import load_data
    from .infer.batches import binarize
    from .seeding import seeded

    told = read_config(run / CONFIG)
    root = told.get("data_root")
    data = load_data(
        str(told["data"]), None if root is None else str(root), seed=int(str(told["seed"]))
    )
    with seeded(seed):
        x = data.test[torch.randperm(len(data.test))[:batch_size]]
        return binarize(x) if told.get("binarize") else x


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
