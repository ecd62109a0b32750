"""Pyro's own examples as small programs: each a function that gives one, and its exact evidence."""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import nn
from torch.distributions import MultivariateNormal, constraints

from pyro_vae import Program

__all__ = ["PROGRAMS"]


def seeded(make):
    """An example whose data and weights are always the same."""

    def run():
        with torch.random.fork_rng(), pyro.get_param_store().scope():
            torch.manual_seed(0)
            return make()

    return run


@seeded
def bayesian_regression():
    """Global weights, one evidence; exact by the normal distribution of y."""
    x = torch.randn(20, 2)
    y = x @ torch.tensor([1.0, -0.5]) + 0.3 * torch.randn(20)

    def model(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        b = pyro.sample("b", dist.Normal(0.0, 2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal((x * w).sum(-1) + b, 0.3), obs=y)

    guide = AutoMultivariateNormal(model)
    guide(x, y)
    design = torch.cat([x, torch.ones(20, 1)], 1)
    prior = torch.tensor([1.0, 1.0, 4.0]).diag()
    covariance = (prior.inverse() + design.T @ design / 0.09).inverse()
    guide.loc.data = covariance @ design.T @ y / 0.09  # a little off, so that weights vary
    factor = torch.linalg.cholesky(covariance)
    guide.scale, guide.scale_tril = 1.1 * factor.diag(), factor / factor.diag()[:, None]
    marginal = MultivariateNormal(torch.zeros(20), design @ prior @ design.T + 0.09 * torch.eye(20))
    return Program(model, guide, x, y, data=None), marginal.log_prob(y)[None]


@seeded
def hierarchical():
    """Groups and a subsampled plate of them, with a global mean; exact by the normal of y."""
    n, m = 8, 3
    y = torch.randn(n, m) + torch.randn(n, 1)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("groups", n, subsample_size=4, dim=-2) as rows:
            theta = pyro.sample("theta", dist.Normal(mu, 1.0))
            with pyro.plate("members", m, dim=-1):
                pyro.sample("y", dist.Normal(theta, 1.0), obs=y[rows])

    def guide(y):
        loc = pyro.param("mu_loc", torch.tensor(0.0))
        pyro.sample("mu", dist.Normal(loc, 0.5))
        spread = pyro.param("spread", torch.tensor(0.5), constraint=constraints.positive)
        with pyro.plate("groups", n, subsample_size=4, dim=-2) as rows:
            centre = 0.75 * y[rows].mean(1, keepdim=True) + 0.25 * loc
            pyro.sample("theta", dist.Normal(centre, spread))

    same = torch.kron(torch.eye(n), torch.ones(m, m))
    covariance = 1.0 + same + torch.eye(n * m)
    marginal = MultivariateNormal(torch.zeros(n * m), covariance)
    return Program(model, guide, y, data=None), marginal.log_prob(y.flatten())[None]


@seeded
def gaussian_mixture():
    """Assignments summed out, the other latent variable local; exact by a mixture of normals."""
    x = torch.cat([torch.randn(6) - 2, torch.randn(6) + 2])

    def model(x):
        weights = pyro.param("weights", torch.tensor([0.4, 0.6]), constraint=constraints.simplex)
        locs = pyro.param("locs", torch.tensor([-2.0, 2.0]))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(0.0, 0.5))
            pyro.sample("x", dist.Normal(locs[k] + z, 1.0), obs=x)

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * (x - 2 * x.sign()), 0.5))

    parts = dist.Normal(torch.tensor([-2.0, 2.0]), 1.25**0.5).log_prob(x[:, None])
    return Program(model, guide, x), (parts + torch.tensor([0.4, 0.6]).log()).logsumexp(1)


@seeded
def hidden_markov():
    """Sequences whose hidden states are summed out; exact by the forward algorithm."""
    x = torch.randn(5, 4)
    transition = torch.tensor([[0.9, 0.1], [0.3, 0.7]])

    def model(x):
        locs = pyro.param("locs", torch.tensor([-1.0, 1.0]))
        with pyro.plate("data", len(x)):
            state = torch.zeros(1, dtype=torch.long)
            for t in pyro.markov(range(x.shape[1])):
                state = pyro.sample(
                    f"s{t}",
                    dist.Categorical(transition[state]),
                    infer={"enumerate": "parallel"},
                )
                pyro.sample(f"x{t}", dist.Normal(locs[state], 1.0), obs=x[:, t])

    def guide(x):
        pass

    emission = dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).log_prob(x[..., None])
    alpha = transition[0].log() + emission[:, 0]
    for t in range(1, 4):
        alpha = (alpha[:, :, None] + transition.log()).logsumexp(1) + emission[:, t]
    return Program(model, guide, x), alpha.logsumexp(1)


@seeded
def prod_lda():
    """Topics of documents: a logistic normal, and counts of words."""
    counts = dist.Multinomial(20, torch.ones(6)).sample((10,))
    decoder, encoder = nn.Linear(2, 6), nn.Linear(6, 4)

    def model(docs):
        pyro.module("decoder", decoder)
        with pyro.plate("documents", len(docs)):
            logtheta = pyro.sample("logtheta", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            words = decoder(logtheta.softmax(-1)).softmax(-1)
            pyro.sample("docs", dist.Multinomial(20, words), obs=docs)

    def guide(docs):
        pyro.module("encoder", encoder)
        with pyro.plate("documents", len(docs)):
            loc, log_scale = encoder(docs / 20).chunk(2, -1)
            pyro.sample("logtheta", dist.Normal(loc, log_scale.exp()).to_event(1))

    return Program(model, guide, counts, data="documents"), None


@seeded
def conditional_vae():
    """p(y|x, z) with a prior network p(z|x)."""
    x, y = torch.rand(8, 3), torch.rand(8, 4).round()
    prior, decoder, encoder = nn.Linear(3, 4), nn.Linear(5, 4), nn.Linear(7, 4)

    def model(x, y=None):
        for name, net in (("prior", prior), ("decoder", decoder)):
            pyro.module(name, net)
        with pyro.plate("data", len(x)):
            loc, log_scale = prior(x).chunk(2, -1)
            z = pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
            both = torch.cat([z, x.expand(*z.shape[:-1], 3)], -1)
            pyro.sample("y", dist.Bernoulli(logits=decoder(both)).to_event(1), obs=y)

    def guide(x, y=None):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(torch.cat([x, y], -1)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return Program(model, guide, x, y=y), None


@seeded
def attend_infer_repeat():
    """A global scale, and by image whether each of two objects is there and what it is."""
    images = torch.randn(6, 4)
    decoder, encoder = nn.Linear(2, 4), nn.Linear(4, 6)

    def model(images):
        pyro.module("decoder", decoder)
        gain = pyro.sample("gain", dist.LogNormal(0.0, 0.2))
        with pyro.plate("data", len(images)):
            canvas = torch.zeros(())
            for t in range(2):
                there = pyro.sample(f"there{t}", dist.Bernoulli(0.5))
                what = pyro.sample(f"what{t}", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                canvas = canvas + there[..., None] * decoder(what)
            mean = gain[..., None] * canvas
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=images)

    def guide(images):
        pyro.module("encoder", encoder)
        loc = pyro.param("gain_loc", torch.tensor(0.0))
        pyro.sample("gain", dist.LogNormal(loc, 0.2))
        with pyro.plate("data", len(images)):
            what, logit, _ = encoder(images).split([4, 1, 1], -1)
            for t in range(2):
                pyro.sample(f"there{t}", dist.Bernoulli(logits=logit[..., 0]))
                own = what[..., 2 * t : 2 * t + 2]
                pyro.sample(f"what{t}", dist.Normal(own, 0.9).to_event(1))

    return Program(model, guide, images, data=None), None


@seeded
def semi_supervised():
    """The label y is latent, and the guide enumerates it in training."""
    x = torch.rand(7, 5).round()
    classify, encoder, decoder = nn.Linear(5, 3), nn.Linear(8, 4), nn.Linear(5, 5)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(3) / 3))
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            y, z = torch.broadcast_tensors(y[..., :1], z)[0], z
            logits = decoder(torch.cat([y, z, z[..., :1]], -1))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    @config_enumerate
    def guide(x):
        pyro.module("classify", classify)
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(logits=classify(x)))
            both = torch.cat([x.expand(*y.shape[:-1], 5), y], -1)
            loc, log_scale = encoder(both).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return Program(model, guide, x), None


@seeded
def deep_markov():
    """Ragged sequences: steps after the end of one are masked."""
    x, lengths = torch.randn(5, 4, 2), torch.tensor([4, 2, 3, 1, 4])
    step, emit, read = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(4, 2)

    def model(x, lengths):
        pyro.module("step", step)
        pyro.module("emit", emit)
        with pyro.plate("data", len(x)):
            z = torch.zeros(2)
            for t in range(x.shape[1]):
                there = t < lengths
                prior = dist.Normal(step(z).tanh(), 1.0).to_event(1)
                z = pyro.sample(f"z{t}", prior.mask(there))
                mean = emit(z)
                pyro.sample(f"x{t}", dist.Normal(mean, 1.0).to_event(1).mask(there), obs=x[:, t])

    def guide(x, lengths):
        pyro.module("read", read)
        with pyro.plate("data", len(x)):
            z = torch.zeros(2)
            for t in range(x.shape[1]):
                seen = torch.cat([z.expand(*z.shape[:-1], 2), z], -1)[..., :2]
                seen = torch.cat(torch.broadcast_tensors(seen, x[:, t]), -1)
                own = dist.Normal(read(seen), 0.8).to_event(1).mask(t < lengths)
                z = pyro.sample(f"z{t}", own)

    return Program(model, guide, x, lengths), None


@seeded
def latent_normal():
    """A mean-field guide of Pyro's for local variables; exact."""
    x = torch.randn(6)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    guide = AutoNormal(model, init_scale=0.5**0.5)
    guide(x)
    guide.locs.z.data.copy_(x / 2)
    return Program(model, guide, x), dist.Normal(0.0, math.sqrt(2)).log_prob(x)


PROGRAMS = {
    "Bayesian regression": bayesian_regression,
    "hierarchical, subsampled": hierarchical,
    "Gaussian mixture": gaussian_mixture,
    "hidden Markov": hidden_markov,
    "ProdLDA": prod_lda,
    "conditional VAE": conditional_vae,
    "attend, infer, repeat": attend_infer_repeat,
    "semi-supervised": semi_supervised,
    "deep Markov, ragged": deep_markov,
    "AutoNormal": latent_normal,
}
