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
# # The classical autoencoders, as points of one language
#
# An autoencoder maps x to a code z and back, and is trained to lose little on the way. PCA, the
# sparse, the denoising and the contractive autoencoder are of this kind; so is, with a grain of
# salt, a mixture model. Each of them is a variational autoencoder with some of its parts at an
# extreme: a **guide** $q(z \mid x)$ that is a point, a **prior** $p(z)$ that is flat or sharp,
# networks that are linear. Here each is said in that language, trained, and held against an
# answer that is known by other means.

# %%
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # Pyro asks for ipywidgets

import math
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.linalg import subspace_angles
from sklearn.datasets import load_wine, make_blobs
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

import pyro_vae as pv
from pyro_vae.infer import Contractive

# %% [markdown]
# ## A point for a guide
#
# The negative ELBO has two terms, $-E_{q}[\log p(x \mid z)]$ and the KL. Let q be a point
# (`guide="Delta"`): the first term is the cost of the reconstruction, and the second becomes
# $-\log p(z)$, a penalty on the code. Give it no weight (`beta=0`), and what is left is an
# autoencoder. With `likelihood="Normal(scale=0.7071)"`, whose variance is one half, the cost is the
# squared error (and a constant).
#
# The data are 178 wines: 13 chemical measurements of each, standardized.

# %%
wine = torch.tensor(StandardScaler().fit_transform(load_wine().data)).float()


def autoencoder(x: torch.Tensor, latent_dim: int, epochs: int = 400, **parts: object) -> pv.VAE:
    """An autoencoder with linear maps, unless ``parts`` say otherwise."""
    fitted = {key: parts.pop(key) for key in ("beta", "lr", "batch_size") if key in parts}
    said = {"guide": "Delta", "likelihood": f"Normal(scale={math.sqrt(0.5)})", "seed": 0}
    said |= {"encoder": pv.MLP([]), "decoder": pv.MLP([])} | parts
    vae = pv.VAE(x.shape[1], latent_dim, **said)
    told = {"beta": 0.0, "lr": "cosine(0.02)", "batch_size": len(x)} | fitted
    pv.fit(vae, x, epochs=epochs, progress=False, seed=0, **told)
    return vae


def error(vae: pv.VAE, x: torch.Tensor) -> float:
    """Squared error of the reconstruction, per observation."""
    return (vae.reconstruct(x) - x).square().sum(1).mean().item()


# %% [markdown]
# ## Linear maps: PCA
#
# With linear maps the best that can be done is to project onto the principal subspace (Baldi &
# Hornik 1989). So the error of the autoencoder is PCA's, and the columns of its decoder span PCA's
# subspace, though they need not be its axes: any invertible map between encoder and decoder
# cancels.

# %%
rows = {}
for latent_dim in (1, 2, 3):
    linear, pca = autoencoder(wine, latent_dim), PCA(latent_dim).fit(wine)
    projected = pca.inverse_transform(pca.transform(wine))
    decoder = linear.likelihood.sources["loc"].head.weight.detach()
    rows[latent_dim] = {
        "error of the autoencoder": error(linear, wine),
        "error of PCA": ((wine.numpy() - projected) ** 2).sum(1).mean(),
        "largest angle (degrees)": np.degrees(subspace_angles(decoder, pca.components_.T)).max(),
    }
pd.DataFrame(rows).T.rename_axis("dimensions of z").round(3)

# %% [markdown]
# ## From a point to a distribution: probabilistic PCA
#
# Now let the guide be normal again and the scale of the likelihood be learned: the same maps are a
# *linear VAE*. Its optimum is known in closed form (Tipping & Bishop 1999; Lucas et al. 2019,
# arXiv:1911.02469): the model is probabilistic PCA, the variance $\sigma^2$ is the mean of the
# discarded eigenvalues, and the ELBO is the log-likelihood itself, for the posterior is normal and
# its variance is the same for every x.

# %%
ppca = PCA(2).fit(wine)
vae = pv.VAE(13, 2, likelihood="Normal(scale=learned)", guide="Normal(scale=learned)",
             encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0)  # fmt: skip
pv.fit(
    vae, wine, estimator="TraceMeanField_ELBO(num_particles=16)", epochs=400,
    batch_size=len(wine), lr="cosine(0.03)", seed=0, progress=False,
)  # fmt: skip
scale = vae.decode(torch.zeros(1, 2)).base_dist.scale[0, 0].item()
pd.DataFrame(
    {
        "linear VAE": [pv.elbo(vae, wine, num_samples=400, seed=0).mean().item(), scale**2],
        "probabilistic PCA": [ppca.score(wine), ppca.noise_variance_ * 177 / 178],
    },
    index=["log p(x), or its bound (nats per observation)", "variance of the noise"],
).round(3)

# %% [markdown]
# Only the second can say what a wine costs in nats, which wines are unlikely, and how sure a code
# is. The autoencoder has an error and no more; that is what the guide's variance, and the KL, buy.
#
# ## Hidden layers
#
# With hidden layers the codes may lie on a curved surface. Here are scikit-learn's digits in two
# dimensions: PCA, an autoencoder, and the VAE that differs from it in the guide alone.

# %%
digits = pv.load_data("digits")
x, labels = digits.train.flatten(1), digits.train_labels
told = {"likelihood": "Normal(scale=0.2)", "batch_size": 100, "epochs": 80, "lr": "cosine(5e-3)"}
deep = {"encoder": "MLP([100])", "decoder": "MLP([100])"}
models = {
    "PCA": autoencoder(x, 2, **told),
    "autoencoder": autoencoder(x, 2, **told, **deep),
    "VAE": autoencoder(x, 2, **told, **deep, guide="Normal", beta=1.0),
}
_, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
for ax, (name, model) in zip(axes, models.items(), strict=True):
    z = model.encode(x).mean.detach()
    ax.scatter(*z.T, c=labels, cmap="tab10", s=4)
    ax.add_patch(plt.Circle((0, 0), 2, fill=False, linestyle="--"))
    ax.set(title=f"{name}: squared error {error(model, x):.2f}", aspect="equal")
plt.show()

# %% [markdown]
# The dashed circle holds 86 % of $N(0, I)$. Nothing asks where an autoencoder puts its codes; that
# they are of this size is the luck of the first weights. The VAE pays for each code in nats against
# $N(0, I)$: its codes fill that distribution, kinds of digits lie side by side with fewer gaps, and
# the price is an error slightly higher. What it buys is a model to draw from, and a bound on
# $\log p(x)$.
#
# ## Sparse: a Laplace prior
#
# Keep the point, and give the prior its weight back: the penalty $-\log p(z)$ of a Laplace prior is
# the L1 norm of the code, and codes gather at zero. The data are sums of 6 directions in 12
# dimensions, each present in a fifth of the data.

# %%
generator = torch.Generator().manual_seed(0)
atoms = torch.randn(6, 12, generator=generator)
present = torch.rand(600, 6, generator=generator) < 0.2
mixed = (present * torch.randn(600, 6, generator=generator)) @ atoms
codes = {}
for prior, beta in {"Laplace(scale=0.5)": 1.0, "Normal": 0.0}.items():
    model = autoencoder(mixed, 6, prior=prior, beta=beta, encoder=pv.MLP([50]))
    z = model.encode(mixed).mean.detach()
    codes[prior if beta else "no penalty"] = (z / z.std(0)).flatten()
_, ax = plt.subplots(figsize=(7, 3))
for name, z in codes.items():
    near = (z.abs() < 0.1).float().mean()
    ax.hist(z, bins=np.linspace(-3, 3, 121), histtype="step", density=True,
            label=f"{name}: {near:.0%} within a tenth")  # fmt: skip
ax.set(xlabel="code, in standard deviations", ylabel="density", yscale="log")
ax.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# ## Denoising: the encoder sees less
#
# `Corrupted(...)` gives the encoder x with noise while it trains, and the model is still asked for
# the clean x. The best answer is the mean of x given its noisy version; for small noise of variance
# $s^2$ it differs from the input by $s^2 \nabla \log p(x)$ (Alain & Bengio 2014,
# arXiv:1211.4246). So the arrows from x to its reconstruction point to where the data are: here, a
# circle.

# %%
angle = torch.rand(1000, generator=generator) * 2 * math.pi
circle = torch.stack([angle.cos(), angle.sin()], 1)
wide = {"encoder": "MLP([60, 60], activation=Tanh)", "decoder": "MLP([60], activation=Tanh)"}
noise = 0.3
wide["encoder"] = f"Corrupted({wide['encoder']}, noise={noise})"
denoiser = autoencoder(circle.repeat(4, 1), 2, 400, **wide, lr="cosine(0.01)")
denoiser.eval()  # reads x as it is
grid = torch.cartesian_prod(*[torch.linspace(-1.5, 1.5, 15)] * 2)
step = (denoiser.reconstruct(grid) - grid).detach()
_, ax = plt.subplots(figsize=(4.6, 4.6))
ax.scatter(*circle[:300].T, s=3, color="C1")
ax.quiver(*grid.T, *step.T, angles="xy", scale_units="xy", scale=1, width=0.003)
ax.set(aspect="equal", title="From x to its reconstruction; orange: data")
plt.show()

# %% [markdown]
# The mean of x given its noisy version can be computed here: it is a weighted mean of the data,
# with the weights of the noise. On noisy data the autoencoder should come near it.

# %%
noisy = circle[:300] + noise * torch.randn(300, 2, generator=generator)
weights = (-(noisy[:, None] - circle).square().sum(2) / (2 * noise**2)).softmax(1)
best = weights @ circle
rebuilt = denoiser.reconstruct(noisy).detach()
for name, guess in {"as it is": noisy, "autoencoder": rebuilt, "best possible": best}.items():
    print(f"{name:14} squared error {(guess - circle[:300]).square().sum(1).mean():.3f}")

# %% [markdown]
# ## Contractive: a code that moves little
#
# A handler adds a term to whatever ELBO trains the model: `Contractive(0.1)(vae.guide)` penalizes
# the squared norm of the Jacobian of the code (Rifai et al. 2011). A code that ignores x would be
# the flattest of all, and the reconstruction forbids it; so the code stays sensitive along the
# data, and goes flat across them. On the circle:


# %%
class ContractiveVAE(pv.VAE):
    """A VAE whose guide carries the penalty."""

    weight = 0.0

    def guide(self, x: torch.Tensor) -> torch.Tensor:
        return Contractive(self.weight)(super().guide)(x)


rows = {}
for weight in (0.0, 0.01, 0.1):
    flat = ContractiveVAE(2, 2, likelihood=f"Normal(scale={math.sqrt(0.5)})", guide="Delta",
                          encoder="MLP([60], activation=Tanh)", decoder="MLP([60])",
                          seed=0)  # fmt: skip
    flat.weight = weight
    pv.fit(flat, circle, epochs=150, batch_size=100, lr="cosine(5e-3)", beta=0.0, seed=0,
           progress=False)  # fmt: skip
    code = partial(lambda vae, one: vae.approximate_posterior(one[None]).mean[0], flat)
    jacobian = torch.func.vmap(torch.func.jacrev(code))(circle).detach()
    along = torch.stack([-angle.sin(), angle.cos()], 1)
    rows[weight] = {
        "along the circle": torch.einsum("nij,nj->ni", jacobian, along).norm(dim=1).mean().item(),
        "across it": torch.einsum("nij,nj->ni", jacobian, circle).norm(dim=1).mean().item(),
        "squared error": error(flat, circle),
    }
pd.DataFrame(rows).T.rename_axis("weight").round(4)

# %% [markdown]
# ## A mixture: a category for a code
#
# Let z be a category, and the guide too. Enumeration sums over its values, so there is nothing to
# sample, and the ELBO is the very bound that the EM algorithm raises. `decoder=MLP([])` gives each
# category its own mean and scale. EM of scikit-learn's beside it, on the same data:

# %%
blobs, _ = make_blobs(400, centers=3, n_features=2, cluster_std=[0.5, 1.0, 1.5], random_state=3)
blobs = torch.tensor(StandardScaler().fit_transform(blobs)).float()
em = GaussianMixture(3, covariance_type="diag", n_init=5, random_state=0, tol=1e-8).fit(blobs)
mixture = pv.VAE(
    2, 1, prior="Categorical(categories=3, logits=learned)", likelihood="Normal",
    guide="Categorical(categories=3)", encoder=pv.MLP([50], activation="Tanh"),
    decoder=pv.MLP([]), seed=0,
)  # fmt: skip
pv.fit(mixture, blobs, estimator="TraceEnum_ELBO", epochs=150, batch_size=100, lr="cosine(0.03)",
       seed=0, progress=False)  # fmt: skip
parts = mixture.decode(torch.arange(3.0).reshape(3, 1)).base_dist
joint = mixture.decode(torch.arange(3.0).reshape(3, 1)).log_prob(blobs[:, None])
joint = (joint + mixture.prior().base_dist.logits.log_softmax(-1)).detach()
print(f"log-likelihood, mean: EM {em.score(blobs):.4f}, VAE {joint.logsumexp(1).mean():.4f}")

# %%
_, ax = plt.subplots(figsize=(5, 4))
ax.scatter(*blobs.T, c=joint.softmax(1).numpy(), s=6)
turn = torch.linspace(0, 2 * math.pi, 100)
for loc, spread, low, wide in zip(parts.loc.detach(), parts.scale.detach(), em.means_,
                                  em.covariances_**0.5, strict=True):  # fmt: skip
    for at, s, look in ((loc, spread, {"lw": 4, "alpha": 0.3}), (low, wide, {"ls": ":"})):
        ax.plot(at[0] + 2 * s[0] * turn.cos(), at[1] + 2 * s[1] * turn.sin(), "k", **look)
ax.set(aspect="equal", title="Two standard deviations: VAE (grey), EM (dotted)")
plt.show()

# %% [markdown]
# ## The map
#
# | | guide | prior | networks | trained with |
# |---|---|---|---|---|
# | PCA | point | flat | linear | `beta=0` |
# | probabilistic PCA | normal | normal | linear | the ELBO |
# | autoencoder | point | flat | any | `beta=0` |
# | sparse autoencoder | point | Laplace | any | the ELBO |
# | denoising autoencoder | point | flat | `Corrupted(...)` | `beta=0` |
# | contractive autoencoder | point | flat | any | `Contractive(...)` |
# | Gaussian mixture | category | category | linear decoder | the ELBO, enumerated |
# | VAE | any | any | any | any estimator |
#
# The last row is what the package is for: [quickstart](quickstart.ipynb) begins there.
