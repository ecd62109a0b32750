"""The estimator that is recommended; how well it is chosen, benchmarks/recommendation.py says."""

import signal

import pytest
import torch

import pyro_vae as pv
from pyro_vae.evaluate.gradients.recommendation import Pace, Race, _suitable
from pyro_vae.infer.training.step import NonFiniteLossError

NETWORKS = {"encoder": "MLP([20])", "decoder": "MLP([20])", "seed": 0}
MODELS = {  # the model, and K
    "normal": ({"latent_dim": 5}, 1),
    "bernoulli": (
        {"latent_dim": 200, "prior": "Bernoulli", "guide": "Bernoulli", "encoder": "MLP([])",
         "decoder": "MLP([])"},
        1,
    ),
    "categorical": (
        {"latent_dim": (3, 4), "prior": "OneHotCategorical", "guide": "OneHotCategorical"}, 1,
    ),
    "flow": ({"latent_dim": 5, "guide": "Flow(IAF, transforms=1, hidden_features=[20])"}, 1),
    "K = 50": ({"latent_dim": 5}, 50),
    "layers": ({"layers": [6, 3]}, 1),
}  # fmt: skip


def bits():
    """Scikit-learn's digits, darker or lighter than their means."""
    x = pv.load_data("digits").train.flatten(1)
    return (x > 0.5).float()


def make(name):
    options, k = MODELS[name]
    return pv.VAE(64, **{**NETWORKS, **options}), k


@pytest.mark.parametrize("name", MODELS)
def test_the_shortlist_suits_the_latent(name):
    vae, k = make(name)
    lines, refused = _suitable(vae, bits()[:20], None, k, 0)
    names = [str(line) for line in lines]
    expected = {
        "normal": {"TraceMeanField_ELBO", "Trace_ELBO", "Trace_ELBO(gradient=stl)"},
        "flow": {"Trace_ELBO", "Trace_ELBO(gradient=stl)"},
        "bernoulli": {"DisARM", "RLOO(num_particles=2)", "RELAX"},
        "categorical": {"TraceEnum_ELBO", "RLOO(num_particles=2)"},
        "K = 50": {"DReG(num_particles=50)"},
        "layers": {"Trace_ELBO"},
    }[name]
    assert expected <= set(names)
    assert ("TraceMeanField_ELBO" in refused) == (name in ("flow", "layers"))
    assert ("TraceEnum_ELBO" in refused) == (name == "bernoulli")  # of 2^200 joint states
    assert all("cannot serve" in why for why in refused.values())


@pytest.mark.slow
def test_a_bad_estimator_loses_and_the_model_stays(monkeypatch):
    vae, _ = make("normal")
    monkeypatch.setattr(Race, "time", lambda race, estimators: dict.fromkeys(estimators, 3.0))
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    lines = ["Trace_ELBO", "Trace_ELBO(gradient=score)"]
    found = pv.recommend_estimator(vae, bits()[:500], lines, seconds=1.5, seed=0)
    assert found.estimator == "Trace_ELBO"
    assert found.table.loc[lines[1], "difference"] < -2 * found.table.loc[lines[1]].difference_error
    assert "nats per observation" in found.why and lines[1] in found.why
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert vae.training


def test_an_interrupt_ends_all_races(monkeypatch):
    vae, _ = make("normal")
    race = Race(vae, bits()[:200], bits()[:20], 1, 100, 1e-3, 0)
    (line,), _ = _suitable(vae, bits()[:20], ["Trace_ELBO"], 1, 0)
    after = Pace.after_step

    def stop(pace, loss, n):
        after(pace, loss, n)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Pace, "after_step", stop)
    with pytest.raises(KeyboardInterrupt):
        race.time({"Trace_ELBO": line})


@pytest.mark.slow
def test_one_that_is_not_finite_from_the_start_loses(monkeypatch):
    train = Race.train

    def broken(race, estimator, steps, then):
        if "stl" in str(estimator):
            raise NonFiniteLossError("the loss is nan")
        return train(race, estimator, steps, then)

    monkeypatch.setattr(Race, "train", broken)
    vae, lines = make("normal")[0], ["Trace_ELBO", "Trace_ELBO(gradient=stl)"]
    found = pv.recommend_estimator(vae, bits()[:200], lines, seconds=0.05, seed=0)
    assert found.estimator == "Trace_ELBO"
    assert found.table.bound[lines[1]] == -torch.inf


@pytest.mark.slow
def test_it_says_why_there_is_none():
    vae = pv.VAE(4, 2, prior="Poisson(1.0)", guide="Poisson", likelihood="Normal", **NETWORKS)
    x = torch.randn(40, 4)
    with pytest.raises(ValueError, match="no estimator serves this model:\nDisARM cannot serve"):
        pv.recommend_estimator(vae, x, ["DisARM"], seconds=1)
    with pytest.raises(ValueError, match="9 observations are too few"):
        pv.recommend_estimator(vae, x[:9], seconds=1)
    alone = pv.recommend_estimator(vae, x, ["RLOO(num_particles=2)"], seconds=0.2)
    assert "no other of the shortlist" in alone.why
