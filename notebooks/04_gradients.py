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
# # Gradients: what may go through an expectation, and what may not
#
# The ELBO is an expectation under the guide,
#
# $$L(\theta, \phi) = E_{q_\phi(z)}\big[\log p_\theta(x, z) - \log q_\phi(z)\big],$$
#
# and it is raised by stochastic gradients. The gradient in $\theta$ is easy. The one in $\phi$ is
# not, because $\phi$ also says where $z$ is drawn.
#
# ## You will be able to
#
# * say when the gradient may be pushed inside an expectation, and what goes wrong when it may not;
# * derive the score-function and the pathwise gradient, and predict their variances;
# * reparameterize a family: by location and scale, by sums of squares, by the inverse CDF;
# * choose an estimator for a discrete latent, and defend the choice with a measurement.

# %%
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # Pyro asks for ipywidgets

import math
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.stats
import torch
import torch.distributions as td
from pyro.infer import Trace_ELBO

import pyro_vae as pv
from pyro_vae.infer import Estimator

# %%
plt.rcParams.update(
    {"figure.figsize": (7, 3.2), "figure.constrained_layout.use": True, "font.size": 9,
     "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
)  # fmt: skip
torch.manual_seed(0)
N = 100_000  # draws, where nothing else is said


def z_score(draws: torch.Tensor, exact: float) -> float:
    """The mean of independent draws minus the exact value, in standard errors."""
    return ((draws.mean() - exact) / (draws.std() / len(draws) ** 0.5)).item()


def running_mean(ax: plt.Axes, draws: torch.Tensor, exact: float, label: str) -> None:
    """The mean of the first n draws against n, and where it should end, two standard errors."""
    n = np.unique(np.geomspace(10, len(draws), 200).astype(int))
    means = draws.double().cumsum(0)[n - 1].numpy() / n
    error = 2 * draws.std().item() / n**0.5
    ax.fill_between(n, exact - error, exact + error, color="0.9")
    ax.axhline(exact, color="0.4", linewidth=0.8)
    ax.plot(n, means, "C0", linewidth=1)
    ax.set(xscale="log", xlabel="draws n", ylabel="mean of n draws", title=label)


# %% [markdown]
# ## The gradient in the model's parameters (claim 25)
#
# The smallest model with a latent: $z \sim N(0, 1)$, $x \mid z \sim N(\theta z, 1)$, and the guide
# $q = N(m, s^2)$. Everything is Gaussian, so the ELBO and its three derivatives are known:
#
# $$\partial_\theta L = x m - \theta (m^2 + s^2), \quad
#   \partial_m L = x \theta - (\theta^2 + 1) m, \quad
#   \partial_{\log s} L = 1 - (\theta^2 + 1) s^2.$$
#
# The density that $z$ is drawn from does not depend on $\theta$. So $\partial_\theta
# E_q[f_\theta(z)] = E_q[\partial_\theta f_\theta(z)]$: draw $z$, differentiate what is inside,
# average.

# %%
X, THETA, M, LOG_S = 1.5, 0.8, 0.2, -0.3
S2 = math.exp(2 * LOG_S)
EXACT = pd.Series(
    {
        "theta": X * M - THETA * (M**2 + S2),
        "m": X * THETA - (THETA**2 + 1) * M,
        "log s": 1 - (THETA**2 + 1) * S2,
    }
)


def log_joint(z: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """log p(x, z)."""
    return td.Normal(0.0, 1.0).log_prob(z) + td.Normal(theta * z, 1.0).log_prob(torch.tensor(X))


def parameters() -> list[torch.Tensor]:
    """A copy of theta, m and log s for each draw, so that each draw has its own gradient."""
    return [torch.full((N,), value, requires_grad=True) for value in (THETA, M, LOG_S)]


def summary(gradients: list[torch.Tensor]) -> pd.DataFrame:
    """Each gradient beside its exact value."""
    rows = {}
    for (name, exact), g in zip(EXACT.items(), gradients, strict=True):
        error = (g.std() / N**0.5).item()
        rows[name] = [exact, g.mean().item(), error, z_score(g, exact), g.var().item()]
    columns = ["exact", "mean", "standard error", "z", "variance"]
    return pd.DataFrame(rows, columns).T


# %%
theta, m, log_s = parameters()
q = td.Normal(m, log_s.exp())
z = q.sample()  # a constant: no gradient flows into it
inside = torch.autograd.grad((log_joint(z, theta) - q.log_prob(z)).sum(), [theta, m, log_s])
pushed = summary(inside)
pushed.loc[["theta"]].round(4)

# %%
_, ax = plt.subplots(figsize=(7, 2.4))
running_mean(ax, inside[0], EXACT["theta"], "gradient in theta")
plt.show()

# %% [markdown]
# Line: the exact gradient; band: two standard errors of a mean of $n$ draws around it.

# %%
# check: claims 25
assert abs(pushed.z["theta"]) < 4

# %% [markdown]
# ## The gradient in the guide's parameters may not be pushed inside (claim 26)
#
# The same code gives a number for $m$ and $\log s$ too. It is the wrong one. What was left out is
# the dependence of the density on $\phi$:
#
# $$\partial_\phi E_{q_\phi}[f_\phi(z)] = \int \partial_\phi q_\phi(z)\, f_\phi(z)\, dz
#   + E_{q_\phi}[\partial_\phi f_\phi(z)].$$
#
# In the ELBO the second term is $-E_q[\partial_\phi \log q_\phi(z)]$, which is zero. So the
# gradient that is pushed inside is nothing but noise around zero, whatever the data say.

# %%
pushed.loc[["m", "log s"]].round(4)

# %%
_, axes = plt.subplots(1, 2, figsize=(7, 2.6))
for ax, name, draws in zip(axes, ["m", "log s"], inside[1:], strict=True):
    running_mean(ax, draws, EXACT[name], f"pushed inside: gradient in {name}")
plt.show()

# %%
# check: claims 26
for name, draws in zip(["m", "log s"], inside[1:], strict=True):
    assert abs(z_score(draws, 0.0)) < 4, "the number that it gives is zero"
    assert abs(pushed.z[name]) > 10, "and zero is not the gradient"

# %% [markdown]
# ## The score function: right, and noisy (claims 27, 30)
#
# Write $\partial_\phi q_\phi = q_\phi\, \partial_\phi \log q_\phi$, and the first term becomes an
# expectation again:
#
# $$\partial_\phi L = E_q\big[f(z)\, \partial_\phi \log q_\phi(z)\big].$$
#
# It asks nothing of $f$ but its value. The price is its variance. The pathwise gradient writes $z =
# m + s\,\epsilon$ with $\epsilon \sim N(0, 1)$, a density without parameters, and may go inside:
#
# $$\partial_\phi L = E_\epsilon\big[\partial_\phi f_\phi(m + s\,\epsilon)\big].$$

# %%
theta, m, log_s = parameters()
q = td.Normal(m, log_s.exp())
z = q.sample()
f = (log_joint(z, theta) - q.log_prob(z)).detach()
by_score = torch.autograd.grad((log_joint(z, theta) + f * q.log_prob(z)).sum(), [theta, m, log_s])
theta, m, log_s = parameters()
q = td.Normal(m, log_s.exp())
z = q.rsample()  # m + s * epsilon, with its gradient
by_path = torch.autograd.grad((log_joint(z, theta) - q.log_prob(z)).sum(), [theta, m, log_s])
rules = pd.concat({"score": summary(by_score), "path": summary(by_path)}, names=["rule", "in"])
rules.round(4)

# %%
_, axes = plt.subplots(1, 2, figsize=(7, 2.6), sharey=True)
for ax, rule, draws in zip(axes, ["score function", "path"], [by_score, by_path], strict=True):
    running_mean(ax, draws[1], EXACT["m"], f"{rule}: gradient in m")
plt.show()

# %%
# check: claims 27, 30
assert rules.z.abs().max() < 4, "both are unbiased in all three parameters"
ratio = rules.variance["score"] / rules.variance["path"]
print(ratio.loc[["m", "log s"]].round(1).to_string())
assert (ratio[["m", "log s"]] > 2).all()

# %% [markdown]
# ## The same on a VAE, and the estimator that refuses to train (claims 25, 26)
#
# A linear VAE has an ELBO in closed form too, so the exact gradient of all its weights is at hand.
# `compare_estimators` draws the gradient of each estimator many times and tests it against that.
# The wrong one is made in four lines, as an `ELBO` of one's own.


# %%
class PushedInside(Trace_ELBO):
    """The gradient of log p(x, z) - log q(z|x) at draws that are taken for constants: wrong."""

    def _differentiable_loss_particle(self, model_trace, guide_trace):  # noqa: ANN001, ANN202
        value = model_trace.log_prob_sum() - guide_trace.log_prob_sum()
        return -value.item(), -value


SCALE = 0.7
generator = torch.Generator().manual_seed(0)
weights = torch.randn(5, 2, generator=generator)
x = torch.randn(200, 2, generator=generator) @ weights.T
x = x + SCALE * torch.randn(200, 5, generator=generator)
vae = pv.VAE(5, 2, likelihood=f"Normal(scale={SCALE})", guide="Normal(scale=learned)",
             encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0)  # fmt: skip


def exact_elbo(vae: pv.VAE, x: torch.Tensor) -> torch.Tensor:
    """The ELBO of a linear VAE, nats per observation."""
    q, decoder = vae.approximate_posterior(x).base_dist, vae.likelihood.sources["loc"].head
    w, loc, scale = decoder.weight, q.loc, q.scale
    squares = (x - loc @ w.T - decoder.bias).square().sum(1) + (scale**2 @ w.T**2).sum(1)
    kl = 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum(1)
    constant = 5 * math.log(SCALE * math.sqrt(2 * math.pi))
    return (-squares / (2 * SCALE**2) - constant - kl).mean()


# %%
weights = vae.trainable
exact = torch.autograd.grad(exact_elbo(vae, x), list(weights.values()))
wrong = Estimator(PushedInside(), gradient="score")
lines = ["Trace_ELBO", "Trace_ELBO(gradient=score)", wrong]
measured = pv.compare_estimators(
    vae, x, lines, num_draws=100, reference=dict(zip(weights, exact, strict=True))
)
names = ["pathwise", "score function", "pushed inside"]
bias = pd.DataFrame(
    {group: measured.bias_z.sel(parameter=group) for group in ("likelihood", "guide")}, names
)
bias.add_prefix("z of the bias, ").round(1)

# %%
# check: claims 25, 26
assert (bias.likelihood.abs() < 4).all(), "all three are right about the model"
assert (bias.guide[:2].abs() < 4).all(), "two are right about the guide"
assert bias.guide["pushed inside"] > 10, "and the third is not"

# %% [markdown]
# Train a copy with each, from the same start. The dashed line is the highest log-likelihood of any
# model of this kind: probabilistic PCA with the known noise, in closed form.

# %%
curves = pv.train_estimators(vae, x, lines, epochs=20, batch_size=25, lr=0.02, progress=False)
spectrum = np.linalg.eigvalsh(np.cov(x.T.numpy(), bias=True))
ceiling = np.maximum(spectrum, SCALE**2)
ceiling[:3] = SCALE**2  # two directions are the model's, the other three are noise
best = -0.5 * (5 * math.log(2 * math.pi) + np.log(ceiling).sum() + (spectrum / ceiling).sum())
_, ax = plt.subplots()
for name, curve in zip(names, curves.elbo_train, strict=True):
    ax.plot(curves.step, curve, label=name)
ax.axhline(best, color="0.4", linestyle="--", linewidth=0.8)
ax.set(xlabel="gradient steps", ylabel="ELBO (nats per observation)", ylim=(best - 12, best + 1))
ax.legend(loc="lower right")
plt.show()

# %% [markdown]
# The wrong estimator is no crash and no NaN. It moves: the model fits itself to a guide that never
# looks at the data again. Only a comparison tells.

# %%
last = pd.Series(curves.elbo_train.isel(epoch=-1), names)
(best - last).rename("below the best possible, nats").round(2).to_frame()

# %% [markdown]
# ## The score has mean zero (claim 28)
#
# $E_q[\partial_\phi \log q_\phi(z)] = \partial_\phi \int q_\phi = \partial_\phi 1 = 0$. Its
# variance is the Fisher information. Both hold where the support does not move with the parameter,
# which is the regularity condition of the textbooks; for a uniform on $(0, \theta)$ the score is
# $-1/\theta$, always.

# %%
SCORES = {  # a family at a value of its parameter, and the Fisher information there
    "Normal, loc": (lambda a: td.Normal(a, 1.0), 0.5, 1.0),
    "Poisson, rate": (td.Poisson, 3.0, 1 / 3),
    "Exponential, rate": (td.Exponential, 2.0, 1 / 4),
    "Bernoulli, logit": (lambda a: td.Bernoulli(logits=a), 0.7, 0.2217),
    "Gamma, concentration": (lambda a: td.Gamma(a, 1.0), 2.0, math.pi**2 / 6 - 1),
    "Uniform, upper end": (lambda a: td.Uniform(0.0, a, validate_args=False), 2.0, 0.25),
}


def scores(family: object, value: float) -> torch.Tensor:
    """The score of each of N draws."""
    a = torch.full((N,), value, requires_grad=True)
    q = family(a)
    return torch.autograd.grad(q.log_prob(q.sample()).sum(), a)[0]


rows, drawn_scores = {}, {}
for name, (family, value, information) in SCORES.items():
    s = drawn_scores[name] = scores(family, value)
    rows[name] = s.mean().item(), s.std().item() / N**0.5, s.square().mean().item(), information
columns = ["mean of the score", "standard error", "mean of its square", "Fisher information"]
score_table = pd.DataFrame(rows, columns).T
score_table.round(4)

# %%
_, axes = plt.subplots(2, 3, figsize=(7, 3.6))
for ax, (name, s) in zip(axes.flat, drawn_scores.items(), strict=True):
    ax.hist(s.numpy(), 40, range=(-3, 3), density=True, color="0.8")
    ax.axvline(s.mean(), color="C0")
    ax.set(yticks=[], title=name)
for ax in axes[1]:
    ax.set_xlabel("score of a draw")
plt.show()

# %% [markdown]
# Line: the mean. The uniform's score is no distribution around zero: it is one number.

# %%
# check: claims 28
regular = score_table.drop("Uniform, upper end")
assert (regular["mean of the score"] / regular["standard error"]).abs().max() < 4
assert np.allclose(regular["mean of its square"], regular["Fisher information"], rtol=0.05)
assert math.isclose(score_table["mean of the score"]["Uniform, upper end"], -1 / 2, rel_tol=1e-5)

# %% [markdown]
# ## Baselines: the same mean, less variance (claim 29)
#
# As the score has mean zero, $f$ may be replaced by $f - b$ for any constant $b$. The variance
# $E[s^2 (f - b)^2] - g^2$ is a parabola in $b$ with its least value at $b^* = E[s^2 f] / E[s^2]$.
# For $f(z) = z^2$ and $q = N(m, 1)$, where the gradient is $2m$, moments of the normal give
#
# | rule | one draw | variance |
# |---|---|---|
# | score | $z^2 \epsilon$ | $m^4 + 14 m^2 + 15$ |
# | score with $b^* = m^2 + 3$ | $(z^2 - b^*)\, \epsilon$ | $8 m^2 + 6$ |
# | path | $2 z$ | $4$ |

# %%
places = np.linspace(-3, 3, 9)
known = {
    "score": lambda m: m**4 + 14 * m**2 + 15,
    "score, best baseline": lambda m: 8 * m**2 + 6,
    "path": lambda m: 4 + 0 * m,
}
eps = torch.randn(N, dtype=torch.float64)
found = pd.DataFrame(
    {
        "score": [((m + eps) ** 2 * eps).var().item() for m in places],
        "score, best baseline": [(((m + eps) ** 2 - m**2 - 3) * eps).var().item() for m in places],
        "path": [(2 * (m + eps)).var().item() for m in places],
    },
    places,
)
m_axis = np.linspace(-3, 3, 200)
_, ax = plt.subplots()
for i, (name, curve) in enumerate(known.items()):
    ax.plot(m_axis, curve(m_axis), f"C{i}", label=f"{name}: closed form")
    ax.plot(places, found[name], f"C{i}o", markersize=4)
ax.set(xlabel="m, the location of q", ylabel="variance of one gradient draw", yscale="log")
ax.legend(fontsize=8, ncols=3, loc="lower center")
ax.set_ylim(1, None)
plt.show()

# %%
# check: claims 29
expected = pd.DataFrame({name: curve(places) for name, curve in known.items()}, places)
assert ((found / expected - 1).abs() < 0.1).all(axis=None)  # N draws know a variance to some %
assert all(abs(z_score(((m + eps) ** 2 - 10) * eps, 2 * m)) < 4 for m in places), "any b is right"

# %% [markdown]
# ## Reparameterizations, family by family (claims 30, 31)
#
# A path is a map from noise without parameters to $z$.
#
# * **Location and scale**: $z = m + s\,\epsilon$, for the Laplace, the logistic, Student's t.
# * **Sums**: $\sigma^2 \sum_{i \le k} \epsilon_i^2$ is $\sigma^2 \chi^2_k$; a sum of $a$
#   exponentials is a Gamma; a ratio $G_1 / (G_1 + G_2)$ of Gammas is a Beta.
# * **Inverse CDF**: $z = F_\phi^{-1}(u)$ with $u$ uniform: the Weibull, the Gumbel, the
#   Kumaraswamy.
# * **Implicit**: hold $u = F_\phi(z)$ fixed and differentiate: $dz/d\phi = -\partial_\phi F_\phi(z)
#   / q_\phi(z)$. It needs no inverse, and is what `rsample` of the Gamma, the Beta and the
#   Dirichlet does, at any concentration.
#
# For each, the derivative of an expectation that is known in closed form:

# %%
uniform = torch.rand(N, dtype=torch.float64)
digamma = scipy.special.digamma


def laplace(s: torch.Tensor) -> torch.Tensor:
    return 0.5 + s * (0.5 - uniform).sign() * (1 - 2 * (uniform - 0.5).abs()).log()


def chi2(s: torch.Tensor) -> torch.Tensor:
    return (s[:, None] * torch.randn(N, 5, dtype=torch.float64)).square().sum(1)


def beta(a: torch.Tensor) -> torch.Tensor:
    one, other = td.Gamma(a, 1.0).rsample(), td.Gamma(torch.full_like(a, 3.0), 1.0).rsample()
    return one / (one + other)


def weibull(k: torch.Tensor) -> torch.Tensor:
    return (-uniform.log()) ** (1 / k)


# A path, the parameter's value, the distribution of z, a function of z, its expected derivative.
PATHS = {
    "Laplace: location-scale": (laplace, 1.5, scipy.stats.laplace(0.5, 1.5), "square", 6.0),
    "chi-square: a sum of squares": (chi2, 1.2, scipy.stats.chi2(5, scale=1.44), "identity", 12.0),
    "Gamma: a sum of exponentials": (
        lambda r: -torch.rand(N, 3, dtype=torch.float64).log().sum(1) / r, 2.0,
        scipy.stats.gamma(3, scale=0.5), "identity", -0.75,
    ),
    "Gamma: implicit": (
        lambda a: td.Gamma(a, 1.0).rsample(), 2.5, scipy.stats.gamma(2.5), "log",
        scipy.special.polygamma(1, 2.5).item(),
    ),
    "Beta: a ratio of Gammas": (beta, 2.0, scipy.stats.beta(2, 3), "identity", 3 / 25),
    "Weibull: inverse CDF": (
        weibull, 1.5, scipy.stats.weibull_min(1.5), "identity",
        -math.gamma(1 + 1 / 1.5) * digamma(1 + 1 / 1.5).item() / 1.5**2,
    ),
}  # fmt: skip
FUNCTIONS = {"square": torch.square, "identity": lambda z: z, "log": torch.log}

# %%
rows = {}
for name, (path, value, law, function, slope) in PATHS.items():
    a = torch.full((N,), value, dtype=torch.float64, requires_grad=True)
    z = path(a)
    g = torch.autograd.grad(FUNCTIONS[function](z).sum(), a)[0]
    fits = scipy.stats.kstest(z.detach().numpy(), law.cdf).pvalue
    rows[name] = function, slope, g.mean().item(), z_score(g, slope), fits
columns = ["function of z", "exact derivative", "mean along the path", "z", "p (Kolmogorov)"]
path_table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
path_table.round(4)

# %%
# check: claims 30, 31
assert path_table.z.abs().max() < 4, "the derivative along each path is right"
assert path_table["p (Kolmogorov)"].min() > 1e-4, "and z has the distribution that it should"

# %% [markdown]
# The implicit derivative needs no path that one could write down. Here it is for the Gamma's
# concentration: that of `rsample`, and $-\partial_a F_a(z) / q_a(z)$ with the CDF differentiated by
# finite differences.

# %%
a = torch.full((400,), 2.5, dtype=torch.float64, requires_grad=True)
z = td.Gamma(a, 1.0).rsample()
along = torch.autograd.grad(z.sum(), a)[0]
at = z.detach().numpy()
step = 1e-5
slope = (scipy.special.gammainc(2.5 + step, at) - scipy.special.gammainc(2.5 - step, at)) / (
    2 * step
)
implicit = -slope / scipy.stats.gamma(2.5).pdf(at)
order = at.argsort()
_, ax = plt.subplots(figsize=(7, 2.6))
ax.plot(at[order], implicit[order], "0.6", linewidth=3, label="by the CDF")
ax.plot(at, along, "C0.", markersize=3, label="rsample")
ax.set(xlabel="z, a draw of Gamma(2.5, 1)", ylabel="dz / d concentration")
ax.legend()
plt.show()

# %%
# check: claims 31
assert np.allclose(along, implicit, rtol=1e-3)

# %% [markdown]
# ## A discrete z has no path (claim 32)
#
# A bit can be made from a uniform, $z = 1[u < \sigma(\phi)]$. But with $u$ held fixed it is a step
# in $\phi$: its derivative is zero wherever it exists, and the mean of zeros is not the derivative
# of the mean, $\sigma'(\phi)\,(f(1) - f(0))$. The exchange fails for the opposite reason than in
# claim 26: here it is the integrand that is not smooth.

# %%
phi = np.linspace(-4, 4, 401)
p = 1 / (1 + np.exp(-phi))
cost = {0: 0.45**2, 1: 0.55**2}  # f(z) = (z - 0.45)^2
few = np.array([0.1, 0.35, 0.6, 0.9])
steps = np.where(few[:, None] < p, cost[1], cost[0])
mean = cost[0] + p * (cost[1] - cost[0])
_, ax = plt.subplots(figsize=(7, 2.6))
ax.plot(phi, steps.T, color="0.7", linewidth=1)
ax.plot([], [], color="0.7", label="f(z) along one u")
ax.plot(phi, mean, "C0", linewidth=2, label="E f(z)")
ax.set(xlabel="logit of the bit", ylabel="f(z)")
ax.legend()
plt.show()

# %% [markdown]
# So a pathwise gradient of Bernoulli latents is refused, with what can be done instead:

# %%
data = pv.load_data("digit-counts")
bits = pv.VAE((1, 8, 8), 6, prior="Bernoulli(logits=learned)", guide="Bernoulli",
              likelihood="Binomial(total_count=16)", seed=0)  # fmt: skip
try:
    pv.fit(bits, data.train, estimator="Trace_ELBO(gradient=pathwise)", epochs=1, progress=False)
except ValueError as refusal:
    said = str(refusal)
print(said.replace(": ", ":\n"))

# %%
# check: claims 32
slope = 0.24 * (cost[1] - cost[0])  # where the probability is 0.4
u = np.random.default_rng(0).random(N)
f_at = {p: np.where(u < p, cost[1], cost[0]) for p in (0.4 - 1e-9, 0.4, 0.4 + 1e-9)}
assert (f_at[0.4 - 1e-9] == f_at[0.4 + 1e-9]).all(), "along the path every derivative is zero"
by_score = torch.from_numpy(f_at[0.4] * ((u < 0.4) - 0.4))
assert abs(z_score(by_score, slope)) < 4 and abs(z_score(by_score, 0.0)) > 10, "the mean's is not"
advised = ["Trace_ELBO(gradient=score)", "RLOO(num_particles=2)", "DisARM", "TraceEnum_ELBO"]
assert all(line in said for line in advised)

# %% [markdown]
# ## Every control variate on one model (claims 29, 32)
#
# Six bits have 64 states, so the exact gradient is a sum. Train a little, then measure all
# estimators at the same weights: the variance of one gradient draw of the encoder, and the
# evaluations of $\log p(x \mid z)$ that the draw costs. All are the score function made steadier:
# by a baseline, by draws that offset each other, or by something else whose mean is known.

# %%
UNBIASED = [
    "Trace_ELBO(gradient=score)", "TraceGraph_ELBO(gradient=score, baseline=decaying)",
    "TraceGraph_ELBO(gradient=score, baseline=neural)", "RLOO(num_particles=2)",
    "RLOO(num_particles=4)", "ARM", "DisARM", "ARMS(num_particles=4)", "CARMS(num_particles=4)",
    "BitFlip", "MuProp", "DoubleCV(num_particles=4)", "RODEO(num_particles=4)", "REBAR", "RELAX",
]  # fmt: skip
names = list(dict.fromkeys(line.split("(")[0] for line in UNBIASED[3:]))
notes = pv.estimators().note[names]
print("\n".join(f"{name:9} {note}" for name, note in notes.items()))

# %%
pv.fit(bits, data.train, estimator="DisARM", epochs=6, lr=5e-3, seed=0, progress=False)
RELAXED = [
    f"Trace_ELBO(gradient={rule})" for rule in ("concrete", "straight_through", "gumbel_rao")
]


def measure(lines: list[str], num_draws: int) -> pd.DataFrame:
    """The encoder's gradient by each estimator; the bias is relative to the exact gradient."""
    found = pv.compare_estimators(
        bits, data.train[:50], lines, num_draws=num_draws, burn_in=20, seed=0
    ).sel(parameter="encoder")
    columns = {"grad_variance": "variance", "evaluations": "evaluations", "bias": "bias",
               "bias_z": "z of the bias"}  # fmt: skip
    return found.to_dataframe()[[*columns]].rename(columns=columns)


unbiased, relaxed = measure(UNBIASED, 16), measure(RELAXED, 120)
pd.concat([unbiased, relaxed]).round(3)

# %%
# check: claims 29, 32
assert unbiased["z of the bias"].max() < 4, "none of fifteen is biased"
assert relaxed["z of the bias"].min() > 4, "a relaxed path is that of another objective"
plain = unbiased.variance["Trace_ELBO(gradient=score)"]
assert (unbiased.variance.drop("Trace_ELBO(gradient=score)") < plain).all()

# %% [markdown]
# Along a grey line, variance times evaluations is the same: averaging draws moves an estimator
# along it. So an estimator is the better the lower its line.

# %%
shown = unbiased.sort_values("variance", ascending=False)
_, ax = plt.subplots(figsize=(7, 4.6))
x_axis = np.array([0.9, 7.0])
for product in (shown.variance * shown.evaluations).quantile([0.0, 0.5, 1.0]):
    ax.plot(x_axis, product / x_axis, color="0.85", linewidth=1, zorder=0)
ax.scatter(shown.evaluations, shown.variance, s=14)
at = np.log(shown.variance.to_numpy())
for group in shown.groupby("evaluations").indices.values():  # labels that would overlap move down
    for one, other in pairwise(group):
        at[other] = min(at[other], at[one] - 0.24)
for height, (line, row) in zip(np.exp(at), shown.iterrows(), strict=True):
    short = line.replace("num_particles=", "").replace("gradient=", "").replace("baseline=", "")
    ax.annotate(short, (row.evaluations, row.variance), (row.evaluations * 1.06, height),
                fontsize=7, va="center")  # fmt: skip
ax.set(xlabel="evaluations of log p(x|z) per draw", ylabel="variance (nats per observation)²",
       xscale="log", yscale="log", xlim=x_axis)  # fmt: skip
ax.set_xticks([1, 2, 4], ["1", "2", "4"])
ax.minorticks_off()
plt.show()

# %% [markdown]
# ## Or let the package race them
#
# Variance is a means. `recommend_estimator` trains copies of the model for equal seconds, and
# compares the bound on data that were held out. Where the first two are within two standard errors,
# it says that either will do.

# %%
race = ["Trace_ELBO(gradient=score)", "DisARM", "RLOO(num_particles=4)"]
fresh = pv.VAE((1, 8, 8), 6, prior="Bernoulli(logits=learned)", guide="Bernoulli",
               likelihood="Binomial(total_count=16)", seed=0)  # fmt: skip
found = pv.recommend_estimator(fresh, data.train, race, seconds=2, lr=3e-3, seed=0)
found.table[["heat", "bound", "difference", "difference_error", "biased"]].round(2)

# %% [markdown]
# ## What should have come out
#
# * Pushed inside, the guide's gradient is zero on average, and the ELBO stays far below the best.
# * Score and path agree with calculus; the path has the lower variance.
# * The measured variances lie on the closed forms, with and without a baseline.
# * All unbiased estimators pass, the relaxed ones do not. The plain score varies most by far, but
#   a race of two seconds need not show it.

# %%
checks = {
    "the wrong estimator ends far below the right one": last["pathwise"] - last["pushed inside"]
    > 1,
    "the pathwise one is within a nat of the best": abs(best - last["pathwise"]) < 1,
    "a baseline cuts the variance of the score": unbiased.variance["RLOO(num_particles=2)"]
    < plain / 2,
}
assert all(checks.values()), checks
pd.Series(checks, name="holds").to_frame()

# %% [markdown]
# ## If you come from Stan
#
# Stan's `variational` and `pathfinder` follow paths, after each parameter was mapped to the real
# line: that is why Stan has no discrete parameters, and asks you to sum them out by hand.
# `TraceEnum_ELBO` is that sum, and the other estimators here are what to do when it is too long.
#
# ## Exercises
#
# 1. $q$ is Poisson with rate $\lambda$ and $f(z) = z$. Show that the best constant baseline is
#    $\lambda + 1$, not the mean of $f$.
# 2. Write a path for the Pareto distribution by its inverse CDF, and find by it the derivative of
#    $E[\log z]$ in the shape.
# 3. ARM for one bit is $(f(1[u > \sigma(-\phi)]) - f(1[u < \sigma(\phi)]))\,(u - 1/2)$ with $u$
#    uniform. Show by integration over $u$ that it is unbiased.
#
# The answers are in `tests/course/test_04_gradients.py`.
