"""Guides whose draws go on by leapfrog steps: unbiased weights, and what may be asked of them."""

import math

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

import pyro_vae as pv
from helpers.linear import SCALE, X, Z, linear_vae, marginal
from pyro_vae.infer import DAIS
from pyro_vae.model.joint import Joint


def moving(line):
    """The linear-Gaussian model under a guide that is shifted and too narrow, and its draws."""
    plain = linear_vae("mean-field", scale_factor=0.8, shift=0.3, mix=0.9)
    vae = pv.VAE(
        X, Z, likelihood=f"Normal(scale={SCALE})", guide=line,
        encoder=pv.MLP([]), decoder=pv.MLP([]), seed=1,
    ).double()  # fmt: skip
    vae.likelihood.load_state_dict(plain.likelihood.state_dict())
    vae.encoder.load_state_dict(plain.encoder.state_dict())
    vae.approximation.family.load_state_dict(plain.approximation.state_dict())
    return vae, plain, plain.sample(4, seed=100)


LINES = ("Hamiltonian(Normal(scale=learned), steps=3, step=0.3)",
         "Langevin(Normal(scale=learned), steps=3, step=0.3)")  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_the_weights_are_unbiased_and_the_bound_is_tighter(line):
    vae, plain, x = moving(line)
    with torch.no_grad():
        joint, without = Joint(vae, x), Joint(plain, x)
        log_w = joint.log_weight(joint.draw(6000)) - marginal(plain).log_prob(x)
        before = without.log_weight(without.draw(6000)) - marginal(plain).log_prob(x)
    w = log_w.exp()
    assert ((w.mean(0) - 1).abs() < 5 * w.std(0) / 6000**0.5).all()
    assert (log_w.mean(0) > before.mean(0) + 0.1).all()
    assert (log_w.mean(0) < 0).all()


def test_it_is_the_annealing_of_the_callback():
    vae, plain, x = moving("Hamiltonian(Normal(scale=learned), steps=3, step=0.3)")
    dais = DAIS(3, 0.3, 0.5)
    dais.chain.double()
    losses = []
    for model, guide in ((vae.model, vae.guide), dais.around(plain.model, plain.guide)):
        pyro.set_rng_seed(0)
        with pyro.get_param_store().scope():
            losses.append(Trace_ELBO().loss(model, guide, x))
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_the_gradient_is_that_of_the_path(line):
    vae, _, x = moving(line)

    def loss():
        pyro.set_rng_seed(3)
        return Trace_ELBO(num_particles=2, vectorize_particles=True).differentiable_loss(
            vae.model, vae.guide, x
        )

    parameters = [p for p in vae.parameters() if p.requires_grad]
    for p, slope in zip(parameters, torch.autograd.grad(loss(), parameters), strict=True):
        with torch.no_grad():
            at, sides = p.view(-1)[0], []
            start = at.item()
            for step in (1e-5, -1e-5):
                at.fill_(start + step)
                sides.append(loss().item())
            at.fill_(start)
        numeric = (sides[0] - sides[1]) / 2e-5
        assert slope.view(-1)[0].item() == pytest.approx(numeric, rel=1e-4, abs=1e-6)
        assert slope.isfinite().all() and (slope != 0).any()


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_evaluation_is_of_the_annealed_draws(line):
    vae, plain, x = moving(line)
    exact = marginal(plain).log_prob(x)
    found = pv.log_evidence(vae, x, num_samples=2000, seed=0)
    assert ((found.log_evidence - exact) / found.standard_error).abs().max() < 5
    fitted = pv.log_evidence(vae, x, num_samples=500, proposal="auto", seed=0)
    assert ((fitted.log_evidence - exact).abs() < 5 * fitted.standard_error + 1e-3).all()
    better = pv.elbo(vae, x, num_samples=300, seed=0).mean()
    assert better > pv.elbo(plain, x, num_samples=300, seed=0).mean()


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_training_learns_its_steps(line, tmp_path):
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    vae = pv.VAE(3, 2, likelihood="Normal(scale=0.5)", guide=line, encoder="MLP([4])",
                 decoder="MLP([4])", seed=0)  # fmt: skip
    pv.fit(vae, x, epochs=2, batch_size=30, lr=1e-2, seed=0, progress=False, compile=False)
    steps = vae.approximation.chain.log_step
    assert (steps != math.log(0.3)).all() and steps.isfinite().all()
    again = pv.load(vae.save(tmp_path / "run"))
    assert torch.equal(again.approximation.chain.log_step, steps)
    assert str(again.approximation.spec) == line


@pytest.mark.slow
def test_what_it_cannot_serve_is_refused_with_the_reason():
    vae, _, x = moving(LINES[0])
    for line in ("Trace_ELBO(gradient=stl)", "DReG"):
        with pytest.raises(ValueError, match="copy of the draw"):
            pv.compare_estimators(vae, x, [line], num_draws=4)
    with pytest.raises(ValueError, match="TraceMeanField_ELBO cannot serve"):
        pv.compare_estimators(vae, x, ["TraceMeanField_ELBO"], num_draws=4)
    with pytest.raises(NotImplementedError, match="at the guide's last own draws alone"):
        pv.log_evidence(vae, x, num_samples=30, wide=0.5)
    for line in ("Hamiltonian(Gamma)", "Langevin(Bernoulli)"):
        with pytest.raises(ValueError, match=r"does not allow: use \w+\(Normal\)"):
            pv.VAE(3, 2, guide=line)
    with pytest.raises(ValueError, match="choose another prior, or guide='Normal'"):
        pv.VAE(3, 2, prior="VampPrior(components=2)", guide="Hamiltonian(Normal)")
    with pytest.raises(ValueError, match="Hamiltonian is of the whole guide"):
        pv.M2(3, 2, classes=2, guide="Hamiltonian(Normal)")
    with pytest.raises(ValueError, match="damping is a fraction between 0 and 1"):
        pv.VAE(3, 2, guide="Hamiltonian(Normal, damping=2)")
