"""A guide that takes steps for each observation from the encoder's answer, in training too."""

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

import pyro_vae as pv
from helpers.linear import SCALE, X, Z, linear_vae, marginal, posterior
from pyro_vae import make_estimator
from pyro_vae.infer.engine.capture import capture
from pyro_vae.infer.estimators.soundness import check
from pyro_vae.model.joint import Joint


def data(n, seed=0):
    torch.manual_seed(seed)
    return marginal(linear_vae()).sample((n,))


def semi(line, encoder=None, guide="Normal(scale=learned)"):
    """The model of ``linear.py`` with its weights, under a guide that was not trained."""
    vae = pv.VAE(
        X, Z, likelihood=f"Normal(scale={SCALE})", guide=f"SemiAmortized({guide}, {line})",
        encoder=encoder or pv.MLP([]), decoder=pv.MLP([]), seed=3,
    ).double()  # fmt: skip
    vae.likelihood.load_state_dict(linear_vae().likelihood.state_dict())
    return vae


@pytest.mark.slow
def test_enough_steps_lead_to_the_best_guide_of_the_family():
    """Ascent on a quadratic: its noise has mean zero, so many runs average to the optimum."""
    vae, x = semi("steps=400, lr=0.02, clip_norm=1e9"), data(1)
    with torch.no_grad():
        start = vae.approximation(vae.encoder(x)).mean
        found = vae.encode(x.expand(2000, X)).mean
    best = posterior(linear_vae(), x).mean
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - best).abs() < 5 * error).all()
    assert (start - best).abs().max() > 0.3 and error.max() < 0.01


class FirstCell(nn.Module):
    """An encoder that looks at one cell only, and must leave the rest to the steps."""

    def forward(self, x):
        return x[:, :1].expand(-1, Z)


FULL = "MultivariateNormal(scale_tril=learned)"


@pytest.mark.slow
def test_steps_close_the_gap_that_a_blind_encoder_leaves():
    """What is left of it is their noise, which falls with the number of particles."""
    x, gaps = data(200), []
    exact = marginal(linear_vae()).log_prob(x)
    for line in ("steps=1, lr=1e-9", "steps=250, lr=0.03", "steps=250, lr=0.03, num_particles=16"):
        vae = semi(f"{line}, clip_norm=1e9", FirstCell(), FULL)
        scale = linear_vae().approximation.sources["scale_tril"]
        vae.approximation.family.sources["scale_tril"].load_state_dict(scale.state_dict())
        gaps.append((exact - pv.elbo(vae, x, num_samples=5, seed=0)).mean().item())
    assert gaps[0] > 3 and gaps[1] < 0.3 and 0 < gaps[2] < gaps[1] / 8


@pytest.mark.slow
def test_training_gets_further_with_steps():
    x, bounds = data(500), []
    for line in ("steps=1, lr=1e-9", "steps=10, lr=0.05, num_particles=16"):
        vae = semi(line, FirstCell(), FULL)
        pv.fit(vae, x, epochs=3, lr="cosine(0.05)")
        bounds.append(pv.elbo(vae, x, num_samples=20, seed=0).mean().item())
    assert bounds[0] + 2 < bounds[1]


def bound(vae, x):
    torch.manual_seed(0)
    q = vae.approximate_posterior(x)
    z = q.rsample(torch.Size([2]))
    return (Joint(vae, x).log_joint(z) - q.log_prob(z)).mean(0).sum()


@pytest.mark.slow
def test_the_gradient_through_the_steps_is_the_derivative():
    vae, x = semi("steps=4, lr=0.05", pv.MLP([6], activation="Tanh"), "Normal"), data(3)
    for name, p in vae.named_parameters():
        (slope,) = torch.autograd.grad(bound(vae, x), p)
        for i in {0, p.numel() - 1}:
            values = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    p.flatten()[i] += step
                    values.append(bound(vae, x).item())
                    p.flatten()[i] -= step
            numeric = (values[0] - values[1]) / 2e-5
            assert slope.flatten()[i].item() == pytest.approx(numeric, rel=1e-5, abs=1e-6), name


def test_without_it_what_the_steps_add_is_a_constant():
    line = "steps=4, lr=0.05, through=False"
    vae, x = semi(line, pv.MLP([6], activation="Tanh"), "Normal"), data(3)
    found = torch.autograd.grad(bound(vae, x), list(vae.parameters()))
    torch.manual_seed(0)
    h = vae.encoder(x)
    with torch.no_grad():
        added = vae.approximation.improve(h, lambda z: Joint(vae, x).log_joint(z)) - h
    q = vae.approximation(h + added)  # the seed goes on where the steps left it
    z = q.rsample(torch.Size([2]))
    value = (Joint(vae, x).log_joint(z) - q.log_prob(z)).mean(0).sum()
    for one, other in zip(found, torch.autograd.grad(value, list(vae.parameters())), strict=True):
        assert torch.allclose(one, other)
        assert other.abs().max() > 0
    exact = semi("steps=4, lr=0.05", pv.MLP([6], activation="Tanh"), "Normal")
    exact.load_state_dict(vae.state_dict())
    other = torch.autograd.grad(bound(exact, x), list(exact.parameters()))
    assert not torch.allclose(found[0], other[0], rtol=1e-2)


def test_a_step_is_no_longer_than_the_clipped_gradient_allows():
    vae, x = semi("steps=1, lr=0.5, clip_norm=0.01"), 100 * data(3)
    h = vae.encoder(x)
    moved = vae.approximation.improve(h, lambda z: Joint(vae, x).log_joint(z)) - h
    assert torch.allclose(moved.norm(dim=1), torch.full((3,), 0.005).double())


@pytest.mark.slow
@pytest.mark.parametrize("through", [True, False])
def test_the_step_can_be_made_a_graph(through):
    vae, x, elbo = semi(f"steps=3, through={through}", guide="Normal"), data(5), Trace_ELBO()
    graph = capture(elbo, vae.model, vae.guide, x)
    torch.manual_seed(0)
    loss, *gradients = graph.module(x, *graph.live)
    torch.manual_seed(0)
    assert elbo.loss_and_grads(vae.model, vae.guide, x) == pytest.approx(loss.item())
    assert len(gradients) == len(list(vae.parameters()))
    for parameter, found in zip(graph.parameters.values(), gradients, strict=True):
        assert torch.allclose(parameter.grad, found) and found.abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [
    "Trace_ELBO(num_particles=2)", "Trace_ELBO(gradient=stl)", "TraceMeanField_ELBO",
    "DReG", "Trace_ELBO(gradient=score)",
])  # fmt: skip
def test_estimators_train_it_and_it_is_saved(estimator, tmp_path):
    vae = pv.VAE((1, 4, 4), 3, guide="SemiAmortized(Normal, steps=2, clip_norm=1.0)",
                 encoder="ConvEncoder([4])", seed=0)  # fmt: skip
    x = torch.rand(20, 1, 4, 4).round()
    fit = pv.fit(vae, x, estimator=estimator, epochs=1, batch_size=10)
    assert fit.history.elbo_train.notna().all()
    again = pv.load(vae.save(tmp_path))
    assert again.describe()["guide"] == "SemiAmortized(Normal, steps=2, clip_norm=1.0)"
    assert torch.equal(pv.elbo(again, x, seed=0), pv.elbo(vae, x, seed=0))


REFUSED = {
    "SemiAmortized(Normal, steps=0)": "steps is a whole number",
    "SemiAmortized(Normal, lr=-1)": "lr is a number greater than 0",
    "SemiAmortized(SemiAmortized(Normal))": "of the whole guide",
}


@pytest.mark.parametrize("line", REFUSED)
def test_bad_lines_are_refused(line):
    with pytest.raises(ValueError, match=REFUSED[line]):
        pv.VAE(4, 2, guide=line)


def test_what_cannot_be_improved_is_refused():
    with pytest.raises(ValueError, match="VampPrior is made of"):
        pv.VAE(4, 2, prior="VampPrior(components=3)", guide="SemiAmortized(Normal)")
    vae = pv.VAE(4, 2, prior="Bernoulli", guide="SemiAmortized(Bernoulli)")
    with pytest.raises(ValueError, match="no reparameterized sampler"):
        vae.encode(torch.ones(1, 4))
    with pytest.raises(ValueError, match="of the whole guide"):
        pv.M2(4, 2, 2, guide="SemiAmortized(Normal)")


@pytest.mark.parametrize("line", ["RWS", "CUBO"])
def test_a_guide_with_an_objective_of_its_own_leaves_the_model_its_own(line):
    """Through the steps log q depends on the decoder, which would follow the guide's objective."""
    with pyro.get_param_store().scope():
        vae = semi("steps=2")
        with pytest.raises(ValueError, match=f"{line} cannot .* say through=False"):
            check(make_estimator(line), vae.model, vae.guide, data(3))
    vae = semi("steps=2, through=False")
    check(make_estimator(line), vae.model, vae.guide, data(3))
    q = vae.approximate_posterior(data(3))
    q.log_prob(q.sample()).sum().backward()
    assert all(p.grad is None for p in vae.likelihood.parameters())
