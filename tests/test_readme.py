"""The README, and the guide that goes on from it, promise only what runs."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pytest

import pyro_vae as pv
from helpers.families import GUIDES, LIKELIHOODS, PRIORS
from helpers.pages import python_blocks
from pyro_vae.data import SOURCES
from pyro_vae.infer.training.checkpoint import CHECKPOINT, PREVIOUS
from pyro_vae.infer.training.folder import HISTORY, RESULTS
from pyro_vae.infer.training.settings import CONFIG
from pyro_vae.model.files import DESCRIPTION, WEIGHTS
from pyro_vae.runs.folder import PICTURES, TEST

pytestmark = pytest.mark.usefixtures("short_pilot")

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GUIDE = {  # the pages that go on where it ends, in their order
    name: (ROOT / f"docs/guide/{name}.md").read_text()
    for name in ("families", "tables", "estimators", "programs", "speed", "believe")
}


def loans() -> pd.DataFrame:
    """The columns of which the README speaks."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "Home": rng.choice(["rent", "owner"], 40),
            "Age": rng.permutation(np.arange(20, 60)),
            "Income": rng.lognormal(5, 0.5, 40).round(2),
            "Time": rng.uniform(6, 60, 40).round(1),
            "Debt": np.where(rng.random(40) < 0.6, 0, rng.gamma(2, 900, 40).round(2)),
        }
    )


@pytest.mark.slow
def test_its_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pages = "\n".join([README, *GUIDE.values()])
    blocks = [*python_blocks(pages)]
    assert len(blocks) == 12
    loans().to_csv("credit.csv", index=False)
    scope = {}
    for block in blocks:
        exec(block, scope)  # its own words, in less time
    assert isinstance(scope["vae"].prior, scope["MyPrior"])
    assert scope["table"].sizes["estimator"] == len(scope["lines"])
    assert pv.load("runs/digits").x_shape == (1, 8, 8)


@pytest.mark.parametrize("name", pv.ESTIMATORS)
def test_its_table_of_estimators_is_the_codes(name):
    row = pv.ESTIMATORS[name]
    (line,) = [x for x in GUIDE["estimators"].splitlines() if x.startswith(f"| `{name}` |")]
    for part in (*row.gradients, *row.options, row.guides, row.note):
        assert part in line


def test_its_counts_of_families_are_the_tables():
    counts = re.search(
        r"trains (\d+) likelihoods, (\d+) guides and (\d+) priors", GUIDE["families"]
    )
    assert counts is not None
    assert [int(n) for n in counts.groups()] == [len(LIKELIHOODS), len(GUIDES), len(PRIORS)]


def test_what_it_links_to_is_there():
    links = re.findall(r"\]\(((?!http)[^)]+)\)", README)
    assert len(links) >= 2
    for link in links:
        assert (ROOT / link).exists(), link


DATA_PAGES = ("reference/files", "guide/command_line")
PAGES = sorted(
    str(path.relative_to(ROOT / "docs"))
    for folder in ("how", "start", "reference", ".")
    for path in (ROOT / "docs" / folder).glob("*.md")
    if "```python" in path.read_text() and path.stem != "ten_lines"  # those of the README
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {}
    with pyro.get_param_store().scope():
        for block in python_blocks((ROOT / "docs" / page).read_text()):
            exec(block, scope)
    assert "pv" in scope


def test_pages_name_the_files_of_a_run_and_all_data():
    pages = {name: (ROOT / f"docs/{name}.md").read_text() for name in DATA_PAGES}
    rows = re.findall(r"(?m)^\| (`.+?`) \|", pages["reference/files"])
    named = {name for row in rows for name in re.findall(r"`(.+?)`", row)}
    kept = {DESCRIPTION, WEIGHTS, CONFIG, HISTORY, RESULTS, CHECKPOINT, PREVIOUS, TEST}
    assert named == kept | {f"{PICTURES}/"}
    for text in pages.values():
        assert set(SOURCES) <= set(re.findall(r"`([\w-]+)`", text))


def test_the_published_models_are_thirty_and_have_their_papers():
    text = (ROOT / "docs/published.md").read_text()
    papers = re.findall(r"arXiv:\d{4}\.\d{4,5}", text)
    assert len(set(papers)) >= 30


def test_the_ten_lines_of_the_site_are_those_of_the_readme():
    said = [
        re.sub(r"\s+", " ", next(python_blocks(text)))
        for text in (README, (ROOT / "docs/start/ten_lines.md").read_text())
    ]
    assert said[0] == said[1]
