"""Acts are alone and leave no trace: values in threads, and what evaluates in training mode."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from inspect import signature

import numpy as np
import pyro
import pytest
import torch
from torch import nn

import pyro_vae as pv
from pyro_vae.core.acting import evaluating
from pyro_vae.model.inference import Inference

pytestmark = pytest.mark.usefixtures("short_pilot")

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(12) % 3


def small(seed):
    return pv.VAE(
        4,
        2,
        likelihood="Normal(scale=learned)",
        encoder=pv.MLP([3]),
        decoder=pv.MLP([3]),
        seed=seed,
    )


def train(vae, seed):
    with evaluating(vae):  # the weights that it starts from are given back
        start = {name: value.clone() for name, value in vae.state_dict().items()}
        history = pv.fit(vae, X, epochs=1, batch_size=6, seed=seed, compile=False).history
        vae.load_state_dict(start)
    return torch.tensor(history.elbo_train.to_numpy())


ACTS = {
    "elbo": lambda vae, seed: pv.elbo(vae, X, num_samples=3, seed=seed),
    "sample": lambda vae, seed: vae.sample(3, seed=seed),
    "log_evidence": lambda vae, seed: (
        pv.log_evidence(vae, X, num_samples=5, seed=seed).log_evidence
    ),
    "elbo_draws": lambda vae, seed: torch.tensor(
        pv.elbo_draws(vae, X, num_draws=4, seed=seed).posterior["elbo"].values
    ),
}


@pytest.fixture
def often_switched():
    """Threads take turns after a few operations, so that a race shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def calls():
    """120 acts of two models."""
    models = [small(0), small(1)]
    return [
        partial(act, vae, seed) for seed in range(15) for act in ACTS.values() for vae in models
    ]


@pytest.mark.slow
def test_a_thread_pool_has_one_threads_values(calls, often_switched):
    assert len(calls) == 120
    alone = [call() for call in calls]
    state, validated = torch.get_rng_state(), pyro.infer.util.is_validation_enabled()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda call: call(), calls))
    assert all(map(torch.equal, together, alone))
    assert torch.equal(torch.get_rng_state(), state)
    assert pyro.infer.util.is_validation_enabled() is validated
    assert not pyro.poutine.runtime._PYRO_STACK
    assert not list(pyro.get_param_store().keys())


@pytest.mark.slow
def test_asyncio_has_one_threads_values(calls, often_switched):
    async def gather():
        return await asyncio.gather(*(asyncio.to_thread(call) for call in calls[:80]))

    alone = [call() for call in calls[:80]]
    assert all(map(torch.equal, asyncio.run(gather()), alone))


@pytest.mark.slow
def test_training_in_threads_is_training_alone(often_switched):
    """Beside evaluations of another model."""
    models = [small(0), small(1)]
    calls = [partial(train, models[0], seed) for seed in range(6)]
    calls += [partial(act, models[1], seed) for seed in range(10) for act in ACTS.values()]
    calls.sort(key=lambda call: call.args[1])
    alone = [call() for call in calls]
    with ThreadPoolExecutor(3) as pool:
        assert all(map(torch.equal, pool.map(lambda call: call(), calls), alone))


def test_an_act_within_an_act_does_not_wait_for_itself():
    vae = small(0)
    with evaluating(vae, 3):
        inner = pv.elbo(vae, X, seed=1)
    assert torch.equal(inner, pv.elbo(vae, X, seed=1))


def test_an_error_lets_the_others_go_on():
    vae = small(0)
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="x"):
        pool.submit(pv.elbo, vae, X[:, :2]).result()
    assert pv.elbo(vae, X, seed=0).shape == (12,)


class Noisy(nn.Module):
    """Features that training mode changes in both ways: with noise, and by the other rows."""

    def __init__(self, ends):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(ends, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))

    def forward(self, x):
        return self.layers(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], 5)


def noisy(ends=4, **parts):
    """A model whose encoder reads so many numbers."""
    torch.manual_seed(0)
    networks = {"encoder": Noisy(ends), "decoder": Noisy(2)}
    vae = pv.VAE(4, 2, **{"likelihood": "Normal(scale=learned)", "seed": 0} | networks | parts)
    for name, buffer in vae.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 2)
    return vae


def numbers(value):
    """The numbers of an answer, in a flat list of tensors; what is measured in time is left out."""
    if isinstance(value, torch.Tensor):
        return [value.detach()]
    if isinstance(value, np.ndarray | int | float):
        return [torch.tensor(value)]
    if hasattr(value, "groups"):  # of ArviZ
        names = value.groups() if callable(value.groups) else value.groups
        return [number for name in names if name != "/" for number in numbers(value[name])]
    if hasattr(value, "data_vars"):
        timed = ("ms", "work")
        floats = {k: v.values for k, v in value.data_vars.items() if v.dtype.kind == "f"}
        return [torch.tensor(v) for k, v in floats.items() if not k.startswith(timed)]
    if hasattr(value, "select_dtypes"):
        return [torch.tensor(value.select_dtypes("number").to_numpy())]
    if isinstance(value, tuple | list):
        return [number for part in value for number in numbers(part)]
    return [number for part in getattr(value, "__dict__", {}).values() for number in numbers(part)]


EVALUATING = {
    "ais": lambda vae: pv.ais(vae, X, temperatures=3, chains=2, seed=0),
    "bdmc": lambda vae: pv.bdmc(vae, num_data=2, temperatures=3, chains=2, seed=0),
    "log_evidence": lambda vae: pv.log_evidence(vae, X, num_samples=5, seed=0),
    "outlier_scores": lambda vae: pv.outlier_scores(vae, X, X, num_samples=5, seed=0),
    "compare_estimators": lambda vae: pv.compare_estimators(vae, X, ["Trace_ELBO"], num_draws=34),
    "elbo": lambda vae: pv.elbo(vae, X, num_samples=3, seed=0),
    "elbo_draws": lambda vae: pv.elbo_draws(vae, X, num_draws=4, seed=0),
    "calibration": lambda vae: pv.calibration(vae, num_data=40, num_samples=9, seed=0),
    "gaps": lambda vae: pv.gaps(vae, X[:2], steps=3, num_samples=50, seed=0),
    "posterior": lambda vae: pv.posterior(
        vae, X[:1], method="metropolis", num_samples=8, warmup=4, seed=0
    ),
    "predictive_check": lambda vae: pv.predictive_check(vae, X.repeat(5, 1), num_samples=20),
    "to_arviz": lambda vae: pv.to_arviz(vae, X, num_samples=4, seed=0),
    "factor_scores": lambda vae: pv.factor_scores(vae, X, LABELS[:, None], seed=0),
    "label_scores": lambda vae: pv.label_scores(vae, X, LABELS, folds=2, neighbors=2, seed=0),
    "assess": lambda vae: pv.assess(vae, X, num_samples=50, steps=3, seed=0),
    "imputation_check": lambda vae: (
        pv.imputation_check(vae, X.repeat(8, 1), draws=19, num_samples=20, seed=0).table
    ),
    "sumo": lambda vae: pv.sumo(vae, X, seed=0),
    "latent_summary": lambda vae: pv.latent_summary(vae, X, seed=0),
    "rate_distortion": lambda vae: pv.rate_distortion(vae, X, num_samples=2, seed=0),
}

# What is of other kinds of x, each with a model of its kind.
COUNTS = torch.poisson(torch.full((12, 4), 3.0), torch.Generator().manual_seed(2))
LEVELS = COUNTS.clamp(max=7)
HALF = LABELS == 0
EVALUATING |= {
    "attribute_step": lambda vae: pv.attribute_step(vae, X, LABELS),
    "move": lambda vae: pv.move(vae, X, torch.tensor([1.0, -2.0]), 0.5),
    "rates": lambda vae: pv.rates(vae, COUNTS, num_samples=3, seed=0),
    "differential_expression": lambda vae: pv.differential_expression(
        vae, COUNTS, HALF, ~HALF, draws=9, seed=0
    ),
    "loadings": lambda vae: pv.loadings(vae),
    "topics": lambda vae: pv.topics(vae, [*"abcd"], COUNTS, top=2),
    "perplexity": lambda vae: pv.perplexity(vae, COUNTS, num_samples=5, seed=0),
    "bits_per_dimension": lambda vae: pv.bits_per_dimension(vae, pv.elbo(vae, LEVELS, seed=0)),
}
METHODS = {
    "encode": lambda vae: list(vars(vae.encode(X).base_dist).values()),
    "refine": lambda vae: list(vars(vae.refine(X, steps=2, seed=0).base_dist).values()),
    "reconstruct": lambda vae: vae.reconstruct(X),
    "sample": lambda vae: vae.sample(3, seed=0),
    "interpolate": lambda vae: vae.interpolate(X[0], X[1]),
    "impute": lambda vae: vae.impute(X, num_samples=5, sweeps=1, seed=0),
    "imputations": lambda vae: vae.imputations(X, num_samples=5, sweeps=1, seed=0).values,
    "check": lambda vae: vae.check(X),
    "as_data": lambda vae: vae.as_data(X),
}
EXPOSED = {"ends": 5, "likelihood": "Poisson", "offset": "library"}
DOCUMENTS = {"ends": 5, "likelihood": "Multinomial", "decoder": "Topics(dropout=0.5)"}
OF_KIND = {
    "rates": EXPOSED,
    "differential_expression": EXPOSED,
    "topics": DOCUMENTS,
    "perplexity": DOCUMENTS,
    "loadings": {"likelihood": "Poisson", "decoder": "MLP([])"},
    "bits_per_dimension": {"ends": 32, "likelihood": "Categorical(categories=8)"},
}
CALLS = EVALUATING | {f"VAE.{name}": call for name, call in METHODS.items()}
# What training calls, which must see dropout, and what needs a condition.
TRAINING = {"approximate_posterior", "decode", "prior_at", "counterfactual"}


def test_every_method_of_a_model_is_walked():
    public = {n for n, f in vars(Inference).items() if not n.startswith("_") and callable(f)}
    assert public - TRAINING == set(METHODS) - {"check"}


OTHERS = {"citation", "fit", "train_estimators", "compress", "decompress", "paired_differences",
          "fit_prior", "recommend_estimator"}  # fmt: skip


def test_every_function_of_a_model_is_walked():
    """All but those that train or only read names, and those that need discrete data."""
    functions = {n: getattr(pv, n) for n in pv.__all__ if hasattr(getattr(pv, n), "__code__")}
    of_models = {
        n for n, f in functions.items() if next(iter(signature(f).parameters), "") == "vae"
    }
    assert of_models - OTHERS == set(EVALUATING)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.slow
def test_training_mode_changes_no_figure_and_evaluating_no_model(name):
    vae, act = noisy(**OF_KIND.get(name, {})), CALLS[name]
    vae.eval()
    expected = numbers(act(vae))
    assert expected
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    vae.train()
    found = numbers(act(vae))
    assert all(module.training for module in vae.modules())
    for key, value in vae.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(p.grad is None for p in vae.parameters())
    for number, other in zip(found, expected, strict=True):
        assert torch.equal(number.nan_to_num(), other.nan_to_num())


GRADIENTS = {  # what takes gradients, and a figure that is another one without them
    "fit": lambda vae: pv.fit(vae, X, epochs=2, seed=0, progress=False).history.elbo_train.iloc[-1],
    "compare_estimators": lambda vae: (
        pv.compare_estimators(vae, X, ["Trace_ELBO"], num_draws=40, burn_in=1)
        .grad_variance.sel(parameter="all")
        .item()
    ),
    "posterior": lambda vae: (
        pv.posterior(vae, X[:1], num_samples=4, warmup=2, chains=1).posterior["z"].sum().item()
    ),
    "fit_prior": lambda vae: (
        pv.fit_prior(vae, X, "Normal(loc=learned)", epochs=1, seed=0, validation=0.5)
        .vae.prior.sources["loc"]
        .unconstrained.sum()
        .item()
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_taken_where_the_caller_takes_none(name):
    """Without: a training that trained nothing, and a gradient without variance, in silence."""
    figure = GRADIENTS[name]
    expected = figure(small(0))
    with torch.no_grad():
        assert figure(small(0)) == expected
    vae = small(0)
    with torch.inference_mode(), pytest.raises(ValueError, match=r"use torch.no_grad\(\) there"):
        figure(vae)


@pytest.mark.parametrize(
    ("guide", "call"),
    [
        ("Normal", lambda vae: vae.refine(X, steps=1)),
        ("Normal", lambda vae: pv.log_evidence(vae, X, num_samples=9, proposal="auto")),
        ("Hamiltonian(steps=1)", lambda vae: pv.elbo(vae, X)),
    ],
)
def test_gradients_within_a_call_are_refused_in_inference_mode_too(guide, call):
    vae = pv.VAE(4, 2, likelihood="Normal", guide=guide, encoder=[2], decoder=[2], seed=0)
    with torch.inference_mode(), pytest.raises(ValueError, match="this model, or what is asked of"):
        call(vae)
