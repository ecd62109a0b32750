# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A real table: from the prior predictive to a pooled regression
#
# 4,454 applications for a loan: 14 columns of money, counts and categories, with holes. We take it
# from a first look to a pooled regression, and keep a truth beside each step: holes of our own
# making, models in closed form, and a simulation of which both potential outcomes are known.
#
# The table is `credit_data` of R's package `modeldata`, one of the public sets that the tests read
# from the folder `PYRO_VAE_DATA`: `tables/credit_data.csv`. Without it this notebook stops at the
# first cell, and `make notebooks` leaves it as it is; in R,
# `write.csv(modeldata::credit_data, "credit_data.csv", row.names = FALSE)` writes the file.
#
# ## You will be able to
#
# * read a table with **likelihoods by column**, and look at what the model says before it sees
#   data;
# * say what a VAE does with **missing cells**, and check it against a marginal in closed form;
# * **impute**, with calibration, and **pool** a regression by Rubin's rules;
# * ask for rows **given** some cells, and tell that from **do**;
# * fit a model with **covariates that have holes**;
# * say what not to claim.

# %%
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # Pyro asks for ipywidgets

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.distributions import MultivariateNormal

import pyro_vae as pv

folder = os.environ.get("PYRO_VAE_DATA")
assert folder, "set PYRO_VAE_DATA to the folder that holds tables/credit_data.csv"
frame = pd.read_csv(Path(folder) / "tables" / "credit_data.csv")
frame.head(3)

# %%
plt.rcParams.update({"figure.figsize": (7, 3), "figure.dpi": 100, "font.size": 9})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
plt.rcParams.update({"legend.frameon": False, "figure.constrained_layout.use": True})

# %% [markdown]
# ## The columns, and holes of our own making
#
# Beside its own holes the table gets some that we make, so that their truth is known. We hide two
# fifths of `Price`, the price of what is bought, and more of it where `Amount`, the loan, is high:
# the cells are *missing at random* given a column that is seen. A fifth of the rows is held out,
# whole. `Table.from_frame` then chooses a likelihood for each column, and says why.

# %%
shuffled = frame.sample(frac=1, random_state=0).reset_index(drop=True)
test, full = shuffled[:900], shuffled[900:].reset_index(drop=True)
pair = pv.ampute(full[["Amount", "Price"]], "MAR", 0.4, seed=0, columns=["Price"], strength=2.0)
train = full.assign(Price=pair["Price"])
table = pv.Table.from_frame(train, likelihood={"Price": "LogNormal", "Amount": "LogNormal"})
print(table)

# %%
_, ax = plt.subplots()
hidden = train["Price"].isna()
for name, some in {"kept": full[~hidden], "hidden": full[hidden]}.items():
    ax.scatter(some["Amount"], some["Price"], s=3, alpha=0.5, label=f"Price {name}")
ax.set(xlabel="Amount  (thousand pesetas)", ylabel="Price  (thousand pesetas)",
       xscale="log", yscale="log")  # fmt: skip
ax.legend()
plt.show()

# %% [markdown]
# ## The prior predictive
#
# Before training the model is already a simulator. Its parameters start in the data's units (the
# column's location and spread), so its first draws have plausible margins, and no column knows of
# another. What changes later is what was learned.

# %%
vae = pv.VAE(table, latent_dim=8, seed=0)
vae.start_from(vae.as_data(table))
before = vae.sample(1000, seed=0)
pv.fit(vae, table, epochs=20, batch_size=100, lr="cosine(3e-3)", beta="linear(0.1, 1, epochs=10)",
       seed=0, progress=False)  # fmt: skip
after = vae.sample(1000, seed=0)
rows = {
    name: {
        "median Price": some["Price"].median(),
        "median Income": some["Income"].median(),
        "share bad": (some["Status"] == "bad").mean(),
        "rank correlation Amount, Price": some["Amount"].corr(some["Price"], "spearman"),
    }
    for name, some in {"prior predictive": before, "after training": after, "data": test}.items()
}
first_look = pd.DataFrame(rows).T
first_look.round(3)

# %%
evidence = pv.log_evidence(vae, test, num_samples=200, num_simulated=0, seed=0)
assert first_look["rank correlation Amount, Price"]["prior predictive"] < 0.3
assert first_look["rank correlation Amount, Price"]["after training"] > 0.5
print(evidence.summary())

# %% [markdown]
# ## Missing cells are marginalized (claim 42)
#
# Cells are independent given z, so a cell that is missing drops out of the likelihood, and what is
# left bounds the density of the cells that are there:
#
# $$\log p(x_{obs}) = \log \int p(z) \prod_{j\,obs} p(x_j \mid z)\, dz, \qquad
# E[x_{mis} \mid x_{obs}] = \int E[x_{mis} \mid z]\, p(z \mid x_{obs})\, dz .$$
#
# In a linear model, $x \sim N(b, WW' + \sigma^2 I)$, both are textbook: the marginal normal of some
# coordinates, and the regression of the others on them. We make such a model by hand, hide cells,
# and ask the package. Its guide we make the prior, so that all is left to importance sampling; the
# means come from twenty runs, whose scatter tells their error.

# %%
draw = torch.Generator().manual_seed(0)
w, b = torch.randn(5, 2, generator=draw).double(), torch.randn(5, generator=draw).double()
sd = 1.0
linear = {"encoder": "MLP([])", "decoder": "MLP([])", "seed": 0}
factors = pv.VAE(
    5, 2, likelihood=f"Normal(scale={sd})", guide="Normal(scale=1)", missing=True, **linear
).double()
with torch.no_grad():
    factors.likelihood.sources["loc"].head.weight.copy_(w)
    factors.likelihood.sources["loc"].head.bias.copy_(b)
    for p in factors.approximation.sources["loc"].head.parameters():
        p.zero_()  # so the guide is the prior
complete = factors.sample(60, seed=0)
x = pv.ampute(complete, "MCAR", 0.4, seed=0)
covariance = w @ w.T + sd**2 * torch.eye(5)
log_p, filled = torch.zeros(60).double(), x.clone()
for row in range(60):
    o, m = ~x[row].isnan(), x[row].isnan()
    if o.any():
        log_p[row] = MultivariateNormal(b[o], covariance[o][:, o]).log_prob(x[row, o])
    slope = covariance[m][:, o] @ covariance[o][:, o].inverse()
    filled[row, m] = b[m] + slope @ (x[row, o] - b[o])
found = pv.log_evidence(factors, x, num_samples=10_000, num_simulated=0, seed=0)
runs = torch.stack([factors.impute(x, num_samples=2000, seed=k) for k in range(20)])
imputed = runs.mean(0)

# %%
_, axes = plt.subplots(1, 2, figsize=(7, 3.2))
for ax, exact, ours, unit in (
    (axes[0], log_p, found.log_evidence, "log p of the known cells  (nats)"),
    (axes[1], filled[x.isnan()], imputed[x.isnan()], "mean of a missing cell"),
):
    ax.axline((exact.mean(), exact.mean()), slope=1, color="0.7", lw=0.8)
    ax.scatter(exact, ours, s=8)
    ax.set(xlabel=f"{unit}, in closed form", ylabel="from the VAE")
plt.show()

# %%
# check: claim 42
z = (found.log_evidence + found.standard_error**2 / 2 - log_p) / found.standard_error
off = (imputed - filled)[x.isnan()]
t = off / (runs.std(0) / 20**0.5)[x.isnan()]  # 19 degrees of freedom
assert abs(z.mean()) < 4 / 60**0.5 and z.abs().max() < 5
assert abs(t.mean()) < 4 * (19 / 17 / len(t)) ** 0.5 and t.abs().max() < 6
assert (filled - b)[x.isnan()].std() > 0.5  # the columns' means would be far off

# %% [markdown]
# ## Imputation, with calibration
#
# Is an imputation any good? Hide known cells of held-out rows, draw them given the others, and
# compare. Where the model is right, intervals of 90 % hold 90 % of the cells (calibration), and
# where the other cells say something, draws are closer to the truth than the column's margin
# (skill).

# %%
check = pv.imputation_check(vae, test, draws=99, num_samples=200, seed=0)
print(check)

# %%
_, ax = plt.subplots(figsize=(7, 3.2))
covered = check.table["coverage_90"]
ax.errorbar(covered, range(len(covered)), xerr=2 * check.table["coverage_90_error"], fmt="o", ms=4)
ax.axvline(0.9, color="k", lw=0.8, ls="--")
ax.set(xlabel="share of hidden cells in their 90 % set (bars: two standard errors)",
       yticks=range(len(covered)), yticklabels=covered.index, xlim=(0.64, 1.01))  # fmt: skip
plt.show()

# %% [markdown]
# A column whose intervals hold too few of its cells has the wrong family, or draws that are too
# sure: its intervals are not to be published. The check is of single columns; that of what one
# wants to know from several is the next.
#
# ## Multiple imputation, and Rubin's rules
#
# The question is a regression: how many per cent does the loan rise with the price and with income?
# Its answer from the table *without our holes* is known. Rows with a hidden `Price` are those with
# high loans, so the complete rows are selected by the response, and their slope is biased. Twenty
# completed tables, a regression of each, and `pv.pool` should bring the truth back, with an error
# that says how much was missing.


# %%
def regression(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """log Amount on log Price and log Income: coefficients, and their variances."""
    logs = np.log(rows[["Price", "Income"]].astype(float).clip(lower=1))
    x = np.column_stack([np.ones(len(rows)), logs])
    y = np.log(rows["Amount"].astype(float)).to_numpy()
    beta, rss = np.linalg.lstsq(x, y, rcond=None)[:2]
    return beta, rss / (len(y) - 3) * np.diag(np.linalg.inv(x.T @ x))


known = full["Income"].notna()  # rows of which the truth is known
tables = vae.impute(train[known], draws=20, num_samples=200, seed=0)
estimates, variances = zip(*map(regression, tables), strict=True)
pooled = pv.pool(estimates, variances, df_complete=known.sum() - 3)
truth = regression(full[known])
whole = regression(train[known].dropna(subset=["Price"]))
names = ["constant", "log Price", "log Income"]
regressions = pd.DataFrame(
    {
        "without our holes": truth[0],
        "complete rows": whole[0],
        "their error": np.sqrt(whole[1]),
        "pooled": pooled.estimate,
        "its error": pooled.standard_error,
        "information missing": pooled.fraction_missing,
    },
    index=names,
)
regressions.round(3)

# %%
_, ax = plt.subplots(figsize=(7, 2.2))
for place, (name, value, error) in enumerate(
    [("pooled", pooled.estimate, pooled.standard_error),
     ("complete rows", whole[0], np.sqrt(whole[1])),
     ("without our holes", truth[0], np.sqrt(truth[1]))]
):  # fmt: skip
    ax.errorbar(value[1], place, xerr=2 * error[1], fmt="o", capsize=3)
    ax.text(value[1], place + 0.15, name, ha="center")
ax.set(xlabel="slope of log Amount in log Price (bars: two standard errors)", yticks=[],
       ylim=(-0.4, 2.6))  # fmt: skip
plt.show()

# %% [markdown]
# Pooling brings most of it back. That it does not bring back all is no matter of Rubin's rules:
# they say how much the draws of a model scatter, and not that the model of `Price` is right.

# %%
distance = regressions["pooled"] - regressions["without our holes"]
assert abs(whole[0][1] - truth[0][1]) > 4 * np.sqrt(whole[1][1])  # complete rows are biased
assert abs(distance["log Price"]) < abs(whole[0][1] - truth[0][1]) / 2

# %% [markdown]
# ## Rows given some cells
#
# `sample(given=...)` draws the other columns of applicants *seen* with these cells, by weighted
# draws of z. The table can be asked the same question, by counting: for rows with a record of not
# paying, and without one.

# %%
rows = {}
for records in ("no", "yes"):
    drawn = vae.sample(1000, given={"Records": records}, seed=0)
    seen = test[test["Records"] == records]
    for name, some in {"drawn": drawn, "held out": seen}.items():
        bad = (some["Status"] == "bad").mean()
        rows[records, name] = {
            "rows": len(some),
            "share bad": bad,
            "standard error": np.sqrt(bad * (1 - bad) / len(some)),
        }
given = pd.DataFrame(rows).T.rename_axis(["Records", "rows that are"])
given.round(3)

# %%
part = given["share bad"].unstack()
assert part["drawn"]["yes"] - part["drawn"]["no"] > 0.1  # the model knows what a record means
assert (part["drawn"] - part["held out"]).abs().max() < 0.15

# %% [markdown]
# ## How faithful is a simulated table?
#
# `pv.fidelity` compares drawn rows with held-out ones, and puts beside each figure what *real* rows
# get, which is the most that can be asked. Beside it stand rows whose columns were shuffled, each
# on its own: their margins are perfect, so that a score which they pass says nothing about
# dependence.

# %%
whole_rows = full.dropna()
drawn = vae.sample(len(test), seed=2)
apart = whole_rows.apply(lambda c: c.sample(frac=1, random_state=len(c.name)).to_numpy())
scores = {
    "drawn": pv.fidelity(test, drawn, full, target="Status"),
    "columns shuffled": pv.fidelity(test, apart[: len(test)], full, target="Status"),
}
fidelity = pd.DataFrame({name: found.table["value"] for name, found in scores.items()})
fidelity["real rows"] = scores["drawn"].table["real"]
print(scores["drawn"].verdict)
fidelity.round(3)

# %% [markdown]
# What ties columns to each other the drawn rows have, and shuffled ones lack: mutual information,
# and that a classifier trained on them predicts `Status` of real rows. But *boosted trees* tell
# them from real rows with ease, and as well as shuffled ones. What do they see? Among other things,
# that people ask for round sums:

# %%
tables = {"held out": test, "drawn": drawn, "columns shuffled": apart[: len(test)]}
round_sums = pd.DataFrame(
    {
        f"{name}, a multiple of {step}": {
            which: (some[name].dropna() % step == 0).mean() for which, some in tables.items()
        }
        for name, step in (("Amount", 50), ("Assets", 500), ("Income", 5))
    }
)
round_sums.round(3)

# %%
assert fidelity.loc["column shapes", "columns shuffled"] > 0.95  # perfect margins
dependence = fidelity.loc[["mutual information", "prediction"]]
assert (dependence["drawn"] > dependence["columns shuffled"]).all()
assert (dependence["drawn"] < dependence["real rows"]).all()
heaped = round_sums["Amount, a multiple of 50"]
assert abs(heaped["columns shuffled"] - heaped["held out"]) < 4 * np.sqrt(0.25 * 2 / 900)
assert heaped["drawn"] < heaped["held out"] - 4 * np.sqrt(0.25 * 2 / 900)

# %% [markdown]
# ## Covariates with holes (claim 43)
#
# `condition="~ age"` makes it p(y | age), and a row without its age would be lost. With
# `covariates={"age": "Normal"}` a missing age is a latent: it is drawn by the guide, and the known
# ones are scored, so that no row is lost and no bias comes in.
#
# Two outcomes depend on age, and age is missing more often where the first outcome is high. The
# complete rows are then selected by the outcome. For normal data maximum likelihood has a closed
# form: y is always there, so $p(y)$ is estimated from all rows, $p(age \mid y)$ from the complete
# ones, and the slope of y in age follows. A linear VAE should find it, and its log-likelihood.

# %%
rng = np.random.default_rng(0)
n = 2000
age, u = rng.normal(size=n), rng.normal(size=n)
y = np.column_stack([0.8 * age + u, -0.5 * age + u]) + 0.5 * rng.normal(size=(n, 2))
patients = pd.DataFrame({"age": age, "y1": y[:, 0], "y2": y[:, 1]})
lost = rng.random(n) < 1 / (1 + np.exp(-2 * y[:, 0]))
holed = patients.assign(age=patients["age"].mask(lost))
kept = holed.dropna()


def slopes(rows: pd.DataFrame) -> np.ndarray:
    """Of y1 and y2 in age, by least squares."""
    return (rows.cov().loc["age", ["y1", "y2"]] / rows["age"].var()).to_numpy()


def by_likelihood() -> tuple[np.ndarray, float]:
    """The slopes, and the mean log p(y, known age) of a row, at the maximum."""
    cov = np.cov(y.T, bias=True)
    x = np.column_stack([np.ones(len(kept)), kept[["y1", "y2"]]])
    beta, rss = np.linalg.lstsq(x, kept["age"], rcond=None)[:2]
    left = rss[0] / len(kept)
    with_age = cov @ beta[1:]  # the covariance of y and age
    half_logs = -0.5 * (2 * (1 + np.log(2 * np.pi)) + np.linalg.slogdet(cov)[1])
    last = -0.5 * (1 + np.log(2 * np.pi * left)) * len(kept) / n
    return with_age / (beta[1:] @ with_age + left), half_logs + last


# %%
schema = pv.Table.from_frame(holed, likelihood=dict.fromkeys(["y1", "y2"], "Normal(scale=learned)"))
cvae = pv.VAE(schema, 1, condition="~ age", covariates={"age": "Normal"}, **linear)
pv.fit(cvae, holed, estimator="RenyiELBO(alpha=0, num_particles=5)", epochs=35, batch_size=200,
       lr="cosine(0.03)", seed=0, progress=False)  # fmt: skip
found = slopes(cvae.sample(40_000, seed=0))  # drawn rows have no holes
best, top = by_likelihood()
log_p = pv.log_evidence(cvae, holed, num_samples=200, num_simulated=0, seed=0).mean
slope = pd.DataFrame(
    {"all ages known": slopes(patients), "complete rows": slopes(kept),
     "maximum likelihood": best, "VAE": found},
    index=["y1", "y2"],
).T  # fmt: skip
print(f"log p of a row, nats: maximum {top:.3f}, VAE {log_p:.3f}")
slope.round(3)

# %%
_, ax = plt.subplots()
ax.scatter(*holed.loc[~lost, ["age", "y1"]].to_numpy().T, s=2, label="age known")
ax.scatter(*patients.loc[lost, ["age", "y1"]].to_numpy().T, s=2, c="0.8", label="age missing")
at = np.array([-3, 3])
for name, look in {"all ages known": "k-", "complete rows": "C1--", "VAE": "C3:"}.items():
    level = (kept if name == "complete rows" else patients)[["age", "y1"]].mean()
    ax.plot(at, level["y1"] + slope.loc[name, "y1"] * (at - level["age"]), look, lw=2, label=name)
ax.set(xlabel="age  (standard deviations)", ylabel="y1")
ax.legend(ncols=2)
plt.show()

# %%
# check: claim 43
error = 1.2 / np.sqrt(len(kept))  # of a slope, from the complete rows
assert abs(slope.loc["complete rows", "y1"] - slope.loc["all ages known", "y1"]) > 5 * error
assert (slope.loc["VAE"] - slope.loc["maximum likelihood"]).abs().max() < error
assert (slope.loc["VAE"] - slope.loc["all ages known"]).abs().max() < 4 * error
assert abs(log_p - top) < 0.02

# %% [markdown]
# ## do is not given, and a counterfactual is no average effect
#
# Simulate a drug of which both potential outcomes are known: $y_1 = z + d + e_1$, so the effect is
# 1 for everyone, and $y_2 = z + e_2$ tells of z. In one world the dose d is drawn by a coin; in the
# other those with a high z take it. `given` asks for rows *seen* with d. `counterfactual` abducts
# a row's own z, sets d, and predicts the row anew.


# %%
def world(confounded: bool) -> pd.DataFrame:
    """Rows, with what y1 would have been at the other dose."""
    rng = np.random.default_rng(1)
    z, e = rng.normal(size=1500), 0.4 * rng.normal(size=(1500, 2))
    d = (z * confounded + rng.normal(size=1500) > 0) * 1.0
    return pd.DataFrame({"d": d, "y1": z + d + e[:, 0], "y2": z + e[:, 1],
                         "other": z + (1 - d) + e[:, 0]})  # fmt: skip


rows = {}
for name, confounded in {"by a coin": False, "by z": True}.items():
    truth = world(confounded)
    data = truth.drop(columns="other")
    told = {"d": "Categorical(categories=2)"} | dict.fromkeys(["y1", "y2"], "Normal(scale=learned)")
    schema = pv.Table.from_frame(data.astype({"d": int}), likelihood=told)
    drug = pv.VAE(schema, 1, condition="~ d", **linear)
    pv.fit(drug, data, epochs=25, batch_size=150, lr="cosine(0.03)", seed=0, progress=False)
    do = [drug.counterfactual(data, do={"d": d}, num_samples=100, seed=0)["y1"] for d in (0, 1)]
    see = [drug.sample(2000, given={"d": d}, seed=0)["y1"].mean() for d in (0, 1)]
    other = np.where(data["d"] == 1, do[0], do[1])
    rows[name] = {
        "true effect": 1.0,
        "difference of the arms": data.groupby("d")["y1"].mean().diff().iloc[1],
        "given 1 less given 0": see[1] - see[0],
        "do 1 less do 0, mean": (do[1] - do[0]).mean(),
        "error of a row's do": np.sqrt(((other - truth["other"]) ** 2).mean()),
        "error of given": np.sqrt(
            ((np.where(data["d"] == 1, see[0], see[1]) - truth["other"]) ** 2).mean()
        ),
    }
effects = pd.DataFrame(rows).rename_axis(columns="dose given")
effects.round(2)

# %% [markdown]
# By a coin all agree on the *average*, and yet `do` is nearer to what a *row* would have been, for
# it keeps the row's z. Where z moves the dose, **both are wrong about the effect**: the model takes
# z and d for independent, so what z did is booked as d's. No figure of fit shows it; only knowledge
# of how doses were given does.

# %%
coin, chosen = effects["by a coin"], effects["by z"]
error = 2.2 / np.sqrt(1500)  # of a difference of arms
assert abs(coin["do 1 less do 0, mean"] - 1) < 4 * error
assert coin["error of a row's do"] < 0.75 * coin["error of given"]
assert chosen["do 1 less do 0, mean"] - 1 > 8 * error  # confounded
assert abs(chosen["do 1 less do 0, mean"] - chosen["difference of the arms"]) < 4 * error

# %% [markdown]
# ## What not to claim
#
# * That cells are missing at random: no table shows it. `missing="SelfMasking"` says what follows
#   if they are not; report both.
# * That imputed values are data: give the draws, or the pooled figures, not one completed table.
# * That a high fidelity makes rows private: it says how near they are to real ones.
# * That `do` is an effect, where doses were not given by a coin, or by what the model conditions
#   on.
# * That the model is right because its intervals cover: the margins' intervals cover, too. Skill
#   and held-out log p(x) are what a model adds.
#
# ## What should have come out
#
# The assertions above, in a table: what was found, what it should be near, and how near.

# %%
pd.DataFrame(
    [
        ("missing cells, largest |t| of 19 degrees of freedom", t.abs().max().item(), 0, "6"),
        ("cells in their 90 % sets", check.table["coverage_90"].mean(), 0.9, "4 standard errors"),
        ("slope of log Price, pooled", pooled.estimate[1], regressions.iloc[1, 0], "half the bias"),
        ("slope of y1 in age", slope.loc["VAE", "y1"], best[0], "a standard error"),
        ("log p of a patient, nats", log_p, top, "0.02"),
        ("effect by do, dose by a coin", coin["do 1 less do 0, mean"], 1.0, "4 standard errors"),
    ],
    columns=["figure", "found", "should be", "within"],
).set_index("figure").round(3)

# %%
error = (check.table["coverage_90_error"] ** 2).sum() ** 0.5 / len(check.table)
assert abs(check.table["coverage_90"].mean() - 0.9) < 4 * error
assert (check.table["skill"] > 2 * check.table["skill_error"]).mean() > 0.5

# %% [markdown]
# ## If you come from mice
#
# `vae.impute(table, draws=20)` is `mice(df, m = 20)`, `pv.pool` is `pool()`, and `pv.ampute` is
# `ampute()`. There is one joint model in the place of a chain of conditionals: no order of columns,
# no cycles to converge; but its fit must be checked, where predictive mean matching is forgiving.
#
# ## Exercises
#
# The answers are tests in `tests/course/test_06_a_real_table.py`.
#
# 1. Rubin's rules by hand: of three estimates and their variances compute the pooled standard error
#    and the fraction of missing information, and hold them against `pv.pool`.
# 2. In the linear model, impute a cell from one known cell: show that draws have the conditional
#    normal's mean *and variance*, and that a single imputation of means has too small a variance.
# 3. Cells are hidden where their own value is high (`pv.ampute(..., "MNAR")`). Show that the mean
#    of the known ones is too low by a known amount, for a normal column whose upper half is hidden.
