"""Guides beyond mean-field: what a conditional flow keeps of its draws, refinement, supports."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import Trace_ELBO

import pyro_vae as pv
from helpers.gradients import agree
from pyro_vae.distributions import Pushforward
from pyro_vae.families.part import Ends
from pyro_vae.families.registry import make_part
from pyro_vae.infer.estimators.handlers import NonReparameterized, PathOnly
from pyro_vae.model.joint import Joint

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
FLOWS = ["Flow(IAF)", "Flow(NSF, transforms=2)", "Flow(NSF, passes=2)", "Flow(RealNVP)",
         "Flow(MAF, inverse=False)", "Flow(IAF, base=Laplace)"]  # fmt: skip


def flow(line, seed=0):
    """A conditional flow of 3 dimensions, away from the identity, and features."""
    torch.manual_seed(seed)
    guide = make_part(line, Ends((3,), "guide", (5,))).double()
    with torch.no_grad():
        for p in guide.parameters():
            p += 0.3 * torch.randn_like(p) / p.shape[-1] ** 0.5
    return guide, torch.randn(4, 5).double()


def grads(value, module):
    found = torch.autograd.grad(value, list(module.parameters()), allow_unused=True)
    return torch.cat([
        (torch.zeros_like(p) if g is None else g).flatten()
        for g, p in zip(found, module.parameters(), strict=True)
    ])  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("line", FLOWS)
def test_a_flow_knows_the_density_of_its_own_draws(line):
    guide, h = flow(line)
    q = guide(h).expand([2, 4])
    z = q.rsample()
    assert (q.batch_shape, q.event_shape, z.shape) == ((2, 4), (3,), (2, 4, 3))
    # splines are inverted to about 1e-6
    assert torch.allclose(q.log_prob(z), guide(h).log_prob(z), atol=1e-5)
    q = guide(h).expand([2, 4])
    torch.manual_seed(3)
    z = q.rsample()
    whole = grads(q.log_prob(z).sum(), guide)
    torch.manual_seed(3)
    z = guide(h).expand([2, 4]).rsample()
    other = grads(guide(h).log_prob(z).sum(), guide)
    assert torch.allclose(whole, other, atol=1e-4, rtol=1e-4)
    assert whole.abs().max() > 1e-3


@pytest.mark.parametrize("line", FLOWS)
def test_the_score_of_a_flow_is_there(line):
    """Zuko's own wrapper keeps log q of a draw without a path: its score would be zero."""
    guide, h = flow(line)
    q = NonReparameterized(guide(h))
    z = q.sample()
    score = grads(q.log_prob(z).sum(), guide)
    assert torch.allclose(score, grads(guide(h).log_prob(z).sum(), guide))
    assert score.abs().max() > 0.1


@pytest.mark.parametrize("line", FLOWS)
def test_sticking_the_landing_goes_through_a_flow(line):
    guide, h = flow(line)
    torch.manual_seed(3)
    z = guide(h).rsample()
    fixed = guide(h).log_prob
    leaf = z.detach().requires_grad_()
    (slope,) = torch.autograd.grad(fixed(leaf).sum(), leaf)
    expected = grads((slope * z).sum(), guide)
    torch.manual_seed(3)
    q = PathOnly(guide(h))
    got = grads(q.log_prob(q.rsample()).sum(), guide)
    assert torch.allclose(got, expected, atol=1e-4, rtol=1e-4)


def test_a_draw_outside_the_graph_is_scored_anew_where_gradients_are_on():
    guide, h = flow("Flow(IAF)")
    q = guide(h)
    assert isinstance(q, Pushforward)
    with torch.no_grad():
        z = q.rsample()
        assert torch.equal(q.log_prob(z), q.draw.log_prob)
    assert q.log_prob(z).requires_grad
    assert not q.draw.log_prob.requires_grad


@pytest.mark.slow
def test_pathwise_and_score_gradients_of_a_flow_agree():
    vae = pv.VAE(4, 2, likelihood="Normal", guide="Flow(IAF, transforms=1, hidden_features=[4])",
                 encoder="MLP([3])", decoder="MLP([])", seed=0)  # fmt: skip
    for line in ("RLOO(num_particles=5)", "Trace_ELBO(gradient=stl, num_particles=5)"):
        agree("Trace_ELBO(num_particles=5)", line, vae.double(), X.double())


@pytest.mark.slow
@pytest.mark.parametrize(
    "guide", ["Normal", "MultivariateNormal", "Mixture(Normal, components=2)", "Flow(IAF)"]
)
def test_refinement_raises_the_bound_and_leaves_the_model(guide):
    vae = pv.VAE(
        4, 2, likelihood="Normal(scale=0.5)", guide=guide, encoder="MLP([20])", decoder="MLP([20])",
        seed=0,
    )  # fmt: skip
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    q = vae.refine(X, steps=60, seed=0)
    assert (q.batch_shape, q.event_shape) == ((6,), (2,))
    with torch.no_grad(), pyro.get_param_store().scope():

        def bound(q):
            torch.manual_seed(0)
            z = q.expand([400, 6]).sample()
            return (Joint(vae, X).log_joint(z) - q.log_prob(z)).mean(0)

        gain = bound(q) - bound(vae.encode(X))
        assert gain.mean() > 0.1
        assert gain.min() > 0
    assert all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())
    assert all(p.grad is None for p in vae.parameters())


@pytest.mark.slow
def test_refinement_finds_the_exact_posterior_of_a_linear_model():
    vae = pv.VAE(4, 2, likelihood="Normal(scale=0.5)", guide="MultivariateNormal", seed=0,
                 encoder="MLP([20])", decoder="MLP([])").double()  # fmt: skip
    x = X.double()
    head = vae.likelihood.sources["loc"].head
    w, b = head.weight.detach(), head.bias.detach()
    precision = torch.eye(2).double() + w.T @ w / 0.25
    mean = (x - b) @ w / 0.25 @ precision.inverse()
    exact = dist.MultivariateNormal(mean, precision_matrix=precision)
    q = vae.refine(x, steps=300, num_particles=32, seed=0)
    kl = torch.distributions.kl_divergence(q, exact)
    far = torch.distributions.kl_divergence(vae.encode(x), exact)
    assert (kl < 0.01).all()
    assert (far > 0.1).all()


def test_refinement_needs_a_path():
    vae = pv.VAE(4, 2, prior="Bernoulli", guide="Bernoulli", likelihood="Normal", seed=0)
    with pytest.raises(ValueError, match="no reparameterized sampler"):
        vae.refine(X)


def test_a_delta_guide_is_a_deterministic_autoencoder():
    vae = pv.VAE(4, 2, likelihood="Normal(scale=1)", guide="Delta", seed=0)
    q = vae.encode(X)
    assert torch.equal(q.sample(), q.mean)
    loss = Trace_ELBO().loss(vae.model, vae.guide, X)
    by_hand = vae.decode(q.mean).log_prob(X).sum() + vae.prior().log_prob(q.mean).sum()
    assert loss == pytest.approx(-by_hand.item(), rel=1e-5)
    assert pv.fit(vae, X, epochs=3).history.elbo_train.is_monotonic_increasing


@pytest.mark.slow
def test_a_mixture_guide_has_two_modes_where_the_posterior_has():
    """x = z^2 + noise: z is seen up to its sign, which one normal cannot say."""

    class Square(torch.nn.Module):
        def forward(self, z):
            return z.square()

    class Noise(torch.nn.Module):
        def forward(self, h):
            return dist.Normal(h, 0.2).to_event(1)

    x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0)).square()
    bounds = {}
    for guide in ("Normal", "Mixture(Normal, components=2)"):
        vae = pv.VAE(1, 1, guide=guide, decoder=Square(), likelihood=Noise(), seed=0,
                     encoder="MLP([20])")  # fmt: skip
        pv.fit(vae, x, epochs=12, lr="cosine(3e-2)", estimator="Trace_ELBO(num_particles=8)")
        bounds[guide] = pv.elbo(vae, x, num_samples=100, seed=0).mean().item()
    assert bounds["Mixture(Normal, components=2)"] > bounds["Normal"] + 0.3


FITTING = {  # prior: what the message names
    "Gamma": "Transformed(Normal, SoftplusTransform)",
    "Beta": "Transformed(Normal, SigmoidTransform)",
    "Uniform(low=-2.0, high=3.0)": "Transformed(Normal, Interval(-2, 3))",
    "Dirichlet": "Transformed(Normal, StickBreakingTransform)",
    "Transformed(Kumaraswamy, Sticks)": "Transformed(Normal, StickBreakingTransform)",
    "VonMisesFisher": "VonMisesFisher",
    "Bernoulli": "Bernoulli",
    "OneHotCategorical": "OneHotCategorical",
    "Poisson": "Poisson",
}


@pytest.mark.slow
@pytest.mark.parametrize("prior", FITTING)
def test_a_guide_that_does_not_fit_is_told_one_that_does(prior):
    wrong = "Normal" if "Normal" not in prior else "Gamma"
    with pytest.raises(ValueError, match="choose a guide with the prior's support") as caught:
        pv.VAE(4, 3, prior=prior, guide=wrong, likelihood="Normal")
    assert f"'{FITTING[prior]}'" in str(caught.value)
    vae = pv.VAE(4, 3, prior=prior, guide=FITTING[prior], likelihood="Normal", seed=0)
    assert vae.prior().support.check(vae.encode(X).sample()).all()


def test_a_structured_guide_is_an_ordinary_pyro_guide():
    vae = pv.VAE(4, 3, likelihood="Normal", guide="Flow(IAF)", prior="Flow(NSF)", seed=0)
    with pyro.plate("particles", 5, dim=-2):
        guide = poutine.trace(vae.guide).get_trace(X)
        model = poutine.trace(poutine.replay(vae.model, guide)).get_trace(X)
    model.compute_log_prob()
    guide.compute_log_prob()
    assert model.nodes["z"]["log_prob"].shape == guide.nodes["z"]["log_prob"].shape == (5, 6)
    assert "z -> x" in pyro.render_model(vae.model, model_args=(X,)).source
