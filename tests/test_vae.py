"""model and guide are ordinary Pyro functions; what goes in is checked once, at the boundary."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from torch import nn

import pyro_vae as pv
from pyro_vae.distributions import WithSpike
from pyro_vae.model.latents import point


def small(**options):
    options = {"likelihood": "Normal(scale=learned)", "seed": 0, **options}
    return pv.VAE(4, 2, encoder=pv.MLP([8]), decoder=pv.MLP([8]), **options)


X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
def test_model_and_guide_under_svi():
    vae = small()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 3e-2}), Trace_ELBO(num_particles=2))
    losses = [svi.step(X + 2) for _ in range(60)]
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 3
    names = {name for name, _ in vae.named_parameters()}
    assert set(pyro.get_param_store().keys()) == names - {n for n in names if "prior" in n}


@pytest.mark.slow
def test_model_under_nuts():
    """The posterior of z for a linear model is Gaussian with known moments."""
    vae = pv.VAE(
        3, 1, likelihood="Normal(scale=0.5)", encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0
    )
    with torch.no_grad():
        vae.likelihood.sources["loc"].head.weight.mul_(3)  # so that x says much of z
    x = torch.randn(2, 3)
    mcmc = MCMC(NUTS(vae.model), num_samples=150, warmup_steps=50, disable_progbar=True)
    mcmc.run(x)
    z = mcmc.get_samples()["z"]
    assert z.shape == (150, 2, 1)
    head = vae.likelihood.sources["loc"].head
    w, b = head.weight.detach(), head.bias.detach()
    precision = 1 + (w.T @ w) / 0.25
    mean = (x - b) @ w / 0.25 / precision
    draws = mcmc.diagnostics()["z"]["n_eff"].clamp(max=150)
    error = (precision * draws).rsqrt()
    assert ((z.mean(0) - mean).abs() < 5 * error).all()
    assert ((z.std(0) - precision.rsqrt()).abs() < 5 * error / 2**0.5).all()


@pytest.mark.parametrize("parallel", [False, True])
def test_model_under_predictive(parallel):
    vae = small()
    prior = Predictive(vae.model, num_samples=5, parallel=parallel)()
    assert prior["x"].shape == (5, 1, 4)
    posterior = Predictive(vae.model, guide=vae.guide, num_samples=5, parallel=parallel)(X)
    assert posterior["z"].shape == (5, 6, 2)
    assert posterior["x"].shape == (5, 6, 4)


def test_model_under_trace_and_condition():
    vae = small()
    trace = poutine.trace(vae.model).get_trace(X)
    assert trace.nodes["x"]["is_observed"]
    assert trace.nodes["z"]["fn"].batch_shape == (6,)
    z = torch.zeros(6, 2)
    conditioned = poutine.condition(vae.model, {"z": z})
    value = poutine.trace(conditioned).get_trace(X).log_prob_sum()
    by_hand = vae.prior().log_prob(z).sum() + vae.decode(z).log_prob(X).sum()
    assert torch.allclose(value, by_hand)


def test_model_under_render_model():
    vae = small()
    graph = pyro.render_model(vae.model, model_args=(X,), render_params=True)
    assert "z -> x" in graph.source


def test_two_models_do_not_share_parameters_silently():
    first, second = small(), small(seed=1)
    first.model(X)
    with pytest.raises(ValueError, match=r"holds another model's 'decoder.*clear_param_store"):
        second.model(X)
    with pyro.get_param_store().scope():
        second.model(X)
    pv.fit(second, X, epochs=1)  # keeps a store of its own


def test_seeds_make_weights_and_draws_and_leave_the_global_generator():
    before = torch.get_rng_state()
    a, b, c = small(seed=3), small(seed=3), small(seed=4)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.sample(5, seed=0), c.sample(5, seed=0))
    assert torch.equal(a.sample(5, seed=0), b.sample(5, seed=0))
    assert not torch.equal(a.sample(5, seed=0), a.sample(5, seed=1))
    assert torch.equal(pv.elbo(a, X, seed=0), pv.elbo(a, X, seed=0))
    assert torch.equal(before, torch.get_rng_state())


def test_encode_decode_reconstruct_interpolate():
    vae = small()
    q = vae.encode(X)
    assert (q.batch_shape, q.event_shape) == ((6,), (2,))
    assert vae.decode(q.sample((3,))).batch_shape == (3, 6)
    assert torch.equal(vae.reconstruct(X), vae.decode(q.mean).mean)
    line = vae.interpolate(X[0], X[1], steps=5)
    assert line.shape == (5, 4)
    ends = vae.reconstruct(X[:2])
    assert torch.allclose(line[0], ends[0], atol=1e-6)
    assert torch.allclose(line[-1], ends[1], atol=1e-6)
    assert vae.sample(7, mean=True).shape == (7, 4)


def test_what_stands_for_a_mean_that_is_not_there():
    assert point(dist.Cauchy(3.0, 1.0)) == 3.0
    heavy = dist.StudentT(torch.tensor([0.5, 3.0]), 7.0)  # the first column has no mean
    p = WithSpike(torch.zeros(2), heavy)
    assert point(p)[1] == p.mean[1] == 3.5 and p.mean[0].isnan() and point(p)[0].isfinite()
    assert point(dist.Categorical(torch.tensor([0.1, 0.7, 0.2]))) == 1
    assert point(dist.Logistic(2.0, 0.1)) == pytest.approx(2.0, abs=0.1)


def test_elbo_is_per_observation_and_in_nats():
    vae = pv.VAE(
        3, 1, likelihood="Normal(scale=0.5)", encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0
    ).double()
    x = torch.randn(5, 3).double()
    bound = pv.elbo(vae, x, num_samples=4000, seed=0)
    q, head = vae.encode(x).base_dist, vae.likelihood.sources["loc"].head
    error = (x - head(q.loc)).square() + q.scale.square() @ head.weight.square().T
    fit = (-2 * error - 0.5 * np.log(2 * np.pi) - np.log(0.5)).sum(-1)
    kl = dist.kl.kl_divergence(q, dist.Normal(torch.zeros(1).double(), 1.0)).sum(-1)
    each = pv.elbo(vae, x.repeat_interleave(4000, 0), num_samples=1, seed=1).reshape(5, 4000)
    standard_error = each.std(1) / 4000**0.5
    assert bound.shape == (5,)
    assert ((bound - (fit - kl)) / standard_error).abs().max() < 5
    with pytest.raises(ValueError, match="num_samples is a whole number of at least 1"):
        pv.elbo(vae, x, num_samples=0)


def test_a_mean_over_pixels_is_not_an_elbo():
    """Twice the data columns, twice the log likelihood: it is summed, not averaged."""
    x = torch.rand(4, 1).lt(0.5).float()
    values = []
    for d in (1, 10):
        vae = pv.VAE(d, 1, encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0)
        nn.init.zeros_(vae.likelihood.sources["logits"].head.weight)
        nn.init.zeros_(vae.likelihood.sources["logits"].head.bias)
        with pyro.get_param_store().scope():
            values.append(poutine.trace(vae.model).get_trace(x.expand(4, d)).nodes["x"])
    logs = [v["fn"].log_prob(v["value"]) for v in values]
    assert torch.allclose(logs[1], 10 * logs[0])


def test_missing_cells_drop_out_and_reach_the_encoder_as_a_mask():
    vae = small(missing=True)
    x = X.clone()
    x[0, 1] = x[2, 0] = float("nan")
    model = poutine.trace(poutine.replay(vae.model, poutine.trace(vae.guide).get_trace(x)))
    trace = model.get_trace(x)
    trace.compute_log_prob()
    full = vae.decode(trace.nodes["z"]["value"]).base_dist.log_prob(x.nan_to_num())
    assert torch.allclose(trace.nodes["x"]["log_prob"], (full * ~x.isnan()).sum(-1))
    Trace_ELBO().loss_and_grads(vae.model, vae.guide, x)
    assert all(p.grad.isfinite().all() for p in vae.parameters())
    filled = x.nan_to_num()
    assert not torch.equal(vae.encode(x).mean[0], vae.encode(filled).mean[0])  # 0 is not missing
    assert torch.equal(vae.encode(x).mean[1], vae.encode(filled).mean[1])
    assert pv.fit(vae, x, epochs=2).history.elbo_train.notna().all()


@pytest.mark.parametrize("line", ["Gamma", "Beta", "Poisson", "Bernoulli", "LogNormal", "VonMises"])
def test_missing_cells_under_every_support(line):
    vae = small(likelihood=line, missing=True)
    x = vae.decode(torch.zeros(6, 2)).sample()
    x[0, 1] = float("nan")
    assert torch.isfinite(torch.tensor(Trace_ELBO().loss_and_grads(vae.model, vae.guide, x)))
    assert all(p.grad.isfinite().all() for p in vae.parameters())


NETWORKS = {
    "MLP": ("MLP([16, 8], activation=Tanh)", "MLP([])"),
    "convolutional": ("ConvEncoder([4, 8])", "ConvDecoder([8, 4])"),
    "gated": ("MLP([16, 8], activation=GLU)", "MLP([8], activation=GLU)"),
    "gated convolutions": (
        "ConvEncoder([4, 8], activation=GLU)",
        "ConvDecoder([8, 4], activation=GLU)",
    ),
    "a module": (nn.Sequential(nn.Flatten(), nn.Linear(63, 5), nn.BatchNorm1d(5)), "MLP([8])"),
    "lazy": (nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), nn.LazyLinear(6)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_learn_their_ends(name):
    encoder, decoder = NETWORKS[name]
    vae = pv.VAE((1, 7, 9), 3, encoder=encoder, decoder=decoder, seed=0)
    x = torch.rand(20, 1, 7, 9).lt(0.5).float()
    pv.fit(vae, x, epochs=2, batch_size=10)
    assert vae.reconstruct(x).shape == x.shape


def test_a_gated_layer_is_a_linear_map_times_a_gate():
    vae = pv.VAE(4, 2, encoder="MLP([3], activation=GLU)", seed=0)
    linear = vae.encoder.layers[1]
    value, gate = linear(X).chunk(2, -1)
    assert linear.out_features == 6
    assert torch.equal(vae.encoder(X), value * gate.sigmoid())


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 7, 5), (1, 28, 28), (2, 1, 6)])
def test_the_convolutional_pair_fits_any_image(size):
    vae = pv.VAE(size, 2, encoder="ConvEncoder([4, 4, 4])", decoder="ConvDecoder([4, 4, 4])")
    assert vae.sample(2).shape == (2, *size)
    assert isinstance(vae.likelihood.sources["logits"].head, nn.Conv2d)


def test_data_come_as_arrays_frames_and_lists():
    vae = small()
    for x in (X.numpy(), X.double().numpy(), pd.DataFrame(X.numpy()), X.tolist()):
        assert torch.equal(vae.as_data(x), X)


BAD_DATA = {
    "another shape": (torch.zeros(3, 5), r"expected x of shape \(N, 4\), got \(3, 5\)"),
    "width 1, which Pyro would broadcast": (torch.zeros(3, 1), r"got \(3, 1\)"),
    "one observation without N": (torch.zeros(4), r"expected x of shape \(N, 4\), got \(4,\)"),
    "empty": (torch.zeros(0, 4), "x is empty"),
    "NaN": (torch.full((2, 4), float("nan")), r"x holds NaN: VAE\(..., missing=True\)"),
    "text": (["a", "b"], "x must be an array of numbers"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_are_refused(name):
    x, message = BAD_DATA[name]
    with pytest.raises(ValueError, match=message):
        small().check(x)
    with pytest.raises(ValueError, match=message):
        pv.fit(small(), x, epochs=1)


SUPPORTS = {
    "Bernoulli": (
        0.3,
        r"x holds 0.3; Bernoulli needs 0 or 1: binarize it.*ContinuousBernoulli; of 8",
    ),
    "Poisson": (-1.0, "x holds -1; Poisson needs a whole number of at least 0"),
    "Gamma": (-0.5, "x holds -0.5; Gamma needs a number of at least 0"),
    "Beta": (0.0, "x holds 0; Beta has no finite density there: shrink the ends"),
    "ContinuousBernoulli": (2.0, "0 to 1: divide by the largest, or use Discretized"),
    "Binomial(total_count=3)": (4.0, "x holds 4; Binomial needs a whole number from 0 to 3"),
    "Categorical(categories=3)": (3.0, "x holds 3; Categorical needs a whole number from 0 to 2"),
    "LogNormal": (0.0, "x holds 0; LogNormal needs a number greater than 0"),
    "Normal": (float("inf"), "x holds inf; Normal has no finite density there"),
    "Dirichlet": (
        0.9,
        r"x holds \[.*0.9.*\]; Dirichlet needs a vector of positive numbers that sum",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("line", SUPPORTS)
def test_data_outside_the_support_are_refused(line):
    value, message = SUPPORTS[line]
    x = small(likelihood=line).decode(torch.zeros(6, 2)).sample()
    x[1, 2] = value
    with pytest.raises(ValueError, match=message):
        pv.fit(small(likelihood=line), x, epochs=1)


BAD_MODELS = {
    "a guide of another support": (
        dict(prior="Gamma", guide="Normal"),
        "the guide Normal draws a finite number, the prior Gamma a number of at least 0",
    ),
    "a continuous guide for bits": (
        dict(prior="Bernoulli", guide="Beta"),
        "the prior Bernoulli 0 or 1",
    ),
    "an unknown network": (dict(encoder="MPL([3])"), "unknown network 'MPL'; did you mean MLP"),
    "an unknown activation": (
        dict(encoder="MLP([3], activation=Tan)"),
        "unknown activation 'Tan'; did you mean Tanh",
    ),
    "bad widths": (dict(encoder="MLP([0])"), "MLP takes a list of widths"),
    "a convolution of vectors": (dict(encoder="ConvEncoder"), "reshape the data, or use MLP"),
    "a network that does not fit": (
        dict(encoder=nn.Linear(3, 2)),
        r"the encoder cannot read an array of shape \(1, 4\)",
    ),
    "no features": (dict(decoder=nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))), r"shape \(B, ..."),
    "missing cells of a joint family": (
        dict(likelihood="MultivariateNormal", missing=True),
        "missing cells need a likelihood of independent cells",
    ),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_models_are_refused(name):
    options, message = BAD_MODELS[name]
    with pytest.raises(ValueError, match=message):
        pv.VAE(4, 2, **{"likelihood": "Normal", **options})


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="latent_dim must be a positive whole number"):
        pv.VAE(4, 0)
    with pytest.raises(ValueError, match="x_shape must be"):
        pv.VAE((4, -1), 2)
    net = pv.MLP([3])
    with pytest.raises(ValueError, match="give each its own"):
        pv.VAE(4, 2, encoder=net, decoder=net)

    class Loose(nn.Module):
        def forward(self):
            return dist.Normal(torch.zeros(2), 1.0)

    with pytest.raises(ValueError, match=r"declare the dimensions of one draw by .to_event"):
        pv.VAE(4, 2, prior=Loose())


def test_save_and_load(tmp_path):
    vae = small(missing=True).double()
    vae.save(tmp_path / "model")
    text = (tmp_path / "model" / "model.toml").read_text()
    assert 'likelihood = "Normal(scale=learned)"' in text
    again = pv.load(tmp_path / "model")
    assert again.describe() == vae.describe()
    assert torch.equal(again.sample(3, seed=0), vae.sample(3, seed=0))


def damage(folder, what):
    if what == "no folder":
        return folder / "nowhere"
    path = folder / ("model.toml" if "description" in what else "model.safetensors")
    if what == "no weights":
        path.unlink()
    elif what == "damaged weights":
        path.write_bytes(b"\x80\x04" + path.read_bytes()[:50])
    elif what == "foreign weights":
        small(missing=True).save(folder / "other")
        path.write_bytes((folder / "other" / path.name).read_bytes())
    elif what == "damaged description":
        path.write_text("x_shape = [")
    elif what == "foreign description":
        path.write_text('name = "something else"')
    return folder


DAMAGED = {
    "no folder": "holds no saved model",
    "no weights": "holds no saved model",
    "damaged weights": "holds a damaged model",
    "foreign weights": "does not fit the description",
    "damaged description": "holds a damaged model",
    "foreign description": "lacks latent_dim",
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_model_is_refused(what, tmp_path):
    small().save(tmp_path)
    with pytest.raises(ValueError, match=DAMAGED[what]):
        pv.load(damage(tmp_path, what))


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    small().save(tmp_path)

    def refuse(*args, **kwargs):
        raise AssertionError("a pickle was read")

    monkeypatch.setattr("pickle.load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    monkeypatch.setattr("torch.load", refuse)
    assert pv.load(tmp_path).x_shape == (4,)
