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
# # A first look at `pyro_vae`
#
# A variational autoencoder (VAE) is a latent variable model with three distributions:
#
# * a **prior** $p(z)$,
# * a **likelihood** $p(x \mid z)$, whose parameters a network computes from $z$,
# * a **guide** $q(z \mid x)$, which approximates the posterior; a second network computes its
#   parameters from $x$.
#
# Both networks are trained on one objective, a lower bound on the log evidence (the ELBO):
#
# $$\log p(x) \;\ge\; E_{q(z \mid x)}[\log p(x \mid z)] - KL(q(z \mid x) \,\|\, p(z)).$$
#
# Here each choice is one line: the three distributions, and how the bound is estimated. This
# notebook fits a few models to small images, and then swaps first the likelihood and then the
# estimator. All figures are in **nats per observation**, and higher is better. It runs in about a
# minute on two cores.

# %%
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # Pyro asks for ipywidgets

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO

import pyro_vae as pv

# %% [markdown]
# ## The data
#
# scikit-learn's digits are 1,797 handwritten digits. Each was scanned as a bitmap of 32x32 black
# and white points, and each of the 8x8 pixels **counts** the black points in a block of 4x4. So a
# pixel is a whole number from 0 to 16. `load_data` gives grey values in [0, 1] and holds a tenth
# out. We go back to the counts.

# %%
data = pv.load_data("digits")
x, x_test = (data.train * 16).round(), (data.test * 16).round()
x.shape, x_test.shape, x.unique().int().tolist()

# %%
ax = pv.plots.images(x[:24], columns=12, title="The first 24 digits")
# %% [markdown]
# ## A VAE in a line
#
# Counts with a known maximum ask for a binomial likelihood. The success probability of each pixel
# is not named, so it is an output of the decoder. The prior and the guide are normal unless we say
# otherwise, and both networks have two hidden layers.

# %%
vae = pv.VAE((1, 8, 8), latent_dim=8, likelihood="Binomial(total_count=16)", seed=0)
vae.describe()

# %% [markdown]
# ## Fit
#
# `fit` runs Pyro's own `SVI`. It holds a tenth of the training data out for the learning curves.
# `"cosine(2e-3)"` is a learning rate that falls from 0.002 to 0.

# %%
fit = pv.fit(
    vae, x, epochs=40, batch_size=100, lr="cosine(2e-3)", validation=0.1, seed=0, progress=False
)
fit.history.drop(columns="seconds").iloc[[0, 9, 19, 29, 39]].round(4)

# %% [markdown]
# `history` has a row per epoch. `log_likelihood` and `kl` are the two terms of the ELBO on the
# validation data, and `loss` is what was minimized. The gap between the two curves below is what
# the model has overfitted.

# %%
ax = pv.plots.learning_curves(fit.history)
# %% [markdown]
# ## What it learned
#
# Held-out digits, and the mean of $p(x \mid z)$ at the mean of $q(z \mid x)$:

# %%
ax = pv.plots.reconstructions(vae, x_test[:24])
# %% [markdown]
# Means of $p(x \mid z)$ for 50 draws of $z$ from the prior. Some are no digits: the prior has mass
# where the guide put no data.

# %%
ax = pv.plots.samples(vae, 50, seed=0)
# %% [markdown]
# The latent space has 8 dimensions; these are the first two principal components of the guide's
# means. The labels were not used in training.

# %%
ax = pv.plots.latent_space(vae, x, data.train_labels)

# %% [markdown]
# ## The ELBO of each observation
#
# `elbo` gives one value per observation, so its mean comes with a standard error. That error is
# over the test data: it says nothing of how the figure varies with the seed of the training.


# %%
def mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    """The mean over data, and its standard error."""
    return values.mean().item(), values.std().item() / len(values) ** 0.5


binomial = pv.elbo(vae, x_test, num_samples=10, seed=0)
mean, error = mean_and_error(binomial)
print(f"{tuple(binomial.shape)} values; ELBO {mean:.1f} +- {error:.1f} nats per observation")

# %% [markdown]
# The data that the model finds least likely are worth a look:

# %%
ax = pv.plots.images(x_test[binomial.argsort()[:12]], columns=12, title="The 12 lowest ELBOs")
# %% [markdown]
# ## Another likelihood
#
# The binomial ties the variance of a pixel to its mean. Neighbouring points of the bitmap are black
# together, so the counts should vary more than that. A beta-binomial has one parameter more per
# pixel for it. Swapping the likelihood is one word; the Poisson and the negative binomial, which do
# not know of the maximum of 16, are there for comparison.

# %%
LIKELIHOODS = [
    "Binomial(total_count=16)",
    "BetaBinomial(total_count=16)",
    "NegativeBinomial(total_count=learned)",
    "Poisson",
]


def train(likelihood: str, x: torch.Tensor, **options: object) -> pv.Fit:
    """A model trained from the same start and in the same order as all others here."""
    model = pv.VAE((1, 8, 8), latent_dim=8, likelihood=likelihood, seed=0)
    options = {"epochs": 30, "lr": "cosine(2e-3)", "validation": 0.1, "seed": 0} | options
    return pv.fit(model, x, progress=False, **options)


fits = {line: train(line, x) for line in LIKELIHOODS}
bounds = {line: pv.elbo(f.vae, x_test, num_samples=10, seed=0) for line, f in fits.items()}

pd.DataFrame(
    {line: (*mean_and_error(bounds[line]), f.history.kl.iloc[-1]) for line, f in fits.items()},
    index=["test ELBO", "standard error", "KL (validation)"],
).T.round(1)

# %% [markdown]
# All four are probabilities of the same counts, so their ELBOs may be compared. The data are also
# the same, so the comparison is a paired one, and the error of a difference is smaller than the
# errors above suggest. Thirty epochs are few: this compares the models at equal effort, not at
# their best.

# %%
difference = bounds["BetaBinomial(total_count=16)"] - bounds["Binomial(total_count=16)"]
mean, error = mean_and_error(difference)
print(f"beta-binomial over binomial: {mean:.1f} +- {error:.1f} nats per observation")

# %% [markdown]
# Below is how often each count occurs in the data, and in draws from each model: `sample` draws
# $z$ from the prior and then $x$ from the likelihood. Only the beta-binomial makes nearly as many
# pixels all black as there are. The Poisson and the negative binomial also spend mass on counts
# above 16, which cannot be.

# %%
values = np.arange(17)
_, ax = plt.subplots(figsize=(7, 3.4))
share = [(x == k).float().mean() for k in values]
ax.bar(values, share, color="0.85", label="data")
for line in LIKELIHOODS:
    drawn = fits[line].vae.sample(2000, seed=0)
    ax.plot(values, [(drawn == k).float().mean() for k in values], marker=".", label=line)
ax.set(xlabel="count", ylabel="share of pixels", yscale="log", title="Counts, by likelihood")
ax.set_xticks(values)
ax.legend(frameon=False, fontsize=8)
plt.show()
# %% [markdown]
# ### Units
#
# We may also treat a pixel as a grey value in [0, 1] and give it a density. The ELBO is then a
# bound on a **log density**, and it may be positive.

# %%
DENSITIES = ["ContinuousBernoulli", "Normal(scale=learned(0.2))"]
grey, grey_test = x / 16, x_test / 16
grey_fits = {line: train(line, grey) for line in DENSITIES}
pd.DataFrame(
    {
        line: mean_and_error(pv.elbo(f.vae, grey_test, num_samples=10, seed=0))
        for line, f in grey_fits.items()
    },
    index=["test ELBO", "standard error"],
).T.round(1)

# %% [markdown]
# **These figures do not compare with those above.** A density is per unit of $x$: measured in
# counts, the same two models would score lower by $64 \log 16 = 177.4$ nats. And a density is not a
# probability: as scikit-learn's greys have only 17 values, a density could rise without bound on
# them. The two densities compare with each other, as they are densities of the same variable in
# the same units, with one reservation: the normal also spends mass outside [0, 1].
#
# The `0.2` is where the learned scale starts. Its usual start is 1, so wide for grey values that
# the noise explains the data, and the model may leave $z$ unused.

# %% [markdown]
# ## Another estimator
#
# An estimator is a bound and a rule for its gradient. We train the beta-binomial from the same
# weights and in the same order with four of them:
#
# * `Trace_ELBO`: the ELBO, with pathwise (reparameterized) gradients;
# * `TraceMeanField_ELBO`: the same, with the KL in closed form;
# * `RenyiELBO(alpha=0, num_particles=5)`: the importance-weighted bound, which is tighter;
# * `TraceGraph_ELBO(gradient=score, baseline=neural)`: the ELBO, with score-function gradients and
#   a network as baseline. It needs no reparameterization, as a discrete $z$ would require.

# %%
ESTIMATORS = [
    "Trace_ELBO",
    "TraceMeanField_ELBO",
    "RenyiELBO(alpha=0, num_particles=5)",
    "TraceGraph_ELBO(gradient=score, baseline=neural)",
]
LIKELIHOOD = "BetaBinomial(total_count=16)"
runs = {line: train(LIKELIHOOD, x, estimator=line) for line in ESTIMATORS}
bounds = {line: pv.elbo(run.vae, x_test, num_samples=10, seed=0) for line, run in runs.items()}

pd.DataFrame(
    {
        line: (
            *mean_and_error(bounds[line]),
            *mean_and_error(bounds[line] - bounds["Trace_ELBO"]),
            run.history.seconds.iloc[-1],
        )
        for line, run in runs.items()
    },
    index=["test ELBO", "standard error", "minus Trace_ELBO", "its error", "seconds"],
).T.round(1)

# %%
_, ax = plt.subplots(figsize=(7, 3.4))
for line, run in runs.items():
    ax.plot(run.history.index, run.history.elbo_validation, label=line)
ax.set(xlabel="epoch", ylabel="ELBO (nats per observation)", title="Validation ELBO, by estimator")
ax.set_ylim(-145, -88)
ax.grid(alpha=0.3)
ax.legend(frameon=False, fontsize=8, loc="lower right")
plt.show()
# %% [markdown]
# All four are judged by the ELBO here. That is the objective of three of them. The
# importance-weighted bound trains the guide for another purpose, so its ELBO undersells it; a fair
# judge would be an estimate of $\log p(x)$. The score-function gradient is as unbiased as the
# pathwise one, but noisier, and with a few hundred steps the noise is what one sees. Differences of
# a nat between the first three are one training run each: other seeds may order them otherwise.

# %% [markdown]
# ## Model and guide are ordinary Pyro functions
#
# `vae.model` and `vae.guide` are what they would be if you had written them with `pyro.sample`. So
# everything in Pyro works on them. A trace shows the sites and their shapes, batch on the left and
# event on the right of the bar:

# %%
best = runs["Trace_ELBO"].vae
trace = poutine.trace(best.model).get_trace(x_test[:5])
trace.compute_log_prob()
print(trace.format_shapes())

# %% [markdown]
# `Predictive` gives a posterior predictive check. For each test digit, draw $z$ from the guide and
# a replicate of $x$ from the likelihood, and ask whether the total ink of the digit lies in the
# central 90 % of the replicates:

# %%
pyro.set_rng_seed(0)
replicate = Predictive(poutine.uncondition(best.model), guide=best.guide, num_samples=200)
with torch.no_grad():
    draws = replicate(x_test)["x"]
ink, ink_draws = x_test.sum((1, 2, 3)), draws.sum((2, 3, 4))
low, high = ink_draws.quantile(torch.tensor([0.05, 0.95]), dim=0)
inside = ((low <= ink) & (ink <= high)).float().mean()
print(f"replicates {tuple(draws.shape)}; {inside:.0%} of the digits lie in the central 90 %")

# %% [markdown]
# The share is below 90 %: the model is too sure of the total. Given $z$ its pixels are independent,
# and the guide may be too narrow; this check does not tell the two apart.
#
# `fit` is a convenience. A loop by hand needs nothing of this package but the model. Pyro's
# parameter store is global, so we clear it before another model registers there:

# %%
pyro.clear_param_store()
pyro.set_rng_seed(0)
mine = pv.VAE((1, 8, 8), latent_dim=8, likelihood=LIKELIHOOD, seed=0)
svi = SVI(mine.model, mine.guide, pyro.optim.Adam({"lr": 2e-3}), Trace_ELBO())
for epoch in range(3):
    losses = [svi.step(batch) for batch in x[torch.randperm(len(x))].split(100)]
    print(f"epoch {epoch + 1}: loss {sum(losses) / len(x):.1f} nats per observation")

# %% [markdown]
# ## Keep it
#
# A model is saved as its weights and a readable description; nothing is pickled.

# %%
import tempfile

with tempfile.TemporaryDirectory() as folder:
    best.save(folder)
    again = pv.load(folder)
torch.equal(pv.elbo(again, x_test, seed=0), pv.elbo(best, x_test, seed=0))

# %% [markdown]
# The same model from the command line, with its settings, history, figures and pictures in a run
# folder, for counts that you saved with `np.save("counts.npy", x)`:
#
# ```
# pyro-vae fit counts.npy --likelihood "BetaBinomial(total_count=16)" --latent-dim 8 --epochs 30
# ```
