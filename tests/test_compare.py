"""Models by held-out log p(x), their stacking weights, and the mixture by these."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae as pv
from helpers.linear import linear_vae, marginal
from pyro_vae.evaluate.models import comparison
from pyro_vae.evaluate.models.comparison import Comparison, stacking_weights
from pyro_vae.evaluate.models.measures import base_measure, describe_measure

X = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])


def shifted(shift):
    """An exact guide, so that every draw of z gives log p(x)."""
    vae = linear_vae("full")
    with torch.no_grad():
        vae.likelihood.sources["loc"].head.bias.add_(shift)
        encoder = vae.approximation.sources["loc"].head
        encoder.bias.sub_(encoder.weight @ torch.full_like(encoder.weight[0], shift))
    return vae


@pytest.fixture(scope="module")
def three():
    models = {"off": shifted(0.4), "right": shifted(0.0), "far": shifted(1.5)}
    x = marginal(models["right"]).sample(torch.Size([300]))
    return models, x, pv.compare(models, x, num_samples=50, seed=0)


def test_it_is_the_closed_form_with_the_error_of_pairs(three):
    models, x, found = three
    exact = pd.DataFrame({name: marginal(vae).log_prob(x) for name, vae in models.items()})
    assert np.allclose(found.pointwise, exact, atol=1e-8)
    table = found.table
    assert table.index.tolist() == ["right", "off", "far"]
    gap = exact["off"] - exact["right"]
    row, n = table.loc["off"], len(x)
    assert row.elpd == pytest.approx(exact["off"].sum())
    assert row.se == pytest.approx(math.sqrt(n) * exact["off"].std())
    assert row.difference == pytest.approx(gap.sum())
    assert row.difference_se == pytest.approx(math.sqrt(n) * gap.std())
    assert row.difference_se < row.se
    assert table.difference.iloc[0] == 0 == table.difference_se.iloc[0]
    assert (table.mc_error < 1e-6).all() and (table.doubtful < 0.02).all()  # of rounding errors
    assert "right" in repr(found) and "elpd" in repr(found)


def test_it_costs_an_evaluation_a_model(monkeypatch):
    calls, real = [], comparison.log_evidence
    monkeypatch.setattr(
        comparison, "log_evidence", lambda *a, **k: calls.append(a) or real(*a, **k)
    )
    vae = linear_vae()
    assert pv.compare([vae] * 5, torch.zeros(4, 5), num_samples=9).table.shape == (5, 7)
    assert len(calls) == 5


# Stacking.


def arviz_weights(log_p):
    """Those of ``az.compare`` on the same pointwise values."""
    arviz = pytest.importorskip("arviz", minversion="0.23", exc_type=ImportError)
    if not arviz.__version__.startswith("0."):
        pytest.skip("ArviZ 0.23 takes pointwise values as ELPDData")
    import xarray
    from arviz.stats.stats_utils import ELPDData

    n, names = len(log_p), [str(i) for i in range(log_p.shape[1])]
    parts = ["elpd_loo", "se", "p_loo", "n_samples", "n_data_points", "warning", "loo_i", "scale"]
    each = {
        name: ELPDData(
            [v.sum(), n**0.5 * v.std(), 0.0, 1, n, False, xarray.DataArray(v), "log"], parts
        )
        for name, v in zip(names, log_p.T, strict=True)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what ArviZ asks of a later pandas
        table = arviz.compare(each, method="stacking")
    return table.loc[names, "weight"].to_numpy().astype(float)


CASES = {  # log p(x) by observation and model
    "three": lambda rng: rng.normal(size=(200, 3)),
    "one is best": lambda rng: rng.normal(size=(100, 3)) * 0.1 + [0, 3, 0],
    "far below zero": lambda rng: rng.normal(size=(150, 4)) * 2 - 900,
    "two alike": lambda rng: np.repeat(rng.normal(size=(50, 1)), 2, 1) + np.array([0, -0.5]),
    "ten": lambda rng: rng.normal(size=(80, 10)),
}


@pytest.mark.parametrize("name", CASES)
def test_weights_are_the_optimum_and_arvizs(name):
    log_p = CASES[name](np.random.default_rng(0))
    w = stacking_weights(log_p)
    assert w.sum() == pytest.approx(1) and (w >= 0).all()
    p = np.exp(log_p - log_p.max(1, keepdims=True))
    gains = (p / (p @ w)[:, None]).mean(0)  # of moving weight to a model: 1 where it has any
    assert gains.max() < 1 + 1e-8
    assert np.allclose(gains[w > 1e-4], 1, atol=1e-6)
    theirs = arviz_weights(log_p - log_p.max(1, keepdims=True))  # whose exponentials underflow
    assert np.allclose(w, theirs, atol=2e-3)  # SLSQP stops at 1e-6 nats, where weights are flat
    assert np.log(p @ w).mean() >= np.log(p @ theirs).mean() - 1e-12


def test_two_points_have_the_weights_by_hand():
    """Of densities a and b at one datum each, w / (1 - w) balances; here by symmetry 2 : 1."""
    log_p = np.log([[0.9, 0.0001], [0.9, 0.0001], [0.0001, 0.9]])
    assert np.allclose(stacking_weights(log_p), [2 / 3, 1 / 3], atol=1e-3)


# What does not compare.


def model(likelihood="Normal", shape=2, **options):
    return pv.VAE(shape, 1, likelihood=likelihood, encoder="MLP([3])", decoder="MLP([3])", seed=0,
                  **options)  # fmt: skip


REFUSED = {
    "bits and numbers": (["Bernoulli", "Normal"], "gives probabilities of cell 0, 1 densities"),
    "a mass": (["Hurdle(Normal)", "Normal"], "densities beside a mass at 0"),
    "a simplex": (["Dirichlet", "Normal"], "densities on a simplex"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_base_measures_are_refused(name):
    lines, message = REFUSED[name]
    x = torch.full((4, 2), 0.5) if "Dirichlet" in lines else X
    with pytest.raises(ValueError, match=message):
        pv.compare([model(line) for line in lines], x, num_samples=9)


@pytest.mark.slow
def test_what_has_one_base_measure_compares():
    lines = ["Bernoulli", "Poisson", "Binomial(total_count=3)"]
    assert len(pv.compare([model(line) for line in lines], X, num_samples=9, seed=0).table) == 3
    lines = ["Normal", "StudentT", "Mixture(Laplace, components=2)"]
    assert len(pv.compare([model(line) for line in lines], X, num_samples=9, seed=0).table) == 3


def test_a_modelled_mask_is_no_part_of_another_models_density():
    models = [model(missing="SelfMasking"), model(missing=True)]
    with pytest.raises(ValueError, match="'which cells are missing'"):
        pv.compare(models, X, num_samples=9)
    assert "which cells" in describe_measure(base_measure(models[0], X))


def test_known_labels_are_a_part():
    m2 = pv.M2(2, 1, classes=2, likelihood="Bernoulli", encoder="MLP([3])", decoder="MLP([3])")
    both = pv.compare([m2, model("Bernoulli")], X, num_samples=9, seed=0)
    assert len(both.table) == 2
    assert "known labels" in base_measure(m2, m2.labelled(X, [0, 1, 0, 1]))


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "two models or more, got 0"),
        ([3, 4], "0 is a int"),
        (None, "one model was given"),
        ([model(), model(shape=(1, 2))], "expected x of shape"),
    ],
)
def test_what_is_no_list_of_models_is_refused(models, message):
    with pytest.raises(ValueError, match=message):
        pv.compare(model() if models is None else models, X)


def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"home": rng.choice(["rent", "own"], 60), "income": rng.lognormal(3, 1, 60),
         "debt": np.where(rng.random(60) < 0.4, 0.0, rng.gamma(2.0, 3.0, 60))}
    )  # fmt: skip


def test_a_column_has_the_measure_of_its_own_likelihood_wherever_its_block_is():
    rng = np.random.default_rng(0)
    data = pd.DataFrame({c: rng.poisson(9.0, 30) + 1.0 for c in "abc"})
    lines = [["Normal", "Poisson", "Normal"], ["Normal", "Normal", "Poisson"],
             ["LogNormal", "Poisson", "Normal"]]  # fmt: skip
    said = [dict(zip("abc", each, strict=True)) for each in lines]
    tables = [pv.Table.from_frame(data, likelihood=each) for each in said]
    models = [model(None, shape=table) for table in tables]
    kinds = {"Poisson": "probabilities"}
    for vae, each in zip(models, lines, strict=True):
        found = base_measure(vae, vae.as_data(data))
        assert list(found.values()) == [kinds.get(line, "densities") for line in each]
    with pytest.raises(ValueError, match="gives probabilities of 'b', 1 densities"):
        pv.compare(models[:2], data, num_samples=2)
    assert len(pv.compare(models[::2], data, num_samples=2, seed=0).table) == 2


@pytest.mark.slow
def test_tables_compare_by_column():
    data = frame()
    table = pv.Table.from_frame(data)
    lines = ("LogNormal", "Gamma")
    models = {
        line: pv.VAE(table, 2, likelihood={"income": line, "debt": "Hurdle(Gamma)"}, seed=0)
        for line in lines
    }
    found = pv.compare(models, data, num_samples=30, seed=0)
    assert set(found.table.index) == set(lines)
    models["counts"] = pv.VAE(
        pv.Table.from_frame(data.assign(income=data.income.round())), 2,
        likelihood={"income": "Poisson", "debt": "Hurdle(Gamma)"}, seed=0,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"of 'income', counts probabilities|'income'"):
        pv.compare(models, data.assign(income=data.income.round()), num_samples=9)
    del models["counts"]
    models["fewer"] = pv.VAE(pv.Table.from_frame(data[["home", "income"]]), 2, seed=0)
    with pytest.raises(ValueError, match="gives log p of 'debt' too, and fewer does not"):
        pv.stack(models, [0.2, 0.3, 0.5])
    drawn = pv.stack(dict.fromkeys("ab", models["Gamma"]), [0.5, 0.5]).sample(7, seed=0)
    assert list(drawn.columns) == list(data.columns) and len(drawn) == 7


# The stack.


@pytest.mark.slow
def test_a_stack_scores_as_the_mixture(three):
    models, x, found = three
    stack = pv.stack(models, {"off": 0.2, "right": 0.5, "far": 0.3})
    exact = torch.stack(
        [math.log(w) + marginal(models[k]).log_prob(x) for k, w in
         {"off": 0.2, "right": 0.5, "far": 0.3}.items()]
    ).logsumexp(0)  # fmt: skip
    scored = stack.log_evidence(x, num_samples=30, seed=0)
    assert torch.allclose(scored.log_evidence, exact, atol=1e-8)
    best = pv.stack(models, found)
    assert best.weights == tuple(found.weights)
    own = best.log_evidence(x, num_samples=30, seed=0).mean
    assert own >= found.pointwise.mean().max() - 1e-9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_stack_reads_data_as_one():
    data = frame().assign(age=[-999.0, *np.linspace(20, 80, 59)])
    said = {"missing": True, "encoder": "MLP([3])", "decoder": "MLP([3])", "seed": 0}
    models = {
        name: pv.VAE(pv.Table.from_frame(data, na_values=values, kinds={"age": "real"}), 1, **said)
        for name, values in {"gone": [-999], "kept": {"age": []}}.items()
    }
    both = pv.stack(models, [0.5, 0.5])
    with pytest.raises(ValueError, match="gone reads 'age' as nan in row 0, kept as -999"):
        both.log_evidence(data, num_samples=5)
    assert both.log_evidence(data[1:], num_samples=5).log_evidence.shape == (59,)


def test_its_error_is_that_of_its_parts_whose_draws_are_their_own():
    vae, x = linear_vae("mean-field", scale_factor=1.3), torch.zeros(400, 5)
    alone = pv.log_evidence(vae, x, num_samples=100, num_simulated=0, seed=0)
    twice = pv.stack([vae, vae], [0.5, 0.5]).log_evidence(x, num_samples=100, seed=0)
    for found in (alone, twice):  # equal observations, so that their spread is the error
        ratio = found.log_evidence.std() / found.standard_error.square().mean().sqrt()
        assert abs(ratio - 1) < 5 / (2 * len(x)) ** 0.5
    again = pv.stack([vae, vae], [0.5, 0.5]).log_evidence(x, num_samples=100, seed=0)
    assert torch.equal(twice.log_evidence, again.log_evidence)


def test_a_stack_draws_from_each_by_its_weight(three):
    models, _, _ = three
    w = {"off": 0.2, "right": 0.5, "far": 0.3}
    n = 20_000
    drawn = pv.stack(models, w).sample(n, seed=0)
    assert torch.equal(drawn, pv.stack(models, w).sample(n, seed=0))
    means = torch.stack([marginal(models[k]).mean for k in w])
    share = torch.tensor(list(w.values())).double()[:, None]
    mean = (share * means).sum(0)
    variance = marginal(models["right"]).variance + (share * (means - mean) ** 2).sum(0)
    z = (drawn.mean(0) - mean) / (variance / n).sqrt()
    assert z.abs().max() < 5
    spread = drawn.var(0) / variance - 1
    assert spread.abs().max() < 5 * (2 / n) ** 0.5


def test_a_stack_takes_contexts():
    record = pv.Record([pv.Block("x", 2), pv.Block("dose", role="context")])
    vaes = [pv.VAE(record, 1, likelihood="Normal", seed=s) for s in range(2)]
    data = {"x": torch.zeros(3, 2), "dose": torch.arange(3.0)}
    assert pv.stack(vaes, [0.5, 0.5]).sample(4, given=data, seed=0).shape == (4, 3, 2)
    assert pv.compare(vaes, data, num_samples=9, seed=0).pointwise.shape == (3, 2)


def test_a_stack_says_what_it_cannot_do():
    vae = model()
    stack = pv.stack({"a": vae, "b": vae}, [0.5, 0.5])
    with pytest.raises(
        AttributeError, match=r"latent variables of their own.*models\['a'\].encode"
    ):
        stack.encode(X)
    with pytest.raises(AttributeError, match="no 'draw': it has sample"):
        stack.draw()
    with pytest.raises(ValueError, match="got Stack"):
        pv.elbo(stack, X)
    for weights, message in {
        (0.5, 0.6): "sum to 1, got 1.1",
        (1.5, -0.5): "a weight is a number of at least 0",
        (1.0,): "2 models need as many weights, got 1",
    }.items():
        with pytest.raises(ValueError, match=message):
            pv.stack([vae, vae], list(weights))
    with pytest.raises(ValueError, match="weights are of c, b, and the models are a, b"):
        pv.stack({"a": vae, "b": vae}, {"c": 0.5, "b": 0.5})
    with pytest.raises(ValueError, match="probabilities"):
        pv.stack([vae, model("Bernoulli")], [0.5, 0.5])
    assert isinstance(pv.compare([vae, vae], X, num_samples=9), Comparison)


@pytest.mark.parametrize("function", [pv.compare, pv.stack])
@pytest.mark.parametrize("wrong", [torch.zeros(3, 2), "runs/a", 3])
def test_what_is_no_models_is_refused(function, wrong):
    with pytest.raises(ValueError, match="the models come first"):
        function(wrong, [0.5, 0.5])


@pytest.mark.slow
def test_a_stack_draws_sequences_of_the_lengths_that_are_given():
    models = [pv.VAE((None, 2), 2, likelihood="Normal", condition=1, encoder="GRU(3)",
                     decoder="GRU(3)", seed=seed) for seed in (0, 1)]  # fmt: skip
    rows = [torch.randn(n, 2) for n in (4, 1, 3)]
    for vae in models:
        x = {"x": rows, "condition": torch.zeros(3, 1)}
        pv.fit(vae, x, epochs=1, batch_size=3, progress=False, compile=False)
    given = {"condition": torch.zeros(3, 1), "lengths": [2, 3, 1]}
    drawn = pv.stack(models, [0.5, 0.5]).sample(9, given=given, seed=0)
    alone = models[0].sample(9, given=given, seed=0)
    assert torch.equal(drawn.isnan(), alone.isnan()) and drawn.isnan().any()
