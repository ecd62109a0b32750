"""The claims that the course is about, and the cells that would fail if one were wrong.

A section of a notebook says which claims it shows, ``## Jensen (claims 9, 10)``, and holds a cell
with assertions under the line ``# check: claims 9, 10``. ``python tests/test_claims.py`` writes
``notebooks/README.md`` and its pictures from the notebooks: run it after each change of a heading,
a check or a picture, and where the file has a conflict.
"""

import ast
import base64
import functools
import io
import re
from pathlib import Path
from typing import NamedTuple

import jupytext
import nbformat
import pytest
from PIL import Image

COURSE = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]*.py"))
README = Path(__file__).parents[1] / "notebooks" / "README.md"
PICTURES = README.parent / "pictures"
WIDTH, COLOURS = 240, 24  # of a small picture, so that it takes a few kB
WHOLE = 9  # notebooks
NUMBERS = r"claims? (\d+(?:, \d+)*)"

CLAIMS = {
    1: "Maximum likelihood minimizes KL(p, p_theta), as n grows.",
    2: "KL is zero if and only if the two distributions are equal.",
    3: "Simple families do not fit; mixtures do.",
    4: "p(x) is the sum over z of p(x given z) p(z).",
    5: "A discrete z is summed exactly.",
    6: "n bits make 2^n terms: how the cost of the sum grows.",
    7: "Flexibility is paid for by overfitting.",
    8: "With a latent variable concavity is lost: local optima over seeds.",
    9: "Jensen: the ELBO is at most log p(x).",
    10: "The gap between them is KL(q, posterior).",
    11: "More particles make the bound tighter.",
    12: "A richer variational family closes the gap.",
    13: "The KL term is a regularizer.",
    14: "A useful posterior comes along.",
    15: "A linear autoencoder is PCA.",
    16: "Nonlinear autoencoders go beyond PCA.",
    17: "A code at least as large as x allows the identity.",
    18: "Squared error is a likelihood.",
    19: "A sparse autoencoder: a penalty that makes codes zero.",
    20: "A contractive autoencoder: a code that moves little.",
    21: "A denoising autoencoder: reconstruct x from its noisy version.",
    22: "The loss of a linear autoencoder has no bad minima.",
    23: "The ELBO is the reconstruction less KL.",
    24: "The ELBO is E log p(x, z) plus the entropy of the guide.",
    25: "The gradient in the model's parameters: plain Monte Carlo is unbiased.",
    26: "The gradient in the guide's parameters may not be pushed through the expectation.",
    27: "The score function: unbiased, of high variance.",
    28: "The score has mean zero.",
    29: "Baselines and other control variates reduce the variance.",
    30: "Reparameterization moves the parameters out of the distribution.",
    31: "Other families: chi-square as a sum of squares, Gamma, Beta, inverse CDF.",
    32: "A discrete z has no path.",
    33: "KL in closed form is faster and more precise.",
    34: "Any of likelihood, prior and guide may leave the standard normal.",
    35: "One bit: z is not used.",
    36: "Generation.",
    37: "Interpolation.",
    38: "Arithmetic of attributes (add glasses).",
    39: "Compression.",
    40: "Media such as music and text.",
    41: "EM: two steps alternate, and the likelihood never falls.",
    42: "What is missing is marginalized.",
    43: "Conditional VAEs with missing covariates.",
    44: "Ascent of the ELBO approximates maximum likelihood (probabilistic PCA).",
    45: "Metropolis: a step too small, and one too large.",
    46: "Chains are autocorrelated and slow.",
    47: "KL is not symmetric.",
    48: "Variational inference beside MCMC.",
    49: "Density estimation.",
}

HEAD = """# The course: from maximum likelihood to believing a VAE

For who knows likelihoods, EM, MCMC and R, and wants to know what a variational autoencoder adds,
and whether to believe it. Each notebook computes **both sides of every claim**, and ends with
three exercises, whose answers are tests in `tests/course`.
"""

CLAIMS_HEAD = """
## The claims, one by one

The checks are assertions in the section that the link leads to: were the claim wrong, or the code,
the notebook would not run. This table is written from the notebooks by
`python tests/test_claims.py`; `make notebooks` runs them all anew.

| | claim | section | | what is checked |
|---|---|---|---|---|
"""


class Section(NamedTuple):
    """A section that shows claims: where it is, its checks, and its first picture (base64)."""

    notebook: Path
    heading: str
    claims: list[int]
    checks: dict[int, list[str]]
    picture: str | None

    @property
    def link(self) -> str:
        slug = re.sub(r"[^\w\- ]", "", self.heading.lower()).strip().replace(" ", "-")
        title = re.sub(rf" \({NUMBERS}\)$", "", self.heading)
        return f"[{self.notebook.stem[:2]} {title}]({self.notebook.stem}.ipynb#{slug})"

    @property
    def thumbnail(self) -> Path:
        numbers = "_".join(map(str, self.claims))
        return PICTURES / f"{self.notebook.stem[:2]}_claims_{numbers}.png"


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(", ")]


def assertions(code: str) -> list[str]:
    """What the assertions of a cell say, each in a line."""
    tests = [node.test for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Assert)]
    return [re.sub(r"\s+", " ", ast.get_source_segment(code, test) or "") for test in tests]


@functools.cache
def sections(source: Path) -> list[Section]:
    """The sections of a notebook, in order, with what its committed outputs show."""
    cells = jupytext.read(source).cells
    committed = source.with_suffix(".ipynb")
    ran = nbformat.read(committed, as_version=4).cells if committed.exists() else []
    found = [Section(source, "", [], {}, None)]
    for i, cell in enumerate(cells):
        heading = re.search(r"^## (.*)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and heading:
            claims = re.search(rf"\({NUMBERS}\)$", heading[1])
            found.append(
                Section(source, heading[1], numbers(claims[1]) if claims else [], {}, None)
            )
        check = re.search(rf"^# check: {NUMBERS}$", cell.source, re.MULTILINE)
        if cell.cell_type == "code" and check:
            for number in numbers(check[1]):
                found[-1].checks.setdefault(number, []).extend(assertions(cell.source))
        for output in ran[i].get("outputs", []) if i < len(ran) else []:
            if not found[-1].picture and "image/png" in output.get("data", {}):
                found[-1] = found[-1]._replace(picture=output["data"]["image/png"])
    return found


def all_sections() -> list[Section]:
    return [section for source in COURSE for section in sections(source)]


def homes(number: int, shown: list[Section]) -> list[Section]:
    """The sections that check a claim; the picture of the first stands in the table."""
    return [section for section in shown if number in section.checks]


def row(number: int, shown: list[Section]) -> str:
    """A claim's line of the table."""
    found = homes(number, shown)
    checks = [f"`{check}`" for section in found for check in section.checks[number]]
    small = [f"![]({s.thumbnail.relative_to(README.parent)})" for s in found if s.picture]
    cells = [CLAIMS[number], "<br>".join(s.link for s in found) or "not yet",
             "".join(small[:1]), "<br>".join(checks)]  # fmt: skip
    return f"| {number} | " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def table() -> str:
    """What ``notebooks/README.md`` should hold."""
    shown, lines = all_sections(), [HEAD]
    for source in COURSE:
        title = re.search(r"^# (.*)$", jupytext.read(source).cells[0].source, re.MULTILINE)
        lines.append(f"- [{source.stem}]({source.stem}.ipynb): {title[1]}")
    return "\n".join(lines) + "\n" + CLAIMS_HEAD + "\n".join(row(n, shown) for n in CLAIMS) + "\n"


def write_pictures() -> None:
    """The pictures that the table shows, small."""
    PICTURES.mkdir(exist_ok=True)
    for old in PICTURES.glob("*.png"):
        old.unlink()
    shown = all_sections()
    for number in CLAIMS:
        for section in [s for s in homes(number, shown) if s.picture][:1]:
            image = Image.open(io.BytesIO(base64.b64decode(section.picture))).convert("RGB")
            height = round(image.height * WIDTH / image.width)
            image = image.resize((WIDTH, height), Image.Resampling.LANCZOS).quantize(COLOURS)
            image.save(section.thumbnail, optimize=True)


@pytest.mark.slow
def test_the_list_is_that_of_the_notebooks():
    """If not: ``python tests/test_claims.py`` writes it."""
    text = table()
    assert README.read_text() == text
    linked = set(re.findall(r"!\[\]\(pictures/(.*?)\)", text))
    assert linked == {path.name for path in PICTURES.glob("*.png")}
    assert all((PICTURES / name).stat().st_size < 20_000 for name in linked)


@pytest.mark.slow
@pytest.mark.skipif(len(COURSE) < WHOLE, reason="the course is not whole yet")
def test_every_claim_is_checked_by_a_notebook():
    checked = {number for section in all_sections() for number in section.checks}
    assert sorted(set(CLAIMS) - checked) == []


@pytest.mark.slow
@pytest.mark.parametrize("source", COURSE, ids=lambda path: path.stem)
def test_a_section_that_names_claims_checks_each_and_no_other(source):
    for section in sections(source):
        assert set(section.claims) == set(section.checks), section.heading
        assert set(section.claims) <= set(CLAIMS), section.heading
        assert all(section.checks.values()), f"{section.heading}: a check without an assertion"
        assert section.picture or not section.claims, f"{section.heading}: no picture"


@pytest.mark.parametrize("source", COURSE, ids=lambda path: path.stem)
def test_a_line_that_speaks_of_claims_is_spelled_as_one_that_is_read(source):
    """``# check claim 9`` or ``(Claims 9-10)`` would be passed over in silence."""
    read = rf"^(# ## .* \({NUMBERS}\)|# check: {NUMBERS})$"
    for line in source.read_text().splitlines():
        if re.search(r"^# check\b|^# ## .*\(claim", line, re.IGNORECASE):
            assert re.search(read, line), line


if __name__ == "__main__":
    README.write_text(table())
    write_pictures()
