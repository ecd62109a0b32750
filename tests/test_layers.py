"""Stochastic layers: exact answers of linear-Gaussian chains, densities, gradients, refusals."""

import math

import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.distributions import MultivariateNormal
from torch.distributions.constraints import _Cat

import pyro_vae as pv
from helpers.gradients import agree
from helpers.linear import pooled, z_scores
from pyro_vae.distributions import Layered
from pyro_vae.infer import make_estimator
from pyro_vae.infer.engine.capture import capture
from pyro_vae.infer.estimators.soundness import check_and_nest
from pyro_vae.model.joint import Joint
from pyro_vae.runs.folder import new_model
from pyro_vae.runs.settings import merge

X, SIZES, S, T = 5, (3, 2), 0.75, 0.5  # cells, layers, scales of p(x|z1) and of p(z1|z2)
TANH = "MLP([8], activation='Tanh')"


def small(guide="Normal", prior="Normal", *, layers=(4, 3), likelihood="Bernoulli", **more):
    nets = dict(encoder=TANH, decoder=TANH, seed=0) | more
    return pv.VAE(6, layers=layers, prior=prior, guide=guide, likelihood=likelihood, **nets)


def bits(n=10, d=6):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(1)).round()


# A linear-Gaussian chain: everything in closed form.


def linear(guide):
    """x = W z1 + b, z1 = A z2 + c, with noise; what makes the posteriors of a ladder diagonal."""
    vae = pv.VAE(
        X, layers=SIZES, prior=f"Hierarchy([Normal(scale={T}), Normal])", guide=guide,
        likelihood=f"Normal(scale={S})", encoder=pv.MLP([]), decoder=pv.MLP([]), seed=1,
    ).double()  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(X, SIZES[0], generator=generator, dtype=torch.float64))
    a = torch.tensor([[1.1, 0.0], [0.0, -0.8], [0.5, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        vae.likelihood.sources["loc"].head.weight.copy_(q * torch.tensor([1.5, 0.8, 1.0]))
        vae.prior.links[0].family.sources["loc"].head.weight.copy_(a)
    return vae


def joint_normal(vae):
    """The joint distribution of (x, z1, z2): mean and covariance."""
    up, down = vae.likelihood.sources["loc"].head, vae.prior.links[0].family.sources["loc"].head
    w, b, a, c = (t.detach() for t in (up.weight, up.bias, down.weight, down.bias))
    eye = [torch.eye(n, dtype=torch.float64) for n in (X, *SIZES)]
    none = torch.zeros(SIZES[1], dtype=torch.float64)
    root = [
        torch.cat([S * eye[0], T * w, w @ a], 1),
        torch.cat([torch.zeros(SIZES[0], X), T * eye[1], a], 1),
        torch.cat([torch.zeros(SIZES[1], X + SIZES[0]), eye[2]], 1),
    ]
    root = torch.cat(root)
    return torch.cat([w @ c + b, c, none]), root @ root.T


PARTS = {"x": slice(0, X), "z1": slice(X, X + 3), "z2": slice(X + 3, X + 5)}


def condition(vae, of, *given):
    """p(of | given) as weights, bias and covariance."""
    mean, cov = joint_normal(vae)
    rows = torch.arange(len(mean))
    o, g = rows[PARTS[of]], torch.cat([rows[PARTS[name]] for name in given])
    weight = torch.linalg.solve(cov[g][:, g], cov[g][:, o]).T
    return weight, mean[o] - weight @ mean[g], cov[o][:, o] - weight @ cov[g][:, o]


@torch.no_grad()
def teach(family, weight, bias, cov):
    """Set a family's parameters to a linear-Gaussian conditional."""
    head = family.sources["loc"].head
    head.weight.copy_(weight)
    head.bias.copy_(bias)
    if "scale_tril" in family.sources:
        source, value = family.sources["scale_tril"], torch.linalg.cholesky(cov)
    else:
        assert (cov - cov.diagonal().diag()).abs().max() < 1e-12
        source, value = family.sources["scale"], cov.diagonal().sqrt()
    source.unconstrained.copy_(source.transform.inv(value))


def exact(guide):
    """The chain with the exact posterior for its guide."""
    vae = linear(guide)
    if guide.startswith("BottomUp"):
        teach(vae.approximation.first, *condition(vae, "z1", "x"))
        teach(vae.approximation.links[0].family, *condition(vae, "z2", "z1"))
        return vae
    lower, top = vae.approximation.families
    teach(top, *condition(vae, "z2", "x"))
    if guide.startswith("Top"):
        teach(lower, *condition(vae, "z1", "x", "z2"))
        return vae
    head = vae.likelihood.sources["loc"].head  # x's word alone: least squares
    w, b = head.weight.detach(), head.bias.detach()
    precision = w.T @ w / S**2
    inverse = torch.linalg.solve(precision, w.T) / S**2
    teach(lower, inverse, -inverse @ b, precision.inverse())
    return vae


FULL = "MultivariateNormal(scale_tril=learned)"
EXACT = [f"BottomUp({FULL})", f"TopDown({FULL})", "Ladder(scale=learned)"]


def data(vae, n=20):
    mean, cov = joint_normal(vae)
    p = MultivariateNormal(mean[:X], cov[:X, :X])
    x = p.sample((n,))
    return x, p.log_prob(x)


@pytest.mark.parametrize("guide", EXACT)
def test_the_exact_posterior_of_a_chain_makes_every_weight_the_evidence(guide):
    vae = exact(guide)
    x, log_p = data(vae)
    assert (pv.elbo(vae, x, num_samples=3, seed=0) - log_p).abs().max() < 1e-9
    found = pv.log_evidence(vae, x, num_samples=30, seed=0)
    assert (found.log_evidence - log_p).abs().max() < 1e-9
    assert (vae.encode(x).mean[:, :3] - condition_mean(vae, x)).abs().max() < 1e-9


def condition_mean(vae, x):
    weight, bias, _ = condition(vae, "z1", "x")
    return x @ weight.T + bias


@pytest.mark.slow
@pytest.mark.parametrize("guide", EXACT)
def test_evidence_by_another_guide_is_within_its_error(guide):
    vae = exact(guide)
    with torch.no_grad():
        for p in vae.approximation.parameters():
            p.add_(0.1)
    x, log_p = data(vae, 100)
    found = pv.log_evidence(vae, x, num_samples=4000, seed=0)
    assert found.standard_error.min() > 1e-4
    assert abs(pooled(z_scores(found, log_p))) < 5
    assert (pv.elbo(vae, x, num_samples=100, seed=0).mean() < log_p.mean() - 0.02).item()


def test_the_prior_of_a_chain_is_the_joint_normal():
    vae = linear("Normal")
    mean, cov = joint_normal(vae)
    z = torch.randn(7, 5, dtype=torch.float64)
    expected = MultivariateNormal(mean[X:], cov[X:, X:]).log_prob(z)
    assert torch.allclose(vae.prior().log_prob(z), expected)
    assert torch.allclose(vae.prior().mean, mean[X:])
    draws = vae.prior().sample((20_000,))
    error = cov.diagonal()[X:].sqrt() / math.sqrt(len(draws))
    assert ((draws.mean(0) - mean[X:]) / error).abs().max() < 5
    assert (draws.T.cov() - cov[X:, X:]).abs().max() < 0.08


# One distribution, several sites.

GUIDES = ["Normal", "Ladder", "TopDown(Normal)", "BottomUp([Normal, Laplace])",
          "TopDown(MultivariateNormal)", "Flow(NSF, hidden_features=[8])"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES)
def test_sites_are_the_layers_and_add_up_to_the_joint_density(guide):
    vae, x = small(guide), bits()
    q = poutine.trace(vae.guide).get_trace(x)
    p = poutine.trace(poutine.replay(vae.model, q)).get_trace(x)
    order = [n for n in q.stochastic_nodes if n != "data"]
    assert order == (["z2", "z1"] if "Top" in guide or guide == "Ladder" else ["z1", "z2"])
    assert [n for n in p.stochastic_nodes if n != "data"] == ["z2", "z1"]
    z = torch.cat([q.nodes[site]["value"] for site in vae.latents.sites], -1)
    assert z.shape == (10, 7) and torch.equal(z, q.nodes["_RETURN"]["value"])
    for trace in (p, q):
        trace.compute_log_prob()
    sites = [sum(t.nodes[n]["log_prob"] for n in order) for t in (p, q)]
    assert torch.allclose(vae.prior().log_prob(z), sites[0], atol=1e-5)
    assert torch.allclose(vae.encode(x).log_prob(z), sites[1], atol=1e-4)
    joint = Joint(vae, x)
    many = joint.guide.rsample((3,))
    assert many.shape == (3, 10, 7) and joint.log_weight(many).shape == (3, 10)
    one = Joint(vae, x[:1]).log_weight(many[1, :1])
    assert torch.allclose(joint.log_weight(many)[1, :1], one, atol=1e-4)


def test_the_same_seed_gives_the_joint_and_the_sites():
    vae = small("Ladder")
    torch.manual_seed(3)
    joint = vae.encode(bits()).rsample()
    torch.manual_seed(3)
    assert torch.equal(joint, vae.guide(bits()))


DENSITIES = {
    "Normal": ("Normal", "Normal"), "Ladder": ("Ladder", "VampPrior(components=3, start=random)"),
    "TopDown": ("TopDown(Normal)", "Hierarchy([Laplace, Mixture(Normal(loc=learned))])"),
    "Flow": ("BottomUp([Normal, Flow(NSF, hidden_features=[8])])",
             "Hierarchy([Normal, Flow(NSF)])"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", DENSITIES)
@torch.no_grad()
def test_densities_integrate_to_one_and_are_those_of_the_draws(name):
    guide, prior = DENSITIES[name]
    vae = small(guide, prior, layers=[1, 1])
    for key, p in vae.named_parameters():
        p.mul_(1.0 if "transform" in key else 1.5)  # so that the layers lean on each other
    for d in (vae.prior(), vae.encode(bits(1)).expand([1])):
        draws = d.expand([20_000] if d.batch_shape == () else [1]).sample()
        draws = draws if len(draws) > 1 else d.sample((20_000,))[:, 0]
        at = torch.linspace(-14, 14, 701)
        grid = torch.cartesian_prod(at, at)
        mass = d.expand([1]).log_prob(grid[:, None])[:, 0].exp() * (at[1] - at[0]) ** 2
        assert mass.sum() == pytest.approx(1, abs=0.01)
        for f in (torch.sin, lambda z: torch.sin(2 * z), lambda z: (z.abs() < 0.5).float(),
                  lambda z: torch.tanh(z.prod(-1, keepdim=True))):  # fmt: skip
            values = f(draws)
            expected = (f(grid) * mass[:, None]).sum(0) / mass.sum()
            error = values.std(0) / math.sqrt(len(values)) + 2e-3 / 5  # the grid's own
            assert ((values.mean(0) - expected) / error).abs().max() < 5


# Gradients.

EVERYWHERE = [
    "Trace_ELBO", "Trace_ELBO(gradient=stl)", "TraceGraph_ELBO(gradient=score)",
    "TraceGraph_ELBO(gradient=score, baseline=neural)", "RLOO", "VIMCO", "DReG", "GDReG", "TVO",
    "RenyiELBO(alpha=0, num_particles=3)", "CUBO", "RWS",
]  # fmt: skip
SERVED = [
    *(("Normal", "Normal", line) for line in EVERYWHERE),
    *(("Ladder", "Normal", line) for line in (*EVERYWHERE, "TraceMeanField_ELBO")),
    ("TopDown(Normal)", "VampPrior(components=3)", "Trace_ELBO"),
    ("TopDown(Normal)", "VampPrior(components=3)", "DReG"),
    ("Normal", "VampPrior(components=3)", "VIMCO"),
    ("Bernoulli", "Bernoulli(logits=learned)", "TraceEnum_ELBO"),
    ("Bernoulli", "Bernoulli(logits=learned)", "RLOO"),
    ("Bernoulli", "Bernoulli(logits=learned)", "VIMCO"),
    ("TopDown(Bernoulli)", "Bernoulli(logits=learned)", "Trace_ELBO(gradient=concrete)"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("guide", "prior", "line"), SERVED)
def test_gradients_reach_every_parameter(guide, prior, line):
    vae, x = small(guide, prior), bits()
    vae.start_from(x)
    estimator = make_estimator(line)
    check_and_nest(estimator, vae.model, vae.guide, x)
    wrapped = estimator.wrap(vae.guide, x)
    loss = estimator.elbo.loss_and_grads(vae.model, wrapped, x)
    assert math.isfinite(loss)
    for name, p in vae.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
        assert p.grad.abs().max() > 0, name


IWAE = "RenyiELBO(alpha=0, num_particles=3)", "DReG(num_particles=3)"
SAME = {  # pairs of estimators of one bound
    "Normal": [("Trace_ELBO", "RLOO(num_particles=3)"), IWAE],
    "Ladder": [("TraceMeanField_ELBO", "Trace_ELBO(gradient=stl)"), IWAE],
}


@pytest.mark.slow
@pytest.mark.parametrize("guide", SAME)
def test_gradients_are_unbiased(guide):
    vae = pv.VAE(3, layers=[2, 2], guide=guide, encoder=pv.MLP([3]), decoder=pv.MLP([3]), seed=0)
    for one, two in SAME[guide]:
        agree(one, two, vae.double(), bits(4, 3).double())


@pytest.mark.slow
def test_a_comparison_takes_all_layers():
    vae = pv.VAE(3, layers=[2, 2], guide="Ladder", encoder=pv.MLP([3]), decoder=pv.MLP([3]), seed=0)
    table = pv.compare_estimators(vae, bits(4, 3), ["Trace_ELBO"], num_draws=50, seed=0)
    assert {"prior", "guide", "all"} <= set(table.parameter.values)
    assert abs(table.bias_z).max() < 5


@pytest.mark.slow
def test_the_closed_form_kl_of_a_guide_that_goes_down_is_the_sampled_one():
    vae, x = small("Ladder"), bits()
    values = {}
    for line in ("Trace_ELBO", "TraceMeanField_ELBO"):
        values[line] = torch.tensor(
            pv.elbo_draws(vae, x, line, num_draws=4000, seed=0).posterior["total"].values
        ).flatten()
    sampled, closed = values.values()
    assert closed.std() < sampled.std()
    error = ((sampled.var() + closed.var()) / len(closed)).sqrt()
    assert abs(sampled.mean() - closed.mean()) < 5 * error


def test_bernoulli_layers_are_summed_out():
    vae, x = small("Bernoulli", "Bernoulli(logits=learned)", layers=[3, 2]), bits(4)
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 5)[:, None].expand(-1, 4, -1)
    joint = Joint(vae, x)
    log_q, log_w = joint.log_guide(states), joint.log_weight(states)
    assert torch.allclose(log_q.exp().sum(0), torch.ones(4))
    assert torch.allclose(joint.log_prior(states).exp().sum(0), torch.ones(4))
    elbo = make_estimator("TraceEnum_ELBO")
    check_and_nest(elbo, vae.model, vae.guide, x)
    loss = elbo.elbo.loss(vae.model, elbo.wrap(vae.guide, x), x)
    assert -loss == pytest.approx((log_q.exp() * log_w).sum().item(), rel=1e-5)
    found = pv.log_evidence(vae, x, num_samples=5000, seed=0)
    assert z_scores(found, (log_w + log_q).logsumexp(0)).abs().max() < 5


# Training, and what is done with a trained model.


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["Normal", "Ladder"])
def test_a_captured_step_is_the_eager_one(guide):
    vae, x = small(guide), bits()
    elbo = Trace_ELBO(num_particles=2, vectorize_particles=True)
    graph = capture(elbo, vae.model, vae.guide, x)
    torch.manual_seed(5)
    loss, *gradients = graph.module(x, *graph.live)
    torch.manual_seed(5)
    assert elbo.loss_and_grads(vae.model, vae.guide, x) == pytest.approx(loss.item(), rel=1e-6)
    for p, gradient in zip(graph.parameters.values(), gradients, strict=True):
        assert torch.allclose(p.grad, gradient, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_fit_is_the_eager_one(interpreted):
    found = []
    for compile in (False, True):
        vae = pv.VAE(3, layers=[2, 2], encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0)
        history = pv.fit(vae, bits(20, 3), epochs=2, batch_size=10, compile=compile).history
        found.append((history.elbo_train.to_numpy(), vae.sample(4, mean=True, seed=0)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["Normal", "TopDown(Normal)", "Ladder"])
def test_the_hierarchical_vamp_prior_is_the_guides_top_layer_averaged(guide):
    vae, x = small(guide, "VampPrior(components=10)"), bits()
    assert not any("approximation" in k for k in vae.prior.state_dict())  # the guide is not a part
    before = vae.prior.top.pseudo_inputs(None).clone()
    vae.start_from(x)
    pseudo = vae.prior.top.pseudo_inputs(None)
    assert ((pseudo - x[:, None]).abs().amax(-1).amin(0) < 0.05).all()
    assert not torch.equal(before, pseudo)
    z2 = torch.randn(6, 3)
    if guide == "Normal":
        first = vae.approximation.first(vae.encoder(pseudo))
        components = vae.approximation.links[0](first.mean)
    else:
        components = vae.encode(pseudo).first
    expected = components.log_prob(z2[:, None]).logsumexp(1) - math.log(10)
    assert torch.allclose(vae.prior().first.log_prob(z2), expected, atol=1e-4)
    start = pv.elbo(vae, x, num_samples=50, seed=0).mean()
    pv.fit(vae, x, epochs=25, batch_size=10, lr=3e-2, seed=0)
    assert pv.elbo(vae, x, num_samples=50, seed=0).mean() > start + 0.3
    assert (vae.prior.top.pseudo_inputs(None) - pseudo).abs().max() > 1e-3


SAVED = [("Normal", "Normal"), ("Ladder(network=MLP([5]))", "VampPrior(components=3)"),
         ("TopDown([Normal, Laplace], network=[MLP([7])])",
          "Hierarchy([Normal, Laplace(scale=learned)], network=MLP([4]))")]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("guide", "prior"), SAVED)
def test_saved_and_loaded_bit_for_bit(guide, prior, tmp_path):
    vae, x = small(guide, prior), bits()
    pv.fit(vae, x, epochs=1, batch_size=10, seed=0)
    back = pv.load(vae.save(tmp_path))
    assert back.latents.layers == (4, 3) and back.describe() == vae.describe()
    assert torch.equal(pv.elbo(back, x, seed=0), pv.elbo(vae, x, seed=0))
    assert torch.equal(back.sample(3, seed=0), vae.sample(3, seed=0))


@pytest.mark.slow
def test_what_asks_of_z_hears_of_all_layers():
    vae, x = small("Normal"), bits()
    summary = pv.latent_summary(vae, x, num_samples=5, seed=0)
    names = [f"z1[{i}]" for i in range(4)] + [f"z2[{i}]" for i in range(3)]
    assert list(summary.dimensions.index) == names
    assert summary.dimensions["kl"].sum() == pytest.approx(summary.totals.loc["kl", "value"], 1e-4)
    assert pv.to_arviz(vae, x, 20, seed=0).posterior["latent_dim"].values.tolist() == names
    assert pv.gaps(vae, x[:2], steps=2, num_samples=30, seed=0).notna().all(axis=None)
    chains = pv.posterior(vae, x[:1], num_samples=4, warmup=2, seed=0)
    assert dict(chains.posterior["z"].sizes)["latent_dim"] == 7
    assert vae.refine(x, steps=2).log_prob(vae.encode(x).sample()).shape == (10,)
    assert vae.reconstruct(x).shape == vae.sample(10).shape == x.shape
    assert vae.interpolate(x[0], x[1], 3).shape == (3, 6)
    with pytest.raises(ValueError, match="independent cells"):
        pv.compress(vae, x)


def test_missing_cells_three_layers_and_other_shapes():
    vae = pv.VAE((1, 3, 4), layers=[4, 3, 2], guide="TopDown(Normal)", missing=True,
                 encoder="ConvEncoder([2])", decoder="ConvDecoder([2])", seed=0)  # fmt: skip
    x = bits(5, 12).reshape(5, 1, 3, 4)
    x[0, 0, 0] = math.nan
    assert vae.latents.sites == ("z1", "z2", "z3") and vae.z_shape == (9,)
    assert pv.elbo(vae, x, seed=0).isfinite().all()
    assert pv.log_evidence(vae, x, num_samples=30, seed=0).log_evidence.isfinite().all()


@pytest.mark.slow
def test_one_width_is_one_layer_and_supports_are_joined():
    vae = pv.VAE(6, layers=[3], encoder=TANH, decoder=TANH, seed=0)
    assert vae.latents.sites == ("z",) and vae.z_shape == (3,)
    assert vae.describe() == pv.VAE(6, 3, encoder=TANH, decoder=TANH).describe()
    p, q = "Hierarchy([LogNormal, Normal])", "BottomUp([LogNormal, Normal])"
    support = small(q, p).prior().support.base_constraint
    assert isinstance(support, _Cat)
    assert not small("Bernoulli", "Bernoulli").encode(bits()).has_rsample
    assert pv.gaps(small(q, p), bits(2), steps=2, num_samples=30).notna().all(axis=None)


def test_modules_of_ones_own():
    class Mine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.map = torch.nn.Linear(8, 3)

        def forward(self, features):
            return dist.Laplace(self.map(features), 1.0).to_event(1)

    vae = small(pv.BottomUp(["Normal", Mine()]), network_free_prior())
    assert isinstance(vae.encode(bits()), Layered)
    assert math.isfinite(Trace_ELBO().loss(vae.model, vae.guide, bits()))
    assert vae.describe()["guide"].startswith("custom ")


def network_free_prior():
    return pv.Hierarchy(["Normal", "Normal"], network=pv.MLP([5]))


REFUSED = {
    "nothing": (dict(), "say latent_dim=50, or for stochastic layers layers="),
    "both": (dict(latent_dim=3, layers=[3, 2]), "say latent_dim=50, or for stochastic layers"),
    "empty": (dict(layers=[]), r"layers is a list of widths .* such as \[100, 50\], got \[\]"),
    "zero": (dict(layers=[3, 0]), r"layers is a list of widths .* got \[3, 0\]"),
    "number": (dict(layers=3), "layers is a list of widths .* got 3"),
    "words": (dict(layers="3, 2"), "layers is a list of widths .* got '3, 2'"),
    "one layer": (dict(latent_dim=3, guide="Ladder"), r"Ladder is of stochastic layers: say .*=\["),
    "one prior": (dict(latent_dim=3, prior="Hierarchy(Normal)"), "Hierarchy is of stochastic lay"),
    "families": (dict(layers=[3, 2], guide="BottomUp([Normal, Normal, Normal])"),
                 r"3 families for 2 layers: give one, or one for each\n  BottomUp\(\[Normal"),
    "networks": (dict(layers=[3, 2], guide="BottomUp(Normal, network=[MLP([3]), MLP([3])])"),
                 "2 networks for the 1 places between layers"),
    "support": (dict(layers=[3, 2], prior="Gamma"),
                "at z2 the guide Normal draws a finite number, the prior Gamma a number of at "
                r"least 0: choose a guide .*BottomUp\(\[Normal, Transformed"),
    "ladder": (dict(layers=[3, 2], prior="Hierarchy([Laplace, Normal])", guide="Ladder"),
               "below the top the model is Laplace: use guide='TopDown"),
    "delta": (dict(layers=[3, 2], guide="DeltaNormal(0.1)"), "DeltaNormal can be a guide, not"),
    "steps": (dict(layers=[3, 2], guide="SemiAmortized(Normal)"), "can be a guide, not"),
    "fixed": (dict(layers=[3, 2], prior="Hierarchy([Normal(loc=0, scale=1), Normal])"),
              "a layer without an amortized parameter does not depend on the layer before it"),
    "categorical": (dict(layers=[3, 2], guide="Categorical(categories=3)"),
                    "OneHotCategorical, or"),
    "vamp": (dict(layers=[3, 2], prior="Hierarchy([VampPrior, Normal])"), "can be a prior, not a"),
    "means": (dict(layers=[3, 2], guide="Flow(NSF)", prior="VampPrior(components=3)"),
              r"by the means of those below, and Pushforward has none: use guide='TopDown"),
    "network": (dict(layers=[3, 2], guide="BottomUp(Normal, network=ConvEncoder([3]))"),
                "ConvEncoder reads images"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_wrong_layers_are_refused_in_a_line(name):
    options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        pv.VAE(6, encoder=TANH, decoder=TANH, **options)


ESTIMATORS_REFUSED = {
    "TraceMeanField_ELBO": ("Normal", "Normal", "it draws z1, z2 in another order than the model"),
    "MeasureValued": ("Normal", "Normal", "the parameters of site 'z2' depend on another site's"),
    "DisARM": (
        "Bernoulli",
        "Bernoulli",
        "the parameters of site 'z2' depend on another",
    ),
    "DReG": ("Bernoulli", "Bernoulli", "which Bernoulli at site 'z1', Bernoulli at site 'z2' has"),
}


@pytest.mark.parametrize("line", ESTIMATORS_REFUSED)
def test_estimators_that_cannot_serve_layers_say_so(line):
    guide, prior, message = ESTIMATORS_REFUSED[line]
    vae = small(guide, prior)
    with pytest.raises(ValueError, match=message):
        check_and_nest(make_estimator(line), vae.model, vae.guide, bits())


def test_free_bits_want_the_models_order():
    x = bits()
    with pytest.raises(ValueError, match="another order than the model: use a guide that goes"):
        pv.fit(small("Normal"), x, epochs=1, batch_size=10, free_bits=0.1)
    found = pv.fit(small("Ladder"), x, epochs=1, batch_size=10, free_bits=0.1)
    assert found.history.elbo_train.notna().all()


@pytest.mark.parametrize("layers", ["[5, 3]", "5, 3", [5, 3]])
def test_a_run_is_told_of_layers(layers):
    told = merge({"guide": "Ladder", "encoder": "MLP([4])", "decoder": "MLP([4])"},
                 {"layers": layers})  # fmt: skip
    vae = new_model(told, pv.load_data("digits"))
    assert vae.latents.layers == (5, 3) and vae.describe()["guide"] == "Ladder"


def test_a_run_refuses_what_is_no_list_of_widths():
    for layers in ("[5, x]", 3.5, [True]):
        with pytest.raises(ValueError, match="layers is a list of whole numbers, got"):
            merge({}, {"layers": layers})
