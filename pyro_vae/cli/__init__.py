"""The command line; nothing heavy is imported before a command runs."""

import sys
from typing import Annotated

import typer

from . import comparing, training, using

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
compare = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
for name, command in {
    "fit": training.fit_command,
    "sample": using.sample_command,
    "encode": using.encode_command,
    "impute": using.impute_command,
    "compress": using.compress_command,
    "decompress": using.decompress_command,
    "show": using.show_command,
    "evaluate": using.evaluate_command,
    "report": using.report_command,
}.items():
    app.command(name, short_help=command.__doc__)(command)  # help that is given is not cut
for name, command in {
    "runs": comparing.compare_runs_command,
    "estimators": comparing.compare_estimators_command,
    **{f"{setting}s": comparing.sweep_command(setting) for setting in comparing.SWEPT},
}.items():
    compare.command(name, short_help=command.__doc__)(command)
COMPARE = "Compare what a choice costs: on a trained model, or by training with each."
app.add_typer(compare, name="compare", help=COMPARE, short_help=COMPARE)


def _show_version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(f"pyro-vae {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Variational autoencoders in Pyro: say them in a line, train them, see them."""


def main() -> None:
    """The entry point: bad input is a message, not a traceback."""
    try:
        app()
    except (ValueError, FloatingPointError, OSError) as problem:
        typer.echo(f"error: {problem}", err=True)
        sys.exit(2)
