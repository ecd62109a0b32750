"""What the commands share: options from the fields of a run's settings, and what they print."""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from ..core.files import uncompressed
from ..core.system import check_file, in_a_sentence
from ..runs.settings import RunSettings, kinds, read_settings

if TYPE_CHECKING:
    from ..model.vae import VAE

__all__ = [
    "KINDS",
    "Data",
    "EvidenceDraws",
    "Folder",
    "Force",
    "Modules",
    "Seed",
    "beside",
    "check_data",
    "contents",
    "free",
    "free_rows",
    "kind_of",
    "load_run",
    "present",
    "read_rows",
    "show_figures",
    "with_settings",
    "write_rows",
]


def present(path: Path | None) -> Path | None:
    """The path of a file or folder, which must be there.

    Raises:
        typer.BadParameter: what the system says in place of it.
    """
    if path is None:
        return None
    try:
        path.stat()
    except OSError as problem:
        said = in_a_sentence(problem, reading=True)
        plain = isinstance(problem, FileNotFoundError) and not path.is_symlink()
        raise typer.BadParameter(f"{path} does not exist" if plain else said) from None
    return path


TABLES, ARRAY = (".csv", ".tsv", ".parquet"), (".npy",)
KINDS = {  # of a run's model: what its observations are called, and the suffixes of their files
    "table": ("rows of a table", TABLES),
    "vocabulary": ("texts", (".txt", "")),
    "counts": ("arrays", ARRAY),
    "arrays": ("arrays", ARRAY),
}
Folder: TypeAlias = Annotated[
    Path, typer.Argument(help="A run folder.", metavar="RUN", callback=present, file_okay=False)
]
Seed: TypeAlias = Annotated[int, typer.Option(help="Of the draws.", metavar="N", min=0)]
EvidenceDraws: TypeAlias = Annotated[
    int, typer.Option(help="Draws of z per observation, for log p(x).", metavar="N", min=2)
]
Data: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        help="Other data to judge it on, as in fit; of a file without a test part, all "
        "[default: the run's test data]",
        metavar="[DATA]",
    ),
]
Modules: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="A Python file, which is run, with the modules of your own that the model has, by "
        "role: encoder = Mine().",
        metavar="FILE.py",
        callback=present,
        dir_okay=False,
    ),
]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Write over a file.")]


def with_settings(
    *names: str, default: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command that takes ``**flags`` an option for each of some settings of a run.

    Args:
        names: of the settings.
        default: what the help says in place of their defaults.
    """
    shared = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(name, default)
        )
        for name in names
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        *own, _flags = inspect.signature(command).parameters.values()
        own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
        parameters = [*shared, *own]
        command.__signature__ = inspect.Signature(parameters)  # pyrefly: ignore[missing-attribute]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        return command

    return decorate


def _option(name: str, default: str | None) -> object:
    """The annotation of a setting's option.

    What a flag may say in more ways than one (a number or a schedule) is text here, which
    :func:`~pyro_vae.runs.settings.merge` reads.
    """
    field = RunSettings.__dataclass_fields__[name]
    default = default or ("" if field.default is None else str(field.default))
    about = {
        "help": field.metadata["help"] + (f" [default: {default}]" if default else ""),
        "metavar": field.metadata["metavar"],
        "show_default": False,
    }
    kind, *others = kinds()[name]
    several = tuple[str, ...] in (kind, *others)
    plain = not others and kind != tuple[int, ...]
    how = typer.Argument(**about) if name == "data" else typer.Option(**about)
    if several:
        return Annotated[list[str] | None, how]
    return Annotated[(kind if plain else str) | None, how]


def load_run(run: Path, modules: Path | None = None) -> "VAE":
    """The model of a run, with the modules of the user's own that a file defines by role."""
    import runpy

    from ..model.files import own_parts
    from ..model.saving import load

    if modules is None:
        return load(run)
    check_file(modules)
    sys.path.insert(0, str(modules.parent.resolve()))  # what it imports lies beside it
    defined = runpy.run_path(str(modules))
    return load(run, **{role: defined[role] for role in own_parts(run) if role in defined})


def check_data(name: str | None) -> None:
    """Raise where data are a file that is not there, before anything heavy is imported."""
    if name is None:
        return
    if not name.strip():
        raise ValueError("the name of the data is empty: give a file, a folder, or digits")
    known = (".npy", ".npz", ".txt", ".h5ad", ".mtx", *TABLES)
    if Path(name).suffix in known and not Path(name).exists():
        check_file(name)


def read_rows(run: Path, vae: "VAE", path: Path) -> Any:  # noqa: ANN401
    """The observations in a file: a frame of a table, counts, lines of text, pictures, an array.

    Args:
        run: whose data they are like.
        vae: its model.
        path: of the file.
    """
    from ..data.count_files import is_sparse_file, read_counts
    from ..data.numpy_files import read_array
    from ..data.pictures import channels_first, read_pictures
    from ..data.ragged import read_lines
    from ..data.tables import naming, read_file
    from ..model.counts import CountsRecord
    from ..model.tables import TableRecord
    from ..model.visits import VisitsRecord

    if path.is_dir():
        return read_pictures(path, read_settings(run).size)[0]
    if path.suffix == ".txt":
        return read_lines(path)
    counts = isinstance(vae.record, CountsRecord) and path.suffix != ".npy"
    if counts or is_sparse_file(path):
        beside = vae.record.beside if isinstance(vae.record, CountsRecord) else ()
        return read_counts(path, beside=beside)
    if isinstance(vae.record, TableRecord | VisitsRecord):
        frame = read_file(path, vae.record.words)
        with naming(path):
            if isinstance(vae.record, TableRecord):
                return vae.record.read(frame)
            vae.as_data(frame)  # whose errors name lines
            return frame
    return channels_first(read_array(path), read_settings(run).layout)


def write_rows(path: Path, rows: Any) -> Path:  # noqa: ANN401
    """Write a frame, as ``.parquet`` where the path says so, else as ``.csv``; an array as it is.

    Whole numbers that pandas held as floats, since their column had holes, are 2 in a ``.csv``, not
    2.0. Texts are lines, and other sequences an array, padded with NaN.

    Returns:
        The path, with the suffix of what it is.
    """
    import numpy as np

    from ..core.files import replacing
    from ..data.ragged import padded

    with replacing(path) as new:
        if path.suffix == ".txt":
            new.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        elif path.suffix == ".npy":
            np.save(new, padded(rows).numpy() if isinstance(rows, list) else rows)
        elif path.suffix == ".parquet":
            try:
                _as_pandas(rows).to_parquet(new)
            except ImportError:
                raise ValueError(
                    f"{path}: Parquet files need pyarrow: pip install pyarrow, or "
                    f"--out {path.with_suffix('.csv')}"
                ) from None
        else:
            rows = _with_whole_numbers(_as_pandas(rows))
            rows.to_csv(new, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def _as_pandas(rows: Any) -> Any:  # noqa: ANN401
    """A frame of the library that the model's table was of, as one of pandas."""
    import narwhals as nw
    import pandas as pd

    frame = nw.from_native(rows, eager_only=True)
    if frame.implementation.is_pandas():
        return rows
    return pd.DataFrame(frame.to_dict(as_series=False))  # to_pandas of polars needs pyarrow


def _with_whole_numbers(rows: Any) -> Any:  # noqa: ANN401
    """The frame, its floats as whole numbers where all of a column are, or are missing."""
    from ..data.tables.coding import EXACT

    floats = rows.select_dtypes("float").items()
    whole = {n: "Int64" for n, x in floats if (x.isna() | (x % 1 == 0) & (x.abs() < EXACT)).all()}
    return rows.astype(whole)


def contents(folder: Path) -> list[str]:
    """The files of a folder, by their paths in it."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def beside(data: Path, what: str) -> Path:
    """The path of what is made of a file of data, beside it."""
    plain = uncompressed(data)
    return plain.with_stem(f"{plain.stem}-{what}")


def free(path: Path, suffix: str, force: bool) -> Path:
    """The path of a file to write, with its suffix, or that of a table where it has one.

    Raises:
        ValueError: there is one already, and no ``--force``.
    """
    path = path if suffix == ".npy" and path.suffix in TABLES else path.with_suffix(suffix)
    if path.exists() and not force:
        raise ValueError(f"{path} is there already: --force writes over it, --out takes another")
    return path


def kind_of(run: Path) -> str:
    """What a run's model is of, by the word that its description has: a key of :data:`KINDS`."""
    from ..core.toml import read_config
    from ..model.files import DESCRIPTION

    described = read_config(run / DESCRIPTION) if (run / DESCRIPTION).exists() else {}
    return next((kind for kind in KINDS if kind in described), "arrays")


def free_rows(kind: str, path: Path, force: bool) -> Path:
    """The path of observations to write: a table, or texts, of the model of these, else an array.

    Raises:
        ValueError: a file of another kind, or one that is there already.
    """
    what, suffixes = KINDS[kind]
    other = path.suffix in TABLES if suffixes == ARRAY else path.suffix not in suffixes
    if other:
        raise ValueError(
            f"{path}: {what} are written as {', '.join(filter(None, suffixes))}: "
            f"--out {uncompressed(path).with_suffix(suffixes[0])}"
        )
    return free(path, path.suffix if suffixes == TABLES else suffixes[0], force)


ROWS = {
    "elbo_train": "ELBO, training data",
    "elbo_validation": "ELBO, validation data",
    "elbo_test": "ELBO, test data",
    "log_likelihood_test": "  E[log p(x|z)]",
    "kl_test": "  KL(q(z|x) || p(z))",
}
BITS = "bits_per_dimension_test"


def show_figures(results: dict[str, float]) -> None:
    """Print a run's figures."""
    if lacking := sorted({*ROWS, "epochs", "training_seconds", "parameters"} - results.keys()):
        if results:
            typer.echo(f"results.toml is damaged: it lacks {', '.join(lacking)}")
        return
    typer.echo(f"{'nats per observation':<24}{'mean':>10}{'standard error':>17}")
    for key, label in ROWS.items():
        error = results.get(f"{key}_standard_error")
        shown = "" if error is None else f"{error:.2f}"
        typer.echo(f"{label:<24}{results[key]:>10.2f}{shown:>17}")
    if BITS in results:
        error = results.get(f"{BITS}_standard_error", 0.0)
        typer.echo(f"{'  bits per dimension':<24}{results[BITS]:>10.3f}{error:>17.3f}")
    typer.echo(
        f"\n{results['epochs']:.0f} epochs in {results['training_seconds']:.1f} s of training, "
        f"{results['parameters']:,.0f} parameters"
    )
