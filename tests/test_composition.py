"""The composition grid: priors, guides, likelihoods, layers, labels and missing cells from lines.

A model is built and consistent, or clearly refused, by advice that works: see ``helpers``.
"""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.composition import draw_case, hold, refusal

# Faults that are known: what the case and its fault look like, and why.
KNOWN = {
    r"\n *advises guide='(BottomUp\(|AutoregressiveBernoulli|\w+'|TopDown\(\.\.\.\)|Mixture)": (
        "a guide is advised by the class of the prior, and not by a line that builds"
    ),
    r"SemiAmortized[\s\S]*(once_differentiable|_standard_gamma_grad)": (
        "second derivatives through a family that has none are not refused"
    ),
    r"layers[\s\S]*reshape\(\) missing": "VonMisesFisher cannot be built in layers",
    r"ProjectedNormal.log_prob": "it has a density in two and three dimensions only",
    r"Sticks[\s\S]*draws of q\(z\|x\)": "sticks of one entry",
    r"base=[\s\S]*(NotImplementedError|log_prob at site)": "a flow over a base that is not real",
    r"Transformed\((Mixture\()?(Cat|Poi|Geo|Bin|Bern|One)[\s\S]*(log_prob|finfo)": (
        "a discrete family in Transformed is not refused"
    ),
    r"VampPrior[\s\S]*RealNVP[\s\S]*shape mismatch": "RealNVP with a second batch dimension",
    r"Mixture\((Dirichlet|OneHot)[\s\S]*(Index tensor|tuple index)": (
        "a mixture over vectors with a second batch dimension"
    ),
    r"Categorical[\s\S]*layers[\s\S]*Long and Float": "layers read category numbers",
    r"Delta[\s\S]*layers[\s\S]*ELBO is": "layers of the prior take Delta from the guide",
}


def is_known(case, fault):
    return any(re.search(pattern, f"{case}\n    {fault}") for pattern in KNOWN)


@st.composite
def compositions(draw):
    return draw_case(lambda options: draw(st.sampled_from(options)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=200, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(case=compositions())
def test_a_composition_is_consistent_or_clearly_refused(case, tmp_path_factory):
    fault = hold(case, tmp_path_factory.mktemp("model"))
    assert fault is None or is_known(case, fault), f"{case}\n    {fault}"


@pytest.mark.parametrize(
    "error, fault",
    [
        (TypeError("x must be a number of a kind"), "unclear"),
        (ValueError("no"), "unclear"),
        (ValueError("One thing is wrong. So is another. And a third."), "unclear"),
        (ValueError("this prior wants another guide: guide='Gamma'"), "advises"),
        (ValueError("this prior wants another guide: guide='Nomral'"), "advises"),
        (ValueError("this prior wants another guide: guide='Laplace'"), None),
    ],
)
def test_the_check_tells_a_good_refusal_from_a_bad_one(error, fault):
    found = refusal({"x_shape": 3, "latent_dim": 2, "guide": "Beta"}, error)
    assert (found or "").startswith(fault or "") and (found is None) == (fault is None)
