"""What the commands share."""

from pathlib import Path
from typing import Optional

import typer

from ..runs.settings import DEFAULTS

__all__ = ["Number", "Text", "Whole", "contents", "flag", "show_table"]

Text = Optional[str]  # noqa: UP045
Whole = Optional[int]  # noqa: UP045
Number = Optional[float]  # noqa: UP045


def flag(name: str, text: str, metavar: str = "LINE") -> object:
    """An option of ``fit`` whose help ends with its default."""
    default = DEFAULTS.get(name)
    return typer.Option(
        f"--{name.replace('_', '-')}",
        help=text + (f" [default: {default}]" if default is not None else ""),
        metavar=metavar,
        show_default=False,
    )


def contents(folder: Path) -> list[str]:
    """The files of a folder, by their paths in it."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


ROWS = {
    "elbo_train": "ELBO, training data",
    "elbo_validation": "ELBO, validation data",
    "elbo_test": "ELBO, test data",
    "log_likelihood_test": "  E[log p(x|z)]",
    "kl_test": "  KL(q(z|x) || p(z))",
}


def show_table(found: dict[str, float]) -> None:
    """A run's figures."""
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
