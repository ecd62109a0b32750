"""Levels, counts and spikes that are missing because of their value: sums over what they may be."""

import itertools
import math

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

import pyro_vae as pv

N = 120
RNG = np.random.default_rng(0)
GRADES = ["low", "middle", "high"]
CELLS = {  # the column beside the number y, and its line
    "categories": (RNG.choice(["cat", "cow", "dog"], N), "Categorical"),
    "ordered levels": (pd.Categorical(RNG.choice(GRADES, N), GRADES, ordered=True), "auto"),
    "bits": (RNG.random(N) < 0.4, "Bernoulli"),
    "counts": (RNG.poisson(1.5, N), "Poisson"),
    "counts of two kinds": (RNG.poisson(1.5, N), "Mixture(Poisson, components=2)"),
    "a spike": (RNG.standard_normal(N) * (RNG.random(N) < 0.6), "Hurdle(Normal(scale=0.7))"),
    "a mixture": (1 + RNG.random(N), "Mixture(LogNormal(scale=0.4), components=2)"),
}
ROWS = {"the other": (False, True), "the number": (True, False), "both": (False, False)}
Z = torch.linspace(-7, 7, 281).double()
STEP = (Z[1] - Z[0]).log()


def made(kind, line="SelfMasking", missing=None):
    """A model of one z of the column and y, with slopes that matter, and its frame."""
    values, likelihood = CELLS[kind]
    frame = pd.DataFrame({"a": values, "y": RNG.standard_normal(N)})
    lines = {"y": "Normal(scale=0.6)"} | ({} if likelihood == "auto" else {"a": likelihood})
    table = pv.Table.from_frame(frame, likelihood=lines)
    vae = pv.VAE(table, 1, encoder=[], decoder=[], missing=line, seed=3).double()
    vae.start_from(vae.as_data(table))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, p in vae.named_parameters():
            if name.startswith(("missingness", "likelihood")):
                p += 0.8 * torch.randn(p.shape, generator=generator).double()
    return vae, table


def values_of(kind):
    """All values of the column, or many of a density, and the logarithms of their weights."""
    if kind == "a mixture":
        logs = torch.linspace(-7, 7, 4001).double()
        return logs.exp(), logs + (logs[1] - logs[0]).log()
    if kind == "a spike":
        values = torch.cat([torch.zeros(1), torch.linspace(-9, 9, 4000)]).double()
        weights = (values[2] - values[1]).log().expand(4001).clone()
        weights[0] = 0.0
        return values, weights
    count = {"bits": 2, "counts": 100, "counts of two kinds": 100}.get(kind, 3)
    return torch.arange(count).double(), torch.zeros(count).double()


def log_joints(vae, row, kind):
    """Of both cells their values, log p(value | z), ``(values, z)``, and log p(mask | value)."""
    p = vae.decode(Z[:, None], row.expand(len(Z), 2))
    y = torch.linspace(-9, 9, 1001).double()
    grids = [values_of(kind), (y, (y[1] - y[0]).log().expand(1001))]
    for j, (cells, weights) in enumerate(grids):
        gone = row[j].isnan()
        cells, weights = (cells, weights) if gone else (row[j : j + 1], torch.zeros(1).double())
        rows = torch.ones(len(cells), 2).double()
        rows[:, j] = cells
        block = next(i for i, at in enumerate(p.layout.places) if j in at)
        log_p = p.parts[block].log_prob(cells[:, None, None]) + weights[:, None]
        log_mask = vae.missingness(rows).base_dist.log_prob(gone.double())[:, j]
        yield cells, log_p, log_mask[:, None]


@torch.no_grad()
def exact(vae, row, kind):
    """log p(x_obs, mask), and of each cell its values and their log probabilities given both."""
    cells = list(log_joints(vae, row, kind))
    each = [log_p + log_mask for _, log_p, log_mask in cells]
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(Z) + STEP
    sums = [part.logsumexp(0) for part in each]
    log_p = (prior + sums[0] + sums[1]).logsumexp(0)
    shares = [(prior + each[j] + sums[1 - j]).logsumexp(1) - log_p for j in (0, 1)]
    return log_p, [(values, own) for (values, *_), own in zip(cells, shares, strict=True)]


def rows_of(vae, table):
    """Three rows, one for each pattern of holes."""
    x = vae.as_data(table)[:3].clone()
    for row, known in zip(x, ROWS.values(), strict=True):
        row[~torch.tensor(known)] = math.nan
    return x


FAST = ("categories", "counts", "a spike")
PAIRS = [pytest.param(k, "SelfMasking", marks=[] if k in FAST else pytest.mark.slow) for k in CELLS]
PAIRS += [pytest.param(k, "SelfMasking(sign=-1)", marks=pytest.mark.slow) for k in CELLS]


@pytest.mark.parametrize("kind, line", PAIRS)
def test_evidence_and_imputations_are_those_of_quadrature(kind, line):
    vae, table = made(kind, line)
    x = rows_of(vae, table)
    found = pv.log_evidence(vae, x, num_samples=10000, seed=0)
    several = vae.imputations(x, draws=4000, num_samples=10000, seed=0)
    for i, row in enumerate(x):
        log_p, cells = exact(vae, row, kind)
        assert (found.log_evidence[i] - log_p).abs() < 4 * found.standard_error[i]
        assert found.standard_error[i] < 0.03
        for j, (values, shares) in enumerate(cells):
            if not row[j].isnan():
                continue
            order = values.argsort()
            below = shares[order].exp().cumsum(0)
            for level, under in itertools.product((0.2, 0.5, 0.8), (torch.lt, torch.le)):
                at = values[order[(below < level).sum()]]
                share = shares[under(values, at)].exp().sum().clamp(0.0, 1.0)
                drawn = under(several.values[:, i, j], at).double().mean()
                error = (share * (1 - share) * (1 / 4000 + 1 / several.ess[i])).sqrt()
                assert (drawn - share).abs() < 4 * error + 1e-3  # of the grid


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow) for k in list(CELLS)[:3]] + ["counts"]
)
def test_gradients_are_those_of_quadrature(kind):
    """Of the ELBO: a sum over levels within the logarithm, the mean over numbers outside it."""
    vae, table = made(kind)
    x = rows_of(vae, table)
    elbo, q = 0.0, vae.approximate_posterior(x)
    for i, row in enumerate(x):
        log_q = q.log_prob(Z[:, None, None].expand(-1, 3, 1))[:, i]
        inside = torch.distributions.Normal(0.0, 1.0).log_prob(Z) - log_q
        for j, (_, log_p, log_mask) in enumerate(log_joints(vae, row, kind)):
            if row[j].isnan() and j == 1:
                inside = inside + (log_p.exp() * log_mask).sum(0)
            else:
                inside = inside + (log_p + log_mask).logsumexp(0)
        elbo = elbo + ((log_q + STEP).exp() * inside).sum()
    parameters = {name: p for name, p in vae.named_parameters() if "prior" not in name}
    names = list(parameters)
    exact = torch.autograd.grad(-elbo, list(parameters.values()), allow_unused=True)
    exact = {n: g for n, g in zip(names, exact, strict=True) if g is not None}
    each = []
    pyro.set_rng_seed(0)
    with pyro.get_param_store().scope():
        for _ in range(40):
            many = x.repeat(100, 1)
            loss = Trace_ELBO().differentiable_loss(vae.model, vae.guide, many) / 100
            each.append(torch.autograd.grad(loss, [parameters[n] for n in exact]))
    for name, drawn in zip(exact, zip(*each, strict=True), strict=True):
        drawn, expected = torch.stack(drawn), exact[name]
        error = drawn.std(0) / len(drawn) ** 0.5
        assert expected.abs().sum() > 0
        assert ((drawn.mean(0) - expected).abs() < 4.5 * error + 1e-6).all(), name


@pytest.mark.parametrize("kind", ["categories", "ordered levels", "bits"])
def test_one_value_is_that_of_the_levels_given_the_mask(kind):
    vae, table = made(kind)
    x = rows_of(vae, table)
    values, shares = exact(vae, x[2], kind)[1][0]
    shares = shares.exp()
    mode, mean = shares.argmax(), (shares * values).sum()
    median = (shares.cumsum(0) < 0.5).sum()
    expected = {
        "categories": {"mean": mode, "median": mode, "mode": mode},
        "ordered levels": {"mean": median, "median": median, "mode": mode},
        "bits": {"mean": mean, "median": mode, "mode": mode},
    }[kind]
    for point, value in expected.items():
        found = vae.impute(x, point=point, num_samples=4000, seed=0)[2, 0]
        assert (found - value).abs() < 0.03, point


def test_cells_that_are_not_asked_for_are_not_missing():
    """Draws given some cells are of p(the others | these), whatever would hide the others."""
    vae, table = made("categories")
    plain = pv.VAE(table, 1, encoder=[], decoder=[], seed=3).double()
    own = {k: v for k, v in vae.state_dict().items() if "missingness" not in k}
    plain.load_state_dict(own)
    rows = pd.DataFrame({"y": [0.5, -1.0]})
    drawn, expected = (m.sample(50, given=rows, seed=0) for m in (vae, plain))
    assert all(a.equals(b) for a, b in zip(drawn, expected, strict=True))
    with torch.no_grad():
        vae.missingness.levels["0"].copy_(torch.tensor([[9.0], [-9.0], [-9.0]]))
    holed = rows.assign(a=None)
    assert (vae.impute(holed, seed=0)["a"] == "cat").all()
    drawn = vae.sample(200, given={"y": 0.5}, seed=0)
    assert 0.1 < (drawn["a"] == "cat").mean() < 0.6


def mnar(n, seed):
    """A frame of five columns of one z; level c and large y go missing, and where they did."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal(n)
    kind = np.array(["a", "b", "c"])[np.digitize(z + 0.3 * rng.standard_normal(n), [-0.4, 0.6])]
    y = z + 0.4 * rng.standard_normal(n)
    beside = {f"x{i}": z + 0.7 * rng.standard_normal(n) for i in range(3)}
    hidden = {"kind": np.where(kind == "c", 0.7, 0.05), "y": 1 / (1 + np.exp(-3 * (y - 0.5)))}
    whole = pd.DataFrame({"kind": kind, "y": y, **beside})
    gone = pd.DataFrame({name: rng.random(n) < p for name, p in hidden.items()})
    return whole, whole.assign(**{name: whole[name].mask(gone[name]) for name in gone}), gone


@pytest.mark.slow
def test_levels_and_numbers_that_are_hidden_for_their_value_are_recovered():
    whole, holed, gone = mnar(600, 0)
    lines = dict.fromkeys(["y", "x0", "x1", "x2"], "Normal(scale=learned)")
    table = pv.Table.from_frame(holed, likelihood=lines)
    wrong, bias = {}, {}
    for missing in (True, "SelfMasking"):
        vae = pv.VAE(table, 1, encoder=[30], decoder=[], missing=missing, seed=0)
        pv.fit(vae, table, epochs=20, lr="cosine(0.03)", estimator="DReG(num_particles=5)", seed=0)
        filled = vae.impute(table, num_samples=100, seed=0)
        wrong[missing] = (filled["kind"] != whole["kind"])[gone["kind"]].mean()
        bias[missing] = (filled["y"] - whole["y"])[gone["y"]].mean()
    assert wrong["SelfMasking"] < 0.4 * wrong[True]
    assert abs(bias["SelfMasking"]) < 0.5 * abs(bias[True])


@pytest.mark.slow
@pytest.mark.parametrize("kind", CELLS)
def test_it_trains_on_holes_and_is_loaded_as_it_was(kind, tmp_path):
    values, line = CELLS[kind]
    frame = pd.DataFrame({"a": values, "y": RNG.standard_normal(N)})
    frame = frame.mask(np.random.default_rng(1).random(frame.shape) < 0.3)
    table = pv.Table.from_frame(frame, likelihood={} if line == "auto" else {"a": line})
    vae = pv.VAE(table, 1, encoder=[4], decoder=[4], missing="SelfMasking", seed=0)
    before = {k: v.clone() for k, v in vae.missingness.named_parameters()}
    pv.fit(vae, table, epochs=2, batch_size=20, seed=0)
    for name, p in vae.missingness.named_parameters():
        assert p.isfinite().all() and not torch.equal(p, before[name]), name
    again = pv.load(vae.save(tmp_path / "model"))
    first, second = (m.impute(table, num_samples=50, seed=0) for m in (vae, again))
    assert first.equals(second) and first.notna().all().all()


def test_plain_bits_and_codes_may_be_missing_by_their_value():
    x = torch.bernoulli(torch.full((40, 3), 0.5))
    x[torch.rand(40, 3) < 0.2] = math.nan
    for line in ("Bernoulli", "Categorical(categories=2)"):
        vae = pv.VAE(3, 1, likelihood=line, encoder=[4], decoder=[4], missing="SelfMasking", seed=0)
        pv.fit(vae, x, epochs=1, seed=0)
        assert vae.impute(x, draws=2, num_samples=50, seed=0).isfinite().all()


def test_columns_that_it_does_not_serve_are_named():
    frame = pd.DataFrame(
        {
            "visits": RNG.poisson(400, N),
            "sold": RNG.poisson(300, N),
            "few": RNG.poisson(2, N),
            "time": 1 + RNG.random(N),
            "dead": RNG.random(N) < 0.5,
            "pet": CELLS["categories"][0],
        }
    )
    lines = dict.fromkeys(["visits", "sold", "few"], "Poisson")
    table = pv.Table.from_frame(frame, likelihood=lines, censored={"time": "dead"})
    words = "Poisson of columns 'visits', 'sold' and Censored of column 'time' have not: sums stand"
    with pytest.raises(ValueError, match=words):
        pv.VAE(table, 1, missing="SelfMasking")
    words = "Categorical of column 'pet' have not: SelfMasking serves levels and counts; choose a"
    with pytest.raises(ValueError, match=words):
        pv.VAE(table, 1, missing="Logistic")


@pytest.mark.slow
def test_a_mask_by_the_whole_row_of_densities_is_that_of_quadrature():
    """Columns of two likelihoods, one cell missing: its value moves both masks."""
    frame = pd.DataFrame({"a": np.exp(RNG.standard_normal(N)), "y": RNG.standard_normal(N)})
    lines = {"a": "LogNormal(scale=0.5)", "y": "Normal(scale=0.6)"}
    table = pv.Table.from_frame(frame, likelihood=lines)
    vae = pv.VAE(table, 1, encoder=[], decoder=[], missing="Logistic", seed=3).double()
    vae.start_from(vae.as_data(table))
    with torch.no_grad():
        vae.missingness.linear.weight.copy_(torch.tensor([[1.0, -0.7], [0.9, 0.5]]))
        x = vae.as_data(table)[:1].clone()
        x[0, 0] = math.nan
        logs = torch.linspace(-6, 6, 2001).double()
        p = vae.decode(Z[:, None], x.expand(len(Z), 2))
        rows = torch.stack([logs.exp(), x[0, 1].expand(2001)], 1)
        log_x = p.log_prob(rows[:, None]) + (logs + (logs[1] - logs[0]).log())[:, None]
        mask = torch.tensor([1.0, 0.0]).double().expand(2001, 2)
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(Z) + STEP
        each = log_x + vae.missingness(rows).log_prob(mask)[:, None] + prior
    found = pv.log_evidence(vae, x, num_samples=10000, seed=0)
    assert (found.log_evidence[0] - each.logsumexp((0, 1))).abs() < 4 * found.standard_error[0]
    shares = (each.logsumexp(1) - each.logsumexp((0, 1))).exp()
    drawn = vae.imputations(x, draws=4000, num_samples=10000, seed=0)
    below = (drawn.values[:, 0, 0] < 1).double().mean()
    share = shares[rows[:, 0] < 1].sum()
    error = (share * (1 - share) * (1 / 4000 + 1 / drawn.ess[0])).sqrt()
    assert (below - share).abs() < 4 * error
