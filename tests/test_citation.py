"""BibTeX of what was used."""

import re
import tomllib
from pathlib import Path

import pytest

import pyro_vae as pv

ROOT = Path(__file__).parents[1]
BITS = {"prior": "Bernoulli", "guide": "Bernoulli"}
USED = {  # what is used, and the arXiv identifier that must be there
    "VAE": ({}, "Trace_ELBO", "1312.6114"),
    "VampPrior": ({"prior": "VampPrior(components=3)"}, "Trace_ELBO", "1705.07120"),
    "Flow": ({"prior": "Flow(NSF, transforms=1)"}, "Trace_ELBO", "1906.04032"),
    "VonMisesFisher": (
        {"prior": "VonMisesFisher", "guide": "VonMisesFisher"}, "Trace_ELBO", "1804.00891",
    ),
    "TraceGraph_ELBO": ({}, "TraceGraph_ELBO(gradient=score)", "1506.05254"),
    "DReG": ({}, "DReG(num_particles=2)", "1810.04152"),
    "RELAX": (BITS, "RELAX", "1711.00123"),
    "OVIS": (BITS, "OVIS", "2008.01998"),
    "VarGrad": (BITS, "VarGrad", "2010.10436"),
    "ARMS": (BITS, "ARMS", "2105.14141"),
    "CARMS": (BITS, "CARMS", "2110.14002"),
    "RODEO": (BITS, "RODEO", "2202.09497"),
    "PIWAE": ({}, "PIWAE", "1802.04537"),
    "reinmax": (BITS, "Trace_ELBO(gradient=reinmax)", "2304.08612"),
    "gumbel_rao": (BITS, "Trace_ELBO(gradient=gumbel_rao)", "2010.04838"),
    "gapped": (BITS, "Trace_ELBO(gradient=gapped)", "2206.07235"),
    "straight_through": (BITS, "Trace_ELBO(gradient=straight_through)", "1308.3432"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", USED)
def test_what_is_used_is_cited(name):
    parts, estimator, number = USED[name]
    vae = pv.VAE(4, 3, **parts, seed=0)
    text = pv.citation(vae, estimator)
    assert f"eprint = {{{number}}}" in text
    if name != "VAE":
        assert f"{{{number}}}" not in pv.citation(pv.VAE(4, 3, seed=0))


def test_callbacks_are_cited():
    vae, used = pv.VAE(4, 3, seed=0), pv.callbacks
    text = pv.citation(vae, callbacks=[used.DAIS(), used.MMD(1), used.TotalCorrelation(1)])
    for number in ("2107.10150", "2107.04150", "1706.02262", "1802.04942"):
        assert f"eprint = {{{number}}}" in text
    assert pv.citation(vae, callbacks=[used.Log("a.csv")]) == pv.citation(vae)


def test_keys_are_unique_and_braces_balance():
    vae = pv.VAE(4, 3, prior="VampPrior(components=3)", guide="Flow(IAF)", seed=0)
    text = pv.citation(vae, "DReG(num_particles=2)")
    keys = re.findall(r"@\w+\{([^,]+),", text)
    assert len(keys) == len(set(keys)) > 6
    assert text.count("{") == text.count("}")


def test_versions_are_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    about = (ROOT / "CITATION.cff").read_text()
    assert f"version: {project['version']}" in about
    assert project["version"] == pv.__version__
    assert f"## {pv.__version__}" in (ROOT / "CHANGELOG.md").read_text()
