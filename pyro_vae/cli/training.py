"""``pyro-vae fit``."""

from pathlib import Path
from signal import SIGINT
from typing import Annotated

import typer

from ..core.toml import read_config
from ..infer.training.settings import CONFIG, FROM_PYTHON
from ..runs.settings import SETTINGS, RunSettings, merge
from .parts import check_data, contents, show_figures, with_settings

__all__ = ["fit"]

MOVES = {"data_root", "device"}  # a resumed run may have others


@with_settings(*SETTINGS)
def fit(
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file of these settings; a flag beats it.", metavar="FILE"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run folder [default: runs/DATA-TIME]", metavar="DIR"),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this folder.", metavar="RUN")
    ] = None,
    **flags: object,
) -> None:
    """Train a VAE and keep weights, description, history and pictures in a run folder."""
    if resume is not None:
        _check_resumed(resume, {"config": config, "out": out, **flags})
        config, out = resume / CONFIG, resume
    settings = merge(flags, read_config(config) if config else {})
    if settings.data == FROM_PYTHON and flags["data"] is None:  # said by the file
        raise ValueError(
            f"{config or out} is of pv.fit, whose model and data are yours: go on with "
            f"pv.fit(vae, x, ..., resume={str(out or '')!r})"
        )
    check_data(settings.data)
    from ..infer.engine.distributed import leads
    from ..runs.folder import train

    run = train(settings, out, resume=resume is not None)
    stopped = run.fitted.interrupted or run.fitted.signal
    if stopped and leads():
        typer.echo(f"go on with: pyro-vae fit --resume {run.folder}")
    if stopped:
        raise typer.Exit(128 + (run.fitted.signal or SIGINT))
    if not leads():
        return
    data = run.data
    typer.echo(f"\n{data.name}: {data.description}; {len(data.train)} observations to train on\n")
    show_figures(run.results)
    files = [f"  {path}" for path in contents(run.folder)]
    typer.echo("\n".join([f"\nrun folder: {run.folder}", *files]))


def _check_resumed(run: Path, flags: dict[str, object]) -> None:
    """Raise for flags that would make another run of it, and where there is none."""
    lasting = {"config", "out", *RunSettings().lasting()} - MOVES
    given = sorted(name for name, value in flags.items() if value is not None)
    named = {name: f"--{name.replace('_', '-')}" for name in given} | {"data": "DATA"}
    if changed := [named[name] for name in given if name in lasting]:
        raise ValueError(f"a resumed run keeps its settings: leave out {', '.join(changed)}")
    if not (run / CONFIG).exists():
        raise ValueError(f"{run} is no run folder: it holds no {CONFIG}")
