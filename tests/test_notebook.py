"""The notebooks: their text sources run, and the committed outputs belong to them.

``python tests/test_notebook.py`` writes ``notebooks/*.ipynb`` from their text sources anew, and
``python tests/test_notebook.py 02_elbo_and_em`` that one. The notebooks of the course, whose names
begin with a number, have parts that each of them must have. Those that read the folder
``PYRO_VAE_DATA`` are not run where it is not set.
"""

import ast
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import jupytext
import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

from helpers.kernels import forked_kernels

pytestmark = [pytest.mark.slow, pytest.mark.process]

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
COURSE = [path for path in SOURCES if path.stem[:2].isdigit()]
SCREEN = 40  # lines
PARTS = ["You will be able to", "What should have come out", "If you come from", "Exercises"]

ABSOLUTE = re.compile(r"(?<![\w.:/-])/(?:home|root|Users|work|tmp|opt|usr|var|mnt)/\w")


def execute(source: Path, start_kernel: Callable[[], AsyncKernelManager]) -> NotebookNode:
    """The text source, run in a kernel that is begun for it."""
    client = NotebookClient(
        jupytext.read(source), start_kernel(), timeout=600, startup_timeout=600,
        record_timing=False, coalesce_streams=True,
    )  # fmt: skip
    try:
        return client.execute()
    finally:
        client.kc.stop_channels() if client.kc else None


def strip(notebook: NotebookNode) -> NotebookNode:
    """Without what changes from one run or machine to the next, outputs apart."""
    notebook.metadata = nbformat.from_dict(
        {
            "jupytext": {"formats": "ipynb,py:percent"},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for i, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{i:02d}", nbformat.from_dict({})
    return notebook


def lacks_data(source: Path) -> bool:
    return "PYRO_VAE_DATA" in source.read_text() and "PYRO_VAE_DATA" not in os.environ


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]


@pytest.fixture(scope="module", params=SOURCES, ids=lambda path: path.stem)
def source(request):
    return request.param


@pytest.fixture(scope="module")
def committed(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


@pytest.fixture(scope="module")
def start_kernel():
    with forked_kernels(ROOT) as start:
        yield start


@pytest.fixture(scope="module")
def executed(source, start_kernel):
    if lacks_data(source):
        pytest.skip(f"{source.stem} reads the folder that PYRO_VAE_DATA names, and it is not set")
    return execute(source, start_kernel)  # a cell that fails raises here


def test_a_fresh_run_is_silent_and_gives_outputs_of_the_committed_kinds(executed, committed):
    """One test, for a run is dear: two might be given to two processes."""

    def kinds(notebook):
        return [[sorted(o.get("data", {o.output_type: 0})) for o in c.outputs]
                for c in notebook.cells if c.cell_type == "code"]  # fmt: skip

    assert [o.text for o in outputs(executed) if o.get("name") == "stderr"] == []
    assert kinds(executed) == kinds(committed)


def test_the_committed_cells_are_those_of_the_text_source(source, committed):
    def cells(notebook):
        return [(c.cell_type, c.source) for c in notebook.cells]

    assert cells(committed) == cells(jupytext.read(source))


def test_the_committed_notebook_was_run_from_top_to_bottom(committed):
    code = [c for c in committed.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    pictures = sum("image/png" in o.get("data", {}) for o in outputs(committed))
    assert pictures >= 1
    assert not any(o.output_type == "error" for o in outputs(committed))
    assert not any(o.get("name") == "stderr" for o in outputs(committed))


def test_the_committed_notebook_holds_nothing_of_the_machine(committed):
    nbformat.validate(committed)
    assert committed == strip(nbformat.from_dict(committed))
    for output in outputs(committed):
        data = {k: v for k, v in output.get("data", {}).items() if k != "image/png"}
        text = json.dumps([data, output.get("text", "")])
        assert not ABSOLUTE.search(text) and not re.search(r" at 0x[0-9a-f]+", text)
    assert not any(ABSOLUTE.search(c.source) for c in committed.cells)


@pytest.mark.parametrize("source", COURSE, ids=lambda path: path.stem, scope="function")
def test_a_notebook_of_the_course_has_its_parts_in_order_and_no_long_cell(source):
    cells = jupytext.read(source).cells
    text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    found = [re.search(rf"^##? .*{part}", text, re.MULTILINE) for part in PARTS]
    assert all(found), dict(zip(PARTS, found, strict=True))
    assert sorted(match.start() for match in found) == [match.start() for match in found]
    long = [c.source.splitlines()[0] for c in cells
            if c.cell_type == "code" and len(c.source.splitlines()) > SCREEN]  # fmt: skip
    assert long == []


@pytest.mark.parametrize("source", COURSE, ids=lambda path: path.stem, scope="function")
def test_the_exercises_of_a_notebook_have_their_answers_as_tests(source):
    answers = ROOT / "tests" / "course" / f"test_{source.stem}.py"
    tree = ast.parse(answers.read_text())
    tests = [node for node in tree.body if getattr(node, "name", "").startswith("test_")]
    assert len(tests) >= 3
    assert all(any(isinstance(n, ast.Assert) for n in ast.walk(test)) for test in tests)


if __name__ == "__main__":
    with forked_kernels(ROOT) as start:
        for path in SOURCES:
            if sys.argv[1:] and path.stem not in sys.argv[1:]:
                continue
            if lacks_data(path):
                print(f"{path.stem} is left as it is: PYRO_VAE_DATA is not set")
            else:
                nbformat.write(strip(execute(path, start)), path.with_suffix(".ipynb"))
