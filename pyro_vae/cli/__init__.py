"""The command line; nothing heavy is imported before a command runs."""

import sys

import typer

from . import comparing, training, using

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Variational autoencoders in Pyro: say them in a line, train them, see them.",
)
app.command("fit")(training.fit_command)
app.command("sample")(using.sample_command)
app.command("compress")(using.compress_command)
app.command("decompress")(using.decompress_command)
app.command("show")(using.show_command)
app.command("evaluate")(using.evaluate_command)
app.command("report")(using.report_command)

compare = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Compare what a choice costs: on a trained model, or by training with each.",
)
app.add_typer(compare, name="compare")
compare.command("runs")(comparing.compare_runs_command)
compare.command("estimators")(comparing.compare_estimators_command)
for setting in ("prior", "likelihood", "guide"):
    compare.command(f"{setting}s")(comparing.sweep_command(setting))


def main() -> None:
    """The entry point: bad input is a message, not a traceback."""
    try:
        app()
    except (ValueError, FloatingPointError, OSError) as problem:
        typer.echo(f"error: {problem}", err=True)
        sys.exit(2)
