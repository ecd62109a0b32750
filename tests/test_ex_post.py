"""A prior that is fitted to the aggregated posterior, after the model."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

import pyro_vae as pv
from helpers.linear import linear_vae, posterior
from pyro_vae.evaluate.models.ex_post import with_prior

LINE = "MultivariateNormal(loc=learned, scale_tril=learned)"


def aggregated(vae, x):
    """The mean and covariance of q(z) = mean of q(z|x), which is normal where x is."""
    q = posterior(vae, x)
    mean = q.mean.mean(0)
    return mean, (q.mean - mean).T @ (q.mean - mean) / len(x) + q.covariance_matrix[0]


@pytest.fixture(scope="module")
def fitted():
    """The data are wider than the model has it, and elsewhere: so is its aggregated posterior."""
    vae = linear_vae("full").requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    x = 1.5 * torch.randn(4000, 5, generator=generator, dtype=torch.float64) + 0.8
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    result = pv.fit_prior(vae, x, LINE, epochs=20, batch_size=400, seed=0)
    return vae, before, x, result


@pytest.mark.slow
def test_it_is_the_aggregated_posterior_in_closed_form(fitted):
    vae, _, x, result = fitted
    mean, covariance = aggregated(vae, x)
    p = result.vae.prior()
    sd = covariance.diagonal().sqrt()
    assert ((p.mean - mean) / sd).abs().max() < 0.08  # the mean of 4,000: 5 / sqrt(4,000)
    assert torch.allclose(p.covariance_matrix, covariance, atol=0.12 * sd.max().item() ** 2)
    q = MultivariateNormal(mean, covariance)
    standard = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    kl = torch.distributions.kl_divergence
    exact = kl(q, standard) - kl(q, MultivariateNormal(p.mean, p.covariance_matrix))
    assert exact > 0.3
    assert abs(result.gain - exact) < 5 * result.gain_error
    assert f"adds {result.gain:.2f} nats" in result.summary()


@pytest.mark.slow
def test_the_gain_is_that_of_the_elbo_and_all_else_stays(fitted):
    vae, before, x, result = fitted
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert all(p.grad is None for p in [*vae.parameters(), *result.vae.parameters()])
    after = {k: v for k, v in result.vae.state_dict().items() if not k.startswith("prior.")}
    assert after.keys() == before.keys() - {k for k in before if k.startswith("prior.")}
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    gains = pv.elbo(result.vae, x, seed=1) - pv.elbo(vae, x, seed=1)
    error = math.hypot(result.gain_error, gains.std().item() / len(x) ** 0.5)
    assert abs(gains.mean().item() - result.gain) < 5 * error


class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.loc = torch.nn.Parameter(torch.zeros(2))

    def forward(self):
        import pyro.distributions as dist

        return dist.Normal(self.loc, 1.0).to_event(1)


def model(prior="Normal", guide="Normal", **options):
    return pv.VAE(4, 2, prior=prior, guide=guide, likelihood="Normal", seed=0,
                  encoder="MLP([5])", decoder="MLP([5])", **options)  # fmt: skip


PRIORS = {
    "mixture": "Mixture(Normal(loc=learned, scale=learned), components=3)",
    "flow": "Flow(RealNVP, transforms=2)",
    "vamp": "VampPrior(components=5)",
    "resampled": "Resampled(Normal, hidden=[5])",
    "own": Own(),
}
X = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)) + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", PRIORS)
def test_any_prior_rises(name, tmp_path):
    vae = model()
    result = pv.fit_prior(vae, X, PRIORS[name], epochs=8, batch_size=50, seed=0)
    history = result.history.log_prior_validation
    assert len(history) == 8 and history.max() == history[result.best_epoch - 1]
    assert history.max() > history[0] - 1e-9
    assert not result.vae.training
    pv.elbo(result.vae, X)
    if name != "own":
        again = pv.load(result.vae.save(tmp_path / name))
        assert torch.equal(pv.elbo(again, X, seed=0), pv.elbo(result.vae, X, seed=0))


@pytest.mark.slow
def test_bits_have_priors_too():
    vae = model("Bernoulli", "Bernoulli")
    result = pv.fit_prior(vae, X, "Bernoulli(logits=learned)", epochs=60, lr=0.1, seed=0)
    frequency = vae.encode(X).mean.mean(0)
    assert (result.vae.prior().mean - frequency).abs().max() < 5 * 0.5 / 300**0.5
    wider = pv.fit_prior(vae, X, "AutoregressiveBernoulli", epochs=10, lr=0.1, seed=0)
    assert len(wider.gains) == 15


@pytest.mark.slow
def test_a_prior_may_read_the_condition():
    record = pv.Record([pv.Block("x", 2), pv.Block("dose", role="context")])
    vae = pv.VAE(record, 1, likelihood="Normal", guide="Normal(scale=0.1)", seed=0,
                 encoder="MLP([])", decoder="MLP([3])")  # fmt: skip
    dose = torch.linspace(-1, 1, 400)
    data = {"x": torch.randn(400, 2), "dose": dose}
    plain, reading = (
        pv.fit_prior(vae, data, f"Normal(loc={loc}, scale=learned)", epochs=20, lr=0.05)
        for loc in ("learned", "amortized")
    )
    assert reading.vae.prior_reads and not plain.vae.prior_reads
    slope = vae.encode(data).mean[:, 0]
    assert abs(torch.corrcoef(torch.stack([slope, dose]))[0, 1]) > 0.2  # the encoder reads it
    assert reading.gain > plain.gain


def in_three_places(n=600):
    """A model whose q(z|x) is x with noise of .3, x in three places; and x."""
    vae = pv.VAE(
        2, 2, likelihood="Normal", guide="Normal(scale=0.3)", encoder=nn.Identity(), seed=0
    )
    head = vae.approximation.sources["loc"].head
    with torch.no_grad():
        head.weight.copy_(torch.eye(2))
        head.bias.zero_()
    generator = torch.Generator().manual_seed(0)
    places = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 3.0]])[torch.arange(n) % 3]
    return vae, places + 0.1 * torch.randn(n, 2, generator=generator)


@pytest.mark.parametrize("weights", ["", ", logits=learned"])
def test_a_mixture_starts_at_clusters_of_the_aggregated_posterior(weights):
    """Without a step it gains what three normals of the clusters' sizes do: nothing is left."""
    vae, x = in_three_places()
    line = f"Mixture(Normal(loc=learned, scale=learned), components=3{weights})"
    result = pv.fit_prior(vae, x, line, epochs=1, lr=1e-9, seed=0)
    # q(z) has three normals of variance .3^2 + .1^2, far apart: its entropy is known
    entropy = math.log(3) + math.log(2 * math.pi * math.e * 0.1)
    log_p = -math.log(2 * math.pi) - 0.5 * (17 / 3 + 2 * 0.1)  # of the old prior at q(z)
    assert abs(result.gain - (-entropy - log_p)) < 5 * result.gain_error + 0.02


STARTS = {
    "MultivariateNormal(loc=learned, scale_tril=learned)": (0.0, 4.0),
    "StudentT(df=4, loc=learned, scale=learned)": (0.0, 4.0),
    "Normal(loc=1, scale=learned)": (1.0, 4.0),
}


@pytest.mark.parametrize("line", STARTS)
def test_a_family_starts_at_centre_and_spread(line):
    vae, x = in_three_places()
    p = pv.fit_prior(vae, x, line, epochs=1, lr=1e-9, seed=0).vae.prior()
    centre, variance = STARTS[line]
    base = p.base_dist if hasattr(p, "base_dist") else p
    width = base.scale_tril.diagonal() if hasattr(base, "scale_tril") else base.scale
    assert (base.loc[0] - centre).abs() < 0.5
    assert 0.5 < width[0] / variance**0.5 < 2


def test_a_prior_that_gains_nothing_leaves_the_old_one():
    vae, x = in_three_places()
    with pytest.warns(UserWarning, match=r"scale=30\) is below the one that it was to replace"):
        result = pv.fit_prior(vae, x, "Normal(loc=learned, scale=30)", epochs=2, seed=0)
    assert result.best_epoch == 0 and result.gain == 0 and len(result.history) == 2
    assert "The old prior stays" in result.summary()
    assert str(result.vae.prior.spec) == "Normal" and result.vae is not vae


def test_own_encoders_are_copied():
    vae = pv.VAE(4, 2, likelihood="Normal", encoder=torch.nn.Linear(4, 3), seed=0)
    result = pv.fit_prior(vae, X, "Normal(loc=learned)", epochs=1)
    assert torch.equal(result.vae.encoder.weight, vae.encoder.weight)
    assert result.vae.encoder is not vae.encoder


@pytest.mark.slow
def test_what_cannot_be_fitted_is_refused():
    vae = model()
    with pytest.raises(ValueError, match=r"Normal has no parameters to fit.*loc=learned"):
        pv.fit_prior(vae, X, "Normal")
    with pytest.raises(ValueError, match="choose a guide with the prior's support"):
        pv.fit_prior(vae, X, "LogNormal(loc=learned)")
    layers = pv.VAE(4, layers=[3, 2], likelihood="Normal", seed=0)
    with pytest.raises(ValueError, match="several parts, z1, z2"):
        pv.fit_prior(layers, X, LINE)
    with pytest.raises(ValueError, match="9 observations are too few"):
        pv.fit_prior(vae, X[:9], LINE)
    with pytest.raises(ValueError, match="smaller lr than 1e\\+30"):
        pv.fit_prior(vae, X, "Normal(loc=learned)", lr=1e30)


def test_a_model_in_double_precision_keeps_a_decoder_of_its_own():
    decoder = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    vae = pv.VAE(2, latent_dim=2, likelihood="Normal", decoder=decoder, seed=0).double()
    new = with_prior(vae, "Normal(loc=learned)")
    z = torch.randn(4, 2).double()
    torch.testing.assert_close(new.decode(z).mean, vae.decode(z).mean, rtol=0, atol=0)
