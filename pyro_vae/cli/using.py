"""Commands for a run that is there: draw from it, judge it, compress by it."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..core.toml import read_config
from ..runs.settings import CONFIG
from .parts import Text, Whole, contents, show_table

__all__ = [
    "compress_command", "decompress_command", "evaluate_command", "report_command",
    "sample_command", "show_command",
]  # fmt: skip


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

    from ..model.saving import load
    from ..plots.pictures import has_images
    from ..runs import folder as runs

    vae = load(run)
    path = (out or run / "samples.npy").with_suffix(".npy")
    np.save(path, vae.sample(num_samples, seed=seed).numpy())
    typer.echo(f"{num_samples} samples of shape {vae.x_shape}: {path}")
    if has_images(vae):
        typer.echo(f"picture: {runs.picture(vae, path.with_suffix('.png'), num_samples, seed)}")


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

    from ..evaluate.compression.compress import compress
    from ..model.saving import load

    coded = compress(load(run), np.load(data, allow_pickle=False))
    path = (out or data).with_suffix(".pvc")
    path.write_bytes(bytes(coded))
    typer.echo(
        f"{coded.num_data} data, {coded.bits_per_dimension:.3f} bits per dimension: "
        f"{path}, {path.stat().st_size} bytes"
    )


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

    from ..evaluate.compression.compress import Compressed, decompress
    from ..model.saving import load

    x = decompress(load(run), Compressed.from_bytes(coded.read_bytes()))
    path = (out or coded).with_suffix(".npy")
    np.save(path, x.numpy())
    typer.echo(f"{len(x)} data of shape {tuple(x.shape[1:])}: {path}")


def show_command(run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]) -> None:
    """Show what a run folder holds: the model, what it was told, and its figures."""
    from ..model.files import DESCRIPTION
    from ..runs.folder import read_results

    if not (run / DESCRIPTION).exists():
        raise ValueError(f"{run} is no run folder: it holds no {DESCRIPTION}")
    for name in (DESCRIPTION, CONFIG):
        if (run / name).exists():
            typer.echo(f"{name}\n" + "".join(f"  {line}\n" for line in _lines(run / name)))
    show_table(read_results(run))
    typer.echo("\n" + "\n".join(str(p) for p in contents(run)))


STEPS = typer.Option(
    help="Of the ascent to a datum's own guide, and temperatures of annealing.", metavar="N", min=2
)


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
    from ..evaluate.assessment import assess
    from ..model.saving import load
    from ..runs.folder import held_out

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
    found.by_observation.to_csv(folder / f"{name}.csv")
    typer.echo(f"\n{folder / name}.csv: a row a datum")


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
    from ..runs.report import write_report

    typer.echo(str(write_report(run, out, num_samples=num_samples, steps=steps, seed=seed)))


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]
