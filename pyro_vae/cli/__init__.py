"""The command line; nothing heavy is imported before a command runs."""

import sys
import warnings
from typing import Annotated

import typer

from . import comparing, training, using
from .flags import in_flags

__all__ = ["app", "main"]


def _show_version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(f"pyro-vae {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
]
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
compare = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _program(version: Version = False) -> None:
    """Variational autoencoders in Pyro: say them in a line, train them, see them."""


@compare.callback()
def _compare() -> None:
    """Compare what a choice costs: on a trained model, or by training with each."""


# Help that is given as short_help is not cut at the width of the terminal.
for command in (training.fit, *(getattr(using, name) for name in using.__all__)):
    app.command(short_help=command.__doc__)(command)
for command in (comparing.runs, comparing.estimators, *map(comparing.sweep, comparing.SWEPT)):
    compare.command(short_help=command.__doc__)(command)
app.add_typer(compare, name="compare", short_help=_compare.__doc__)


def _warn(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if category is UserWarning:
        typer.echo(f"warning: {in_flags(str(message))}", err=True)


def main() -> None:
    """The entry point: bad input is a message, not a traceback, and a warning one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            app()
    except (ValueError, FloatingPointError, OSError) as problem:
        from ..core.system import in_a_sentence

        said = in_a_sentence(problem) if isinstance(problem, OSError) else str(problem)
        typer.echo(f"error: {in_flags(said)}", err=True)
        sys.exit(2)
