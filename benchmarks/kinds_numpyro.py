"""The models of `kinds.py` as NumPyro says them: flax networks, SVI, a jitted update.

Imported from the folder that PEERS names, as `peers.py` says, with flax beside NumPyro. Where
NumPyro has not what ours is made of, the nearest that it has stands for it: the score function of
its TraceGraph_ELBO for RLOO (of two draws) and DisARM, an autoregressive flow that does not read x
in the guide. It has no neural splines.
"""
# ruff: noqa: ANN001, ANN202, ANN204, E731

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpyro as np_
import numpyro.distributions as dist
import torch
from flax import linen as nn
from jax import numpy as jnp
from numpyro import infer, optim
from numpyro.contrib.module import flax_module
from numpyro.distributions.flows import InverseAutoregressiveTransform
from numpyro.nn import AutoregressiveNN

LR = 1e-3
flat = lambda h: h.reshape(*h.shape[:-3], -1)


class Residual(nn.Module):
    """Two convolutions after normalization and activation, beside a shortcut."""

    width: int

    @nn.compact
    def __call__(self, x):
        """``(B, H, W, C)`` to ``(B, H, W, width)``."""
        h = x
        for _ in range(2):
            h = nn.Conv(self.width, (3, 3))(nn.silu(group_norm(h.shape[-1])(h)))
        return h + (x if x.shape[-1] == self.width else nn.Conv(self.width, (1, 1))(x))


class Normal(nn.Module):
    """A network, and a mean and a scale of its features."""

    layers: tuple
    n: int

    @nn.compact
    def __call__(self, x):
        """To a normal distribution of n dimensions."""
        h = nn.Sequential(self.layers)(x)
        return dist.Normal(nn.Dense(self.n)(h), nn.softplus(nn.Dense(self.n)(h))).to_event(1)


def group_norm(channels: int) -> nn.GroupNorm:
    """As ours: at most 8 groups, of at least 4 channels."""
    return nn.GroupNorm(max(n for n in range(1, min(8, channels // 4) + 1) if channels % n == 0))


def mlp(*sizes: int) -> tuple:
    return tuple(layer for n in sizes for layer in (nn.Dense(n), nn.tanh))


def normal(name: str, layers: tuple, n: int, x) -> dist.Distribution:
    """q(z|x), or a layer of z given another."""
    return flax_module(name, Normal(layers, n), x)(x)


def apply(name: str, layers: tuple, z) -> jax.Array:
    return flax_module(name, nn.Sequential(layers), z)(z)


def reading(layers: tuple, n: int, see: Callable = lambda x: x) -> Callable:
    """A guide of normal z, whose network reads what is seen of x."""

    def guide(x):
        q = normal("encoder", layers, n, see(x))
        with np_.plate("data", len(x)):
            np_.sample("z", q)

    return guide


def standard(n: int) -> dist.Distribution:
    return dist.Normal(jnp.zeros(n), 1.0).to_event(1)


def images(shape: tuple[int, ...], encoder: tuple, decoder: tuple, n: int = 20) -> tuple:
    """Model and guide of bits: networks from x to features, and from z to maps of logits."""

    def model(x):
        with np_.plate("data", len(x)):
            z = np_.sample("z", standard(n))
            logits = apply("decoder", decoder, z)
            np_.sample("x", dist.Bernoulli(logits=logits).to_event(len(shape)), obs=x)

    return model, reading(encoder, n)


def convolutions(*shape: int) -> tuple:
    h, w, c = shape[0] // 4, shape[1] // 4, shape[2]
    down = lambda n: nn.Conv(n, (3, 3), strides=2)
    up = lambda n: nn.ConvTranspose(n, (3, 3), strides=(2, 2))
    encoder = (down(32), nn.relu, down(64), nn.relu, flat)
    maps = (nn.Dense(64 * h * w), lambda z: z.reshape(*z.shape[:-1], h, w, 64), nn.relu)
    return images(shape, encoder, (*maps, up(64), nn.relu, up(32), nn.relu, nn.Conv(c, (1, 1))))


def resnet() -> tuple:
    conv = lambda n, stride=1: nn.Conv(n, (3, 3), strides=stride)
    twice = lambda h: h.repeat(2, -3).repeat(2, -2)
    encoder = (
        conv(16), Residual(16), conv(16, 2), Residual(32), conv(32, 2),
        group_norm(32), nn.silu, flat,
    )  # fmt: skip
    decoder = (
        nn.Dense(32 * 49), lambda z: z.reshape(*z.shape[:-1], 7, 7, 32),
        Residual(32), twice, conv(32), Residual(16), twice, conv(16),
        group_norm(16), nn.silu, nn.Conv(1, (1, 1)),
    )  # fmt: skip
    return images((28, 28, 1), encoder, decoder)


def plain(kind: str = "") -> tuple:
    """784-200-200-50 with a prior of its own, or a flow in the guide."""
    encoder = mlp(200, 200)

    def model(x):
        prior = standard(50)
        if kind == "VampPrior":
            inputs = np_.param(
                "inputs", lambda key: jax.random.uniform(key, (500, 784)),
                constraint=dist.constraints.unit_interval,
            )  # fmt: skip
            parts = normal("encoder", encoder, 50, inputs)
            prior = dist.MixtureSameFamily(dist.Categorical(logits=jnp.zeros(500)), parts)
        with np_.plate("data", len(x)):
            z = np_.sample("z", prior)
            logits = apply("decoder", (*mlp(200, 200), nn.Dense(784)), z)
            np_.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x):
        q = normal("encoder", encoder, 50, x)
        if kind == "IAF":
            steps = []
            for i in range(2):
                net = AutoregressiveNN(
                    50, [64, 64], permutation=jnp.arange(50)[:: 1 - 2 * i],
                    nonlinearity=jax.example_libraries.stax.Relu,
                )  # fmt: skip
                steps.append(
                    InverseAutoregressiveTransform(np_.module(f"flow{i}", net, (len(x), 50)))
                )
            q = dist.TransformedDistribution(q, steps)
        with np_.plate("data", len(x)):
            np_.sample("z", q)

    return model, guide


def counts() -> tuple:
    def model(x):
        total = np_.param("total", jnp.ones(2000), constraint=dist.constraints.positive)
        with np_.plate("data", len(x)):
            logits = apply("decoder", (*mlp(128), nn.Dense(2000)), np_.sample("z", standard(10)))
            p = dist.NegativeBinomialLogits(total, logits).to_event(1)
            np_.sample("x", p, obs=x)

    return model, reading(mlp(128), 10, jnp.log1p)


def mixed() -> tuple:
    """20 numbers, 20 bits and 10 categories of four levels."""

    def model(x):
        scale = np_.param("scale", jnp.ones(20), constraint=dist.constraints.positive)
        with np_.plate("data", len(x)):
            out = apply("decoder", (*mlp(128, 128), nn.Dense(80)), np_.sample("z", standard(10)))
            loc, logits, levels = jnp.split(out, (20, 40), -1)
            levels = levels.reshape(*levels.shape[:-1], 10, 4)
            np_.sample("numbers", dist.Normal(loc, scale).to_event(1), obs=x[:, :20])
            np_.sample("bits", dist.Bernoulli(logits=logits).to_event(1), obs=x[:, 20:40])
            codes = x[:, 40:].astype(int)
            np_.sample("levels", dist.Categorical(logits=levels).to_event(1), obs=codes)

    def see(x):
        codes = jax.nn.one_hot(x[:, 40:].astype(int), 4).reshape(len(x), 40)
        return jnp.concatenate([x[:, :40], codes], -1)

    return model, reading(mlp(128, 128), 10, see)


def layers() -> tuple:
    def model(x):
        with np_.plate("data", len(x)):
            top = np_.sample("top", standard(20))
            z = np_.sample("z", normal("between", mlp(200, 200), 50, top))
            logits = apply("decoder", (*mlp(200, 200), nn.Dense(784)), z)
            np_.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x):
        with np_.plate("data", len(x)):
            z = np_.sample("z", normal("encoder", mlp(200, 200), 50, x))
            np_.sample("top", normal("upward", mlp(200, 200), 20, z))

    return model, guide


def binary() -> tuple:
    def model(x):
        with np_.plate("data", len(x)):
            z = np_.sample("z", dist.Bernoulli(probs=jnp.full(200, 0.5)).to_event(1))
            logits = apply("decoder", (nn.Dense(784),), z.astype(x.dtype))
            np_.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x):
        logits = apply("encoder", (nn.Dense(200),), x)
        with np_.plate("data", len(x)):
            np_.sample("z", dist.Bernoulli(logits=logits).to_event(1))

    return model, guide


BOUNDS = {
    "IWAE, K = 50": partial(infer.RenyiELBO, 0, 50),
    "200 bits, RLOO(2)": partial(infer.TraceGraph_ELBO, 2),
    "200 bits, DisARM": partial(infer.TraceGraph_ELBO, 2),
}
KINDS: dict[str, Callable[[], tuple]] = {
    "784-200-200-50, Bernoulli": plain,
    "convolutions, 28 x 28": partial(convolutions, 28, 28, 1),
    "convolutions, 3 x 64 x 64": partial(convolutions, 64, 64, 3),
    "ResNet, 28 x 28": resnet,
    "2,000 counts, negative binomial": counts,
    "50 mixed columns": mixed,
    "two layers of z": layers,
    "IWAE, K = 50": plain,
    "200 bits, RLOO(2)": binary,
    "200 bits, DisARM": binary,
    "VampPrior(500)": partial(plain, "VampPrior"),
    "IAF guide": partial(plain, "IAF"),
}


def stepper(name: str, x: torch.Tensor) -> Callable[..., float]:
    """Steps of a kind on a batch, so many; the loss of the last."""
    if name not in KINDS:
        raise LookupError(f"NumPyro does not say {name}")
    model, guide = KINDS[name]()
    data: Any = jnp.asarray(x.movedim(1, -1).numpy() if x.ndim == 4 else x.numpy())
    bound = BOUNDS.get(name, infer.Trace_ELBO)()
    svi = infer.SVI(model, guide, optim.Adam(LR), bound)
    update, state = jax.jit(svi.update), [svi.init(jax.random.PRNGKey(0), data)]

    def steps(n: int = 1) -> float:
        last = 0.0
        for _ in range(n):
            state[0], loss = update(state[0], data)
            last = float(loss)
        return last

    return steps
