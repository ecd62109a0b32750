"""Evaluate, report and compare: figures with their errors, one file that needs nothing else."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae as pv
from helpers.commands import run
from helpers.linear import linear_vae, marginal
from pyro_vae.core.toml import read_config, write_toml
from pyro_vae.evaluate.evidence.importance import Evidence
from pyro_vae.infer.training.folder import HISTORY
from pyro_vae.runs import report as reports
from pyro_vae.runs.held_out import held_out
from pyro_vae.runs.settings import CONFIG

pytestmark = pytest.mark.slow

SMALL = ("--encoder", "MLP([16])", "--decoder", "MLP([16])", "--latent-dim", "2", "--epochs", 2)
BITS = ("--prior", "Bernoulli", "--guide", "Bernoulli", "--estimator", "RLOO(num_particles=2)")
NEAR = 1e-7  # the guide's covariance is kept as what maps to it, in double precision
QUICK = ("--num-samples", 50, "--steps", 4)


class Page(HTMLParser):
    """The elements of a page, its text, and whether they are closed in their order."""

    VOID = ("meta", "br", "img", "input", "link", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.links, self.text = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module", autouse=True)
def short_pilot():
    """Annealing, which is not the subject, tunes its steps by a few moves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyro_vae.evaluate.evidence.paths.PILOT", 4)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on the digits; tests only add to it."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    done = run("fit", "digits", *SMALL, "--out", out)
    assert done.code == 0, done.err
    return out


@pytest.fixture(scope="module")
def discrete(tmp_path_factory):
    """As ``folder``, with a discrete z, which is assessed in no time: there are no gradients."""
    out = tmp_path_factory.mktemp("runs") / "discrete"
    done = run("fit", "digits", *SMALL, *BITS, "--out", out)
    assert done.code == 0, done.err
    return out


@pytest.fixture(scope="module")
def report(folder):
    done = run("report", folder, *QUICK)
    assert (done.code, done.err) == (0, "")
    assert done.out.strip() == str(folder / "report.html")
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def exact():
    """A model whose log p(x) is known, and data of its own."""
    vae = linear_vae()
    x = marginal(vae).sample(torch.Size([200]))
    return vae, x


# The assessment.


def test_an_exact_guide_is_found_exact(exact):
    vae, x = exact
    found = pv.assess(vae, x, num_samples=100, steps=20)
    table = found.table
    truth = marginal(vae).log_prob(x).mean().item()
    assert table.loc["log p(x)", "value"] == pytest.approx(truth, abs=NEAR)
    assert table.loc["ELBO", "value"] == pytest.approx(truth, abs=NEAR)  # the bound is tight
    assert table.loc["log p(x) - ELBO", "standard_error"] < NEAR
    spread = marginal(vae).log_prob(x).std() / len(x) ** 0.5
    assert table.loc["log p(x)", "standard_error"] == pytest.approx(spread.item())
    assert list(found.by_observation) == ["elbo", "log_evidence", "standard_error", "khat"]
    assert "No column" in found.verdicts["Calibration"]
    assert not found.refused and found.labels is None


def test_a_loose_guide_is_told_of():
    found = pv.assess(linear_vae(scale_factor=0.5), torch.zeros(30, 5), num_samples=100, steps=20)
    verdict = found.verdicts["Guide"]
    told = re.match(r"On 20 observations the ELBO is (\S+) nats below log p", verdict)
    exact = 2 * (np.log(2) + 0.25 / 2 - 0.5)  # KL to the posterior, a dimension: scale halved
    assert float(told.group(1)) == pytest.approx(exact, abs=0.05)
    # 100 draws of it underestimate log p(x), and k-hat says so: fitted proposals take their place
    lost = found.table.loc["log p(x) - ELBO"]
    assert abs(lost["value"] - exact) < 5 * lost["standard_error"] < 0.5
    assert "z was drawn from: normal" in found.verdicts["Evidence"]
    assert "too narrow" in found.verdicts["Calibration"]


def test_fitted_proposals_of_a_part_move_the_figure_of_all():
    vae = linear_vae(scale_factor=0.5)
    x = marginal(vae).sample(torch.Size([160]))
    found = pv.assess(vae, x, num_samples=100, steps=4, seed=3)
    assert len(found.refined) == 100 and len(found.evidence.log_evidence) == 100
    truth, lost = marginal(vae).log_prob(x).double(), found.table.loc["log p(x)"]
    # no error of drawing data, since these are known: that of the difference on a part is left
    gain = found.evidence.log_evidence - found.by_guide.log_evidence[found.refined]
    error = (gain.var() * (1 / 100 - 1 / 160)).sqrt().item()
    assert abs(lost["value"] - truth.mean().item()) < 5 * error < gain.mean()
    assert "fitted proposals, on 100 of them chosen at random" in found.verdicts["Evidence"]
    table = found.by_observation
    assert (table["proposal"] != "guide").sum() == 100 and not table.isna().any(axis=None)
    # of other parts, the mean is right on average, and its error is the one that is said
    values = pv.log_evidence(vae, x, num_samples=100, proposal="auto", seed=3).log_evidence
    means, errors = [], []
    for _ in range(500):
        rows = torch.randperm(len(x))[:20]
        part = Evidence(values[rows], values[rows], values[rows], 100, proposals=("normal",) * 20)
        value, error = replace(found, evidence=part, refined=rows).table.loc["log p(x)"]
        means.append(value)
        errors.append(error**2 - values.var().item() / len(x))
    means = torch.tensor(means)
    assert abs(means.mean() - values.mean()) < 5 * means.std() / 500**0.5
    assert np.mean(errors) == pytest.approx(means.var().item(), rel=5 * (2 / 500) ** 0.5)


def test_what_a_model_does_not_have_is_said_and_not_made_up():
    vae = pv.VAE(3, 4, prior="Bernoulli", guide="Bernoulli", likelihood="Normal", seed=0)
    found = pv.assess(vae, torch.randn(30, 3), torch.zeros(30), num_samples=50, steps=4)
    assert found.gaps is None and found.sandwich is None and found.labels is None
    assert list(found.refused) == ["Guide", "Annealing", "Labels"]
    for name, why in found.refused.items():
        assert found.verdicts[name] == f"Not for this model: {why}."
    assert "z is discrete" in found.refused["Guide"] and "1 classes" in found.refused["Labels"]


# The report.


def test_the_report_is_one_file_that_needs_no_other(report):
    page = Page(report)
    assert report.startswith("<!doctype html>")
    assert page.links and all(re.match(r"#|data:image/png;base64,", link) for link in page.links)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"url\((?!#)", report) and "@import" not in report
    assert '<meta name="viewport" content="width=device-width' in report
    assert len(report) < 3_000_000


def test_each_picture_is_sound_named_and_has_a_caption(report):
    figures = re.findall(r"<figure>(.*?)</figure>", report, re.DOTALL)
    titles = [re.search(r'aria-label="([^"]+)"', figure).group(1) for figure in figures]
    assert [re.split(r"[:,]", title)[0] for title in titles] == [
        "Learning curves", "KL of the guide to the prior", "k-hat", "KL by latent dimension",
        "Means of q(z|x)", "Gaps of 20 observations", "Calibration ranks",
        "Data", "Samples from the prior", "Traversals", "Interpolations", "Attribute arithmetic",
        "Predictive check",
    ]  # fmt: skip
    for figure in figures:
        svg, caption = re.match(
            r"(<svg.*</svg>)\s*<figcaption>(.+)</figcaption>", figure, re.S
        ).groups()
        ET.fromstring(svg)
        assert "currentColor" in svg and "#abcdef" not in svg  # legible on dark and on light
        assert len(caption) > 40


def test_its_figures_are_those_of_the_assessment(folder, report):
    x, labels = held_out(folder, pv.load(folder))
    found = pv.assess(pv.load(folder), x, labels, num_samples=50, steps=4, seed=0)
    text = "".join(Page(report).text).replace("\N{MINUS SIGN}", "-")
    for verdict in found.verdicts.values():
        assert verdict in text
    row = found.table.loc["ELBO"]
    assert f"ELBO{row['value']:.2f}{row['standard_error']:.2f}" in text


def test_a_model_of_vectors_with_a_discrete_z_has_a_report_too_and_the_same_twice(
    tmp_path, monkeypatch
):
    rows = tmp_path / "rows <b>&.npy"
    np.save(rows, np.random.default_rng(0).normal(size=(60, 3)))
    out = tmp_path / "run"
    done = run("fit", rows, *SMALL, "--likelihood", "Normal", *BITS, "--out", out)
    assert done.code == 0, done.err
    (out / HISTORY).unlink()
    text, again = (
        pv.write_report(out, tmp_path / f, num_samples=30, steps=4).read_text() for f in "ab"
    )
    assert text == again  # of one seed
    Page(text)
    assert "rows &lt;b&gt;&amp;" in text and "<b>" not in text
    assert "Not for this model: z is discrete here" in text
    assert "Predictive check" in text
    assert not any(t in text for t in ("Learning curves", "Traversals", "Gaps of", "By labels"))
    seen = []
    monkeypatch.setattr(reports, "SHOWN", 20)
    monkeypatch.setattr(reports, "assess", lambda vae, x, *_, **__: seen.append(x) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pv.write_report(out, data=np.arange(180.0).reshape(60, 3))
    (x,) = seen
    assert len(x) == 20 and abs(x.mean() - 89.5) < 4 * 52 / 20**0.5  # 29.5 of the first ones


# The command `evaluate`.


def test_evaluate_prints_figures_and_keeps_a_row_an_observation(discrete):
    done = run("evaluate", discrete, *QUICK, "--num-data", 100)
    assert (done.code, done.err) == (0, "")
    kept = pd.read_csv(discrete / "evaluate" / "digits.csv", index_col="observation")
    x, labels = held_out(discrete, pv.load(discrete))
    rows = torch.tensor([*kept.index])  # at random, as rows may come sorted
    error = len(x) / 1200**0.5 * (1 - 100 / len(x)) ** 0.5
    assert (
        len(rows.unique()) == 100 and abs(rows.double().mean() - (len(x) - 1) / 2) < 4 * error < 20
    )
    found = pv.assess(pv.load(discrete), x[rows], labels[rows], num_samples=50, steps=4)
    assert done.out.startswith("digits: 100 observations, nats per observation")
    for what, verdict in found.verdicts.items():
        assert f"{what}: {verdict}" in done.out
    expected = found.by_observation.set_axis(kept.index)
    pd.testing.assert_frame_equal(kept, expected)


def test_evaluate_takes_all_of_a_file_in_its_order(discrete, tmp_path):
    x = (torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    np.save(tmp_path / "other.npy", x.numpy())
    done = run("evaluate", discrete, tmp_path / "other.npy", *QUICK)
    assert done.code == 0 and done.out.startswith("other: 30 observations"), done.err
    kept = pd.read_csv(discrete / "evaluate" / "other.csv", index_col="observation")
    found = pv.log_evidence(pv.load(discrete), x, num_samples=50, seed=0)
    assert np.allclose(kept.log_evidence, found.log_evidence)


def test_the_test_data_are_those_of_the_results(discrete):
    x, _ = held_out(discrete, pv.load(discrete))
    assert set(x.unique().tolist()) == {0.0, 1.0}
    elbos = np.load(discrete / "elbo_test.npy")
    again = pv.elbo(pv.load(discrete), x, num_samples=10, seed=0).detach()
    assert np.allclose(elbos, again, atol=1e-4)


# The command `compare runs`.


def linear_run(out: Path, shift: float) -> Path:
    """A run folder of a linear model whose log p(x) is known."""
    vae = linear_vae()
    with torch.no_grad():
        vae.likelihood.sources["loc"].head.bias.add_(shift)
    x = marginal(linear_vae()).sample(torch.Size([300])).numpy()
    data = out.parent / "linear.npy"
    if not data.exists():
        np.save(data, x)
    vae.save(out)
    write_toml(out / CONFIG, {"data": str(data), "seed": 0}, "by hand")
    return out


def test_compare_runs_is_the_exact_difference_and_its_error(tmp_path):
    shifts = {"a": 0.0, "b": 0.3, "c": 0.0}
    folders = [linear_run(tmp_path / name, shift) for name, shift in shifts.items()]
    found = pv.compare_runs(folders, num_samples=4000)
    x = held_out(folders[0], pv.load(folders[0]))[0].double()
    first, second = (marginal(pv.load(f)).log_prob(x) for f in folders[:2])
    assert found.index.tolist() == [str(f) for f in folders]
    gap = second - first
    row = found.iloc[1]
    assert row.difference == pytest.approx(gap.mean().item(), abs=0.02)
    assert row.difference_standard_error == pytest.approx(
        gap.std().item() / len(x) ** 0.5, rel=0.02
    )
    assert row.log_evidence == pytest.approx(second.mean().item(), abs=0.02)
    assert row.difference_standard_error < row.standard_error
    assert found.difference.iloc[0] == 0 == found.difference.iloc[2]  # the same model, same draws
    done = run("compare", "runs", *folders[:2])
    assert done.code == 0 and str(folders[1]) in done.out, done.err


def test_runs_that_do_not_compare_are_refused(folder, tmp_path):
    other = tmp_path / "other"
    done = run("fit", "digits", *SMALL, "--seed", 1, "--out", other)
    assert done.code == 0, done.err
    done = run("compare", "runs", folder, other)
    assert done.code == 2 and "has other test data than" in done.err
    grey = tmp_path / "grey"
    fitted = ("--likelihood", "ContinuousBernoulli", "--out", grey)
    assert run("fit", "digits", *SMALL, *fitted).code == 0
    done = run("compare", "runs", folder, grey)
    assert done.code == 2 and "has other test data than" in done.err  # bits beside grey values
    settings = read_config(folder / CONFIG)
    write_toml(grey / CONFIG, settings, "as if it had seen bits")
    done = run("compare", "runs", folder, grey)
    assert done.code == 2 and "gives densities of x" in done.err
    done = run("compare", "runs", folder)
    assert done.code == 2 and "needs two runs or more, got 1" in done.err
    with pytest.raises(ValueError, match="needs two runs or more, got 1"):
        pv.compare_runs([folder, folder])  # the same one


@pytest.mark.parametrize("command", [["evaluate"], ["report"], ["compare", "runs", "nowhere"]])
def test_what_is_no_run_folder_is_named(command, tmp_path):
    done = run(*command, tmp_path / "nowhere")
    assert done.code == 2 and "nowhere" in done.err and "Traceback" not in done.err


@pytest.mark.parametrize("command", [["evaluate"], ["report"], ["compare", "runs"]])
def test_a_command_says_what_it_does(command):
    done = run(*command, "--help")
    assert done.code == 0 and "RUN" in done.out and "--num-samples" in done.out
