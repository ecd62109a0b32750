"""The pages made from the code: one for each public name, and tables of what lines name."""

import importlib
import inspect
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pandas as pd
from sphinx.application import Sphinx
from typer.main import get_command

import pyro_vae as pv
from pyro_vae.cli import app as command_line

FOLDER = Path(__file__).parent / "reference" / "generated"
RESULTS = Path(__file__).parent / "results"
COURSE = Path(__file__).parent / "course"
STUB = Path(pv.__file__).with_suffix(".pyi").read_text()
ROOMS = {  # the rooms of the package, in the order in which they are used
    "data": "Data and tables",
    "model": "Models",
    "families": "Families, priors, guides and networks",
    "language": "The language",
    "infer": "Training and estimators",
    "program": "Any Pyro program",
    "evaluate": "Evaluation",
    "describe": "What can be named",
    "runs": "Runs",
}
DATA = {  # what is no function or class, in words
    "pyro_vae.ESTIMATORS": "The table of estimators by name: :func:`pyro_vae.estimators` shows it.",
    "pyro_vae.sklearn.EXPECTED_FAILED_CHECKS": "The checks of scikit-learn that a face is excused "
    "from, each with the reason.",
}
MODULES = {"callbacks": "Callbacks", "plots": "Pictures", "sklearn": "scikit-learn faces"}


def public_names() -> dict[str, list[str]]:
    """The names of each room."""
    rooms: dict[str, list[str]] = {room: [] for room in ROOMS}
    for home, name in re.findall(r"^from \.(\S+) import (\w+) as", STUB, re.MULTILINE):
        if name not in MODULES:
            rooms[home.split(".")[0]].append(name)
    return rooms


def first_sentence(obj: object) -> str:
    """What an object is, in its docstring's first sentence, as Markdown."""
    text = (inspect.getdoc(obj) or "").split("\n\n")[0].replace("\n", " ")
    text = re.split(r"(?<=[.:]) ", text)[0].rstrip(":")
    text = re.sub(r":math:`([^`]*)`", r"$\1$", text)
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`").replace("|", r"\|")


def members(module: ModuleType) -> list[str]:
    """The public names of a module."""
    return sorted(module.__all__)


def api_page(path: str, obj: object) -> str:
    """A page of one name, in reStructuredText."""
    kind = "autoclass" if inspect.isclass(obj) else "autofunction"
    if not callable(obj):
        return f"{path}\n{'=' * len(path)}\n\n.. py:data:: {path}\n\n   {DATA[path]}\n"
    options = "   :members:\n   :show-inheritance:\n" if inspect.isclass(obj) else ""
    return f"{path}\n{'=' * len(path)}\n\n.. {kind}:: {path}\n{options}"


def write_api() -> None:
    """A page a name, and an index of them by room."""
    lines = ["# Every public name", ""]
    sections = [(title, "pyro_vae", public_names()[room]) for room, title in ROOMS.items()]
    for module, title in MODULES.items():
        loaded = importlib.import_module(getattr(pv, module).__name__)
        sections.append((title, f"pyro_vae.{module}", members(loaded)))
    for title, prefix, names in sections:
        home = pv if prefix == "pyro_vae" else getattr(pv, prefix.split(".")[1])
        rows = []
        for name in sorted(names, key=str.lower):
            obj, path = getattr(home, name), f"{prefix}.{name}"
            (FOLDER / f"{path}.rst").write_text(api_page(path, obj))
            about = first_sentence(obj) if callable(obj) else "a table of what there is"
            rows.append(f"| [`{path.removeprefix('pyro_vae.')}`]({path}.rst) | {about} |")
        toctree = [":::{toctree}", ":hidden:", *(f"{prefix}.{n}" for n in names), ":::"]
        lines += [f"## {title}", "", "| name | |", "|---|---|", *rows, "", *toctree, ""]
    (FOLDER / "api.md").write_text("\n".join(lines))


def as_markdown(frame: pd.DataFrame, title: str, text: str) -> str:
    """A page with one table."""
    frame = frame.reset_index()
    cells = frame.map(lambda cell: ", ".join(cell) if isinstance(cell, tuple | list) else str(cell))
    cells = cells.map(lambda cell: cell.replace("\n", " ").replace("|", r"\|"))
    rows = ["| " + " | ".join(row) + " |" for row in cells.itertuples(index=False)]
    head = ["| " + " | ".join(map(str, frame.columns)) + " |", "|" + "---|" * frame.shape[1]]
    return "\n".join([f"# {title}", "", text, "", *head, *rows, ""])


def write_tables() -> None:
    """The families and structures by role, the estimators, the callbacks."""
    families = pv.families()
    about = families["about"].map(lambda text: re.split(r"(?<=[.:]) ", text)[0].rstrip(":"))
    about = about.map(lambda text: re.sub(r":\w+:`([^`]*)`", r"`\1`", text).replace("``", "`"))
    families = families.assign(about=about)
    for role, title in {
        "likelihood": "Likelihoods",
        "prior": "Priors",
        "guide": "Guides",
    }.items():
        some = families[[role in roles for roles in families["roles"]]]
        text = (
            f"What can stand in a {role}'s line. `pv.describe(name)` has the parameters of each, "
            "their constraints and what they are where the line does not name them."
        )
        (FOLDER / f"{role}s.md").write_text(as_markdown(some[["kind", "about"]], title, text))
    text = (
        "A line is a name with its arguments, such as "
        '`"TraceGraph_ELBO(gradient=score, baseline=neural)"`. '
        "[Which one to choose](../../how/choose_an_estimator.md)."
    )
    (FOLDER / "estimators.md").write_text(as_markdown(pv.estimators(), "Estimators", text))


def write_command_line() -> None:
    """The help of each command."""
    command: Any = get_command(command_line)
    lines = ["# The command line", ""]

    def walk(command: click.Command, path: str) -> None:
        context = command.make_context(path, ["--help"], resilient_parsing=True)
        lines.extend([f"## `{path}`", "", *paragraphs(command.help)])
        rows = [
            (record[0], record[1])
            for parameter in command.get_params(context)
            if (record := parameter.get_help_record(context))
        ]
        if rows:
            lines.extend(["| option | |", "|---|---|"])
            lines.extend(f"| `{flag.replace('|', '/')}` | {cell(text)} |" for flag, text in rows)
            lines.append("")
        for name, child in getattr(command, "commands", {}).items():
            walk(child, f"{path} {name}")

    walk(command, "pyro-vae")
    (FOLDER / "command_line.md").write_text("\n".join(lines))


def cell(text: str) -> str:
    """Text in a table's cell: brackets and pipes are no markup."""
    return re.sub(r"([\[\]|<>*_])", r"\\\1", text.replace("\n", " "))


def paragraphs(text: str | None) -> list[str]:
    """The paragraphs of a command's help."""
    parts = re.split(r"\n\s*\n", inspect.cleandoc(text or ""))
    return [part for each in parts for part in (cell(each.replace("\b", "")), "")]


def copy_results() -> None:
    """The tables of the benchmarks, and the pictures in them."""
    shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir()
    measured = Path(pv.__file__).parents[1] / "benchmarks" / "results"
    for path in sorted([*measured.glob("*.md"), *measured.glob("*.png")]):
        shutil.copy(path, RESULTS)
    pages = sorted(path.stem for path in measured.glob("*.md"))
    lines = ["# Tables", "", "As the scripts in `benchmarks/` wrote them.", "", ":::{toctree}"]
    (RESULTS / "index.md").write_text("\n".join([*lines, *pages, ":::", ""]))


def copy_course() -> None:
    """The notebooks with their outputs, and the list of their claims."""
    shutil.rmtree(COURSE, ignore_errors=True)
    COURSE.mkdir()
    home = Path(pv.__file__).parents[1] / "notebooks"
    for path in sorted(home.glob("[0-9]*.ipynb")):
        shutil.copy(path, COURSE)
    shutil.copytree(home / "pictures", COURSE / "pictures")
    pages = sorted(path.stem for path in COURSE.glob("*.ipynb"))
    toctree = ["", ":::{toctree}", ":hidden:", *pages, ":::", ""]
    (COURSE / "index.md").write_text((home / "README.md").read_text() + "\n".join(toctree))


def generate(app: Sphinx) -> None:
    """Write all pages anew."""
    copy_results()
    copy_course()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    write_api()
    write_tables()
    write_command_line()


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the pages before sphinx looks for them."""
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
