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
# # Autoencoders, and which of them is a model
#
# An autoencoder maps x to a code z and back, and is trained to lose little on the way. PCA, the
# sparse, the denoising and the contractive autoencoder are of this kind. Each of them is a
# variational autoencoder with some of its parts at an extreme: a **guide** $q(z \mid x)$ that is a
# point, a **prior** $p(z)$ that is flat or sharp, networks that are linear. Here each is said in
# that language, trained, and held against an answer that is known by other means.
#
# ## You will be able to
#
# - say PCA, probabilistic PCA and the classical autoencoders in one line each;
# - tell what each one's known answer is, and check a trained one against it;
# - say why a small error makes no model to draw from, and what the KL term does about it.

# %%
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # Pyro asks for ipywidgets

import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from pyro.infer import Trace_ELBO
from scipy.linalg import subspace_angles
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.linear_model import Lasso, Ridge
from sklearn.preprocessing import StandardScaler
from torch.autograd.functional import hessian, jacobian
from torch.distributions import kl_divergence

import pyro_vae as pv

# %%
plt.rcParams.update({
    "figure.figsize": (7, 2.8), "figure.dpi": 100, "figure.constrained_layout.use": True,
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
})  # fmt: skip

# %% [markdown]
# ## Squared error is a likelihood (claim 18)
#
# The negative ELBO has two terms, $-E_{q}[\log p(x \mid z)]$ and the KL. Let q be a point
# (`guide="Delta"`): the first term is the cost of the reconstruction $\hat x$, and the second
# becomes $-\log p(z)$, a penalty on the code. Give it no weight (`beta=0`), and what is left is an
# autoencoder. With a normal likelihood of $D$ columns and scale $\sigma$,
#
# $$-\log p(x \mid z) = \frac{\|x - \hat x\|^2}{2 \sigma^2} + \frac D2 \log 2 \pi \sigma^2 .$$
#
# With $\sigma^2 = \frac12$ the cost is the squared error and a constant. If $\sigma$ is learned, it
# ends at the root mean squared error. The data are 178 wines: 13 chemical measurements,
# standardized.

# %%
wine = torch.tensor(StandardScaler().fit_transform(load_wine().data)).float()


def autoencoder(x: torch.Tensor, latent_dim: int, epochs: int = 150, **parts: object) -> pv.VAE:
    """An autoencoder with linear maps, unless ``parts`` say otherwise."""
    told = {"beta": 0.0, "lr": "cosine(0.06)", "batch_size": len(x)}
    told |= {key: parts.pop(key) for key in ("beta", "lr", "batch_size", "callbacks", "estimator")
             if key in parts}  # fmt: skip
    said = {"guide": "Delta", "likelihood": f"Normal(scale={math.sqrt(0.5)})", "seed": 0}
    said |= {"encoder": pv.MLP([]), "decoder": pv.MLP([]), "inputs": "raw"} | parts
    vae = pv.VAE(x.shape[1], latent_dim, **said)
    if told["batch_size"] == len(x):  # all data in each step, evaluated after every fifth
        x, epochs, told = itertools.repeat(x), epochs // 5, told | {"steps_per_epoch": 5}
    vae.history = pv.fit(vae, x, epochs=epochs, progress=False, seed=0, **told).history
    return vae


def errors(vae: pv.VAE, x: torch.Tensor) -> torch.Tensor:
    """Squared error of the reconstruction, of each observation."""
    return (vae.reconstruct(x) - x).square().sum(1).detach()


def decoder(vae: pv.VAE) -> torch.Tensor:
    """The matrix of a linear decoder."""
    return vae.likelihood.sources["loc"].head.weight.detach()


learned = autoencoder(wine, 2, likelihood="Normal(scale=learned)")
p = learned.decode(learned.encode(wine).mean)
squared, scale = errors(learned, wine), p.base_dist.scale[0].detach()
formula = squared / (2 * scale[0] ** 2) + 13 / 2 * math.log(2 * math.pi * scale[0] ** 2)
pd.Series(
    {
        "learned scale squared": scale[0].item() ** 2,
        "mean squared error": squared.mean().item() / 13,
        "PCA's": (1 - PCA(2).fit(wine).explained_variance_ratio_.sum()),
    }
).round(4).to_frame().T

# %%
_, (left, right) = plt.subplots(1, 2)
left.plot(squared, -p.log_prob(wine).detach(), ".", ms=4, label="minus log-likelihood")
left.plot(squared, formula, "k", lw=0.8, label="formula")
left.set(xlabel=r"$\|x - \hat x\|^2$", ylabel="cost (nats)")
left.legend()
grid = np.linspace(0.45, 1.2, 100)
right.plot(grid, squared.mean().item() / (2 * grid**2) + 13 / 2 * np.log(2 * math.pi * grid**2))
right.axvline(
    math.sqrt(squared.mean().item() / 13), color="k", ls="--", lw=0.8, label="root mean error"
)
right.plot(scale[0], formula.mean(), "C1o", label="learned")
right.set(xlabel=r"$\sigma$", ylabel="mean cost (nats per wine)")
right.legend()
plt.show()

# %%
# check: claim 18
assert (formula + p.log_prob(wine)).abs().max() < 1e-4
assert abs(scale[0].item() ** 2 / (squared.mean().item() / 13) - 1) < 0.01
slope = np.polyfit(squared, -p.log_prob(wine).detach(), 1)[0]  # by another way
assert abs(slope * 2 * scale[0].item() ** 2 - 1) < 1e-4

# %% [markdown]
# ## A linear autoencoder is PCA, and has no bad minima (claims 15, 22)
#
# With linear maps the best that can be done is to project onto the principal subspace (Baldi &
# Hornik 1989). So the error is PCA's, and the columns of the decoder span PCA's subspace, though
# they need not be its axes: any invertible map between encoder and decoder cancels. Moreover each
# stationary point is the projection onto *some* of the principal axes, and all but the best are
# saddles: there, some direction goes down. We train from several starts, and compute slope and
# curvature at every choice of two axes out of five columns.

# %%
rows, linear = {}, {}
for latent_dim, seed in ((1, 0), (3, 0), (2, 0), (2, 1)):
    vae, pca = autoencoder(wine, latent_dim, seed=seed), PCA(latent_dim).fit(wine)
    projected = pca.inverse_transform(pca.transform(wine))
    linear[latent_dim, seed] = vae
    rows[latent_dim, seed] = {
        "error": errors(vae, wine).mean().item(),
        "of PCA": ((wine.numpy() - projected) ** 2).sum(1).mean(),
        "largest angle (degrees)": np.degrees(subspace_angles(decoder(vae), pca.components_.T)[0]),
    }
beside_pca = pd.DataFrame(rows).T.rename_axis(["dimensions of z", "start"])
beside_pca.round(4)

# %%
S = torch.cov(wine[:, :5].T.double(), correction=0)
values, axes_of_s = torch.linalg.eigh(S)


def loss(maps: torch.Tensor) -> torch.Tensor:
    """Mean squared error of x -> B A x, as a function of all numbers in A and B."""
    A, B = maps[:10].reshape(2, 5), maps[10:].reshape(5, 2)
    rest = torch.eye(5).double() - B @ A
    return (rest @ S @ rest.T).trace()


rows = {}
for chosen in itertools.combinations(range(5), 2):
    U = axes_of_s[:, list(chosen)]
    at = torch.cat([U.T.flatten(), U.flatten()])
    rows[tuple(5 - i for i in chosen[::-1])] = {
        "error": loss(at).item(),
        "largest slope": jacobian(loss, at).abs().max().item(),
        "least curvature": torch.linalg.eigvalsh(hessian(loss, at))[0].item(),
    }
stationary = pd.DataFrame(rows).T.rename_axis(["axis", "and axis"]).sort_values("error")
stationary.round(4)

# %%
_, (left, right) = plt.subplots(1, 2)
for seed in range(2):
    found = -linear[2, seed].history["log_likelihood"] - 13 / 2 * math.log(math.pi)
    left.semilogy(found - beside_pca.loc[(2, seed), "of PCA"] + 1e-6, lw=1, label=f"start {seed}")
left.set(xlabel="epoch of 5 steps", ylabel="error, less PCA's", title="two dimensions of z")
left.legend(fontsize=8)
right.plot(stationary["error"], stationary["least curvature"], "o", ms=4)
right.plot(*stationary.iloc[0][["error", "least curvature"]], "C1o", label="principal axes")
right.axhline(0, color="k", lw=0.8)
right.set(xlabel="error", ylabel="least curvature", title="all stationary points")
right.legend()
plt.show()

# %%
# check: claims 15, 22
assert (beside_pca["error"] - beside_pca["of PCA"]).abs().max() < 1e-3  # from every start
assert (beside_pca["error"] > beside_pca["of PCA"] - 1e-5).all()
assert beside_pca["largest angle (degrees)"].max() < 1
assert (stationary["largest slope"] < 1e-10).all()
best, others = stationary.iloc[0], stationary.iloc[1:]
assert best["least curvature"] > -1e-8 and abs(best["error"] - values[:3].sum()) < 1e-10
assert (others["least curvature"] < -0.01).all()  # saddles, each of them

# %% [markdown]
# ## Probabilistic PCA is a linear VAE (claim 44)
#
# Now let the guide be normal and the scale of the likelihood be learned: the same maps are a
# *linear VAE*. Its optimum is known in closed form (Tipping & Bishop 1999; Lucas et al. 2019,
# arXiv:1911.02469): the model is probabilistic PCA, $\sigma^2$ is the mean of the discarded
# eigenvalues $\lambda_j$ of the covariance, and
#
# $$\max \log p(x) = -\frac12 \Big(\sum_{j \le k} \log \lambda_j + (D - k) \log \sigma^2
#   + D + D \log 2 \pi\Big).$$
#
# The ELBO reaches it, for the posterior is normal and its variance is the same for every x: so
# ascent of the ELBO is maximum likelihood here, with no sum, no eigenvectors.

# %%
eigenvalues = np.linalg.eigvalsh(np.cov(wine.T.double(), bias=True))[::-1]
noise_of_ppca = eigenvalues[2:].mean()
maximum = -(
    np.log(eigenvalues[:2]).sum() + 11 * math.log(noise_of_ppca) + 13 + 13 * math.log(2 * math.pi)
)
maximum = maximum / 2
ppca = autoencoder(
    wine, 2, likelihood="Normal(scale=learned)", guide="Normal(scale=learned)", beta=1.0,
    estimator="TraceMeanField_ELBO(num_particles=8)", epochs=200, lr="cosine(0.05)",
)  # fmt: skip
with torch.no_grad():
    single = [pv.elbo(ppca, wine, num_samples=1, seed=i).mean().item() for i in range(200)]
    scale = ppca.decode(torch.zeros(1, 2)).base_dist.scale[0, 0].item()
W = decoder(ppca).double()
exact = torch.distributions.MultivariateNormal(
    ppca.likelihood.sources["loc"].head.bias.detach().double(),
    W @ W.T + scale**2 * torch.eye(13).double(),
)
ascent = pd.DataFrame(
    {
        "linear VAE": [np.mean(single), exact.log_prob(wine.double()).mean().item(), scale**2],
        "closed form": [maximum, maximum, noise_of_ppca],
    },
    index=["ELBO (nats per wine)", "log p(x) (nats per wine)", "variance of the noise"],
)
ascent.round(4)

# %%
_, ax = plt.subplots(figsize=(4.5, 2.8))
ax.plot(ppca.history["elbo_train"], lw=1, label="ELBO, one draw of z")
ax.axhline(maximum, color="k", ls="--", lw=0.8, label="maximum likelihood")
ax.set(xlabel="epoch of 5 steps", ylabel="nats per wine", ylim=(-21, -15))
ax.legend()
plt.show()

# %%
# check: claim 44
error = np.std(single) / 200**0.5
assert np.mean(single) < maximum + 4 * error  # a bound,
assert abs(np.mean(single) - maximum) < 0.02 + 4 * error  # that is reached,
assert abs(ascent.loc["log p(x) (nats per wine)"].diff().iloc[-1]) < 0.01  # by the model as well
assert abs(scale**2 / noise_of_ppca - 1) < 0.02
assert np.degrees(subspace_angles(W, PCA(2).fit(wine).components_.T)[0]) < 2

# %% [markdown]
# ## The KL term is a regularizer (claim 13)
#
# Let the noise be fixed at $\sigma$ and give the KL the weight $\beta$. For given $W$ the best mean
# of the guide is a *ridge regression* of x on the columns of W,
#
# $$m = (W^T W + \beta \sigma^2 I)^{-1} W^T (x - b),$$
#
# and the whole is probabilistic PCA with the noise $\beta \sigma^2$, so the singular values of the
# best decoder are $\sqrt{\max(\lambda_j - \beta \sigma^2, 0)}$: directions that are weaker than
# $\beta \sigma^2$ are switched off.

# %%
weights, shrunk, ridge = [0.5, 1.0, 2.0, 4.0, 6.0], {}, {}
for beta in weights:
    vae = autoencoder(
        wine.repeat(5, 1), 4, 50, likelihood="Normal(scale=0.7)", guide="Normal(scale=learned)",
        beta=beta, estimator="TraceMeanField_ELBO(num_particles=2)", batch_size=178,
        lr="cosine(0.05)",
    )  # fmt: skip
    W, b = decoder(vae), vae.likelihood.sources["loc"].head.bias.detach()
    shrunk[beta] = torch.linalg.svdvals(W).numpy()
    codes = Ridge(alpha=beta * 0.49, fit_intercept=False).fit(W, (wine - b).T).coef_
    ridge[beta] = {"code, off by": np.abs(vae.encode(wine).mean.detach().numpy() - codes).max(),
                   "largest code": np.abs(codes).max()}  # fmt: skip
shrunk = pd.DataFrame(shrunk, index=[1, 2, 3, 4]).T.rename_axis("beta")
by_formula = pd.DataFrame(
    {beta: np.sqrt(np.maximum(eigenvalues[:4] - beta * 0.49, 0)) for beta in weights},
    index=[1, 2, 3, 4],
).T
pd.concat({"trained": shrunk, "formula": by_formula}, axis=1).round(3)

# %%
_, ax = plt.subplots(figsize=(4.5, 2.8))
grid = np.linspace(0.2, 8, 200)
for j in range(4):
    ax.plot(grid, np.sqrt(np.maximum(eigenvalues[j] - grid * 0.49, 0)), f"C{j}", lw=1)
    ax.plot(shrunk[j + 1], f"C{j}o", ms=4, label=f"axis {j + 1}")
ax.set(xlabel=r"$\beta$", ylabel="singular value of the decoder", xlim=(0, 12))
ax.legend(title="dots: trained; lines: formula", fontsize=8)
plt.show()

# %%
# check: claim 13
assert (shrunk - by_formula).abs().max(axis=None) < 0.15
assert ((shrunk > 0.3) == (by_formula > 0)).all(axis=None)  # those that should be off are off
assert all(row["code, off by"] < 0.1 * row["largest code"] for row in ridge.values())

# %% [markdown]
# ## Hidden layers go beyond PCA (claim 16)
#
# With hidden layers the codes may lie on a curved surface. Here are scikit-learn's digits in two
# dimensions: PCA, an autoencoder, and the VAE that differs from it in the guide alone. Errors are
# of digits that were held out.

# %%
digits = pv.load_data("digits")
x, labels, new = digits.train.flatten(1), digits.train_labels, digits.test.flatten(1)
told = {"likelihood": "Normal(scale=0.2)", "batch_size": 100, "epochs": 30, "lr": "cosine(5e-3)",
        "inputs": "auto"}  # fmt: skip
deep = {"encoder": "MLP([100])", "decoder": "MLP([100])"}
models = {
    "autoencoder": autoencoder(x, 2, **told, **deep),
    "VAE": autoencoder(x, 2, **told, **deep, guide="Normal", beta=1.0),
}
pca = PCA(2).fit(x)
held_out = pd.DataFrame({name: errors(model, new) for name, model in models.items()})
projected = pca.inverse_transform(pca.transform(new))
held_out.insert(0, "PCA", np.square(new.numpy() - projected).sum(1))
held_out.agg(["mean", "sem"]).T.round(3)

# %%
_, axes = plt.subplots(1, 3)
for ax, name in zip(axes, held_out, strict=True):
    z = models[name].encode(x).mean.detach() if name in models else pca.transform(x)
    ax.scatter(*z.T, c=labels, cmap="tab10", s=1)
    ax.add_patch(plt.Circle((0, 0), 2, fill=False, linestyle="--"))
    ax.set(title=f"{name}: error {held_out[name].mean():.2f}", aspect="equal", xlabel="$z_1$")
axes[0].set_ylabel("$z_2$")
plt.show()


# %%
# check: claim 16
def gain(better: str, than: str) -> float:
    """z-score of the mean difference in error, digit by digit."""
    difference = held_out[than] - held_out[better]
    return difference.mean() / difference.sem()


assert gain("autoencoder", "PCA") > 6 and gain("VAE", "PCA") > 6

# %% [markdown]
# The dashed circle holds 86 % of $N(0, I)$. Nothing asks where an autoencoder puts its codes; that
# they are of this size is the luck of the first weights. The VAE pays for each code in nats against
# $N(0, I)$, and its codes fill that distribution.
#
# ## A code as large as x copies (claim 17)
#
# If z has as many dimensions as x, the identity has error zero, for any data. So a small error then
# says nothing of the data. We train on six columns of the wines, and on the same columns shuffled
# each for itself: nonsense, without any relation between columns. With few dimensions the error
# tells the two apart; with six it does not, and the map from x to $\hat x$ is the identity. Here it
# is by PCA's formula as well: the sum of the discarded eigenvalues.

# %%
few = wine[:, [0, 5, 6, 9, 10, 11]]
generator = torch.Generator().manual_seed(0)
shuffled = torch.stack([c[torch.randperm(len(c), generator=generator)] for c in few.T], 1)
rows, maps = {}, {}
for name, data in (("wines", few), ("nonsense", shuffled)):
    discarded = np.linalg.eigvalsh(np.cov(data.T.double(), bias=True))
    for latent_dim in (2, 6, 8):
        vae = autoencoder(data, latent_dim)
        rows[name, latent_dim] = {"error": errors(vae, data).mean().item(),
                                  "formula": discarded[: max(0, 6 - latent_dim)].sum()}  # fmt: skip
        at_units, at_zero = vae.reconstruct(torch.eye(6)), vae.reconstruct(torch.zeros(1, 6))
        maps[name, latent_dim] = (at_units - at_zero).T.detach()
copies = pd.DataFrame(rows).T.rename_axis(["data", "dimensions of z"])
copies.unstack(0).round(3)

# %%
_, (left, right) = plt.subplots(1, 2)
for name, look in (("wines", "C0"), ("nonsense", "C1")):
    left.plot(copies["error"][name], look + "o", ms=4, label=name)
    left.plot(copies["formula"][name], look, lw=0.8)
left.set(xlabel="dimensions of z", ylabel="squared error", title="dots: trained; lines: PCA")
left.legend()
shown = torch.cat([maps["wines", 2], torch.full((6, 1), math.nan), maps["wines", 6]], 1)
picture = right.imshow(shown, vmin=-1, vmax=1, cmap="RdBu")
right.set(title="x to its copy: 2, then 6", xticks=[], yticks=[])
plt.colorbar(picture, shrink=0.8)
plt.show()

# %%
# check: claim 17
assert (copies["error"] > copies["formula"] - 1e-4).all()  # PCA is the least there is
assert (copies["error"] < 1.01 * copies["formula"] + 0.01).all()  # nonsense: nearly equal axes
for latent_dim in (6, 8):
    assert (maps["nonsense", latent_dim] - torch.eye(6)).abs().max() < 0.05
assert copies.loc[("nonsense", 2), "error"] > copies.loc[("wines", 2), "error"] + 1

# %% [markdown]
# ## Sparse: a Laplace prior (claim 19)
#
# Keep the point, and give the prior its weight back: the penalty $-\log p(z)$ of a Laplace prior is
# the L1 norm of the code, and codes gather at zero: for a given linear decoder $W$ the best code is
# the *lasso* of x on the columns of $W$. The data are sums of 6 directions in 12 dimensions, each
# present in a fifth of the data. Beside the encoder's codes are those of scikit-learn's lasso.

# %%
atoms = torch.randn(6, 12, generator=generator)
present = torch.rand(600, 6, generator=generator) < 0.2
mixed = (present * torch.randn(600, 6, generator=generator)) @ atoms
codes, rows = {}, {}
for name, beta in {"Laplace(scale=0.5)": 1.0, "no penalty": 0.0}.items():
    prior = name if beta else "Normal"
    vae = autoencoder(mixed, 6, 120, prior=prior, beta=beta, encoder=pv.MLP([50]), batch_size=200)
    z, W = vae.encode(mixed).mean.detach(), decoder(vae)
    codes[name] = (z / z.std(0)).flatten()
    rows[name] = {"within a tenth of zero": (codes[name].abs() < 0.1).float().mean().item()}
    if beta:  # |x - Wz|^2 + |z| / 0.5, as scikit-learn writes it
        b = vae.likelihood.sources["loc"].head.bias.detach()
        lasso = Lasso(alpha=1 / 12, fit_intercept=False).fit(W, (mixed - b).T).coef_
        rows["lasso, same decoder"] = {"within a tenth of zero": (np.abs(lasso) == 0).mean()}
        agreement = np.corrcoef(lasso.ravel(), z.flatten())[0, 1]
sparse = pd.DataFrame(rows).T
sparse.round(3)

# %%
_, (left, right) = plt.subplots(1, 2)
for name, one in codes.items():
    left.hist(one, bins=np.linspace(-3, 3, 121), histtype="step", density=True, label=name)
left.set(xlabel="code (sd)", ylabel="density", yscale="log")
left.legend(fontsize=7)
with_penalty = codes["Laplace(scale=0.5)"]
right.plot(lasso.ravel() / lasso.std(), with_penalty, ".", ms=2)
right.axline((0, 0), slope=1, color="k", lw=0.8)
right.set(xlabel="lasso (sd)", ylabel="code of the encoder (sd)")
plt.show()

# %%
# check: claim 19
near = sparse["within a tenth of zero"]
noise = math.sqrt(0.25 / len(with_penalty))  # of a share, at most
assert near["Laplace(scale=0.5)"] > near["no penalty"] + 10 * noise
assert near["lasso, same decoder"] > near["no penalty"] + 10 * noise
assert agreement > 0.9

# %% [markdown]
# ## Denoising: the encoder sees less (claim 21)
#
# `Corrupted(...)` gives the encoder x with noise while it trains, and the model is still asked for
# the clean x. The best answer is $E[x \mid \tilde x]$, the mean of x given its noisy version. It
# can be computed here: a mean of the data, weighted by the density of the noise. For small noise of
# variance $s^2$ it differs from the input by $s^2 \nabla \log p(x)$ (Alain & Bengio 2014,
# arXiv:1211.4246), so the arrows from x to its reconstruction point to where the data are: here, a
# circle. A code as large as x does no harm: the identity is not the best answer any more.

# %%
angle = torch.rand(1000, generator=generator) * 2 * math.pi
circle = torch.stack([angle.cos(), angle.sin()], 1)
noise = 0.3
denoiser = autoencoder(
    circle.repeat(4, 1), 2, 40, encoder=f"Corrupted(MLP([60], activation=Tanh), noise={noise})",
    decoder="MLP([60], activation=Tanh)", lr="cosine(0.01)", batch_size=200,
)  # fmt: skip
noisy = circle + noise * torch.randn(1000, 2, generator=generator)


def best_answer(seen: torch.Tensor) -> torch.Tensor:
    """E[x | its noisy version], x uniform among the data."""
    return (-(seen[:, None] - circle).square().sum(2) / (2 * noise**2)).softmax(1) @ circle


answers = {
    "as it is": noisy, "autoencoder": denoiser.reconstruct(noisy), "best answer": best_answer(noisy)
}  # fmt: skip
table = pd.DataFrame(
    {name: {"squared error": (guess - circle).square().sum(1).mean().item(),
            "from the best answer": (guess - answers["best answer"]).square().sum(1).mean().item()}
     for name, guess in answers.items()}
).T  # fmt: skip
table.round(4)

# %%
grid = torch.cartesian_prod(*[torch.linspace(-1.5, 1.5, 13)] * 2)
_, axes = plt.subplots(1, 2, sharey=True, figsize=(7, 3.4))
for ax, to, name in zip(axes, (denoiser.reconstruct(grid), best_answer(grid)),
                        ("autoencoder", "best answer"), strict=True):  # fmt: skip
    ax.scatter(*circle[:300].T, s=2, color="C1")
    ax.quiver(*grid.T, *(to - grid).T, angles="xy", scale_units="xy", scale=1, width=0.004)
    ax.set(aspect="equal", xlabel="$x_1$", title=f"from x to its reconstruction: {name}")
axes[0].set_ylabel("$x_2$")
plt.show()

# %%
# check: claim 21
left_over = table["from the best answer"]  # a share of what the best answer does
assert left_over["autoencoder"] < 0.05 * left_over["as it is"]
assert table.loc["autoencoder", "squared error"] < 1.05 * table.loc["best answer", "squared error"]
assert table.loc["as it is", "squared error"] > 1.5 * table.loc["best answer", "squared error"]

# %% [markdown]
# ## Contractive: a code that moves little (claim 20)
#
# The callback `Contractive(weight)` subtracts $\lambda \|\partial E_q[z] / \partial x\|^2$ from
# whatever bound trains the model (Rifai et al. 2011). A code that ignores x would be the flattest
# of all, and the reconstruction forbids it; so the code stays sensitive along the data, and goes
# flat across them. On the circle the directions along and across are known. (All slopes shrink as
# well, for the decoder can make good for a small code; so it is their ratio that counts.) The
# package estimates the norm from random signs $v$, as $\|v^T J\|^2$.

# %%
rows, trained = {}, {}
along = torch.stack([-angle.sin(), angle.cos()], 1)
for weight in (0.0, 0.03, 0.1):
    vae = trained[weight] = autoencoder(
        circle, 2, 40, encoder="MLP([60], activation=Tanh)", decoder="MLP([60])", batch_size=100,
        lr="cosine(5e-3)", callbacks=[pv.callbacks.Contractive(weight)],
    )  # fmt: skip
    slope = torch.func.vmap(
        torch.func.jacrev(lambda v, vae=vae: vae.approximate_posterior(v[None]).mean[0])
    )(circle).detach()
    rows[weight] = {
        "along the circle": torch.einsum("nij,nj->ni", slope, along).norm(dim=1).mean().item(),
        "across it": torch.einsum("nij,nj->ni", slope, circle).norm(dim=1).mean().item(),
        "squared norm": slope.square().sum((1, 2)).mean().item(),
        "squared error": errors(vae, circle).mean().item(),
    }
slopes = pd.DataFrame(rows).T.rename_axis("weight")
slopes["across, over along"] = slopes["across it"] / slopes["along the circle"]
losses = [
    [Trace_ELBO().loss(vae.model, guide, circle) / len(circle) for _ in range(100)]
    for guide in (pv.callbacks.Contractive(1.0)(vae.guide), vae.guide)
]
penalty = np.subtract(*losses)  # of the last model, by random signs
slopes.round(4)

# %%
_, ax = plt.subplots(figsize=(4.5, 2.8))
ax.plot(slopes[["along the circle", "across it"]], "o-", ms=4,
        label=["along the circle", "across it"])  # fmt: skip
ax.set(xlabel="weight of the penalty", ylabel="slope of the code", ylim=(0, None))
ax.legend()
plt.show()

# %%
# check: claim 20
exact_norm = slopes["squared norm"].iloc[-1]
assert abs(penalty.mean() - exact_norm) < 4 * penalty.std() / 100**0.5  # the estimate has no bias
assert (slopes["across, over along"].diff().dropna() < 0).all()  # the more weight, the flatter
assert (slopes["squared norm"].diff().dropna() < 0).all()
assert slopes["across, over along"].iloc[-1] < 0.5 * slopes["across, over along"].iloc[0]
assert slopes["squared error"].max() < 0.01  # of 1: at nearly no cost

# %% [markdown]
# ## Which of them generate, and why only one does (claim 36)
#
# To draw an x, draw a z and decode it. But from which distribution? Multiply the codes of an
# autoencoder by c, and let its decoder divide by c first: its error does not change, for nothing in
# its cost knows of $p(z)$; what it would draw from $N(0, I)$ changes altogether. Where c ends is
# the luck of the start, and an autoencoder has no distribution of x. A VAE pays for the same
# change: with a guide $N(cm, c^2 s^2)$ the reconstruction is as before, and the KL
#
# $$\tfrac12 \sum_j \left(c^2 (m_j^2 + s_j^2) - 1 - \log c^2 s_j^2\right)$$
#
# is least, on average over x, where codes fill the prior: at c = 1. For linear maps all of it is
# exact: draws are normal, with covariance $c^{-2} W W^T + \sigma^2 I$.

# %%
flat, rows = linear[2, 0], []
for kind, vae in (("linear autoencoder", flat), ("linear VAE", ppca)):
    W, b = decoder(vae).double(), vae.likelihood.sources["loc"].head.bias.detach().double()
    variance = errors(flat, wine).mean().item() / 13 if vae is flat else scale**2
    codes = vae.encode(wine).mean.detach().double()
    if vae is ppca:
        s = ppca.encode(wine).stddev.detach().double()
        kept = np.mean(single) + kl_divergence(ppca.encode(wine), ppca.prior()).mean().item()
    for c in np.geomspace(0.1, 10, 41):
        rebuilt = (c * codes) @ (W / c).T + b
        draws = torch.distributions.MultivariateNormal(
            b, W @ W.T / c**2 + variance * torch.eye(13).double()
        )
        row = {"model": kind, "c": c, "error": (rebuilt - wine).square().sum(1).mean().item(),
               "log p(x)": draws.log_prob(wine.double()).mean().item()}  # fmt: skip
        if vae is ppca:
            kl = (c**2 * (codes**2 + s**2) - 1 - (c**2 * s**2).log()).sum(1).mean() / 2
            row["ELBO"] = kept - kl.item()
        rows.append(row)
scaled = pd.DataFrame(rows).set_index(["model", "c"])
axes_of_wine = np.linalg.eigh(np.cov(wine.T.double(), bias=True))[1][:, ::-1]
spread = pd.DataFrame({"data": eigenvalues[:3]}, index=["axis 1", "axis 2", "axis 3"])
for name, vae in (("linear VAE", ppca), ("linear autoencoder", flat)):
    spread[f"draws of the {name}"] = (vae.sample(20000, seed=0).numpy() @ axes_of_wine[:, :3]).var(
        0
    )
spread.rename_axis("variance along").round(3)

# %% [markdown]
# And the digits: means of $p(x \mid z)$ at draws of $z \sim N(0, I)$, from the two models of two
# dimensions, and from that autoencoder with its codes ten times as large, which has the same error.

# %%
_, axes = plt.subplots(3, 1, figsize=(7, 2.6))
z = torch.randn(16, 2, generator=generator)
shown = {"VAE": models["VAE"].decode(z).mean, "autoencoder": models["autoencoder"].decode(z).mean,
         "its codes x 10": models["autoencoder"].decode(z / 10).mean}  # fmt: skip
for ax, (name, images) in zip(axes, shown.items(), strict=True):
    tiles = images.detach().reshape(16, 8, 8).clamp(0, 1)
    ax.imshow(torch.cat(list(torch.nn.functional.pad(tiles, (0, 1), value=0.0)), 1), cmap="gray_r")
    ax.set(xticks=[], yticks=[])
    ax.set_ylabel(name, rotation=0, ha="right", va="center")
plt.show()

# %%
_, (left, right) = plt.subplots(1, 2)
left.semilogx(-scaled["error"]["linear autoencoder"], "C1", label="autoencoder: minus the error")
left.semilogx(scaled["ELBO"]["linear VAE"], "C0", label="VAE: ELBO (nats)")
left.set(xlabel="c", ylabel="what is maximized", ylim=(-40, 5))
for kind, look in (("linear autoencoder", "C1"), ("linear VAE", "C0")):
    right.semilogx(scaled["log p(x)"][kind], look, label=kind)
right.set(xlabel="c", ylabel="log p(x) of the draws (nats)")
for ax in (left, right):
    ax.axvline(1, color="k", lw=0.8, ls="--")
    ax.legend(fontsize=7)
plt.show()

# %%
# check: claim 36
assert np.ptp(scaled["error"]["linear autoencoder"]) < 1e-9  # its cost does not know of c,
likely = scaled["log p(x)"]
assert likely["linear autoencoder"].max() - likely["linear autoencoder"].iloc[[0, -1]].max() > 2
bounds = scaled["ELBO"]["linear VAE"]  # and the ELBO does: it is best at c = 1, and so are draws
assert bounds.idxmax() == likely["linear VAE"].idxmax() and abs(bounds.idxmax() - 1) < 1e-9
assert (bounds < likely["linear VAE"] + 0.01).all() and abs(bounds.max() - maximum) < 0.05
off = spread["draws of the linear VAE"] / spread["data"] - 1  # 20000 draws: an error of 1 %,
assert off.iloc[:2].abs().max() < 0.1  # and some hundredths of a nat are some hundredths of these
varied = [models["autoencoder"].decode(z / c).mean.var(0).sum().item() for c in (1, 10)]
assert varied[0] > 10 * varied[1]  # the same error, another distribution

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
# | [Gaussian mixture](02_elbo_and_em.ipynb) | category | category | linear | the ELBO, enumerated |
# | VAE | any | any | any | any estimator |
#
# ## What should have come out

# %%
wanted = pd.DataFrame(
    [
        ("error of the linear autoencoder, over PCA's",
         (beside_pca["error"] / beside_pca["of PCA"]).max(), 1, 1e-3),
        ("ELBO of the linear VAE, less maximum likelihood", np.mean(single) - maximum, 0, 0.03),
        ("its noise, over that of probabilistic PCA", scale**2 / noise_of_ppca, 1, 0.02),
        ("singular values less the formula, largest",
         (shrunk - by_formula).abs().max(axis=None), 0, 0.15),
        ("a copying map less the identity, largest",
         (maps["nonsense", 8] - torch.eye(6)).abs().max().item(), 0, 0.05),
        ("denoising: distance to the best answer, as a share",
         left_over["autoencoder"] / left_over["as it is"], 0, 0.05),
    ],
    columns=["figure", "came out", "should be", "tolerance"],
).set_index("figure")  # fmt: skip
assert ((wanted["came out"] - wanted["should be"]).abs() <= wanted["tolerance"]).all()
wanted.map("{:.3g}".format)

# %% [markdown]
# ## If you come from mice, Stan or lme4
#
# The code of a linear VAE is a vector of random effects, and its guide's mean is their BLUP: the
# ridge of claim 13, with the noise's variance over the prior's for a penalty. `mice` would impute a
# column by regression on the others; a code does it for all columns at once.
#
# ## Exercises
#
# The answers are tests, in `tests/course/test_03_autoencoders.py`.
#
# 1. Which likelihood makes the absolute error a cost? Show with a model of one constant that its
#    estimate is then the median.
# 2. Show by a regression of x on $x + s \epsilon$ that the best linear denoiser is
#    $S (S + s^2 I)^{-1}$.
# 3. Write the ELBO of a linear VAE with one column, one z and the best guide, the KL weighted by
#    $\beta$, as a function of the weight $w$. Show that its maximum is at
#    $w^2 = \max(\lambda - \beta \sigma^2, 0)$.
