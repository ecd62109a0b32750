"""Censored survival times: densities, starts, units, and frames with an event column."""

import math

import mpmath as mp
import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch
from torch.distributions.transforms import AffineTransform, ExpTransform, PowerTransform

import pyro_vae as pv
from pyro_vae.data.tables.coding import drawn
from pyro_vae.distributions import (
    GeneralizedPareto,
    Pareto,
    RightCensored,
    Weibull,
    log_survival,
)
from pyro_vae.families.part import Ends
from pyro_vae.families.registry import make_part

SMALL = {"encoder": "MLP([16])", "decoder": "MLP([16])", "seed": 0}
RNG = np.random.default_rng(0)
# A distribution, and scipy's of the same parameters.
FAMILIES = {
    "Exponential": (dist.Exponential(0.7), st.expon(scale=1 / 0.7)),
    "Weibull": (dist.Weibull(2.0, 1.5), st.weibull_min(1.5, scale=2)),
    "LogNormal": (dist.LogNormal(0.3, 0.8), st.lognorm(0.8, scale=math.exp(0.3))),
    "Gamma": (dist.Gamma(2.3, 0.5), st.gamma(2.3, scale=2)),
    "Chi2": (dist.Chi2(3.0), st.chi2(3)),
    "InverseGamma": (dist.InverseGamma(2.0, 1.0), st.invgamma(2)),
    "HalfNormal": (dist.HalfNormal(2.0), st.halfnorm(scale=2)),
    "HalfCauchy": (dist.HalfCauchy(2.0), st.halfcauchy(scale=2)),
    "Logistic": (dist.Logistic(0.0, 0.1), st.logistic(0, 0.1)),
    "Laplace": (dist.Laplace(0.5, 0.3), st.laplace(0.5, 0.3)),
    "Gumbel": (dist.Gumbel(0.5, 0.3), st.gumbel_r(0.5, 0.3)),
    "SoftLaplace": (dist.SoftLaplace(0.5, 0.3), st.hypsecant(0.5, 0.3)),
    "SkewLogistic": (dist.SkewLogistic(0.5, 0.3, 1.5), st.genlogistic(1.5, 0.5, 0.3)),
    "powers": (
        dist.TransformedDistribution(dist.Gamma(2.3, 0.2), [PowerTransform(torch.tensor(0.5))]),
        st.gengamma(2.3, 2, scale=5**0.5),
    ),
    "reciprocals": (
        dist.TransformedDistribution(dist.Gamma(2.0, 1.0), [PowerTransform(torch.tensor(-1.0))]),
        st.invgamma(2),
    ),
    "scaled": (
        dist.TransformedDistribution(
            dist.Normal(0.0, 0.8), [AffineTransform(0.3, torch.tensor(1.0)), ExpTransform()]
        ),
        st.lognorm(0.8, scale=math.exp(0.3)),
    ),
}
# A line, and scipy's maximum-likelihood estimate of its mean, from times and censoring.
FITS = {
    "Exponential": lambda x, seen: x.sum() / seen.sum(),
    "Weibull": lambda x, seen: _scipy_mean(st.weibull_min, x, seen),
    "Gamma": lambda x, seen: _scipy_mean(st.gamma, x, seen),
    "LogNormal": lambda x, seen: _scipy_mean(st.lognorm, x, seen),
}


def _scipy_mean(family, x, seen):
    data = st.CensoredData(uncensored=x[seen], right=x[~seen])
    return family(*family.fit(data, floc=0)).mean()


def patients(rows=200, rng=None):
    rng = rng or np.random.default_rng(1)
    age = rng.normal(60, 8, rows)
    event, lost = rng.weibull(1.5, rows) * np.exp(8 - age / 30), rng.exponential(600, rows)
    return pd.DataFrame({"age": age, "time": np.minimum(event, lost), "dead": event <= lost})


@pytest.mark.parametrize("name", FAMILIES)
def test_the_logarithm_of_survival_is_scipys(name):
    p, reference = FAMILIES[name]
    t = torch.tensor([1e-3, 0.3, 1.0, 2.0, 10.0, 40.0])
    expected = reference.logsf(t.double().numpy())
    assert log_survival(p, t).numpy() == pytest.approx(expected, rel=2e-6, abs=1e-6)
    censored = RightCensored(p.expand((6,)))
    assert torch.equal(censored.log_prob(-t), log_survival(p, t).expand(6))
    assert torch.allclose(censored.log_prob(t), p.log_prob(t))


def test_the_slope_of_a_far_normal_tail_is_right_in_single_precision():
    """Minus the scaled hazard, z + 1 / z; PyTorch's was 6 times it at 10,000."""
    z = torch.tensor([19.0, 21.0, 300.0, 1e4, 1e8], requires_grad=True)
    (slope,) = torch.autograd.grad(log_survival(dist.Normal(0.0, 1.0), z).sum(), z)
    assert torch.allclose(-slope, z + 1 / z - 2 / z**3, rtol=3e-5)


def test_far_tails_of_gammas_are_finite():
    wide = {"dtype": torch.double}
    one = torch.ones((), **wide)
    a, x = torch.tensor([2.3, 50.0, 1e4], **wide), torch.tensor([2500.0, 1500.0, 2e4], **wide)
    # By mpmath at 50 digits, as both below.
    expected = [-2489.98240971365, -1286.18475608483, -3074.05251137314]
    assert log_survival(dist.Gamma(a, one), x).tolist() == pytest.approx(expected, rel=1e-12)
    a, x = torch.tensor([3.0, 4000.0], **wide), torch.tensor([1e-120, 1000.0], **wide)
    expected = [-830.722392947085, -2549.95585763698]
    below = log_survival(dist.InverseGamma(a, one), 1 / x)
    assert below.tolist() == pytest.approx(expected, rel=1e-9)


def test_gammas_have_derivatives_of_both_parameters():
    wide = {"dtype": torch.double, "requires_grad": True}
    a, x = (torch.tensor(v, **wide) for v in ([0.3, 2.0, 50.0, 1e4], [0.5, 3.0, 60.0, 2e4]))
    one = torch.ones((), dtype=torch.double)
    for p in (dist.Gamma, dist.InverseGamma):

        def tail(a, x, p=p):
            return log_survival(p(a, one), x)

        assert torch.autograd.gradcheck(tail, (a, x), eps=1e-5, rtol=1e-3, atol=1e-6)


RECIPROCALS = {  # of a law that is close to 0: log P(1 / X > t), for t from 1e3 to 1e20
    "Exponential": (dist.Exponential(0.7), lambda u: mp.log(-mp.expm1(-0.7 * u))),
    "Weibull": (Weibull(2.0, 1.5), lambda u: mp.log(-mp.expm1(-((u / 2) ** 1.5)))),
    "HalfNormal": (dist.HalfNormal(2.0), lambda u: mp.log(mp.erf(u / 2 / mp.sqrt(2)))),
    "HalfCauchy": (dist.HalfCauchy(2.0), lambda u: mp.log(2 / mp.pi * mp.atan(u / 2))),
    "Gamma": (dist.Gamma(2.3, 0.5), lambda u: mp.log(mp.gammainc(2.3, 0, u / 2, True))),
}


@pytest.mark.parametrize("name", RECIPROCALS)
def test_reciprocals_of_what_is_close_to_zero_survive_with_all_digits_and_a_slope(name):
    base, below = RECIPROCALS[name]
    p = dist.TransformedDistribution(base, [PowerTransform(torch.tensor(-1.0))])
    t = torch.tensor([0.1, 2.0, 1e3, 1e6, 1e12, 1e20], requires_grad=True)
    found = log_survival(p, t)
    expected = [float(below(1 / mp.mpf(x))) for x in t.tolist()]
    assert found.tolist() == pytest.approx(expected, rel=2e-6, abs=1e-6)
    (slope,) = torch.autograd.grad(found[2:].sum(), t)  # of a power of t, far off
    power = {"Weibull": 1.5, "Gamma": 2.3}.get(name, 1.0)
    assert (slope * t)[2:].tolist() == pytest.approx([-power] * 4, rel=1e-3)


def test_tails_of_numbers_from_a_bound_on():
    """Pareto's and generalized Pareto's: 0 below the support, and exact beyond float32's shares."""
    t = torch.tensor([0.5, 2.0, 50.0, 1e6, 1e20])
    assert log_survival(Pareto(1.0, 2.0), t).tolist() == pytest.approx(
        [0, *(-2 * t[1:].log()).tolist()]
    )
    for k in (0.5, 0.0, -0.25):
        p = GeneralizedPareto(*map(torch.tensor, (1.0, 2.0, k)), validate_args=False)
        expected = st.genpareto(k, 1, 2).logsf(t.double().numpy())
        assert log_survival(p, t).numpy() == pytest.approx(expected, rel=1e-6)
    p = dist.TransformedDistribution(dist.Cauchy(0.0, 1.0), [AffineTransform(0.0, -1.0)])
    assert torch.allclose(log_survival(p, t), log_survival(dist.Cauchy(0.0, 1.0), t))


FROM_ZERO = {
    "Exponential": dist.Exponential(0.7), "Weibull": Weibull(2.0, 1.5),
    "Gamma": dist.Gamma(2.3, 0.5), "LogNormal": dist.LogNormal(0.0, 1.0),
    "HalfNormal": dist.HalfNormal(2.0),
    "HalfCauchy": dist.HalfCauchy(2.0), "InverseGamma": dist.InverseGamma(2.0, 1.0),
    "Chi2": dist.Chi2(3.0), "Uniform": dist.Uniform(0.0, 0.5, validate_args=True),
}  # fmt: skip


@pytest.mark.parametrize("name", FROM_ZERO)
def test_all_survive_what_comes_before_the_least_time(name):
    """As times that were censored before a shifted law begins; half normals were 2 there."""
    shifted = AffineTransform(5.0, 1.0), AffineTransform(-5.0, -1.0)
    early = torch.tensor([1.0, 4.9], requires_grad=True)
    found = log_survival(dist.TransformedDistribution(FROM_ZERO[name], [shifted[0]]), early)
    assert found.tolist() == [0, 0]
    assert torch.autograd.grad(found.sum(), early)[0].tolist() == [0, 0]
    falling = dist.TransformedDistribution(FROM_ZERO[name], [shifted[1]])
    assert log_survival(falling, -early.detach()).tolist() == [-math.inf] * 2


def test_mixtures_survive_as_their_parts_do():
    parts = [dist.Weibull(2.0, 1.5), dist.Weibull(9.0, 3.0)]
    weights = torch.tensor([0.3, 0.7])
    p = dist.MixtureSameFamily(
        dist.Categorical(weights),
        dist.Weibull(torch.tensor([2.0, 9.0]), torch.tensor([1.5, 3.0])),
    )
    t = torch.tensor([0.5, 3.0, 12.0])
    by_hand = sum(w * (1 - part.cdf(t)) for w, part in zip(weights, parts, strict=True))
    assert torch.allclose(log_survival(p, t).exp(), by_hand, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_the_most_likely_parameters_are_those_of_survival_analysis(name):
    seen = RNG.random(80) < 0.6
    x = RNG.gamma(2.0, 40.0, 80)
    signed = torch.tensor(np.where(seen, x, -x))[:, None]
    torch.manual_seed(0)
    part = make_part(f"Censored({name})", Ends((1,), "likelihood", (1,), in_units=True)).double()
    part.start_from(signed)
    h = torch.ones(80, 1, dtype=torch.double)
    optimizer = torch.optim.LBFGS(part.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -part(h).log_prob(signed).mean()
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    assert part(h[:1]).mean.item() == pytest.approx(FITS[name](x, seen), rel=1e-3)


def test_training_starts_at_the_total_time_over_the_events():
    x = torch.tensor([[10.0], [-30.0], [-50.0], [30.0], [math.nan]])
    part = make_part("Censored(Exponential)", Ends((1,), "likelihood", (1,), in_units=True))
    part.start_from(x)
    assert part.family.units["rate"].factor.item() == pytest.approx(2 / 120)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["Weibull", "LogNormal", "Gamma", "Mixture(Weibull, components=2)"]
)
def test_millimetres_change_the_density_of_events_alone(line):
    times = patients()[["time", "dead"]]
    elbos = []
    for factor in (1.0, 1000.0):
        frame = times.assign(time=times["time"] * factor)
        table = pv.Table.from_frame(frame, likelihood={"time": f"Censored({line})"})
        vae = pv.VAE(table, 2, **SMALL).double()
        vae.start_from(vae.as_data(table))
        elbos.append(pv.elbo(vae, table, seed=0).numpy())
    expected = times["dead"].to_numpy() * math.log(1000)
    assert elbos[0] - elbos[1] == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_evidence_and_imputed_times_are_those_of_quadrature():
    frame = patients(40)
    table = pv.Table.from_frame(frame)
    vae = pv.VAE(table, 1, **SMALL).double()
    pv.fit(vae, table, epochs=3, seed=0, compile=False, progress=False)
    rows = frame.head(3).copy().astype({"dead": "boolean"})
    rows.loc[2, ["time", "dead"]] = pd.NA
    z = torch.linspace(-8, 8, 4001, dtype=torch.double)[:, None]
    p_age, p_time = (part.base_dist for part in vae.decode(z).parts)
    names = list(vae.record.columns)
    p_age, p_time = (p_age, p_time) if names == ["age", "time"] else (p_time, p_age)
    log_p = torch.distributions.Normal(0, 1).log_prob(z[:, 0])
    log_p = log_p + p_age.log_prob(torch.tensor(rows["age"].to_numpy())[:, None, None])[..., 0]
    survived = [1.0, 1.0]
    for i, (t, dead) in enumerate(zip(rows["time"][:2], rows["dead"][:2], strict=True)):
        base = p_time.base
        survived[i] = (
            base.log_prob(torch.tensor(t)) if dead else (1 - base.cdf(torch.tensor(t))).log()
        )[:, 0]
        log_p[i] = log_p[i] + survived[i]
    exact = log_p.logsumexp(1) + math.log(16 / 4000)
    found = pv.log_evidence(vae, rows, num_samples=20_000, seed=0)
    z_scores = (found.log_evidence - exact) / found.standard_error
    assert (z_scores.abs() < 4).all()
    mean = (log_p[2].softmax(0) * p_time.mean[:, 0]).sum().item()
    drawn = vae.imputations(rows, draws=4000, num_samples=8000, seed=0)
    times = drawn.values[:, 2, names.index("time")]
    assert abs(times.mean() - mean) / (times.std() / math.sqrt(min(4000, drawn.ess[2]))) < 4


@pytest.mark.slow
def test_frames_come_back_with_their_event_column():
    frame = patients()
    table = pv.Table.from_frame(frame)
    assert table.likelihood["time"] == "Censored(Weibull)"
    assert "'dead', as the names say" in table.schema["time"].why
    vae = pv.VAE(table, 2, likelihood={"time": "Censored(Gamma)"}, **SMALL)
    pv.fit(vae, table, epochs=2, seed=0, progress=False)
    assert vae.record.schema.likelihood["time"] == "Censored(Gamma)"
    drawn = vae.sample(20, seed=0)
    assert list(drawn) == list(frame) and (drawn.dtypes == frame.dtypes).all()
    assert drawn["dead"].all() and (drawn["time"] > 0).all()
    holed = frame.astype({"dead": "boolean"})
    holed.loc[5:9, ["time", "dead"]] = pd.NA
    filled = vae.impute(holed, seed=0, num_samples=200)
    assert filled["dead"].dtype == "boolean" and filled.loc[5:9, "dead"].all()
    assert filled.drop(index=range(5, 10)).equals(holed.drop(index=range(5, 10)))
    assert (filled["time"] > 0).all()
    given = vae.sample(10, given={"time": 50.0, "dead": False}, seed=0)
    assert (given["time"] == 50).all() and not given["dead"].any()
    with pytest.raises(ValueError, match="'time' and its event 'dead' one is missing"):
        vae.sample(10, given={"time": 50.0}, seed=0)
    assert list(pv.predictive_check(vae, table, num_samples=50).columns.index) == ["age"]


@pytest.mark.parametrize(("unit", "step"), [(0.1, 0.1), (1, None), (7, 7)])
def test_drawn_times_lie_in_the_steps_of_the_column(unit, step):
    times = np.round(np.arange(1, 41) ** 2 * unit, 1)
    frame = pd.DataFrame({"time": times, "dead": [0, 1] * 20, "x": np.linspace(0, 1, 40)})
    table = pv.Table.from_frame(frame)
    column = table.schema["time"]
    assert column.kind == "survival" and column.step == step
    own = drawn(column, np.array([1.26, -1.26, 0.01, -0.01, 99.99]))
    ticks = own / unit
    assert np.allclose(ticks, ticks.round()) and (np.sign(own) == [1, -1, 1, -1, 1]).all()
    assert abs(own[-1] - 99.99) <= unit / 2


@pytest.mark.slow
@pytest.mark.parametrize("line", ["Weibull", "Gamma"])
def test_a_compiled_step_is_the_plain_one(line, interpreted):
    table = pv.Table.from_frame(patients(64), likelihood={"time": f"Censored({line})"})
    losses = []
    for compile in (False, True):
        vae = pv.VAE(table, 2, **SMALL)
        options = {"epochs": 2, "batch_size": 32}
        fit = pv.fit(vae, table, **options, seed=0, compile=compile, progress=False)
        losses.append(fit.history["elbo_train"].to_numpy())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_pairs_are_told_by_names_and_values_or_not_at_all():
    frame = patients()
    assert pv.Table.from_frame(frame, censored={}).schema["time"].kind != "survival"
    assert pv.Table.from_frame(frame, kinds={"dead": "binary"}).schema["dead"].kind == "binary"
    two = frame.assign(died=frame["dead"])
    assert "survival" not in {c.kind for c in pv.Table.from_frame(two).schema.columns}
    status = frame.rename(columns={"dead": "status"})
    assert pv.Table.from_frame(status).schema["time"].kind != "survival"
    declared = pv.Table.from_frame(status, likelihood={"time": "Censored(LogNormal)"})
    assert declared.schema["time"].event == "status"
    again = type(declared.schema).from_dict(declared.schema.as_dict())
    assert again == declared.schema and np.array_equal(again.read(status).values, declared.values)


REFUSED = {
    "a family of all numbers": ("Normal", "a family of positive numbers with a distribution"),
    "counts": ("Poisson", "a family of positive numbers"),
    "a bounded family": ("Beta", "a family of positive numbers"),
    "no distribution function": ("FisherSnedecor", "with a distribution function"),
    "hurdles": ("Hurdle(Gamma)", "a family of positive numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_families_that_cannot_be_censored(case):
    line, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        pv.VAE(2, 1, likelihood=f"Censored({line})", **SMALL)


def test_times_and_events_that_are_none():
    frame = patients()
    with pytest.raises(ValueError, match=r"'time'.*'Censored\(Weibull\)', or leave its event out"):
        pv.VAE(pv.Table.from_frame(frame), 2, likelihood={"time": "Weibull"})
    table = pv.Table.from_frame(frame)
    with pytest.raises(ValueError, match="'time', a censored time"):
        pv.VAE(table, 2, condition=["time"])
    for role in ({"weight": "time"}, {"offset": "dead"}):
        with pytest.raises(ValueError, match="the column holds no numbers"):
            pv.VAE(table, 2, **role)
    zero = frame.copy()
    zero.loc[3, "time"] = 0.0
    with pytest.raises(ValueError, match=r"'time', row 3: 0.0: .*\n.*half a day for a day 0"):
        pv.Table.from_frame(zero, censored={"time": "dead"})
    words = frame.assign(dead=np.where(frame["dead"], "dead", "alive"))
    with pytest.raises(ValueError, match=r"'dead'.*an event is 0"):
        pv.Table.from_frame(words, censored={"time": "dead"})
    with pytest.raises(ValueError, match="x holds 0; Censored needs a time greater than 0"):
        vae = pv.VAE(2, 1, likelihood="Censored(Weibull)", **SMALL)
        vae.check(torch.zeros(3, 2))
