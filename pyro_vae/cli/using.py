"""Commands for a run that is there: draw from it, judge it, encode, impute and compress by it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from ..core.system import check_file
from ..runs.settings import CONFIG, read_settings
from .parts import (
    KINDS,
    Data,
    EvidenceDraws,
    Folder,
    Force,
    Modules,
    Seed,
    beside,
    check_data,
    contents,
    free,
    free_rows,
    kind_of,
    load_run,
    present,
    read_rows,
    show_figures,
    write_rows,
)

if TYPE_CHECKING:
    from ..data.tables.columns import Column
    from ..model.vae import VAE

__all__ = [
    "check",
    "compress",
    "decompress",
    "encode",
    "evaluate",
    "families",
    "impute",
    "report",
    "sample",
    "show",
]

Array: TypeAlias = Annotated[
    Path,
    typer.Argument(
        help="A .npy file of data, a table, or a folder of pictures.", metavar="X", callback=present
    ),
]
Steps: TypeAlias = Annotated[
    int,
    typer.Option(
        help="Of the ascent to an observation's own guide, and temperatures of annealing.",
        metavar="N",
        min=2,
    ),
]


Out: TypeAlias = Annotated[Path | None, typer.Option(help="Another file.", metavar="FILE")]


def sample(
    run: Folder,
    num_samples: Annotated[int, typer.Option(help="How many.", metavar="N", min=1)] = 64,
    seed: Seed = 0,
    given: Annotated[
        list[str] | None,
        typer.Option(
            help="A cell that is known, as often as you like: of a table, draws of the others; of "
            "counts what stands beside them, and library=TOTAL.",
            metavar="COLUMN=VALUE",
        ),
    ] = None,
    modules: Modules = None,
    out: Out = None,
    force: Force = False,
) -> None:
    """Draw from a trained model: RUN/samples.npy, with a picture of images, or .csv, or .txt."""
    kind = kind_of(run)
    if given and kind not in ("table", "counts"):
        raise ValueError(
            "--given is of the model of a table, or of counts with columns beside them, whose "
            "columns have names"
        )
    path = free_rows(kind, out or run / f"samples{KINDS[kind][1][0]}", force)
    if kind == "vocabulary":
        texts: Any = load_run(run, modules).sample(num_samples, seed=seed)
        shown = [*texts[:10], "", f"{num_samples} texts: {write_rows(path, texts)}"]
        typer.echo("\n".join(shown))
        return
    picture = path if kind == "table" else free(path, ".png", force)
    from .. import plots
    from ..plots.pictures import has_images

    vae = load_run(run, modules)
    needed = getattr(vae.record, "needed", ())
    if needed and not given:
        each = " ".join(f"--given {name}=VALUE" for name in needed)
        raise ValueError(f"this model draws given {', '.join(needed)}: {each}")
    cells = _cells(vae, given or [])
    drawn = vae.sample(num_samples, given=cells, seed=seed)
    if kind == "table":
        typer.echo(f"{num_samples} rows: {write_rows(path, drawn)}")
        return
    if cells:
        drawn = drawn[:, 0]
    write_rows(path, drawn if isinstance(drawn, list) else drawn.numpy())
    typer.echo(f"{num_samples} samples of shape {vae.x_shape}: {path}")
    if has_images(vae):
        drawn = plots.samples(vae, num_samples, seed=seed)
        typer.echo(f"picture: {plots.save(drawn, picture)}")


def encode(
    run: Folder, data: Array, modules: Modules = None, out: Out = None, force: Force = False
) -> None:
    """Write the mean of q(z|x) for each observation into X-z.npy."""
    path = free((out or beside(data, "z")).with_suffix(".npy"), ".npy", force)
    import torch

    from ..model.latents import point

    vae = load_run(run, modules)
    with torch.no_grad():
        z = point(vae.encode(read_rows(run, vae, data)))
    write_rows(path, z.numpy(force=True))
    typer.echo(f"z of shape {tuple(z.shape[1:])} for {len(z)} observations: {path}")


def impute(
    run: Folder,
    data: Array,
    num_samples: Annotated[
        int, typer.Option(help="Draws of z per observation.", metavar="N", min=2)
    ] = 1000,
    draws: Annotated[
        int | None,
        typer.Option(
            help="So many draws of the missing cells (multiple imputation), of a table into "
            "X-imputed-1 and so on, not one value.",
            metavar="M",
            min=1,
        ),
    ] = None,
    seed: Seed = 0,
    modules: Modules = None,
    out: Out = None,
    force: Force = False,
) -> None:
    """Fill the missing cells of data by what the model expects there, into X-imputed."""
    path = out or beside(data, "imputed")
    kind = kind_of(run)
    many = kind == "table" and draws
    paths = [path.with_stem(f"{path.stem}-{i + 1}") for i in range(many)] if many else [path]
    paths = [free_rows(kind, path, force) for path in paths]
    import numpy as np
    import pandas as pd

    vae = load_run(run, modules)
    x = read_rows(run, vae, data)
    filled = vae.impute(x, draws=draws, num_samples=num_samples, seed=seed)
    for one, where in zip(filled if many else [filled], paths, strict=True):
        write_rows(where, one.numpy(force=True) if hasattr(one, "numpy") else one)
    record: Any = vae.record
    holes = np.asarray(record.read(x).missing if kind == "table" else pd.isna(x)).sum()
    typer.echo(f"{holes} cells of {len(x)} observations: {', '.join(map(str, paths))}")


def compress(
    run: Folder, data: Array, modules: Modules = None, out: Out = None, force: Force = False
) -> None:
    """Code discrete data without loss into X.pvc, at a rate near the model's negative ELBO."""
    path = free(out or data, ".pvc", force)
    from ..core.files import write_whole
    from ..evaluate.compression.compress import compress

    vae = load_run(run, modules)
    coded = compress(vae, read_rows(run, vae, data))
    write_whole(path, bytes(coded))
    typer.echo(
        f"{coded.num_data} observations, {coded.bits_per_dimension:.3f} bits per dimension: "
        f"{path}, {path.stat().st_size} bytes"
    )


def decompress(
    run: Folder,
    coded: Annotated[
        Path,
        typer.Argument(
            help="What compress wrote.", metavar="X.pvc", callback=present, dir_okay=False
        ),
    ],
    modules: Modules = None,
    out: Out = None,
    force: Force = False,
) -> None:
    """Give back the data that compress coded, in X.npy."""
    path = free(out or coded, ".npy", force)
    from ..evaluate.compression.compress import Compressed, decompress

    check_file(coded)
    x = decompress(load_run(run, modules), Compressed.from_bytes(coded.read_bytes()))
    write_rows(path, x.numpy())
    typer.echo(f"{len(x)} observations of shape {tuple(x.shape[1:])}: {path}")


def check(run: Folder) -> None:
    """Read every file of a run folder, and say which are damaged."""
    from ..runs.integrity import check_run

    found = check_run(run)
    typer.echo("\n".join(f"{name}: {problem or 'sound'}" for name, problem in found.items()))
    if any(found.values()):
        raise typer.Exit(2)


def families(
    name: Annotated[
        str | None,
        typer.Argument(help="One of them, with its parameters.", metavar="[NAME]"),
    ] = None,
) -> None:
    """What a line can name: families of distributions, and structures of them."""
    from ..describe import describe
    from ..describe import families as table

    if name is not None:
        typer.echo(describe(name).to_string())
        return
    for one, row in table().iterrows():
        typer.echo(f"{one}: {row['about']}\n    {row['kind']}; {row['roles']}")


def show(run: Folder) -> None:
    """Show what a run folder holds: the model, what it was told, and its figures."""
    from ..model.files import DESCRIPTION
    from ..runs.folder import read_results

    if not (run / DESCRIPTION).exists():
        raise ValueError(f"{run} is no run folder: it holds no {DESCRIPTION}")
    for path in (run / DESCRIPTION, run / CONFIG):
        if path.exists():
            lines = path.read_text("utf-8").splitlines()
            typer.echo("\n".join([path.name, *(f"  {s}" for s in lines if s[:1] != "#"), ""]))
    show_figures(read_results(run))
    typer.echo("\n".join(["", *contents(run)]))


def evaluate(
    run: Folder,
    data: Data = None,
    num_samples: EvidenceDraws = 1000,
    steps: Steps = 200,
    num_data: Annotated[
        int | None, typer.Option(help="N of them, at random [default: all]", metavar="N", min=1)
    ] = None,
    seed: Seed = 0,
    modules: Modules = None,
) -> None:
    """log p(x) with its error, gaps, collapse and calibration: RUN/evaluate/DATA.csv."""
    check_data(data)
    from ..core.files import replacing
    from ..core.seeding import seeded
    from ..evaluate.assessment import assess
    from ..evaluate.statistics import chosen_rows
    from ..runs.held_out import held_out, name_of

    vae = load_run(run, modules)
    x, labels = held_out(run, vae, data)
    with seeded(seed):
        rows = chosen_rows(x, num_data or len(x))
    x, labels = x[rows], None if labels is None else labels[rows.to(labels.device)]
    assessment = assess(vae, x, labels, num_samples=num_samples, steps=steps, seed=seed)
    name = name_of(read_settings(run), data)
    typer.echo(f"{name}: {len(x)} observations, nats per observation\n")
    typer.echo(assessment.table.to_string(float_format="{:.2f}".format))
    for what, verdict in assessment.verdicts.items():
        typer.echo(f"\n{what}: {verdict}")
    folder = run / "evaluate"
    folder.mkdir(exist_ok=True)
    with replacing(folder / f"{name}.csv") as new:
        table = assessment.by_observation
        table.set_axis(rows.tolist()).rename_axis("observation").to_csv(new)
    typer.echo(f"\n{folder / name}.csv: a row an observation")


def report(
    run: Folder,
    data: Data = None,
    num_samples: EvidenceDraws = 1000,
    steps: Steps = 200,
    seed: Seed = 0,
    modules: Modules = None,
    out: Out = None,
) -> None:
    """Figures, verdicts and pictures in one HTML file that needs no network: RUN/report.html."""
    check_data(data)
    from ..runs.report import write_report

    told = {"num_samples": num_samples, "steps": steps, "seed": seed}
    typer.echo(str(write_report(run, out, vae=load_run(run, modules), data=data, **told)))


def _cells(vae: "VAE", given: list[str]) -> dict[str, object] | None:
    """Known cells of a row, from COLUMN=VALUE, in the types of their columns."""
    record: Any = vae.record
    design, numbers = getattr(record, "design", None), ()
    schema = getattr(record, "schema", None)
    if schema is None:  # counts, whose frame is known by what the model reads of it
        schema, numbers = design and design.schema, getattr(record, "numbers", {}).values()
    cells: dict[str, object] = {}
    for text in given:
        if "=" not in text:
            raise ValueError(f"--given is COLUMN=VALUE, got {text!r}")
        known = [*(schema.names if schema else ()), *numbers]
        names: list[str] = [name for name in known if text.startswith(f"{name}=")]
        name = max(names, key=len, default=text.partition("=")[0])  # a name may have a "="
        value = text[len(name) + 1 :]
        if name in cells:
            raise ValueError(f"--given says {name!r} twice")
        if name in numbers or schema is None:
            cells[name] = _read(name, "number", value)
        else:
            cells[name] = _cell(schema[name], value)
    return cells or None


def _cell(column: "Column", value: str) -> object:
    """A cell from its text, in the type of its column; of a form of its own it stays a word."""
    from ..data.tables.written import has_commas

    if column.format is None:
        return _read(column.name, column.sort, value)
    if column.sort == "time" or has_commas(column.format):  # whose 1.000 is a thousand
        return value
    try:
        return _read(column.name, column.sort, value)
    except ValueError:
        return value


def _read(name: str, sort: str, value: str) -> object:
    """The text of a cell, in a type."""
    import pandas as pd

    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    read: dict[str, tuple[Any, str]] = {
        "whole": (pd.to_numeric, "numbers, as 1200.5"),
        "number": (pd.to_numeric, "numbers, as 1200.5"),
        "boolean": (lambda text: words[text.lower()], "true or false"),
        "duration": (pd.Timedelta, "durations, as 3 days or 04:30:00"),
        "time": (pd.Timestamp, "times, as 2024-03-01 or 2024-03-01T12:30"),
    }
    if sort not in read:
        return value
    convert, what = read[sort]
    try:
        return convert(value)
    except (ValueError, KeyError):
        raise ValueError(f"column {name!r} holds {what}, got {value!r}") from None
