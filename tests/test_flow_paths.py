"""Sticking the landing with flows as guides: the path of a draw from the pass that made it."""

from copy import deepcopy

import pyro
import pytest
import torch

import pyro_vae as pv
from pyro_vae.infer import make_estimator
from pyro_vae.infer.engine.capture import capture

FLOWS = {
    "IAF": "Flow(IAF, transforms=2, hidden_features=[8])",
    "NSF": "Flow(NSF, transforms=1, hidden_features=[8])",
    "of a matrix": "Flow(MAF, transforms=1, hidden_features=[8])",
    "a base without parameters": "Flow(IAF, base=Normal(loc=0, scale=1), hidden_features=[8])",
}


def gradient(vae, x, line="Trace_ELBO(gradient=stl)"):
    """Of one step, from the same noise."""
    estimator = make_estimator(line)
    pyro.set_rng_seed(3)
    vae.zero_grad()
    with pyro.get_param_store().scope():
        loss = estimator.elbo.loss_and_grads(vae.model, estimator.wrap(vae.guide, x), x)
    return loss, torch.cat([p.grad.flatten() for p in vae.parameters() if p.grad is not None])


def model(name):
    shape = (3, 2) if name == "of a matrix" else 4
    return pv.VAE(5, shape, guide=FLOWS[name], encoder="MLP([6])", seed=0).double()


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("k", [1, 3])
def test_the_path_is_that_of_the_inverse(name, k):
    vae, x = model(name), torch.rand(7, 5).double().round()
    line = f"Trace_ELBO(gradient=stl, num_particles={k})"
    assert vae.approximation.one_way
    found = gradient(vae, x, line)
    vae.approximation.one_way = False
    wanted = gradient(vae, x, line)
    assert found[0] == pytest.approx(wanted[0], rel=1e-6)
    error = (found[1] - wanted[1]).norm() / wanted[1].norm()
    assert error < 1e-6 and not torch.allclose(found[1], gradient(vae, x, "Trace_ELBO")[1])


def test_no_draw_is_taken_back(monkeypatch):
    vae, x = model("IAF"), torch.rand(7, 5).double().round()
    q = vae.approximate_posterior(x)
    kind, ways = type(q), []
    plain = kind._pass
    monkeypatch.setattr(
        kind, "_pass", lambda s, *, forth: ways.append(forth) or plain(s, forth=forth)
    )
    gradient(vae, x)
    assert ways == [True]
    vae.approximation.one_way = False
    gradient(vae, x)
    assert False in ways


def test_what_is_as_quick_both_ways_is_taken_back():
    for line in ("Flow(RealNVP)", "Flow(NSF, passes=2)", "Flow(NSF, inverse=False)"):
        vae = pv.VAE(5, 4, guide=line, seed=0)
        assert not vae.approximation.one_way
        q = vae.approximate_posterior(torch.zeros(2, 5))
        assert q.slope(q.rsample()) is None


def test_other_values_have_no_path_here():
    q = model("IAF").approximate_posterior(torch.zeros(2, 5).double())
    z = q.rsample()
    assert q.slope(z.detach()) is None and q.slope(z.clone()) is None
    log_q, slope = q.slope(z)
    here = z.detach().requires_grad_()
    (wanted,) = torch.autograd.grad(q.log_prob(here).sum(), here)
    assert torch.allclose(slope, wanted, rtol=1e-6) and torch.allclose(log_q, q.log_prob(here))


@pytest.mark.slow
def test_it_is_captured_as_other_steps_are():
    vae, x = model("IAF"), torch.rand(7, 5).double().round()
    estimator = make_estimator("Trace_ELBO(gradient=stl)")
    with pyro.get_param_store().scope():
        guide = estimator.wrap(vae.guide, x)
        estimator.elbo.loss_and_grads(vae.model, guide, x)
        graph = capture(estimator.elbo, vae.model, guide, x)
        torch.manual_seed(0)
        loss, *_ = graph.module(*graph.inputs, *graph.live)
        torch.manual_seed(0)
        assert loss.item() == pytest.approx(estimator.elbo.loss_and_grads(vae.model, guide, x))


def test_where_the_guide_is_the_posterior_its_gradient_is_zero():
    """The landing sticks: the target is the guide's own density, held fixed."""
    flow, h = model("IAF").approximation, torch.zeros(6, 6).double()
    fixed = deepcopy(flow).requires_grad_(False)

    def guide(x):
        with pyro.plate("data", 6):
            pyro.sample("z", flow(h))

    def target(x):
        with pyro.plate("data", 6):
            pyro.sample("z", fixed(h))

    sizes = {}
    for line in ("Trace_ELBO(gradient=stl)", "Trace_ELBO"):
        estimator = make_estimator(line)
        flow.zero_grad()
        estimator.elbo.differentiable_loss(target, estimator.wrap(guide, h), h).backward()
        sizes[line] = max(
            p.grad.abs().max().item() for p in flow.parameters() if p.grad is not None
        )
    assert sizes["Trace_ELBO(gradient=stl)"] < 1e-6 < 1e-2 < sizes["Trace_ELBO"]
