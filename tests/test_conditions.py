"""p(x, z | c): designs from formulas, offsets and weights of tables, counterfactuals."""

import narwhals as nw
import numpy as np
import pandas as pd
import pyro
import pytest
import torch

import pyro_vae as pv
from pyro_vae.data.tables.design import Design
from pyro_vae.model.joint import Joint

NETS = {"encoder": "MLP([])", "decoder": "MLP([])", "seed": 0}


def frame(n=60):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.normal(50, 10, n),
            "site": rng.choice(list("abc"), n),
            "time": rng.uniform(0, 10, n),
            "my col": rng.gamma(2, size=n),
            "bp": rng.normal(120, 15, n),
            "visits": rng.poisson(3, n),
            "years": rng.integers(1, 6, n) / 2,
        }
    )


def table(**lines):
    return pv.Table.from_frame(
        frame(), kinds={"visits": "count"}, likelihood={"visits": "Poisson", **lines}
    )


def test_a_design_has_the_columns_of_its_formula():
    data = frame()
    design = Design.of("~ age + site + log(`my col`) + {age**2} + age:site", data)
    by_hand = {
        "age": data.age,
        "site[T.b]": data.site == "b",
        "site[T.c]": data.site == "c",
        "log(`my col`)": np.log(data["my col"]),
        "age ** 2": data.age**2,
        "age:site[T.b]": data.age * (data.site == "b"),
        "age:site[T.c]": data.age * (data.site == "c"),
    }
    assert design.names == tuple(by_hand)
    assert np.allclose(design.read(data), np.stack(list(by_hand.values()), 1).astype(float))
    assert Design.of(["my col", "site"], data).names == ("my col", "site[T.b]", "site[T.c]")


def test_a_design_keeps_what_it_learned_from_the_first_rows():
    data = frame()
    design = Design.of("~ bs(time, 4) + center(age) + C(years) + site", data)
    again = Design.from_dict(design.as_dict(), design.schema)
    whole = design.read(data)
    for some in ([3], [5, 2, 5]):
        assert np.array_equal(again.read(data.iloc[some]), whole[some])
    column = design.names.index("center(age)")
    assert abs(whole[:, column].mean()) < 1e-9
    assert np.allclose(whole[:, column], data.age - data.age.mean())


HARMFUL = [
    "~ __import__('os').system('true')",
    "~ {__import__('os')}",
    "~ age.__class__",
    "~ {age.__class__}",
    "~ np.log(age)",
    "~ {[x for x in age]}",
    "~ {(lambda: 1)()}",
    "~ {age[0]}",
    "~ I(9**9**9)",
    "~ age**1000",
    "~ bs(time, 100000)",
    "~ hashed(site)",
    "~ open(age)",
    "~ I('`' + str(open('x')) + '`')",
    "~ bs(`a'`, extrapolation='clip') + I(` + open('x') + `)",
    """~ bs(age, 4, extrapolation='") + open(1) + ("')""",
    "~ I(5**5**5**5**5)",
    "~ I('a' * 200 * 200 * 200 * 200)",
    "~ I([age] * 200 * 200 * 200 * 200)",
    "~ bs(age, df=199 * 199 * 199)",
    "~ " + " * ".join("abcdefghijklm"),
    "~ " + "age + " * 1000 + "age",
]


@pytest.mark.slow
@pytest.mark.parametrize("formula", HARMFUL)
def test_a_formula_runs_no_code_and_asks_for_no_memory(formula):
    design = Design.of("~ age", frame())
    with pytest.raises(ValueError, match=r"formula|condition|first thing"):
        Design.of(formula, frame())
    with pytest.raises(ValueError, match=r"formula|condition|first thing"):
        Design.from_dict(design.as_dict() | {"formula": formula}, design.schema)


def test_a_formula_says_how_a_spline_goes_on_and_takes_quoted_names():
    rows = frame().rename(columns={"age": "its age"})
    formula = "~ bs(`its age`, df=4, extrapolation='clip') + I(`its age`**2 / 3)"
    assert len(Design.of(formula, rows).names) == 5


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("~ agee", "names 'agee', .* did you mean age"),
        ("~ log(agee)", "names 'agee'"),
        ("bp ~ age", "has nothing before ~: all other columns are modelled given it, '~ age'"),
        ("~ (age", "is no formula such as"),
        ("~ 1", "has no column"),
        ("~ log(age - 50)", "is not finite in row"),
        ("~ C(age + 1)", r"C\(\) takes the name of one column"),
        ("~ loge(age)", "may not call 'loge'"),
        ("~ poly(age, 2)", r"may not call 'poly'.*; say age \+ I\(age\*\*2\)"),
        ("~ site + age**2", r"takes for age itself: I\(age\*\*2\) is the power"),
        ("~ (age > 50)", "make a column of it in the frame"),
        ([], "is a formula"),
    ],
)
def test_a_formula_that_cannot_be_read_is_told(formula, words):
    with pytest.raises(ValueError, match=words):
        Design.of(formula, frame())


@pytest.mark.parametrize("name", ["Intercept", "1"])
def test_a_column_that_is_called_as_the_constant_is_not_left_out(name):
    data = frame().rename(columns={"age": name})
    with pytest.raises(ValueError, match=f"names '{name}', and a formula calls .*: rename the col"):
        Design.of([name, "site"], data)


def test_rows_outside_of_the_design_are_told_by_column_and_row():
    data = frame()
    design = Design.of("~ age + site + C(years) + bs(time, 4)", data)
    for change, words in {
        "site": ("z", "column 'site', row 1: 'z' is not among its levels"),
        "age": (np.nan, "column 'age', row 1: a condition is known in every row"),
        "years": (9.0, "column 'years', row 1: 9.0 is not among its levels"),
        "time": (99.0, r"extrapolation='clip'"),
    }.items():
        value, expected = words
        rows = data.iloc[:3].copy()
        rows.loc[1, change] = value
        with pytest.raises(ValueError, match=expected):
            design.read(rows)
    whole = pv.Table.from_frame(data)
    holed = data.assign(age=data["age"].where(data.index != 9))
    part = whole.schema.read(holed)[5:]  # as the training part of a file
    with pytest.raises(ValueError, match=r"'age', row 4 \(index 9\): a condition is known in ev"):
        design.read(part)
    clip = Design.of("~ bs(time, 4, extrapolation='clip')", data)
    far = data.iloc[:2].assign(time=[99.0, data.time.max()])
    assert np.array_equal(*clip.read(far))


def test_what_a_condition_lacks_is_said_without_advice_that_is_refused():
    design = Design.of("~ age + site", frame())
    vae = pv.VAE(3, 2, likelihood="Normal", condition=design, **NETS)
    with pytest.raises(ValueError, match="'~ age \\+ site' reads column 'site', which the frame"):
        vae.check({"x": torch.zeros(60, 3), "condition": frame().drop(columns="site")})
    with pytest.raises(ValueError, match="block 'condition': x must be an array of numbers"):
        pv.VAE(3, 2, likelihood="Normal", condition=2, **NETS).check(
            {"x": torch.zeros(2, 3), "condition": [["a", "b"]] * 2}
        )


def test_the_columns_of_a_condition_are_read_and_not_scored():
    data = table()
    vae = pv.VAE(data, 2, condition="~ age + site", **NETS)
    assert "age" not in vae.record.columns and "site" not in vae.record.columns
    x, other = vae.as_data(data), vae.as_data(frame().assign(age=40.0))
    z = torch.zeros(60, 2)
    assert not torch.equal(vae.decode(z, x).mean, vae.decode(z, other).mean)
    vae.start_from(x)
    design = vae.record.part(x, "context")
    expected = Design.of("~ age + site", frame()).read(frame())
    assert np.allclose(design, expected, atol=1e-4)
    read = vae.inputs.read_context(x)
    assert torch.equal(read[:, 1:], design[:, 1:]), "bits are read as they are"
    assert abs(read[:, 0].median()) < 1e-5


def test_an_exposure_multiplies_the_mean_of_counts_alone():
    data = table()
    vae = pv.VAE(data, 2, condition=["age"], offset="years", **NETS)
    x, z = vae.as_data(frame()), torch.randn(4, 60, 2)
    twice = vae.as_data(frame().assign(years=2 * frame().years))
    names = vae.record.columns
    ratio = vae.decode(z, twice).mean / vae.decode(z, x).mean
    counts = torch.tensor([name == "visits" for name in names])
    assert counts.any() and torch.allclose(ratio[..., counts], torch.tensor(2.0), rtol=1e-4)
    others = ratio[..., ~counts]
    assert ((others == 1) | others.isnan()).all(), "codes have no mean"


@pytest.mark.parametrize("line", ["Geometric", "Mixture(Poisson, components=2)"])
def test_counts_that_take_no_offset_are_not_left_without_it(line):
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"a": rng.poisson(5, 40), "b": rng.poisson(5, 40), "years": 1.0})
    data["years"] += rng.random(40)
    counts = pv.Table.from_frame(data, likelihood={"a": "Poisson", "b": line})
    with pytest.raises(ValueError, match="takes no offset"):
        pv.VAE(counts, 2, offset="years", **NETS)


@pytest.mark.parametrize("line", ["ZeroInflatedPoisson", "ZeroInflatedNegativeBinomial"])
def test_an_offset_leaves_the_excess_of_zeros_as_it_is(line):
    blocks = [pv.Block("x", 3), pv.Block("exposure", role="offset")]
    vae = pv.VAE(pv.Record(blocks), 2, likelihood=line, **NETS)
    plain = pv.VAE(3, 2, likelihood=line, **NETS)
    for part in ("decoder", "likelihood"):
        plain.get_submodule(part).load_state_dict(vae.get_submodule(part).state_dict())
    z, exposure = torch.randn(4, 2), torch.full((4,), 0.7)
    x = vae.as_data({"x": torch.ones(4, 3), "exposure": exposure})
    ours, theirs = vae.decode(z, x).base_dist, plain.decode(z).base_dist
    assert torch.allclose(ours.mean, theirs.mean * exposure.exp()[0], rtol=1e-4)
    assert torch.equal(ours.gate_logits, theirs.gate_logits)


def test_a_weight_of_two_is_a_row_twice():
    data = frame()
    twice = pd.concat([data, data.iloc[:20]], ignore_index=True).drop(columns="years")
    weights = data.assign(years=[2.0] * 20 + [1.0] * 40)
    lines = {"likelihood": {"visits": "Poisson"}, "kinds": {"visits": "count"}}
    weighted = pv.VAE(pv.Table.from_frame(weights, **lines), 2, weight="years", **NETS).double()
    plain = pv.VAE(pv.Table.from_frame(twice, **lines), 2, **NETS).double()
    plain.load_state_dict(weighted.state_dict())
    x, many = weighted.as_data(weights), plain.as_data(twice)
    z = torch.zeros(60, 2).double()
    z_many = torch.zeros(80, 2).double()
    each = Joint(weighted, x).log_joint(z) * weighted.record.part(x, "weight")[:, 0]
    assert torch.allclose(each.sum(), Joint(plain, many).log_joint(z_many).sum())


def test_the_gradient_of_a_weight_of_two_is_that_of_a_row_twice():
    """With a guide of points, so that no draw differs."""
    data = frame()
    twice = pd.concat([data, data.iloc[:20]], ignore_index=True).drop(columns="years")
    weights = data.assign(years=[2.0] * 20 + [1.0] * 40)
    options = {"guide": "Delta", **NETS}
    weighted = pv.VAE(pv.Table.from_frame(weights), 2, weight="years", **options).double()
    plain = pv.VAE(pv.Table.from_frame(twice), 2, **options).double()
    plain.load_state_dict(weighted.state_dict())
    for vae, rows in ((weighted, weights), (plain, twice)):
        made, x = pv.make_estimator("Trace_ELBO"), vae.as_data(rows)
        with pyro.get_param_store().scope():
            made.elbo.loss_and_grads(vae.model, made.wrap(vae.guide, x), x)
    pairs = list(zip(weighted.parameters(), plain.parameters(), strict=True))
    assert len(pairs) > 5 and all(p.grad.abs().max() > 0 for p, _ in pairs)
    for one, other in pairs:
        assert torch.allclose(one.grad, other.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_checks_and_the_history_are_of_what_weighted_rows_stand_for():
    """Rows of the model's own, of which the high ones come a fifth as often, with weight 5."""
    data = pd.DataFrame(np.random.default_rng(0).normal(size=(900, 2)), columns=["a", "b"])
    lines = {"likelihood": dict.fromkeys("ab", "Normal"), "kinds": {"w": "real"}}
    table = pv.Table.from_frame(data.assign(w=data.a**2), **lines)
    vae = pv.VAE(table, 1, weight="w", **NETS)
    vae.start_from(vae.as_data(table))
    drawn = vae.sample(900, seed=0)
    high = drawn.a > drawn.a.mean()
    rows = drawn.assign(w=np.where(high, 5.0, 1.0))[~high | (np.arange(900) % 5 == 0)]
    for of_rows, right in ((rows, True), (rows.assign(w=1.0), False)):
        assert pv.predictive_check(vae, of_rows, num_samples=500, seed=0).departs != right
        check = pv.imputation_check(vae, of_rows, share=0.5, draws=19, num_samples=20, seed=0)
        assert ("No column" in check.verdict) == right
    far = rows.assign(b=np.where(rows.w > 1, rows.b + 9, rows.b))
    found = pv.fit(vae, rows, epochs=1, validation=far, seed=0).history.elbo_validation.iloc[-1]
    each = pv.elbo(vae, far, num_samples=50, seed=0).numpy()
    assert abs(found - np.average(each, weights=far.w)) < 0.5 < abs(found - each.mean()) / 4


def test_the_prior_given_a_condition_is_linear_in_it_and_its_divergence_is_exact():
    data = table()
    prior = "Normal(loc=amortized, scale=amortized)"
    vae = pv.VAE(data, 2, condition="~ age + site", prior=prior, **NETS)
    vae.start_from(data)
    x = vae.as_data(data)
    c = vae.inputs.read_context(x)
    head = vae.prior.sources["loc"].head
    p, q = vae.prior_at(x), vae.encode(x)
    assert p.batch_shape == (60,)
    assert torch.allclose(p.mean, c @ head.weight.T + head.bias, atol=1e-5)
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(q.base_dist.loc, q.base_dist.scale),
        torch.distributions.Normal(p.base_dist.loc, p.base_dist.scale),
    ).sum(1)
    torch.manual_seed(0)
    joint = Joint(vae, x)
    z = q.sample((4000,))
    draws = joint.log_guide(z) - joint.log_prior(z)
    z_score = (draws.mean(0) - exact) / (draws.std(0) / 4000**0.5)
    assert z_score.abs().max() < 4.5
    assert exact.std() > 0.01, "it depends on the row"
    fixed = pv.VAE(data, 2, condition="~ age + site", **NETS)
    assert fixed.prior_at(x).batch_shape == ()
    with pytest.raises(ValueError, match="no network to amortize"):
        pv.VAE(data, 2, prior=prior, **NETS)


def linear_gaussian(noise=0.5):
    """x = W z + B c + noise, with the exact posterior of z as the guide cannot be."""
    record = pv.Record([pv.Block("x", 3), pv.Block("c", 2, role="context")])
    return pv.VAE(record, 2, likelihood=f"Normal(scale={noise})", inputs="raw", **NETS).double()


@pytest.mark.slow
def test_a_counterfactual_is_that_of_a_linear_gaussian_structural_model():
    vae, noise = linear_gaussian(), 0.5
    torch.manual_seed(2)
    x, c = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    head = vae.likelihood.sources["loc"].head
    w, b = head.weight[:, :2].detach(), head.weight[:, 2:].detach()
    w = w + torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
    with torch.no_grad():
        head.weight[:, :2] = w
    intercept = head.bias.detach()
    precision = torch.eye(2).double() + w.T @ w / noise**2
    mean_z = (x - c @ b.T - intercept) @ w / noise**2 @ torch.linalg.inv(precision)
    new = torch.tensor([1.0, -2.0]).double()
    exact = mean_z @ w.T + new @ b.T + intercept
    spread = (w @ torch.linalg.inv(precision) @ w.T).diagonal().sqrt()
    got = vae.counterfactual({"x": x, "c": c}, do={"c": new}, num_samples=4000, seed=0)
    z_score = (got - exact) / (spread / 500**0.5)  # of 500 effective draws at least
    assert z_score.abs().max() < 4
    same = vae.counterfactual({"x": x, "c": c}, do={"c": c}, num_samples=4000, seed=0)
    assert not torch.allclose(same, got, atol=0.1)
    draws = vae.counterfactual({"x": x, "c": c}, do={"c": new}, draws=400, seed=0)
    total = (spread**2 + noise**2).sqrt()
    assert draws.shape == (400, 5, 3)
    assert ((draws.mean(0) - exact) / (total / 100**0.5)).abs().max() < 4


@pytest.mark.slow
def test_the_model_of_a_table_answers_in_frames():
    data, rows = table(), frame()
    vae = pv.VAE(data, 2, condition="~ age + site", offset="years", seed=0)
    pv.fit(vae, data, epochs=1, seed=0)
    drawn = vae.sample(4, given={"age": 40.0, "site": "b", "years": 2.0}, seed=0)
    assert list(drawn.columns) == list(rows.columns)
    assert (drawn.age == 40).all() and (drawn.site == "b").all() and drawn.bp.notna().all()
    known = vae.sample(4, given={"age": 40.0, "site": "b", "years": 2.0, "bp": 99.0}, seed=0)
    assert (known.bp == 99).all()
    other = vae.counterfactual(rows[:3], do={"site": "c"}, seed=0)
    assert (other.site == "c").all() and np.array_equal(other.age, rows.age[:3])
    each = vae.counterfactual(rows[:3], do={"site": ["a", "b", "c"]}, draws=2, seed=0)
    assert [list(one.site) for one in each] == [["a", "b", "c"]] * 2
    holes = rows[:3].assign(bp=[np.nan, 100.0, np.nan])
    filled = vae.impute(holes, seed=0)
    assert filled.bp.notna().all() and filled.bp[1] == 100 and filled.age.equals(holes.age)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("do", "words"),
    [
        ({"bp": 3.0}, r"sets columns of the condition \(age, site\), got 'bp'"),
        ({"sit": "b"}, "did you mean site"),
        ({"site": "q"}, "'q' is not among its levels"),
        ({}, "do= says which condition to set"),
        ("site", "do is a dict by column, do={'centre': 'B'}, got 'site'"),
        ({"site": ["a", "b"]}, "do= has 2 values of 'site' for 3 rows"),
    ],
)
def test_a_counterfactual_of_what_is_no_condition_is_refused(do, words):
    vae = pv.VAE(table(), 2, condition="~ age + site", **NETS)
    with pytest.raises(ValueError, match=words):
        vae.counterfactual(frame()[:3], do=do)
    with pytest.raises(ValueError, match="give the rows as one, not as a tensor"):
        vae.counterfactual(vae.as_data(frame()[:3]), do={"site": "b"})


@pytest.mark.slow
def test_a_counterfactual_of_one_row_takes_its_cells_by_name_and_tells_of_doubtful_draws():
    vae = pv.VAE(table(), 2, condition="~ age + site", missing="Bernoulli", seed=0)
    pv.fit(vae, table(), epochs=1, seed=0)
    row = frame()[:1].assign(bp=np.nan)
    cells = {k: v for k, v in row.iloc[0].items() if k != "bp"}
    other = vae.counterfactual(cells, do={"site": "c"}, seed=0)
    assert other.site.tolist() == ["c"] and other.bp.notna().all()
    record = pv.Record([pv.Block("x", 2), pv.Block("c", 1, role="context")])
    vae = pv.VAE(record, 2, likelihood="Normal(scale=1e-4)", **NETS)
    with pytest.warns(UserWarning, match=r"cells of 2 of 2 rows are doubtful"):
        x = {"x": torch.tensor([[9.0, 1.0], [0.0, 5.0]]), "c": torch.zeros(2, 1)}
        vae.counterfactual(x, do={"c": 1.0}, num_samples=50, seed=0)


def test_a_model_without_a_condition_says_how_to_have_one():
    with pytest.raises(ValueError, match="no condition to set: VAE"):
        pv.VAE(table(), 2, **NETS).counterfactual(frame()[:3], do={"site": "b"})


def test_draws_ask_for_what_the_decoder_reads_and_not_for_weights():
    vae = pv.VAE(table(), 2, condition="~ site", offset="years", weight="my col", **NETS)
    cells = {"site": "b", "years": 2.0}
    for name, say in {"site": "say its value", "bp": "leave it out"}.items():
        with pytest.raises(ValueError, match=f"{name!r} has no value: {say}"):
            vae.sample(3, given=cells | {name: None})
    bare, weighted = (vae.sample(3, given=g, seed=0) for g in (cells, {**cells, "my col": 9.0}))
    assert bare.drop(columns="my col").equals(weighted.drop(columns="my col"))
    with pytest.raises(ValueError, match=r"on site: say it, given=table, .* sample\(10"):
        vae.sample(3)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_several_rows_are_given_as_a_frame_of_the_known_columns(library):
    pytest.importorskip(library)
    vae = pv.VAE(table(), 2, condition="~ site", offset="years", weight="my col", **NETS)
    known = pd.DataFrame({"site": ["b", "c"], "years": [2.0, 1.0], "visits": [3, 2]})
    whole = known.reindex(columns=frame().columns).assign(**{"my col": 1.0})
    convert = {"pandas": "to_pandas", "polars": "to_polars", "pyarrow": "to_arrow"}[library]
    misspelt = known.rename(columns={"visits": "visit"})
    native, wrong = (getattr(nw.from_native(rows), convert)() for rows in (known, misspelt))
    some, every = (vae.sample(3, given=rows, seed=0) for rows in (native, whole))
    for a, b in zip(some, every, strict=True):
        a = nw.from_native(a).to_pandas()
        assert list(a) == list(b) == list(frame())
        assert all(list(a[name]) == list(b[name]) for name in a if name != "my col")
    with pytest.raises(ValueError, match=r"'visit'; did you mean visits"):
        vae.sample(3, given=wrong)
    with pytest.raises(ValueError, match="given is a dict of cells"):
        vae.sample(3, given="site")


def test_an_exposure_that_is_no_logarithm_is_told():
    blocks = [pv.Block("x", 3), pv.Block("exposure", role="offset")]
    vae = pv.VAE(pv.Record(blocks), 2, likelihood="Poisson", **NETS)
    depth = torch.tensor([5.0, 1000.0])
    with pytest.raises(
        ValueError, match=r"'exposure' \(offset\) needs the logarithm.*1000 in row 1"
    ):
        vae.check({"x": torch.ones(2, 3), "exposure": depth})
    assert len(vae.check({"x": torch.ones(2, 3), "exposure": depth.log()})) == 2


def test_a_condition_that_is_an_array_is_told_by_its_width():
    c = torch.rand(6, 3)
    with pytest.raises(ValueError, match=r"condition=3, and each call gets it with x"):
        pv.VAE(5, 2, likelihood="Normal", condition=c, **NETS)
    vae = pv.VAE(5, 2, likelihood="Normal", condition=3, **NETS)
    assert len(vae.check({"x": torch.rand(6, 5), "condition": c})) == 6
    with pytest.raises(ValueError, match=r"of labels, torch.nn.functional.one_hot\(c\)"):
        vae.check({"x": torch.rand(6, 5), "condition": torch.arange(6) % 3})


def test_a_condition_on_what_the_table_leaves_out_is_told_why():
    data = frame().assign(country="F", name=[f"n{i}" for i in range(60)])
    for name, words in {
        "country": r"'country', .* \(one value alone.*leave it out of the condition$",
        "name": r"another value in each row.*kinds=\{'name': 'categorical'\}",
    }.items():
        with pytest.raises(ValueError, match=words):
            pv.VAE(pv.Table.from_frame(data), 2, condition=["age", name], **NETS)


REFUSED = {
    "another's column": ({"condition": "~ agee"}, "names 'agee'"),
    "a width": ({"condition": 3}, "is '~ age' or"),
    "words as exposures": ({"offset": "site"}, "holds no numbers"),
    "no column": ({"weight": "w"}, "has no column 'w'"),
    "nothing left": ({"condition": list(frame().columns)}, "no column is left to model"),
}


@pytest.mark.filterwarnings("ignore:the condition reads the 5 numbers")
@pytest.mark.parametrize("case", REFUSED)
def test_what_a_table_cannot_be_conditioned_on_is_told(case):
    options, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        pv.VAE(table(), 2, **options, **NETS)


def test_an_exposure_that_is_none_is_told_by_column_and_row():
    vae = pv.VAE(table(), 2, offset="years", **NETS)
    for value in (0.0, -1.0, np.nan):
        rows = frame()[:3].copy()
        rows.loc[2, "years"] = value
        with pytest.raises(ValueError, match=r"'years', row 2: expected a number greater than 0"):
            vae.as_data(rows)
    with pytest.raises(ValueError, match="conditional on 'years': say its value too"):
        vae.sample(2, given={"age": 40.0})


@pytest.mark.slow
def test_an_array_beside_a_frame_is_conditioned_by_a_design():
    data, x = frame(), torch.rand(60, 5)
    design = pv.Design.of("~ age + C(site)", data)
    vae = pv.VAE(5, 2, likelihood="Normal", condition=design, **NETS)
    assert pv.fit(vae, {"x": x, "condition": data}, epochs=1).history.elbo_train.notna().all()
    numbers = {"x": x, "condition": design.read(data)}
    assert torch.equal(vae.encode(numbers).mean, vae.encode({"x": x, "condition": data}).mean)
    other = vae.counterfactual(numbers, do={"condition": design.read(data.assign(age=9.0))}, seed=0)
    assert other.shape == (60, 5)
    framed = vae.counterfactual(numbers, do={"condition": data.assign(age=9.0)}, seed=0)
    assert torch.equal(framed, other)
    with pytest.raises(ValueError, match="a formula needs the frame"):
        pv.VAE(5, 2, condition="~ age", **NETS)


def test_conditions_that_are_given_as_a_dictionary_of_columns():
    data = frame()
    vae = pv.VAE(4, 2, condition=Design.of("~ age + site", data), **NETS)
    columns = {"age": [40.0, 50.0], "site": ["b", "a"]}
    by_frame, by_name = (
        vae.sample(3, given={"condition": given}, seed=0)
        for given in (pd.DataFrame(columns), columns)
    )
    assert by_name.shape == (3, 2, 4) and torch.equal(by_frame, by_name)
    with pytest.raises(ValueError, match=r"a column is a list, also of one row, {'age': \[40\]}"):
        vae.sample(3, given={"condition": {"age": 40.0, "site": "b"}})


@pytest.mark.slow
def test_a_conditional_model_is_saved_with_its_design(tmp_path):
    prior = "Normal(loc=amortized, scale=amortized)"
    vae = pv.VAE(table(), 2, condition="~ bs(time, 4) + site", offset="years", prior=prior, seed=0)
    array = pv.VAE(5, 2, condition=pv.Design.of("~ age", frame()), seed=0)
    pv.fit(vae, table(), epochs=1, seed=0)
    again = pv.load(vae.save(tmp_path / "table"))
    x = frame()[:4]
    assert torch.equal(again.encode(x).mean, vae.encode(x).mean)
    assert torch.equal(again.prior_at(again.as_data(x)).mean, vae.prior_at(vae.as_data(x)).mean)
    data = {"x": torch.rand(4, 5), "condition": x}
    again = pv.load(array.save(tmp_path / "array"))
    assert torch.equal(again.encode(data).mean, array.encode(data).mean)


def test_a_design_reads_the_levels_that_it_learned_of_another_table(tmp_path):
    y = np.random.default_rng(0).normal(size=30)
    design = Design.of("~ site", pd.DataFrame({"site": list("abc") * 10, "y": y}))
    rows = pd.DataFrame({"site": list("bc") * 15, "y": y})
    vae = pv.VAE(pv.Table.from_frame(rows), 2, condition=design, seed=0)
    for model in (vae, pv.load(vae.save(tmp_path / "model"))):
        x = model.record.part(model.as_data(rows), "context")
        assert x[:2].tolist() == [[1, 0], [0, 1]]


def test_the_evidence_of_a_conditional_prior_is_that_of_quadrature():
    record = pv.Record([pv.Block("x", 2), pv.Block("c", 1, role="context")])
    prior = "Normal(loc=amortized, scale=amortized)"
    vae = pv.VAE(record, 1, likelihood="Normal(scale=0.7)", prior=prior, **NETS).double()
    torch.manual_seed(0)
    data = vae.as_data({"x": torch.randn(4, 2), "c": torch.randn(4, 1)})
    z = torch.linspace(-12, 12, 4001).double()[:, None, None].expand(-1, 4, 1)
    with torch.no_grad():
        log_p = Joint(vae, data).log_joint(z)
        exact = log_p.logsumexp(0) + np.log(24 / 4000)
    found = pv.log_evidence(vae, data, num_samples=4000, seed=0)
    z_score = (found.log_evidence - exact) / found.standard_error
    assert z_score.abs().max() < 4


def test_values_of_a_table_are_not_taken_for_packed_rows():
    """With a condition of numbers both are as wide, and the columns lie in another order."""
    data = frame().drop(columns=["site", "my col"])
    table = pv.Table.from_frame(data)
    vae = pv.VAE(table, 2, condition=["age"], weight="years", **NETS)
    values = torch.tensor(table.values, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"as vae.as_data\(frame\) gives them, got \(60, 5\)"):
        pv.elbo(vae, values)
    packed = vae.as_data(table)
    own = [table.schema.places[name] for name in vae.record.columns]
    assert torch.equal(vae.record.cells(packed), values[:, own])
    assert torch.equal(vae.record.part(packed, "context")[:, 0], torch.tensor(data.age).float())
    assert torch.equal(pv.elbo(vae, packed, seed=0), pv.elbo(vae, data, seed=0))


@pytest.mark.slow
def test_a_stack_of_conditional_tables_is_drawn_under_conditions():
    data = frame()
    models = [pv.VAE(table(), 2, condition=["site"], **NETS | {"seed": i}) for i in (0, 1)]
    stack = pv.stack(models, [0.5, 0.5])
    drawn = stack.sample(3, given=data[["site"]][:4], seed=0)
    assert drawn.shape == (3, 4, *models[0].x_shape)
    with pytest.raises(ValueError, match="give the columns of the condition alone"):
        stack.sample(3, given=data[["site", "age"]])


@pytest.mark.slow
def test_one_goes_from_a_row_of_a_table_to_another():
    data = frame()
    vae = pv.VAE(table(), 2, condition=["site"], **NETS)
    line = vae.interpolate(data[:1], data[5:6], 4)
    assert isinstance(line, pd.DataFrame) and len(line) == 4
    last = data[data.site != data.site[0]][:1]
    line = vae.interpolate(data[:1], last, 4)
    assert (line.site == data.site[0]).all(), "the condition stays that of the first"
    assert np.allclose(line["age"].iloc[0], vae.reconstruct(data[:1])["age"])
    under = vae.as_data(last.assign(site=data.site[0]))
    mean = vae.record.answer(vae.decode(vae.encode(last).mean, under).mean.detach())
    assert np.allclose(line["age"].iloc[-1], mean["age"])


def test_a_row_that_is_drawn_counts_once_and_is_taken():
    vae = pv.VAE(table(), 2, weight="years", **NETS)
    drawn = vae.sample(5, seed=0)
    assert (drawn["years"] == 1).all() and pv.elbo(vae, drawn, seed=0).isfinite().all()
