"""Evaluations and pictures of models that read a context, an offset and a weight beside x.

At one context and one offset for all observations such a model is a plain one, whose biases and
likelihood hold the two: every figure and picture must be the plain model's, draw by draw.
"""

import dataclasses
import inspect
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyro.poutine as poutine
import pytest
import torch
from matplotlib import pyplot
from torch import nn

import pyro_vae as pv
from pyro_vae import evaluate, plots
from pyro_vae.families.likelihoods import with_offset

CONTEXT, OFFSET, WEIGHT = (0.7, -1.2), 0.4, 2.0
BLOCKS = [
    pv.Block("x", (1, 2, 2)),
    pv.Block("c", 2, role="context"),
    pv.Block("exposure", role="offset"),
    pv.Block("w", role="weight"),
]
N = 24
LABELS = torch.arange(N) % 2


class Shifted(nn.Module):
    """A likelihood with the offset within."""

    def __init__(self, likelihood):
        super().__init__()
        self.likelihood = likelihood

    def forward(self, features):
        return with_offset(
            self.likelihood(features), torch.full((1, 1, 1, 1), OFFSET, dtype=torch.double)
        )


def fold(plain, conditional, context):
    """Give a plain network the weights of one that reads the context too."""
    plain.load_state_dict(
        {k: v for k, v in conditional.state_dict().items() if k != first(conditional)},
        strict=False,
    )
    weight = conditional.state_dict()[first(conditional)]
    own = plain.state_dict()[first(plain)]
    own.copy_(weight[:, : own.shape[1]])
    bias = plain.state_dict()[first(plain).replace("weight", "bias")]
    bias += weight[:, own.shape[1] :] @ context


def first(network):
    return next(name for name, _ in network.named_parameters() if name.endswith("weight"))


class At(nn.Module):
    """A prior that reads a context, at one."""

    def __init__(self, prior, context):
        super().__init__()
        self.prior, self.context = prior, context

    def forward(self):
        return self.prior(self.context)


@pytest.fixture(scope="module", params=["Normal", "Normal(loc=amortized, scale=amortized)"])
def models(request):
    """``(conditional model, its x), (plain model, its x)``."""
    nets = {"encoder": "MLP([4])", "decoder": "MLP([4])", "seed": 0}
    lines = {"likelihood": "Poisson", "prior": request.param}
    vae = pv.VAE(pv.Record(BLOCKS), 2, **lines, **nets).double()
    plain = pv.VAE((1, 2, 2), 2, likelihood="Poisson", **nets).double()
    context = torch.tensor(CONTEXT).double()
    fold(plain.decoder, vae.decoder, context)
    vae.inputs.exposure.centre.fill_(OFFSET)  # then a usual exposure, which changes no counts
    fold(plain.encoder, vae.encoder, torch.cat([context, torch.zeros(1)]).repeat_interleave(4))
    for name in ("approximation", "likelihood"):
        getattr(plain, name).load_state_dict(getattr(vae, name).state_dict())
    plain.likelihood = Shifted(plain.likelihood)
    if vae.prior_reads:
        plain.prior = At(vae.prior, context)
    x = torch.poisson(torch.full((N, 1, 2, 2), 3.0), torch.Generator().manual_seed(0)).double()
    beside = {"c": context.expand(N, 2), "exposure": np.full(N, OFFSET), "w": np.full(N, WEIGHT)}
    return (vae, vae.record.pack({"x": x, **beside})), (plain, x)


def assessed(assessment):
    """All but the observations that it has drawn, which one model packs with their context."""
    assert not assessment.refused
    return assessment.table, assessment.by_observation, assessment.gaps, assessment.calibration


FEW = {"num_samples": 30, "seed": 0}
ANNEAL = {"temperatures": 5, "chains": 2, "leapfrog": 1, "seed": 0}
EVALUATIONS = {
    "ais": lambda vae, x: dataclasses.replace(pv.ais(vae, x[:3], **ANNEAL), weights=None),
    "assess": lambda vae, x: assessed(pv.assess(vae, x, LABELS, num_samples=10, steps=4)),
    "baselines": lambda vae, x: evaluate.baselines(vae, x),
    "bdmc": lambda vae, x: pv.bdmc(vae, 3, given=x, **ANNEAL).gap,
    "compare": lambda vae, x: pv.compare([vae, vae], x, **FEW).pointwise,
    "calibration": lambda vae, x: pv.calibration(vae, 30, given=x, num_samples=9, seed=0),
    "elbo": lambda vae, x: pv.elbo(vae, x, seed=0),
    "factor_scores": lambda vae, x: pv.factor_scores(vae, x, LABELS[:, None]),
    "gaps": lambda vae, x: pv.gaps(vae, x[:3], steps=3, **FEW),
    "imputation_check": lambda vae, x: (
        pv.imputation_check(vae, x, share=0.5, draws=19, num_samples=30).table
    ),
    "label_scores": lambda vae, x: pv.label_scores(vae, x, LABELS),
    "latent_summary": lambda vae, x: pv.latent_summary(vae, x, **FEW),
    "log_evidence": lambda vae, x: pv.log_evidence(vae, x, **FEW).log_evidence,
    "outlier_scores": lambda vae, x: pv.outlier_scores(vae, x[:5], x, **FEW),
    "posterior": lambda vae, x: pv.posterior(
        vae, x[:1], method="metropolis", num_samples=20, warmup=5
    )["posterior"]["z"].to_numpy(),
    "rate_distortion": lambda vae, x: pv.rate_distortion(vae, x, **FEW),
    "stack": lambda vae, x: pv.stack([vae, vae], [0.3, 0.7]).log_evidence(x, **FEW).log_evidence,
    "sumo": lambda vae, x: pv.sumo(vae, x, num_repeats=3, seed=0).log_evidence,
    "to_arviz": lambda vae, x: [
        pv.to_arviz(vae, x, **FEW)[group].to_dataframe()
        for group in (
            "posterior",
            "posterior_predictive",
            "conditional_log_likelihood",
            "sample_stats",
        )
    ],
}
# These train, or are of weighted objectives: a weight is a factor of what is trained.
OBJECTIVES = {
    "compare_estimators": lambda vae, x: pv.compare_estimators(
        vae, x, ["Trace_ELBO"], num_draws=34
    ),
    "elbo_draws": lambda vae, x: pv.elbo_draws(vae, x, num_draws=4),
    "fit_prior": lambda vae, x: pv.fit_prior(
        vae, x, "Normal(loc=learned)", epochs=1, validation=0.5
    ),
    "recommend_estimator": lambda vae, x: pv.recommend_estimator(
        vae, x, ["Trace_ELBO"], seconds=0.01
    ),
    "train_estimators": lambda vae, x: pv.train_estimators(vae, x, ["Trace_ELBO"], epochs=1),
}
CODERS = {
    "compress": lambda vae, x: pv.compress(vae, x),
    "decompress": lambda vae, x: pv.decompress(vae, pv.Compressed.from_bytes(bytes(100))),
}
PICTURES = {
    "attribute_arithmetic": lambda vae, x: plots.attribute_arithmetic(
        vae, x, LABELS, source=0, target=1
    ),
    "interpolations": lambda vae, x: plots.interpolations(vae, x[:2], x[2:4]),
    "latent_space": lambda vae, x: plots.latent_space(vae, x, LABELS),
    "predictive_check": lambda vae, x: plots.predictive_check(vae, x, num_replicates=2),
    "reconstructions": lambda vae, x: plots.reconstructions(vae, x[:5]),
    "samples": lambda vae, x: plots.samples(vae, 6, given=x),
    "samples_by": lambda vae, x: plots.samples_by({"one": vae}, 6, given=x),
    "traversals": lambda vae, x: plots.traversals(vae, x[0]),
}
# These are of other kinds of x, which they name; their own pictures are tested with those.
OF_OTHERS = {
    "topics": (plots.topics, r"topics are of VAE\(..., decoder='Topics'\)"),
    "reconstructed_rolls": (plots.reconstructed_rolls, "rolls are of a model of sequences"),
}

# In test_simuk, which needs simuk, and in test_predictive: models with a condition go by pairs.
ELSEWHERE = {"simuk_sbc", "predictive_check"}


def test_every_function_of_a_model_is_here():
    tables = {evaluate: EVALUATIONS | OBJECTIVES | CODERS, plots: PICTURES | OF_OTHERS}
    for room, table in tables.items():
        functions = {name: getattr(room, name) for name in room.__all__}
        functions = {k: f for k, f in functions.items() if inspect.isfunction(f)}
        of_models = {k for k, f in functions.items() if {"vae", "vaes"} & {*_arguments(f)}}
        assert of_models - ELSEWHERE == set(table) - ELSEWHERE


def _arguments(function):
    return inspect.signature(function).parameters


def numbers(value):
    """All numbers within a result, one after the other."""
    if dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, pd.DataFrame):
        value = value.select_dtypes("number").to_numpy()
    if isinstance(value, list | tuple):
        return np.concatenate([numbers(v) for v in value] or [np.empty(0)])
    if value is None or isinstance(value, str):
        return np.empty(0)
    return np.asarray(value, dtype=float).ravel()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(k, marks=[pytest.mark.slow] * (k == "assess")) for k in EVALUATIONS]
)
@pytest.mark.usefixtures("short_pilot")  # of annealing, which is compared and not believed
def test_the_figures_are_those_of_the_plain_model(name, models):
    got, expected = (numbers(EVALUATIONS[name](*model)) for model in models)
    assert np.isfinite(expected).any()
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-8)


def drawn(ax):
    """All numbers in a picture."""
    parts = [image.get_array() for image in ax.images] + [line.get_xydata() for line in ax.lines]
    parts += [dots.get_offsets() for dots in ax.collections]
    return np.concatenate([np.ravel(part) for part in parts])


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_are_those_of_the_plain_model(name, models):
    got, expected = (drawn(PICTURES[name](*model)) for model in models)
    pyplot.close("all")
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_estimators_are_compared_on_it(name, models):
    assert OBJECTIVES[name](*models[0]) is not None


@pytest.mark.parametrize("name", OF_OTHERS)
def test_pictures_of_other_kinds_of_x_refuse_it(name, models):
    draw, message = OF_OTHERS[name]
    arguments = [x for x in models[0][1:] if "x" in _arguments(draw)]
    with pytest.raises(ValueError, match=message):
        draw(models[0][0], *arguments)
    assert not pyplot.get_fignums()


def test_coders_refuse_it(models):
    with pytest.raises(ValueError, match="only x itself is coded"):
        pv.compress(*models[0])


def test_what_is_drawn_without_a_context_is_refused(models):
    vae, _ = models[0]
    for draw in (pv.calibration, lambda vae: pv.bdmc(vae, 3), plots.samples):
        with pytest.raises(ValueError, match=r"reads c \(context\) beside z: give x with it"):
            draw(vae)


@pytest.mark.slow
def test_each_observation_is_drawn_at_its_own_context(models):
    """Contexts are taken in turn, and the prior's predictions are at each observation's."""
    vae, x = models[0]
    x = x.clone()
    vae.record.unpack(x)["exposure"][:] = torch.where(LABELS == 1, 5.0, -5.0).double()
    sandwich = pv.bdmc(vae, 50, given=x, **ANNEAL)
    means = vae.record.cells(sandwich.x).mean((1, 2, 3))
    assert means[1::2].min() > means[::2].max()
    predicted = pv.to_arviz(vae, x, num_samples=20, seed=0)["prior_predictive"]["x"]
    means = predicted.mean(set(predicted.dims) - {"observation"}).to_numpy()
    assert means[1::2].min() > means[::2].max()


@pytest.fixture(scope="module")
def linear():
    """A linear Gaussian model with context, whose guide is its posterior, and log p(x|c)."""
    blocks = [pv.Block("x", 3), pv.Block("c", 2, role="context")]
    options = {"likelihood": "Normal(scale=0.5)", "guide": "Normal(scale=learned)"}
    options |= {"encoder": "MLP([])", "decoder": "MLP([])", "inputs": "raw", "seed": 0}
    vae = pv.VAE(pv.Record(blocks), 1, **options).double()
    loadings = torch.tensor([[1.0], [0.5], [-1.0]])
    slopes = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    gain = loadings.T / (loadings.square().sum() + 0.25)
    state = vae.state_dict()
    state["likelihood.sources.loc.head.weight"].copy_(torch.cat([loadings, slopes], 1))
    state["likelihood.sources.loc.head.bias"].zero_()
    state["approximation.sources.loc.head.weight"].copy_(torch.cat([gain, -gain @ slopes], 1))
    state["approximation.sources.loc.head.bias"].zero_()
    sd = (1 + loadings.square().sum() / 0.25).rsqrt()
    state["approximation.sources.scale.unconstrained"].copy_(sd.expm1().log())
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)).double()
    covariance = (loadings @ loadings.T + 0.25 * torch.eye(3)).double()
    p = torch.distributions.MultivariateNormal(x[:, 3:] @ slopes.double().T, covariance)
    return vae, x, p.log_prob(x[:, :3])


def test_log_evidence_of_a_linear_model_with_context_is_exact(linear):
    vae, x, exact = linear
    evidence = pv.log_evidence(vae, x, num_samples=30, seed=0)
    assert torch.allclose(evidence.log_evidence, exact, atol=1e-5)
    assert torch.allclose(pv.elbo(vae, x, seed=0).double(), exact, atol=1e-5)
    stats = pv.to_arviz(vae, x, num_samples=20, seed=0)["sample_stats"]["log_weight"]
    assert np.allclose(stats.to_numpy().reshape(20, -1), exact, atol=1e-5)


@pytest.mark.slow
def test_annealing_and_calibration_of_a_linear_model_with_context(linear):
    vae, x, exact = linear
    annealed = pv.ais(vae, x, temperatures=50, chains=16, leapfrog=3, seed=0)
    z = (annealed.log_evidence - exact) / annealed.standard_error
    assert z.abs().max() < 5 and annealed.standard_error.max() < 0.3
    assert pv.calibration(vae, 400, given=x, num_samples=19, seed=0).table["p_value"].min() > 1e-3


def test_contractive_slopes_are_those_in_x_and_not_in_the_context(linear):
    """z has one dimension, so that the estimate of the norm has no error."""
    vae, x, _ = linear
    slopes = vae.state_dict()["approximation.sources.loc.head.weight"]
    callback, own = pv.callbacks.Contractive(2.0), pv.callbacks.Contractive(2.0, vae.record.cells)
    pv.fit(vae, x, epochs=1, lr=1e-12, seed=0, estimator="Trace_ELBO", callbacks=[callback])
    for guide in (callback(vae.guide), own(vae.guide)):
        penalty = poutine.trace(guide).get_trace(x).nodes["z_slopes"]["fn"].log_factor
        assert torch.allclose(penalty, 2.0 * slopes[:, :3].square().sum(), rtol=1e-5)
