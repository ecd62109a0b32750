"""log p(x) without bias, against enumeration."""

import itertools

import pytest
import torch

import pyro_vae as pv
from helpers.gradients import bit_model
from pyro_vae.evaluate.evidence import sumo


@pytest.mark.slow
def test_sumo_is_unbiased_where_the_bound_is_not():
    """Of bits, against the sum over all states; a guide away from the posterior."""
    vae, x = bit_model(4)
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).double()
    log_x = vae.decode(states[:, None].expand(-1, len(x), -1)).log_prob(x)
    exact = (vae.prior().log_prob(states)[:, None] + log_x).logsumexp(0).detach()
    found = pv.sumo(vae, x, num_repeats=4000, least=2, seed=0)
    assert ((found.log_evidence - exact).abs() < 5 * found.standard_error).all()
    copies = x.repeat(500, 1)
    bounds = pv.log_evidence(vae, copies, num_samples=2, num_simulated=0, seed=0).log_evidence
    bounds = bounds.view(500, len(x))
    error = bounds.std(0) / 500**0.5
    assert ((bounds.mean(0) - exact) / error).min() < -5
    k = torch.arange(1, 1000)
    mean, square = sumo.survival(k).sum(), ((2 * k - 1) * sumo.survival(k)).sum()
    error = ((square - mean**2) / (4000 * len(x))).sqrt()
    assert abs(found.draws - 2 - mean) < 5 * error


def test_the_number_of_terms_has_the_law_that_is_said():
    u = torch.rand(400_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    terms = sumo.cut(u)
    for k in (1, 2, 5, 79, 80, 81, 100):
        wanted = sumo.survival(torch.tensor(k)).item()
        error = (wanted * (1 - wanted) / len(u)) ** 0.5
        assert abs((terms >= k).double().mean().item() - wanted) < 5 * error + 1e-12
