"""What classical autoencoders are made of; notebooks 02, 03 and 08 hold what they learn."""

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

import pyro_vae as pv
from pyro_vae.infer import Contractive
from pyro_vae.infer.engine.capture import capture

pytestmark = pytest.mark.slow

WINE = torch.tensor(StandardScaler().fit_transform(load_wine().data))


def test_corruption_is_of_training_alone_and_is_saved(tmp_path):
    line = "Corrupted(MLP([20]), noise=0.5, drop=0.3)"
    vae = pv.VAE(4, 2, likelihood="Normal", encoder=line, seed=0)
    x = torch.ones(2000, 4)
    seen = []
    hook = vae.encoder.network.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    vae.train().approximate_posterior(x)
    vae.encode(x)
    hook.remove()
    assert torch.equal(seen[1], x)
    assert (seen[0] == 0).float().mean() == pytest.approx(0.3, abs=0.03)
    kept = seen[0][seen[0] != 0]
    assert kept.mean() == pytest.approx(1, abs=0.05) and kept.std() == pytest.approx(0.5, abs=0.03)
    again = pv.load(vae.save(tmp_path))
    assert again.describe()["encoder"] == vae.describe()["encoder"]
    assert torch.equal(again.eval().encode(x).mean, vae.encode(x).mean)
    for bad, message in {
        "noise=-1": "noise is a number of at least 0",
        "drop=1": "drop is a fraction",
    }.items():
        with pytest.raises(ValueError, match=message):
            pv.VAE(4, 2, encoder=f"Corrupted(MLP([20]), {bad})")


def jacobians(vae, x):
    """Of the guide's mean at each observation."""
    return torch.func.vmap(
        torch.func.jacrev(lambda one: vae.approximate_posterior(one[None]).mean[0])
    )(x)


class ContractiveVAE(pv.VAE):
    weight = 0.0

    def guide(self, x):
        return Contractive(self.weight)(super().guide)(x)


@pytest.mark.parametrize("elbo", [TraceMeanField_ELBO, Trace_ELBO])
@pytest.mark.parametrize("num_particles", [1, 3])
def test_the_contractive_penalty_is_the_norm_of_the_jacobian(elbo, num_particles):
    vae = pv.VAE(3, 2, likelihood="Normal(scale=1)", encoder=pv.MLP([8], activation="Tanh"), seed=0)
    vae.double()
    x, copies = WINE[:5, :3], 20
    many = x.repeat(copies, 1)

    exact = jacobians(vae, x).square().sum()
    exact_gradient = torch.autograd.grad(exact, list(vae.encoder.parameters()))
    bound = elbo(num_particles=num_particles, vectorize_particles=num_particles > 1)
    draws, slopes = [], []
    for seed in range(30):
        found = []
        for guide in (Contractive(2.0)(vae.guide), vae.guide):
            pyro.set_rng_seed(seed)
            vae.zero_grad()
            loss = bound.loss_and_grads(vae.model, guide, many) / copies
            gradient = torch.cat([p.grad.flatten() for p in vae.encoder.parameters()])
            found.append((loss, gradient / copies))
        draws.append(found[0][0] - found[1][0])
        slopes.append(found[0][1] - found[1][1])
    draws, slopes = torch.tensor(draws), torch.stack(slopes)
    if elbo is TraceMeanField_ELBO or num_particles == 1:
        z = (draws.mean() - 2 * exact) / (draws.std() / len(draws) ** 0.5)
        assert abs(z) < 5
    expected = 2 * torch.cat([g.flatten() for g in exact_gradient])
    z = (slopes.mean(0) - expected) / (slopes.std(0) / len(slopes) ** 0.5)
    assert expected.abs().max() > 0.1 and z.abs().max() < 5


def test_the_contractive_penalty_can_be_made_a_graph():
    vae = pv.VAE(3, 2, likelihood="Normal(scale=1)", encoder=pv.MLP([8]), seed=0).double()
    x, guide, elbo = WINE[:20, :3], Contractive(2.0)(vae.guide), TraceMeanField_ELBO()
    graph = capture(elbo, vae.model, guide, x)
    torch.manual_seed(0)
    loss, *gradients = graph.module(x, *graph.live)
    torch.manual_seed(0)
    assert elbo.loss_and_grads(vae.model, guide, x) == pytest.approx(loss.item())
    for parameter, gradient in zip(graph.parameters.values(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient)


def test_the_contractive_one_trains_and_is_flatter():
    slopes = {}
    for weight in (0.0, 1.0):
        vae = ContractiveVAE(3, 2, likelihood="Normal(scale=0.5)", encoder=pv.MLP([8]), seed=0)
        vae.double().weight = weight
        told = pv.fit(vae, WINE[:, :3], epochs=30, lr=3e-2).history.iloc[-1]
        assert told.elbo_train == pytest.approx(told.log_likelihood - told.kl)
        slopes[weight] = jacobians(vae, WINE[:, :3]).square().sum((1, 2)).mean().item()
    assert slopes[1.0] < 0.5 * slopes[0.0]
