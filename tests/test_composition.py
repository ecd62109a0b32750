"""The composition grid: priors, guides, likelihoods, layers, labels and missing cells from lines.

A model is built and consistent, or clearly refused, by advice that works: see ``helpers``.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.composition import draw_case, hold, refusal


@st.composite
def compositions(draw):
    return draw_case(lambda options: draw(st.sampled_from(options)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=30, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(case=compositions())
def test_a_composition_is_consistent_or_clearly_refused(case, tmp_path_factory):
    fault = hold(case, tmp_path_factory.mktemp("model"))
    assert fault is None, f"{case}\n    {fault}"


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
