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
# # The ELBO, EM, and Markov chains
#
# Where log p(x) is the log of a sum, three ways lead on: bound it from below and raise the bound
# (EM, variational inference), draw from the posterior (Markov chains), or sum after all. Here each
# is computed beside an answer that is known.
#
# ## You will be able to
#
# - derive the ELBO, and say what the gap to log p(x) is;
# - read EM as ascent of the ELBO, one argument at a time;
# - say where sums over discrete latents end, and what a bad step does to a Markov chain;
# - tell what a variational posterior gives that chains do not, and the reverse.

# %%
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # Pyro asks for ipywidgets
warnings.filterwarnings("ignore", message=".*did not converge")  # EM is stopped after each step

import math

import arviz
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.mcmc import MCMC, NUTS
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, norm
from sklearn.mixture import GaussianMixture
from torch.distributions import kl_divergence
from torch.utils.flop_counter import FlopCounterMode

import pyro_vae as pv

# %%
plt.rcParams.update({
    "figure.figsize": (7, 2.8), "figure.dpi": 100, "figure.constrained_layout.use": True,
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
})  # fmt: skip

# %% [markdown]
# ## Jensen: the ELBO is below log p(x) (claims 9, 10)
#
# For any distribution $q(z)$, the *guide*,
#
# $$\log p(x) = \log E_q\left[\frac{p(x, z)}{q(z)}\right] \;\ge\;
#   E_q\left[\log \frac{p(x, z)}{q(z)}\right] = \mathrm{ELBO},$$
#
# since the logarithm is concave. And $p(x, z) = p(x) \, p(z \mid x)$ says what is lost:
#
# $$\log p(x) = \mathrm{ELBO} + KL(q(z) \,\|\, p(z \mid x)).$$
#
# Two models of which both sides are known: a mixture of three normals, where $q$ is a table of
# probabilities, and probabilistic PCA, $x = W z + b$ and noise, where the posterior is normal.

# %%
generator = torch.Generator().manual_seed(0)
weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
hills = dist.Normal(torch.tensor([-2.0, 0.0, 3.0]).double(), torch.tensor([1.0, 0.5, 1.5]).double())
points = 3 * torch.randn(500, 1, generator=generator, dtype=torch.float64)
joint = hills.log_prob(points) + weights.log()  # log p(x, z), a column a value of z
q = (2 * torch.randn(500, 3, generator=generator, dtype=torch.float64)).softmax(1)
in_mixture = pd.DataFrame(
    {
        "log p(x)": joint.logsumexp(1),
        "ELBO": (q * (joint - q.log())).sum(1),
        "KL": kl_divergence(dist.Categorical(q), dist.Categorical(logits=joint)),
    }
)
in_mixture.head(3)

# %% [markdown]
# Now probabilistic PCA. The guide is off on purpose: its mean is shifted by a standard normal, and
# its standard deviations are those of the prior. With $q = N(m, S)$ the expectation is
#
# $$E_q[\log p(x \mid z)] = \log N(x; Wm + b, \sigma^2 I) - \mathrm{tr}(W S W^T) / 2 \sigma^2.$$

# %%
W = torch.randn(6, 2, generator=generator, dtype=torch.float64)
b, noise = torch.randn(6, generator=generator, dtype=torch.float64), 0.7
precision = torch.eye(2).double() + W.T @ W / noise**2
shift = torch.randn(300, 2, generator=generator, dtype=torch.float64)
x = torch.randn(300, 2, generator=generator).double() @ W.T + b
x = x + noise * torch.randn(300, 6, generator=generator)
evidence = dist.MultivariateNormal(b, W @ W.T + noise**2 * torch.eye(6).double()).log_prob(x)
mean = (x - b) @ torch.linalg.solve(precision, W.T / noise**2).T
posterior = dist.MultivariateNormal(mean, precision_matrix=precision)
prior = dist.Normal(torch.zeros(2).double(), 1.0).to_event(1)


def reconstruction(m: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """E log p(x | z) where z ~ N(m, diag(s^2))."""
    at_mean = dist.Normal(m @ W.T + b, noise).log_prob(x).sum(-1)
    return at_mean - (W.square() @ s.square()).sum() / (2 * noise**2)


off = dist.Normal(mean + shift, 1.0).to_event(1)
elbo = reconstruction(mean + shift, torch.ones(2).double()) - kl_divergence(off, prior)
gap = kl_divergence(dist.MultivariateNormal(mean + shift, torch.eye(2).double()), posterior)
in_pca = pd.DataFrame({"log p(x)": evidence, "ELBO": elbo, "KL": gap})
pd.concat({"mixture": in_mixture, "probabilistic PCA": in_pca}).groupby(level=0).mean().round(3)

# %% [markdown]
# The package draws z where there is no such formula. The same model as a program of Pyro's, and
# `pv.elbo` with draws:


# %%
def model(x: torch.Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", prior)
        pyro.sample("x", dist.Normal(z @ W.T + b, noise).to_event(1), obs=x)


def guide(x: torch.Tensor) -> None:
    mean = (x - b) @ torch.linalg.solve(precision, W.T / noise**2).T
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(mean, 1.0).to_event(1))


program = pv.Program(model, guide, x)
drawn = torch.stack([pv.elbo(program, num_samples=1, seed=i) for i in range(150)])
wide = dist.Normal(mean, 1.0).to_event(1)
exact = reconstruction(mean, torch.ones(2).double()) - kl_divergence(wide, prior)

# %%
_, (left, right) = plt.subplots(1, 2)
r = torch.linspace(0.001, 0.999, 400, dtype=torch.float64)
two = torch.stack([r, 1 - r], 1)
at = joint[points[:, 0].sub(-0.9).abs().argmin(), :2]  # a point between two hills
left.plot(r, (two * (at - two.log())).sum(1), label="ELBO")
left.axhline(at.logsumexp(0), color="k", ls="--", lw=1, label="log p(x)")
left.axvline(at.softmax(0)[0], color="0.6", lw=0.8, label="posterior")
left.set(xlabel="q(z = 1)", ylabel="nats", title="a mixture of two", ylim=(-3.5, None))
left.legend(fontsize=7)
right.plot(in_pca["KL"], in_pca["log p(x)"] - in_pca["ELBO"], ".", ms=4)
right.plot([0, 40], [0, 40], "k", lw=0.8)
right.set(xlabel="KL(q, posterior) (nats)", ylabel="log p(x) - ELBO (nats)", title="pPCA, 300 x")
plt.show()

# %%
# check: claims 9, 10
for sides in (in_mixture, in_pca):
    assert (sides["ELBO"] < sides["log p(x)"]).all()
identity = pd.Series(
    {name: (sides["log p(x)"] - sides["ELBO"] - sides["KL"]).abs().max()
     for name, sides in (("mixture", in_mixture), ("probabilistic PCA", in_pca))}
)  # fmt: skip
assert identity.max() < 1e-11  # machine precision
perfect = joint.softmax(1)  # and with the posterior for q, equality
assert ((perfect * (joint - perfect.log())).sum(1) - joint.logsumexp(1)).abs().max() < 1e-12
z = (drawn.mean(0) - exact) / (drawn.std(0) / len(drawn) ** 0.5)
assert z.abs().max() < 4.5  # 300 z-scores
identity.map("{:.1g}".format).to_frame("largest deviation")

# %% [markdown]
# ## Two ways to read the ELBO (claims 23, 24)
#
# The same number, split in two ways:
#
# $$\mathrm{ELBO} = E_q[\log p(x \mid z)] - KL(q \,\|\, p(z)) = E_q[\log p(x, z)] + H(q).$$
#
# The first is a reconstruction and its price; in the second the entropy is what keeps q from
# shrinking to a point. Below the guide of probabilistic PCA has the posterior's mean, and its
# standard deviations are $c$ times the best. The second split is computed from draws.

# %%
best = precision.diagonal().rsqrt()  # of a guide without correlations
factors = torch.logspace(-1.5, 0.7, 23, dtype=torch.float64)
rows = {}
for c in factors:
    q = dist.Normal(mean, c * best).to_event(1)
    z = q.sample((200,))
    log_joint = prior.log_prob(z) + dist.Normal(z @ W.T + b, noise).log_prob(x).sum(-1)
    rows[c.item()] = {
        "reconstruction": reconstruction(mean, c * best).mean().item(),
        "KL": kl_divergence(q, prior).mean().item(),
        "E log p(x, z)": log_joint.mean().item(),
        "error": (log_joint.mean(1).std() / len(z) ** 0.5).item(),
        "entropy": q.entropy().mean().item(),
    }
splits = pd.DataFrame(rows).T.rename_axis("c")
splits["by the first"] = splits["reconstruction"] - splits["KL"]
splits["by the second"] = splits["E log p(x, z)"] + splits["entropy"]
splits.iloc[[0, 8, 15, 22]].round(3)

# %%
_, (left, right) = plt.subplots(1, 2, sharey=True)
left.semilogx(splits["reconstruction"], label="reconstruction")
left.semilogx(-splits["KL"], label="- KL")
right.semilogx(splits["E log p(x, z)"], label="E log p(x, z)")
right.semilogx(splits["entropy"], label="entropy")
for ax, way in ((left, "by the first"), (right, "by the second")):
    ax.semilogx(splits[way], "k", lw=2, label="their sum: ELBO")
    ax.axhline(evidence.mean(), color="k", ls="--", lw=0.8, label="log p(x)")
    ax.set(xlabel="c, the guide's scale over the best", ylim=(-16, 4))
    ax.legend(fontsize=7, loc="upper left")
left.set_ylabel("nats per observation")
plt.show()

# %%
# check: claims 23, 24
z = (splits["by the second"] - splits["by the first"]) / splits["error"]
assert z.abs().max() < 4
assert abs(splits["by the first"].idxmax() - 1) < 1e-9  # the best scale is c = 1
assert splits["reconstruction"].idxmax() == splits.index[0]  # reconstruction alone: a point,
assert splits["entropy"].idxmax() == splits.index[-1]  # entropy alone: no end

# %% [markdown]
# ## EM climbs the ELBO in two steps (claim 41)
#
# The ELBO has two arguments, $q$ and $\theta$. EM is ascent in one at a time: the E-step sets $q$
# to the posterior, which closes the gap; the M-step maximizes $E_q[\log p_\theta(x, z)]$, and opens
# it again. So
#
# $$\log p_{\theta'}(x) \ge \mathrm{ELBO}(q, \theta') \ge \mathrm{ELBO}(q, \theta)
#   = \log p_\theta(x).$$
#
# By hand on two measurements of the penguins, three normals with full covariances, and beside it
# scikit-learn's EM from the same start, stopped after as many steps.

# %%
columns = ["bill_length_mm", "flipper_length_mm"]
frame = pv.load_data("penguins").train.to_frame()[columns].dropna()
birds = ((frame - frame.mean()) / frame.std()).to_numpy()
start = (np.full(3, 1 / 3), birds[[0, 1, 2]], np.stack([np.eye(2)] * 3))


def log_joint_of(theta: tuple) -> np.ndarray:
    """log p(x, z), a column a value of z."""
    logs = [multivariate_normal(m, s).logpdf(birds) for m, s in zip(*theta[1:], strict=True)]
    return np.log(theta[0]) + np.stack(logs, 1)


def e_step(theta: tuple) -> np.ndarray:
    joint = log_joint_of(theta)
    return np.exp(joint - np.logaddexp.reduce(joint, 1)[:, None])


def m_step(q: np.ndarray) -> tuple:
    means = (q.T @ birds) / q.sum(0)[:, None]
    apart = birds[:, None] - means
    return q.mean(0), means, np.einsum("nk,nki,nkj->kij", q, apart, apart) / q.sum(0)[:, None, None]


def bound(q: np.ndarray, theta: tuple) -> float:
    terms = q * (log_joint_of(theta) - np.log(np.maximum(q, 1e-300)))
    return terms.sum(1).mean()


theta, steps = start, []
for step in range(40):
    q = e_step(theta)
    steps.append((step, "E", bound(q, theta), np.logaddexp.reduce(log_joint_of(theta), 1).mean()))
    theta = m_step(q)
    steps.append(
        (step + 0.5, "M", bound(q, theta), np.logaddexp.reduce(log_joint_of(theta), 1).mean())
    )
steps = pd.DataFrame(steps, columns=["step", "after", "ELBO", "log-likelihood"])

# %%
beside = {}
for taken in (1, 2, 5, 10, 40):
    theirs = GaussianMixture(
        3, weights_init=start[0], means_init=start[1], precisions_init=start[2], reg_covar=0.0,
        tol=0.0, max_iter=taken,
    ).fit(birds)  # fmt: skip
    ours = steps.loc[steps["step"] == taken - 0.5, "log-likelihood"].item()
    beside[taken] = {"by hand": ours, "scikit-learn": theirs.score(birds)}
beside = pd.DataFrame(beside).T.rename_axis("EM steps")
beside

# %% [markdown]
# And in the package: a `VAE` whose z is a category is a mixture, whose guide is its E-step, learned
# for all x at once by a network. Both are trained together on the ELBO, by gradients. EM that
# starts where the VAE ended (with diagonal covariances, as the VAE's) should stay there.

# %%
birds_x = torch.tensor(birds).float()
mixture = pv.VAE(
    2, 1, prior="Categorical(categories=3, logits=learned)", likelihood="Normal",
    guide="Categorical(categories=3)", encoder=pv.MLP([50], activation="Tanh"),
    decoder=pv.MLP([]), seed=0,
)  # fmt: skip
fit = pv.fit(mixture, birds_x, estimator="TraceEnum_ELBO", epochs=80, batch_size=50,
             lr="cosine(0.03)", seed=0, progress=False)  # fmt: skip
with torch.no_grad():
    parts = mixture.decode(torch.arange(3.0).reshape(3, 1))
    shares = mixture.prior().base_dist.logits.log_softmax(-1)
    log_joint = parts.log_prob(birds_x[:, None]) + shares
    goes_on = GaussianMixture(
        3, covariance_type="diag", weights_init=shares.double().softmax(-1).flatten().numpy(),
        means_init=parts.base_dist.loc.numpy(), max_iter=1000, tol=1e-9,
        precisions_init=parts.base_dist.scale.numpy() ** -2.0,
    ).fit(birds)  # fmt: skip
    ascent = pd.Series(
        {
            "VAE, ELBO": pv.elbo(mixture, birds_x, num_samples=500, seed=0).mean().item(),
            "VAE, log-likelihood": log_joint.logsumexp(1).mean().item(),
            "EM that starts there": goes_on.score(birds),
        },
        name="nats per penguin",
    )
ascent.round(4).to_frame()

# %%
_, (left, right) = plt.subplots(1, 2)
some = steps[(steps["step"] > 0) & (steps["step"] < 8)]
left.plot(some["step"], some["ELBO"], "o-", ms=3, lw=1, label="ELBO")
left.plot(some["step"], some["log-likelihood"], "k.--", ms=3, lw=1, label="log-likelihood")
left.set(xlabel="step: E at whole, M at half numbers", ylabel="nats per penguin", title="EM")
left.legend(fontsize=8)
right.plot(fit.history["elbo_train"], label="ELBO")
right.axhline(ascent["EM that starts there"], color="k", ls="--", lw=1, label="EM goes on to")
right.set(xlabel="epoch", title="a VAE with a category for z", ylim=(-3.0, -2.3))
right.legend(fontsize=8)
plt.show()

# %%
# check: claim 41
assert (steps["ELBO"].diff().dropna() > -1e-12).all()  # each step climbs the ELBO
after_e = steps[steps["after"] == "E"]
assert (after_e["log-likelihood"].diff().dropna() > -1e-12).all()  # the likelihood never falls
assert (after_e["log-likelihood"] - after_e["ELBO"]).abs().max() < 1e-12  # E closes the gap
assert (beside["by hand"] - beside["scikit-learn"]).abs().max() < 1e-9
assert -1e-5 < ascent["EM that starts there"] - ascent["VAE, log-likelihood"] < 0.005
assert -0.001 < ascent["VAE, log-likelihood"] - ascent["VAE, ELBO"] < 0.02  # its guide: an E-step

# %% [markdown]
# ## Sums of 2^n terms, and where they end (claim 6)
#
# With $n$ hidden bits, $p(x) = \sum_{z \in \{0, 1\}^n} p(x \mid z) \, p(z)$. It is a sum like that
# of a mixture, of $2^n$ terms; each further bit doubles them. A bound or an estimate from $K$ draws
# costs $K$ terms, whatever $n$. We count the operations of the matrix products, by torch's counter
# and by formula.

# %%
observed = (torch.rand(4, 30, generator=generator) < 0.4).double()
loads = torch.randn(64, 30, generator=generator, dtype=torch.float64)


def log_likelihood(z: torch.Tensor) -> torch.Tensor:
    """log p(x | z) of all observed x, a row a state of the bits."""
    logits = z @ loads[: z.shape[1]] / z.shape[1] ** 0.5
    return observed @ logits.mT - torch.nn.functional.softplus(logits).sum(1)


def by_sum(n: int) -> torch.Tensor:
    """log p(x), all states: each bit is fair, so p(z) is 2^-n."""
    states = (torch.arange(2**n)[:, None] >> torch.arange(n) & 1).double()
    return log_likelihood(states).logsumexp(1) - n * math.log(2)


def operations(function: object, *arguments: object) -> int:
    with FlopCounterMode(display=False) as counter:
        function(*arguments)
    return counter.get_total_flops()


K = 1000
draws = {n: torch.randint(2, (K, n), generator=generator).double() for n in range(1, 17)}
cost = pd.DataFrame(
    {n: {"counted": operations(by_sum, n), "formula": 2**n * 2 * 30 * (n + len(observed)),
         "K draws": operations(log_likelihood, draws[n])} for n in draws}
).T.rename_axis("bits")  # fmt: skip
where = pd.DataFrame({n: {"terms": 2.0**n, "days at 1e12 terms a second": 2.0**n / 1e12 / 86400}
                      for n in (10, 20, 40, 60, 64, 100)}).T  # fmt: skip
where.map("{:.2g}".format)

# %% [markdown]
# Pyro makes the same sum where each bit is a site of its own, and every one of them is marked. And
# draws from the prior estimate it.


# %%
def bits(n: int) -> pv.Program:
    """The model with n sites, all summed."""

    def model(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            fair = dist.Bernoulli(torch.tensor(0.5).double())
            how = {"enumerate": "parallel"}
            z = [pyro.sample(f"z{i}", fair, infer=how) for i in range(n)]
            logits = sum(z[i][..., None] * loads[i] for i in range(n)) / n**0.5
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    return pv.Program(model, lambda x: None, observed)


sums = pd.DataFrame(
    {n: {"by hand": by_sum(n)[0].item(), "by Pyro": pv.elbo(bits(n), num_samples=1)[0].item()}
     for n in (1, 2, 4, 6, 8)}
).T.rename_axis("bits")  # fmt: skip
p_x = log_likelihood(draws[16]).exp()
estimate = (p_x.mean(1) - by_sum(16).exp()) / (p_x.std(1) / K**0.5)  # z-scores
sums

# %%
_, ax = plt.subplots(figsize=(4.5, 2.8))
ax.semilogy(cost["counted"], "o", ms=4, label="sum, counted")
ax.semilogy(cost["formula"], "k", lw=0.8, label=r"$2^n \cdot 2 D (n + N)$")
ax.semilogy(cost["K draws"], "C1.-", label=f"{K} draws")
ax.set(xlabel="n, hidden bits", ylabel="operations")
ax.legend()
plt.show()

# %%
# check: claim 6
assert (cost["counted"] == cost["formula"]).all()
ratio = cost["counted"].iloc[-1] / cost["counted"].iloc[-2]
assert abs(ratio - 2 * 20 / 19) < 1e-12  # one more bit: twice the terms, each a little longer
assert cost["K draws"].iloc[-1] < 20 / 5 * cost["K draws"].iloc[0] * 1.001  # draws: linear in n
assert (sums["by hand"] - sums["by Pyro"]).abs().max() < 1e-10
assert estimate.abs().max() < 4

# %% [markdown]
# ## Metropolis: a step too small, and one too large (claim 45)
#
# A random walk through the posterior: propose $z' = z + \ell \epsilon$, accept with probability
# $\min(1, p(x, z') / p(x, z))$. No sum is needed. The target is a normal posterior; with the step
# in its standard deviations, the share that is accepted is $\frac{2}{\pi} \arctan(2 / \ell)$
# (Gelman, Roberts & Gilks 1996). Small steps are accepted and go nowhere; large ones stay where
# they are. Each chain below starts with a draw of the posterior, so there is nothing to burn in.

# %%
lengths = np.array([0.05, 0.1, 0.3, 1.0, 2.4, 5.0, 12.0, 30.0, 80.0])
one = dist.Normal(mean[0, 0], posterior.covariance_matrix[0, 0, 0].sqrt())  # p(z_1 | x)
rng = np.random.default_rng(0)


def metropolis(log_p: object, z: np.ndarray, step: np.ndarray, num: int) -> tuple:
    """Chains (num, ...), and the share of proposals that were accepted."""
    chain, accepted, now = np.empty((num, *z.shape)), np.zeros(z.shape), log_p(z)
    for i in range(num):
        proposal = z + step * rng.normal(size=z.shape)
        then = log_p(proposal)
        yes = np.log(rng.uniform(size=z.shape)) < then - now
        z, now = np.where(yes, proposal, z), np.where(yes, then, now)
        chain[i], accepted = z, accepted + yes
    return chain, accepted / num


m, s = one.loc.item(), one.scale.item()
first = m + s * rng.normal(size=(len(lengths), 300))  # a row a step, a column a chain
chains, accepted = metropolis(norm(m, s).logpdf, first, s * lengths[:, None], 2000)
walks = pd.DataFrame(
    {"accepted": accepted.mean(1), "error": accepted.std(1) / 300**0.5,
     "exact": 2 / math.pi * np.arctan(2 / lengths),
     "draws that one is worth": s**2 / 2000 / chains.mean(0).var(1)},
    index=pd.Index(lengths, name="step (sd)"),
)  # fmt: skip
walks.round(4)

# %%
_, (left, right) = plt.subplots(1, 2, width_ratios=[1.2, 1])
for row, look in ((1, "C0"), (4, "C2"), (7, "C1")):
    shown = (chains[:400, row, 0] - m) / s
    left.plot(shown + 3 * row, look, lw=0.7, label=f"step {lengths[row]} sd")
left.set(xlabel="iteration", ylabel="z (sd), shifted", yticks=[], ylim=(-1, 28))
left.legend(fontsize=7, ncols=3, loc="upper center")
right.semilogx(lengths, walks["accepted"], "o", ms=4, label="accepted")
grid = np.geomspace(0.05, 80, 100)
right.semilogx(grid, 2 / math.pi * np.arctan(2 / grid), "k", lw=0.8, label="formula")
right.semilogx(lengths, walks["draws that one is worth"], "C1s-", ms=4, label="worth of a draw")
right.set(xlabel="step (sd)", ylim=(0, 1.05))
right.legend(fontsize=7)
plt.show()

# %%
# check: claim 45
z = (walks["accepted"] - walks["exact"]) / walks["error"]
assert z.abs().max() < 4
worth = walks["draws that one is worth"]
assert worth.idxmax() == 2.4  # the known best step in one dimension, of those tried
assert worth.iloc[0] < 0.02 * worth.max() and worth.iloc[-1] < 0.1 * worth.max()

# %% [markdown]
# ## Chains are autocorrelated, and slow (claim 46)
#
# Draws of a chain depend on each other. The mean of $n$ of them has the variance
#
# $$\frac{\sigma^2}{n} \tau, \qquad \tau = 1 + 2 \sum_{t=1}^{n} (1 - t / n) \, \rho_t,$$
#
# with the autocorrelations $\rho_t$. So $n$ draws are worth $n / \tau$, and an error bar that
# forgets this is too short by $\sqrt\tau$. One side from the autocorrelations within chains; the
# other from the spread of the means of many chains.

# %%
wanted_steps = [1, 2, 3, 4, 5, 6, 7]  # at the ends 2000 draws are too few to see tau
centred = (chains - m) / s
tau = {}
for row in wanted_steps:
    spectrum = np.abs(np.fft.rfft(centred[:, row].T, 4000)) ** 2
    rho = np.fft.irfft(spectrum)[:, :2000].mean(0) / np.arange(2000, 0, -1)
    last = int(np.argmax(rho < 0.01))  # beyond, there is noise
    tau[lengths[row]] = {
        "from autocorrelations": 1 + 2 * ((1 - np.arange(2000) / 2000) * rho)[1:last].sum(),
        "from means of chains": 2000 * centred[:, row].mean(0).var(),
        "rho": rho,
    }
tau = pd.DataFrame(tau).T.rename_axis("step (sd)")
tau.drop(columns="rho").astype(float).round(1)

# %% [markdown]
# Hamiltonian steps (NUTS) use the gradient, and go far. They have their own trouble with the step:
# a short one costs many gradients a draw; and beyond two standard deviations of the narrowest
# direction the leapfrog is unstable, and the chain stands still. Gradients are counted by the calls
# of the potential.

# %%
tight = torch.tensor([1.0, 0.3]).double()  # standard deviations of the target


def nuts(step: float) -> dict[str, float]:
    calls = 0

    def potential(at: dict[str, torch.Tensor]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return (at["z"] / tight).square().sum() / 2

    kernel = NUTS(
        potential_fn=potential, step_size=step, adapt_step_size=False, adapt_mass_matrix=False,
        max_tree_depth=6,
    )  # fmt: skip
    pyro.set_rng_seed(0)
    run = MCMC(kernel, num_samples=25, warmup_steps=0, disable_progbar=True,
               initial_params={"z": tight.clone()})  # fmt: skip
    run.run()
    z = run.get_samples()["z"]
    moved = (z.diff(dim=0).abs().sum(1) > 0).double().mean()
    return {"gradients a draw": calls / 25, "moved": moved.item(),
            "sd, over the target's": (z / tight).square().mean().sqrt().item()}  # fmt: skip


hamiltonian = pd.DataFrame({step: nuts(step) for step in (0.02, 0.1, 0.3, 0.6, 1.2, 2.4)}).T
hamiltonian.rename_axis("step").round(3)

# %%
_, (left, right) = plt.subplots(1, 2)
for step, look in ((0.3, "C0"), (2.4, "C2"), (12.0, "C1")):
    left.plot(tau.loc[step, "rho"][:100], look, label=f"step {step} sd")
left.axhline(0, color="k", lw=0.8)
left.set(xlabel="lag", ylabel="autocorrelation", title="Metropolis")
left.legend(fontsize=8)
right.loglog(hamiltonian["gradients a draw"], "o-", label="gradients a draw")
right.loglog(hamiltonian["moved"], "C1s-", label="share that moved")
right.axvline(0.6, color="k", ls="--", lw=0.8, label="2 sd of the narrowest")
right.set(xlabel="step", title="NUTS")
right.legend(fontsize=8)
plt.show()

# %%
# check: claim 46
both = tau.drop(columns="rho").astype(float)
ratio = both["from means of chains"] / both["from autocorrelations"]
assert (ratio - 1).abs().max() < 4 * (2 / 300) ** 0.5 + 0.05  # 300 means; 0.05 for the cut
assert both["from autocorrelations"].min() > 3  # the best step of all: a third of the draws
naive = math.sqrt(both.loc[0.3, "from means of chains"])  # how much too short its error bars are
assert naive > 4
assert hamiltonian.loc[0.02, "gradients a draw"] > 6 * hamiltonian.loc[0.3, "gradients a draw"]
assert hamiltonian.loc[0.3, "moved"] > 0.9 and hamiltonian.loc[2.4, "moved"] < 0.1

# %% [markdown]
# ## Variational inference beside Markov chains (claims 14, 48)
#
# A VAE learns a guide for all x at once, beside the model: after training the posterior of a new x
# costs one pass of a network. NUTS needs no guide, is exact in the long run, and starts anew for
# each x. With two latent dimensions a grid gives the truth for both. The data are digits in black
# and white; the posteriors are of 40 digits that were held out.

# %%
digits = pv.load_data("digits")
black, new = (digits.train > 0.5).float(), (digits.test[:40] > 0.5).float()
vae = pv.VAE((1, 8, 8), 2, likelihood="Bernoulli", encoder=pv.MLP([100, 100]),
             decoder=pv.MLP([50]), seed=0)  # fmt: skip
pv.fit(vae, black, epochs=20, batch_size=100, lr="cosine(8e-3)", seed=0, progress=False)
axis = torch.linspace(-4.5, 4.5, 151)
cells = torch.cartesian_prod(axis, axis)
with torch.no_grad():
    p, log_prior = vae.decode(cells), vae.prior().log_prob(cells)
    joint = torch.stack([p.log_prob(digit) + log_prior for digit in new], 1).double()
    guides = vae.encode(new)
    log_q = guides.log_prob(cells[:, None]).double()
    single = torch.stack([pv.elbo(vae, new, num_samples=1, seed=i) for i in range(80)]).double()
area = math.log(axis[1] - axis[0]) * 2
weight = joint.softmax(0)  # a column a digit
truth = (weight[..., None] * cells[:, None]).sum(0)
truth_sd = (weight[..., None] * (cells[:, None] - truth).square()).sum(0).sqrt()
log_p_z = joint - joint.logsumexp(0) - area
beside = pd.DataFrame(
    {"log p(x)": joint.logsumexp(0) + area,
     "KL": ((log_q.exp() * (log_q - log_p_z)).sum(0) * math.exp(area)),
     "shift": ((guides.mean - truth) / truth_sd).norm(dim=1),
     "sd ratio": (guides.stddev / truth_sd).mean(1),
     "ELBO": single.mean(0), "its error": single.std(0) / 80**0.5}
)  # fmt: skip
beside.describe().loc[["mean", "min", "50%", "max"]].round(3)

# %% [markdown]
# And NUTS for one of them, the one whose guide errs as the median does:

# %%
pick = int((beside["KL"] - beside["KL"].median()).abs().argmin())
draws = pv.posterior(vae, new[pick : pick + 1], num_samples=90, warmup=60, chains=2, seed=0)
chain = draws.posterior["z"].values[:, :, 0]  # chain, draw, dimension
three = pd.DataFrame(
    {
        "mean by grid": truth[pick], "by NUTS": chain.mean((0, 1)),
        "by the guide": guides.mean[pick].detach(), "sd by grid": truth_sd[pick],
        "sd by NUTS": chain.std((0, 1)), "sd by the guide": guides.stddev[pick].detach(),
    },
    index=["z_1", "z_2"],
)  # fmt: skip
three.round(4)

# %%
_, (left, right) = plt.subplots(1, 2)
square = weight[:, pick].reshape(151, 151)
left.contour(axis, axis, square.T, levels=5, linewidths=0.8, colors="k")
left.plot(*chain.reshape(-1, 2).T, "C0.", ms=2)
turn = np.linspace(0, 2 * math.pi, 100)
at, by = three["by the guide"].to_numpy(), three["sd by the guide"].to_numpy()
for k in (1, 2):
    left.plot(at[0] + k * by[0] * np.cos(turn), at[1] + k * by[1] * np.sin(turn), "C1", lw=1)
low, high = (truth[pick] + side * 4 * truth_sd[pick] for side in (-1, 1))
left.set(xlabel="$z_1$", ylabel="$z_2$", xlim=(low[0], high[0]), ylim=(low[1], high[1]),
         title="grid (black), NUTS (blue), guide")  # fmt: skip
right.errorbar(beside["KL"], beside["log p(x)"] - beside["ELBO"], 2 * beside["its error"], fmt=".")
right.plot([0, beside["KL"].max()], [0, beside["KL"].max()], "k", lw=0.8)
right.set(xlabel="KL(guide, posterior) by the grid (nats)", ylabel="log p(x) - ELBO (nats)")
plt.show()

# %%
# check: claims 14, 48
worth = np.array([float(arviz.ess(chain[:, :, i])) for i in range(2)])
off = (three["by NUTS"] - three["mean by grid"]) / three["sd by grid"] * worth**0.5
assert off.abs().max() < 4  # NUTS has the truth, within its error
assert (abs(three["sd by NUTS"] / three["sd by grid"] - 1) < 4 / np.sqrt(2 * worth)).all()
gap = beside["log p(x)"] - beside["ELBO"] - beside["KL"]
assert (gap / beside["its error"]).abs().max() < 4  # the guide's price, for each of the digits,
assert beside["KL"].median() < 1  # nats, of some twenty
assert beside["shift"].median() < 1  # and the guide is where the posterior is
assert np.corrcoef(guides.mean[:, 0].detach(), truth[:, 0])[0, 1] > 0.95

# %% [markdown]
# ## KL is not symmetric (claim 47)
#
# Variational inference minimizes $KL(q \,\|\, p)$: q must not be where p is not. Maximum likelihood
# minimizes $KL(p \,\|\, q)$: q must be wherever p is. For a target of two hills and a normal q, the
# first takes one hill, and there are two minima; the second has the mean and the variance of p.
# Both integrals are by quadrature.

# %%
line = np.linspace(-12, 12, 4001)
wide = line[1] - line[0]
log_p = np.logaddexp(math.log(0.6) + norm(-2, 0.5).logpdf(line),
                     math.log(0.4) + norm(2, 0.5).logpdf(line))  # fmt: skip
p = np.exp(log_p)


def kl_q_p(v: np.ndarray) -> float:
    log_q = norm(v[0], math.exp(v[1])).logpdf(line)
    return (np.exp(log_q) * (log_q - log_p)).sum() * wide


def kl_p_q(v: np.ndarray) -> float:
    return (p * (log_p - norm(v[0], math.exp(v[1])).logpdf(line))).sum() * wide


target_mean = 0.6 * -2 + 0.4 * 2
target_sd = math.sqrt(0.5**2 + 4 - target_mean**2)
rows = {}
for name, cost, begin in (("KL(q, p), from the left", kl_q_p, -3.0),
                          ("KL(q, p), from the right", kl_q_p, 3.0),
                          ("KL(p, q)", kl_p_q, 3.0)):  # fmt: skip
    found = minimize(
        cost, [begin, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12}
    )
    rows[name] = {"mean": found.x[0], "sd": math.exp(found.x[1]), "KL(q, p)": kl_q_p(found.x),
                  "KL(p, q)": kl_p_q(found.x)}  # fmt: skip
directions = pd.DataFrame(rows).T
directions.round(3)

# %% [markdown]
# The package says the same of the first. Let the target be a prior, and let an x be observed that
# does not depend on z: the posterior is the prior, and the ELBO is $\log p(x) - KL(q \,\|\, p)$.
# `fit` raises it.

# %%
weights, centres = torch.tensor([0.6, 0.4]), torch.tensor([-2.0, 2.0])
target = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(centres, 0.5))


def two_hills(x: torch.Tensor) -> None:
    pyro.sample("z", target)
    pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def one_normal(x: torch.Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(3.0))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    pyro.sample("z", dist.Normal(loc, scale))


pyro.clear_param_store()
program = pv.Program(two_hills, one_normal, torch.tensor(0.0), data=None)
pv.fit(program, estimator="Trace_ELBO(num_particles=50)", epochs=250, lr="cosine(0.1)", seed=0,
       progress=False)  # fmt: skip
single = torch.stack([pv.elbo(program, num_samples=50, seed=i)[0] for i in range(80)])
by_draws = norm.logpdf(0.0) - single.double()  # KL(q, p)
ended = {name: pyro.param(name).item() for name in ("loc", "scale")}
pd.Series(ended | {"KL(q, p)": by_draws.mean().item()}).round(3).to_frame("by pv.fit").T

# %%
_, ax = plt.subplots(figsize=(4.5, 2.8))
ax.fill_between(line, p, color="0.85", label="target")
for (name, row), look in zip(directions.iterrows(), ("C0", "C0--", "C1"), strict=True):
    ax.plot(line, norm(row["mean"], row["sd"]).pdf(line), look, label=name)
ax.set(xlabel="z", ylabel="density", xlim=(-5, 10), ylim=(0, 0.9))
ax.legend(fontsize=7)
plt.show()

# %%
# check: claim 47
forward, right_hill = directions.loc["KL(p, q)"], directions.loc["KL(q, p), from the right"]
assert abs(forward["mean"] - target_mean) < 1e-5 and abs(forward["sd"] - target_sd) < 1e-5
assert abs(right_hill["mean"] - 2) < 0.05 and abs(right_hill["sd"] - 0.5) < 0.05
assert abs(right_hill["KL(q, p)"] - math.log(1 / 0.4)) < 0.01  # all of p, had it one hill: -log 0.4
assert forward["KL(q, p)"] > 2 * right_hill["KL(q, p)"] / 3 and forward["KL(p, q)"] < 1
assert abs(ended["loc"] - right_hill["mean"]) < 0.05
at_end = kl_q_p(np.array([ended["loc"], math.log(ended["scale"])]))
assert abs(by_draws.mean().item() - at_end) < 4 * by_draws.std().item() / 80**0.5

# %% [markdown]
# ## What should have come out

# %%
wanted = pd.DataFrame(
    [
        ("identity on pPCA, off by", identity.max(), 0, 1e-11),
        ("EM by hand, less scikit-learn",
         steps["log-likelihood"].iloc[-1] - theirs.score(birds), 0, 1e-9),
        ("best scale of the guide, over the formula", splits["by the first"].idxmax(), 1, 1e-9),
        ("accepted by Metropolis at the best step", walks.loc[2.4, "accepted"],
         2 / math.pi * math.atan(2 / 2.4), 0.005),
        ("KL of one hill, in log 2.5", right_hill["KL(q, p)"] / math.log(2.5), 1, 0.01),
        ("NUTS' mean less the grid's, largest, in posterior sd",
         (abs(three["by NUTS"] - three["mean by grid"]) / three["sd by grid"]).max(), 0, 0.3),
    ],
    columns=["figure", "came out", "should be", "tolerance"],
).set_index("figure")  # fmt: skip
assert ((wanted["came out"] - wanted["should be"]).abs() <= wanted["tolerance"]).all()
wanted.map("{:.3g}".format)

# %% [markdown]
# ## If you come from mice, Stan or lme4
#
# Stan's `sample` is the NUTS of this notebook, and its `variational` fits one guide to one data
# set; a VAE learns a map from any x to its guide. Stan has no discrete parameters, for the reason
# of claim 6: it has you write the sum.
#
# ## Exercises
#
# The answers are tests, in `tests/course/test_02_elbo_and_em.py`.
#
# 1. Write the two steps of EM for a mixture of two exponential distributions. Show that the
#    likelihood does not fall, and that the end is a stationary point of it.
# 2. The target is a normal with correlation $\rho$, q has none. Which variances has the minimizer
#    of $KL(q \,\|\, p)$, and which that of $KL(p \,\|\, q)$?
# 3. The n hidden bits form a Markov chain, and each shows itself in one x. Sum over all of them
#    in a number of operations that is linear in n.
