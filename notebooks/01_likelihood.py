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
# # Maximum likelihood, and why the log of a sum hurts
#
# A variational autoencoder is fitted by (nearly) maximum likelihood, to a model with a latent
# variable. So we begin with what maximum likelihood is, and with what a latent variable does to it.
#
# ## You will be able to
#
# - say what maximum likelihood approximates when the model is wrong, and with what error;
# - write p(x) of a model with a latent variable, sum it exactly, and check the sum;
# - say what is lost: concavity, and information.

# %%
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # Pyro asks for ipywidgets

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from scipy.stats import laplace, norm
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold
from torch.func import grad, jacrev, vmap

import pyro_vae as pv

# %%
plt.rcParams.update({
    "figure.figsize": (7, 2.8), "figure.dpi": 100, "figure.constrained_layout.use": True,
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
})  # fmt: skip

# %% [markdown]
# ## Maximum likelihood minimizes KL (claim 1)
#
# Let data come from $p$ and let the model be $p_\theta$. The mean log-likelihood is an average of
# terms with expectation
#
# $$E_p[\log p_\theta(x)] = -H(p) - KL(p \,\|\, p_\theta),$$
#
# and the entropy $H(p)$ does not depend on $\theta$. So the maximizer of the likelihood tends to
# the minimizer of KL, also if no $\theta$ is right. Here $p$ is Laplace(0, 1) and the model is
# $N(0, \theta^2)$: KL is least at $\theta^2 = 2$, the variance of $p$. The estimate is
# asymptotically normal about that value. Its variance is not the inverse Fisher information, which
# assumes that the model is right, but the *sandwich*: the variance of $x^2$ over $n$.


# %%
def kl(theta: np.ndarray) -> np.ndarray:
    """KL of Laplace(0, 1) and N(0, theta^2), in closed form."""
    cross = np.log(theta) + math.log(2 * math.pi) / 2 + 1 / theta**2
    return cross - (1 + math.log(2))


rng = np.random.default_rng(1)
theta = np.linspace(1.0, 2.4, 141)
sizes, repeats = [30, 300, 3000, 30000], 200
draws = {n: rng.laplace(size=(repeats, n)) for n in sizes}
entropy = laplace.entropy()
curves = {n: -norm.logpdf(x[0], scale=theta[:, None]).mean(1) - entropy for n, x in draws.items()}
estimates = pd.DataFrame({n: (x**2).mean(1) for n, x in draws.items()})  # of theta^2
errors = pd.DataFrame(
    {
        "mean estimate": estimates.mean(),
        "its error, times root n": estimates.sub(2).pow(2).mean().pow(0.5) * np.sqrt(sizes),
        "if the model were right": math.sqrt(2) * 2,
        "sandwich": math.sqrt(20),  # Var(x^2) = 24 - 4
    }
).rename_axis("n")
errors.round(3)

# %%
_, (left, right) = plt.subplots(1, 2)
left.plot(theta, kl(theta), "k", lw=2, label="KL")
for i, (n, curve) in enumerate(curves.items()):
    left.plot(theta, curve, f"C{i}", lw=1, label=f"n = {n}")
    left.plot(theta[curve.argmin()], curve.min(), f"C{i}o", ms=4)
left.set(xlabel=r"$\theta$", ylabel="nats per observation", ylim=(-0.05, 0.4))
left.legend(fontsize=7)
right.loglog(sizes, estimates.sub(2).abs().quantile(0.9), "o-", label="90 % of errors are below")
right.loglog(sizes, 1.645 * np.sqrt(20 / np.array(sizes)), "k--", label="sandwich")
right.loglog(sizes, 1.645 * np.sqrt(8 / np.array(sizes)), "k:", label="Fisher, model right")
right.set(xlabel="n", ylabel=r"error of $\hat\theta^2$")
right.legend(fontsize=7)
plt.show()

# %%
# check: claim 1
for n, x in draws.items():  # minus the mean log-likelihood, less the entropy: KL, within its error
    cost = -norm.logpdf(x, scale=1.2) - entropy
    z = (cost.mean() - kl(1.2)) / (cost.std() / math.sqrt(cost.size))
    assert abs(z) < 4
    z = (estimates[n].mean() - 2) / math.sqrt(20 / n / repeats)  # the maximizer is that of -KL
    assert abs(z) < 4
assert abs(theta[kl(theta).argmin()] ** 2 - 2) < 0.02  # the grid's step
found = errors["its error, times root n"].iloc[-1]  # and its error is the sandwich, not Fisher's
assert abs(found / math.sqrt(20) - 1) < 4 * math.sqrt(1 / (2 * repeats)) < 1 - math.sqrt(8 / 20)

# %% [markdown]
# ## KL is zero only between equals (claim 2)
#
# KL is the mean of $-\log(p_\theta / p)$ under $p$, and $-\log$ is convex: Jensen gives $KL \ge 0$,
# with equality only where the ratio is constant. More is true. With the total variation $TV$ and
# with $\chi^2$, KL lies between two other measures of distance,
#
# $$2 \, TV^2 \;\le\; KL \;\le\; \log(1 + \chi^2),$$
#
# (Pinsker; Jensen), and all three are zero together. Below: pairs of distributions on five points,
# from far apart to equal.

# %%
generator = torch.Generator().manual_seed(2)
a, b = torch.rand(2, 300, 5, generator=generator, dtype=torch.float64).pow(3).add(1e-3).unbind()
near = torch.logspace(-6, 0, 300, dtype=torch.float64)[:, None]
p = a / a.sum(1, keepdim=True)
q = (1 - near) * p + near * b / b.sum(1, keepdim=True)
between = {
    "KL": torch.distributions.kl_divergence(dist.Categorical(p), dist.Categorical(q)),
    "2 TV^2": 2 * ((p - q).abs().sum(1) / 2) ** 2,
    "log(1 + chi^2)": ((p - q) ** 2 / q).sum(1).log1p(),
}
_, ax = plt.subplots(figsize=(4.5, 3))
for name, low in (("2 TV^2", "C0"), ("log(1 + chi^2)", "C1")):
    ax.loglog(between["KL"], between[name], ".", ms=3, color=low, label=name)
ax.plot([1e-14, 1], [1e-14, 1], "k", lw=0.8, label="KL itself")
ax.set(xlabel="KL (nats)", ylabel="the bounds of it", xlim=(1e-13, 2), ylim=(1e-14, 10))
ax.legend(fontsize=8)
plt.show()

# %%
# check: claim 2
low, middle, high = between["2 TV^2"], between["KL"], between["log(1 + chi^2)"]
assert (low > 0).all()  # no pair is equal, so KL is positive, and by how much is bounded
assert (low <= middle + 1e-15).all() and (middle <= high + 1e-15).all()
same = torch.distributions.kl_divergence(dist.Categorical(p), dist.Categorical(p))
assert same.abs().max() < 1e-15
by_hand = (p * (p.log() - q.log())).sum(1)
assert (by_hand - middle).abs().max() < 1e-12

# %% [markdown]
# ## Simple families do not fit, mixtures do, and too many overfit (claims 3, 7)
#
# The penguins of Palmer station, two measurements each. A normal distribution has one hill, a
# mixture of $k$ of them may have more. With $k$ the likelihood of the data that were fitted grows,
# that of other penguins does not: each penguin is scored by a mixture that was fitted without it
# (five-fold cross-validation).

# %%
columns = ["bill_length_mm", "flipper_length_mm"]
frame = pv.load_data("penguins").train.to_frame()[columns].dropna()
birds = ((frame - frame.mean()) / frame.std()).to_numpy()
numbers = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]


def mixture(k: int, data: np.ndarray) -> GaussianMixture:
    return GaussianMixture(k, n_init=2, random_state=0, reg_covar=1e-3, max_iter=500).fit(data)


fitted, held_out = (np.zeros((len(numbers), len(birds))) for _ in range(2))  # log p(x), by penguin
for fit, rest in KFold(5, shuffle=True, random_state=0).split(birds):
    for i, k in enumerate(numbers):
        one = mixture(k, birds[fit])
        fitted[i, fit] += one.score_samples(birds[fit]) / 4  # fitted by four of the five
        held_out[i, rest] = one.score_samples(birds[rest])
fitted, held_out = (pd.DataFrame(v.T, columns=numbers) for v in (fitted, held_out))
scores = pd.DataFrame({"fitted": fitted.mean(), "held out": held_out.mean()}).rename_axis("k")
scores.round(2)

# %%
_, (left, right) = plt.subplots(1, 2)
grid = np.stack(np.meshgrid(np.linspace(-2.5, 3, 80), np.linspace(-2.5, 3, 80)), -1)
for k, look in {1: {"colors": "0.6"}, 3: {"colors": "C1"}}.items():
    density = np.exp(mixture(k, birds).score_samples(grid.reshape(-1, 2))).reshape(80, 80)
    left.contour(*np.moveaxis(grid, -1, 0), density, levels=5, linewidths=0.8, **look)
left.plot(*birds.T, "k.", ms=2)
left.set(xlabel="bill length (sd)", ylabel="flipper length (sd)", title="k = 1 (grey), k = 3")
right.plot(scores, marker="o", ms=3, label=list(scores))
right.set(xlabel="k", ylabel="log p(x) (nats per penguin)", xscale="log")
right.set_xticks([1, 2, 4, 8, 16, 32], labels=[1, 2, 4, 8, 16, 32])
right.legend()
plt.show()


# %%
# check: claims 3, 7
def gain(more: int, than: int, scores: pd.DataFrame) -> float:
    """z-score of the mean difference in log p(x), penguin by penguin."""
    difference = scores[more] - scores[than]
    return difference.mean() / difference.sem()


assert gain(3, 1, held_out) > 4  # one normal does not fit
assert gain(32, 3, held_out) < -4  # what is too flexible does worse on other data,
assert gain(32, 3, fitted) > 4  # and better on its own
assert (scores["fitted"].diff().dropna() > 0).all()

# %% [markdown]
# ## p(x) sums over z, exactly where z is discrete (claims 4, 5)
#
# A mixture is a model with a latent variable: draw $z$ from $p(z)$, then $x$ from $p(x \mid z)$.
# So
#
# $$p(x) = \sum_z p(x \mid z) \, p(z) = E_{p(z)}[p(x \mid z)].$$
#
# The expectation can be had by simulation, for any $z$; the sum, if $z$ is discrete, exactly.
# Below, three ways for one model: scikit-learn's own, a sum that Pyro makes (the site is marked
# `"enumerate": "parallel"`, so the guide has nothing to draw), and the mean over draws of $z$.

# %%
best = mixture(3, birds)
weights, means, covariances = (
    torch.tensor(v) for v in (best.weights_, best.means_, best.covariances_)
)
parts = dist.MultivariateNormal(means, covariances)


def model(x: torch.Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        each = dist.MultivariateNormal(means[z], covariances[z])
        pyro.sample("x", each, obs=x)


def guide(x: torch.Tensor) -> None:
    """Nothing is left to draw."""


x = torch.tensor(birds)
summed = pv.elbo(pv.Program(model, guide, x), num_samples=1, seed=0)
z = torch.multinomial(weights, 4000, replacement=True, generator=generator)
simulated = parts.log_prob(x[:, None])[:, z].exp()  # p(x | z), a column a draw
sides = pd.DataFrame(
    {
        "scikit-learn": best.score_samples(birds),
        "sum by Pyro": summed,
        "mean over draws": simulated.mean(1).log(),
        "its error": simulated.std(1) / simulated.mean(1) / math.sqrt(len(z)),
    }
).rename_axis("penguin")
sides.head(4).round(4)

# %%
draws = torch.arange(1, len(z) + 1)
running = (simulated.cumsum(1) / draws).log() - summed[:, None]
two_errors = 2 * simulated.std(1) / simulated.mean(1) / draws[:, None].sqrt()
_, axes = plt.subplots(1, 3, sharey=True, figsize=(7, 2.4))
for ax, i in zip(axes, (0, 130, 230), strict=True):
    ax.fill_between(draws, -two_errors[:, i], two_errors[:, i], alpha=0.3, lw=0)
    ax.semilogx(draws, running[i], "C0", lw=1)
    ax.axhline(0, color="k", lw=0.8)
    ax.set(xlabel="draws of z", title=f"log p(x) = {summed[i]:.2f}", ylim=(-0.9, 0.9))
axes[0].set_ylabel("simulated, less exact (nats)")
plt.show()

# %%
# check: claims 4, 5
assert (sides["sum by Pyro"] - sides["scikit-learn"]).abs().max() < 1e-10
z_scores = (simulated.mean(1) - summed.exp()) / (simulated.std(1) / math.sqrt(len(z)))
assert z_scores.abs().max() < 4  # the penguins share their draws
wide = torch.cartesian_prod(*[torch.linspace(-8, 8, 801, dtype=torch.float64)] * 2)
mass = (parts.log_prob(wide[:, None]) + weights.log()).logsumexp(1).exp().sum() * 0.02**2
assert abs(mass - 1) < 1e-6  # so it is a density

# %% [markdown]
# ## The log of a sum: local optima (claim 8)
#
# If $z$ were seen, $\log p(x, z)$ would be a sum of two familiar terms, concave in the means, and
# the maximum a formula. Unseen, it is $\log \sum_z$: a function with several hills. The model is
# $0.6 \, N(m_1, 1) + 0.4 \, N(m_2, 1)$, with the two means unknown.

# %%
torch.manual_seed(3)
z = (torch.rand(200) < 0.4).double()
x = torch.where(z == 1, 4.0, 0.0).double() + torch.randn(200, dtype=torch.float64)
share = torch.tensor([0.6, 0.4], dtype=torch.float64)


def seen(m: torch.Tensor) -> torch.Tensor:
    """log p(x, z), per observation."""
    return (dist.Normal(m[z.long()], 1.0).log_prob(x) + share.log()[z.long()]).mean()


def unseen(m: torch.Tensor) -> torch.Tensor:
    """log p(x), per observation."""
    return (dist.Normal(m, 1.0).log_prob(x[:, None]) + share.log()).logsumexp(1).mean()


grid = torch.cartesian_prod(*[torch.linspace(-2, 6, 41, dtype=torch.float64)] * 2)
curvature = {
    f.__name__: torch.linalg.eigvalsh(vmap(jacrev(grad(f)))(grid))[:, 1] for f in (seen, unseen)
}
ends = []
for start in grid[torch.randperm(len(grid))[:12]]:  # EM from several starts
    m = start
    for _ in range(300):
        r = (dist.Normal(m, 1.0).log_prob(x[:, None]) + share.log()).softmax(1)
        m = (r * x[:, None]).sum(0) / r.sum(0)
    ends.append(m)
ends = torch.stack(ends)
tops = pd.DataFrame(
    {"m1": ends[:, 0], "m2": ends[:, 1], "log-likelihood": vmap(unseen)(ends)}
).round(4)
tops.value_counts().rename("starts").reset_index()

# %%
_, axes = plt.subplots(1, 2, sharey=True)
for ax, f in zip(axes, (seen, unseen), strict=True):
    height = vmap(f)(grid).reshape(41, 41)
    levels = height.max().item() - np.array([3, 2, 1.5, 1, 0.7, 0.45, 0.3, 0.2, 0.1, 0.03])
    ax.contour(*grid.T.reshape(2, 41, 41), height, levels=levels, linewidths=0.8, cmap="viridis")
    ax.set(xlabel="$m_1$", title=f"z {f.__name__}", aspect="equal")
axes[0].set_ylabel("$m_2$")
axes[1].plot(*ends.T, "C1o", ms=4)
plt.show()

# %%
# check: claim 8
assert curvature["seen"].max() < -0.1  # z seen: concave everywhere
assert curvature["unseen"].max() > 0.1  # unseen: not
different = tops.drop_duplicates()
assert len(different) == 2  # two hills, and each is an end: the slope is 0, the curvature negative
assert vmap(grad(unseen))(ends).abs().max() < 1e-6
assert torch.linalg.eigvalsh(vmap(jacrev(grad(unseen)))(ends)).max() < -0.01
assert 200 * (different["log-likelihood"].max() - different["log-likelihood"].min()) > 10  # nats

# %% [markdown]
# ## Fisher information: what a latent variable costs
#
# The information in one observation is the variance of the score, and also minus the expected
# second derivative. What is not seen cannot inform: by Louis (1982) the information about a mean
# when $z$ is hidden is that when it is seen, less the information in $z$ given $x$,
#
# $$I_x(\theta) = I_{x, z}(\theta) - I_{z \mid x}(\theta).$$
#
# Here for $m_2$ of the mixture above, as the two means are moved apart: all integrals over $x$ by
# quadrature.


# %%
def information(apart: float) -> dict[str, float]:
    """About m2, per observation."""
    m, x = (
        torch.tensor([0.0, apart], dtype=torch.float64),
        torch.linspace(-10, 16, 4001, dtype=torch.float64),
    )
    joint = dist.Normal(m, 1.0).log_prob(x[:, None]) + share.log()
    p, r = joint.logsumexp(1).exp() * (x[1] - x[0]), joint.softmax(1)[:, 1]
    score = r * (x - apart)  # E[score given x], when z is hidden
    slope = r - r * (1 - r) * (x - apart) ** 2  # minus the second derivative of log p(x)
    return {
        "variance of the score": (p * score**2).sum().item(),
        "mean curvature": (p * slope).sum().item(),
        "z seen": share[1].item(),
        "z given x": (p * r * (1 - r) * (x - apart) ** 2).sum().item(),
    }


distances = np.linspace(0.5, 6, 23)
table = pd.DataFrame({d: information(d) for d in distances}).T
_, ax = plt.subplots(figsize=(4.5, 2.8))
ax.plot(table["variance of the score"], label="z hidden")
ax.axhline(share[1], color="k", ls="--", label="z seen")
ax.fill_between(distances, table["variance of the score"], table["z seen"], alpha=0.2)
ax.set(xlabel="$m_2 - m_1$ (sd)", ylabel="information about $m_2$", ylim=(0, 0.45))
ax.legend(loc="center right")
plt.show()

# %% [markdown]
# ## What should have come out
#
# The variance of the score is the mean curvature; Louis' identity holds; where the two parts
# coincide, the information is the square of the share, and where they are far apart it is nearly
# the share itself, as if $z$ were seen.

# %%
louis = table["z seen"] - table["z given x"] - table["mean curvature"]
score = table["variance of the score"] - table["mean curvature"]
wanted = pd.DataFrame(
    [
        ("variance of the score, less curvature", score.abs().max(), 0, 1e-8),
        ("Louis' identity, off by", louis.abs().max(), 0, 1e-8),
        ("information at a distance of 0", information(0.0)["mean curvature"], 0.4**2, 1e-8),
        ("information at a distance of 6, over that with z seen",
         table["mean curvature"].iloc[-1] / 0.4, 1, 0.05),
        ("sandwich error over Fisher's, claim 1", found / math.sqrt(8), math.sqrt(2.5), 0.3),
    ],
    columns=["figure", "came out", "should be", "tolerance"],
).set_index("figure")  # fmt: skip
assert ((wanted["came out"] - wanted["should be"]).abs() <= wanted["tolerance"]).all()
wanted.map("{:.3g}".format)

# %% [markdown]
# ## If you come from mice, Stan or lme4
#
# `lme4` integrates the random effects out in closed form or by quadrature: that is the sum over z
# of this notebook. In Stan you write the sum yourself, as `log_mix` or `log_sum_exp`; here a site
# marked `"enumerate": "parallel"` is summed by Pyro, and `pv.elbo` is then log p(x) itself.
#
# ## Exercises
#
# The answers are tests, in `tests/course/test_01_likelihood.py`.
#
# 1. The model $N(\theta, 1)$ is fitted to data from an exponential distribution of rate 1. Which
#    $\theta$ minimizes KL? What is the standard error of the estimate?
# 2. In the mixture of claim 8, let both means be equal to the mean of x. Show that this is a
#    stationary point, and that it is no maximum.
# 3. Write a model of two hidden bits and three observed ones, have Pyro sum the hidden bits, and
#    check p(x) against a sum by hand over the four states.
