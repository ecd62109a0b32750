"""``pyro-vae fit``."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from ..core.toml import read_config
from ..runs.settings import CONFIG, DEFAULTS, merge
from .parts import Number, Text, Whole, contents, flag, show_table

__all__ = ["fit_command"]


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
    likelihood: Annotated[Text, flag("likelihood", "p(x|z): a family of Pyro.")] = None,
    prior: Annotated[Text, flag("prior", "p(z).")] = None,
    guide: Annotated[Text, flag("guide", "q(z|x).")] = None,
    estimator: Annotated[
        Text, flag("estimator", "The bound and its gradient, TraceGraph_ELBO(gradient=score).")
    ] = None,
    latent_dim: Annotated[Whole, flag("latent_dim", "Dimensions of z.", "N")] = None,
    layers: Annotated[
        Text, flag("layers", "Widths of stochastic layers, from x upward, in place of latent_dim.",
                    "[N,N]"),
    ] = None,
    encoder: Annotated[Text, flag("encoder", "From x to features; ConvEncoder([32, 64]).")] = None,
    decoder: Annotated[Text, flag("decoder", "From z to features; ConvDecoder([64, 32]).")] = None,
    epochs: Annotated[Whole, flag("epochs", "Passes over the data.", "N")] = None,
    batch_size: Annotated[Whole, flag("batch_size", "Data per step.", "N")] = None,
    lr: Annotated[Text, flag("lr", "Learning rate: a number, or a schedule.")] = None,
    optimizer: Annotated[Text, flag("optimizer", "Of torch.optim; Adam(clip_norm=10).")] = None,
    beta: Annotated[
        Text, flag("beta", "Weight of the KL: a number, or linear(0, 1, epochs=10).")
    ] = None,
    binarize: Annotated[
        Optional[Literal["dynamic", "static"]],  # noqa: UP045
        flag("binarize", "Draw bits from grey values, at each visit or once; dynamic for images "
              "with a Bernoulli likelihood.", "dynamic|static"),
    ] = None,
    validation: Annotated[Number, flag("validation", "Fraction held out.", "X")] = None,
    patience: Annotated[
        Whole, flag("patience", "Stop after N epochs without a better validation ELBO.", "N")
    ] = None,
    checkpoint_every: Annotated[
        Whole, flag("checkpoint_every", "Epochs between checkpoints.", "N")
    ] = None,
    seed: Annotated[Whole, flag("seed", "Of weights, order, bits and draws.", "N")] = None,
    data_root: Annotated[
        Text, flag("data_root", "Folder of torchvision's files; else they are downloaded.", "DIR")
    ] = None,
    device: Annotated[Text, flag("device", "auto, cpu, cuda ...", "NAME")] = None,
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
    from ..infer.engine.distributed import leads
    from ..runs import folder as runs

    fitted, loaded = runs.run(settings, out, resume=resume is not None)
    if not leads():
        return
    if fitted.interrupted:
        typer.echo(f"go on with: pyro-vae fit --resume {out}")
        raise typer.Exit(130)
    found = runs.results(fitted, loaded, out)
    typer.echo(f"\n{loaded.name}: {loaded.description}; {len(loaded.train)} data to train on\n")
    show_table(found)
    typer.echo(f"\nrun folder: {out}\n" + "\n".join(f"  {p}" for p in contents(out)))
