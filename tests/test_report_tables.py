"""The report of a table: pictures by column."""

import re
import xml.etree.ElementTree as ET

import pytest

import pyro_vae as pv
from helpers.commands import run

pytestmark = pytest.mark.slow

PENGUINS = [
    "species", "island", "bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g",
    "sex", "year",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def short_pilot():
    """Annealing, which is not the subject, tunes its steps by a few moves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyro_vae.evaluate.evidence.paths.PILOT", 4)
        yield


@pytest.fixture(scope="module")
def penguins(tmp_path_factory):
    """The folder of a short run with its report, of few draws."""
    out = tmp_path_factory.mktemp("runs") / "penguins"
    fit = ["fit", "penguins", "--epochs", 20, "--out", out]
    for command in (fit, ["report", out, "--num-samples", 50, "--steps", 4]):
        done = run(*command)
        assert done.code == 0, done.err
    return out


def test_each_column_has_its_picture_by_name(penguins):
    text = (penguins / "report.html").read_text()
    figures = re.findall(r"<figure>(.*?)</figure>", text, re.DOTALL)
    titles = [re.search(r'aria-label="([^"]+)"', figure).group(1) for figure in figures]
    assert [title for title in titles if title in PENGUINS] == PENGUINS
    wanted = ["Associations, observed", "Associations, simulated"]
    wanted += ["Associations, simulated minus observed", "Hidden cells among their draws"]
    assert titles[titles.index("year") + 1 :] == wanted
    assert "Predictive check" not in titles  # a mean over columns of unlike units says nothing
    for figure in figures:
        ET.fromstring(re.search(r"<svg.*</svg>", figure, re.S).group(0))
    assert "hidden cells" in text and "Not drawn" not in text


def test_its_figures_are_those_of_the_check(penguins):
    vae = pv.load(penguins)
    text = (penguins / "report.html").read_text()
    for name in vae.record.schema.cells:
        assert f"<th>{name.replace('_', ' ')}</th><td>" in text
    assert "width of 90 %" in text and "CRPS" in text and "Brier" in text
