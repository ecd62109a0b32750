"""The same VAE, 784-200-200-50 (tanh), Bernoulli, Adam, as each peer would train it.

A peer is made from bits ``(S, B, 784)``, grey values ``(N, 784)`` and the batch size B, and is two
functions: S steps on the bits, and an epoch over the grey values with its own order, fresh bits and
batches. Peers that are not dependencies of the package (NumPyro with JAX, pythae) are imported from
the folder that PEERS names:

    pip install --target FOLDER numpyro jax; pip install --target FOLDER --no-deps pythae
"""

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    redirect_stdout,
    suppress,
)
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise

import pyro
import torch
from pyro.infer import ELBO, SVI, JitTrace_ELBO, Trace_ELBO
from pyro.optim import PyroOptim
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.core.memory import keeping_memory
from pyro_vae.infer import FusedOptim
from pyro_vae.infer.engine.compiled import CompileMode

SIZES, LATENT, LR = (200, 200), 50, 1e-3
if "PEERS" in os.environ:
    sys.path.append(os.environ["PEERS"])  # at the end: the environment's own packages come first


@dataclass
class Peer:
    """S steps on ready bits, and an epoch with everything; each returns the seconds it took."""

    steps: Callable[[], float]
    epoch: Callable[[], float]


def timed(run: Callable[[], object]) -> Callable[[], float]:
    """The seconds of a call."""

    def seconds() -> float:
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return seconds


def vae() -> pv.VAE:
    """The networks, the same for all that train PyTorch modules."""
    networks = [pv.MLP(SIZES, activation="Tanh") for _ in range(2)]
    return pv.VAE(784, LATENT, encoder=networks[0], decoder=networks[1], seed=0)


def loops(
    step: Callable[[Tensor], object],
    bits: Tensor,
    grey: Tensor,
    within: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Peer:
    """A step with the data path that one writes by hand."""

    def steps() -> None:
        with within():
            for x in bits:
                step(x)

    def epoch() -> None:
        with within():
            for rows in torch.randperm(len(grey), device=grey.device).split(bits.shape[1]):
                step(torch.bernoulli(grey[rows]))

    return Peer(timed(steps), timed(epoch))


def by_svi(
    optim: Callable[[], PyroOptim], loss: Callable[[], ELBO], validate: bool
) -> Callable[[Tensor, Tensor], Peer]:
    """SVI on the package's model and guide; each peer keeps a parameter store of its own."""

    def make(bits: Tensor, grey: Tensor) -> Peer:
        model, store = vae().to(bits.device), {"params": {}, "constraints": {}}
        svi = SVI(model.model, model.guide, optim(), loss())

        @contextmanager
        def within() -> Iterator[None]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch.jit's, of the JIT ELBO
                with pyro.get_param_store().scope(store), pyro.validation_enabled(validate):
                    yield

        return loops(svi.step, bits, grey, within)

    return make


def fused_adam() -> FusedOptim:
    """The package's optimizer."""
    return FusedOptim(torch.optim.Adam, {"lr": LR})


def compiled(elbo: ELBO, mode: CompileMode | None = None) -> ELBO:
    """The package's compiler around an ELBO."""
    from pyro_vae.infer import CompiledELBO

    return CompiledELBO(elbo, mode, announce=False)  # as fit has it


def adam() -> PyroOptim:
    """Pyro's optimizer: one of torch's for every parameter."""
    return pyro.optim.Adam({"lr": LR})


def ours(compile: bool | CompileMode) -> Callable[[Tensor, Tensor], Peer]:
    """The package: steps by SVI with its optimizer and its ELBO, an epoch by ``fit``."""

    def elbo() -> ELBO:
        mode = compile if isinstance(compile, str) else None
        return compiled(Trace_ELBO(), mode) if compile else Trace_ELBO()

    def make(bits: Tensor, grey: Tensor) -> Peer:
        run = by_svi(fused_adam, elbo, False)(bits, grey).steps

        def steps() -> float:
            with keeping_memory():  # as in `fit`
                return run()

        return Peer(steps, lambda: fit_epoch(grey, bits.shape[1], compile=compile))

    return make


def fit_epoch(grey: Tensor, batch_size: int, **options: object) -> float:
    """Seconds of the second epoch of ``fit``, from its start to the end of its evaluation.

    The first one compiles; a model is put into training mode at the start of every epoch, and out
    of it when ``fit`` has ended.
    """
    model, marks = vae().to(grey.device), []
    train = model.train

    def mark(mode: bool = True) -> nn.Module:
        marks.append((mode, time.perf_counter()))
        return train(mode)

    model.train = mark
    told = {"epochs": 2, "batch_size": batch_size, "lr": LR, "binarize": "dynamic", **options}
    pv.fit(model, grey, progress=False, **told)
    starts = [at for training, at in marks if training]
    return marks[-1][1] - starts[-1]


def by_hand(compile: bool) -> Callable[[Tensor, Tensor], Peer]:
    """The same computation in PyTorch alone, with its fused Adam."""

    def make(bits: Tensor, grey: Tensor) -> Peer:
        model = vae().to(bits.device)
        optim = torch.optim.Adam(model.parameters(), LR, fused=True)
        q, p = model.approximation.sources, model.likelihood.sources

        def loss(x: Tensor) -> Tensor:
            h = model.encoder(x)
            loc, scale = q["loc"].head(h), nn.functional.softplus(q["scale"].head(h))
            logits = p["logits"].head(model.decoder(loc + scale * torch.randn_like(loc)))
            fit = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            return fit + (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum()

        differentiable = torch.compile(loss) if compile else loss

        def step(x: Tensor) -> float:
            optim.zero_grad()
            value = differentiable(x)
            value.backward()
            optim.step()
            return value.item()

        return loops(step, bits, grey)

    return make


def floor(bits: Tensor, grey: Tensor) -> Peer:
    """The matrix products of a step alone, forward and backward, into memory that is there."""
    batch, sizes = bits.shape[1], [784, *SIZES, LATENT, *SIZES, 784]
    layers = list(pairwise(sizes))
    layers.insert(len(SIZES), layers[len(SIZES)])  # the guide has two heads
    w = [torch.randn(a, b, device=bits.device) / a**0.5 for a, b in layers]
    into = [torch.randn(batch, a, device=bits.device) for a, _ in layers]
    out = [torch.randn(batch, b, device=bits.device) for _, b in layers]
    dw, dx = [torch.empty_like(v) for v in w], [torch.empty_like(v) for v in into]

    def step(x: Tensor) -> None:
        into[0] = x
        for i in range(len(w)):
            torch.mm(into[i], w[i], out=out[i])
        for i in reversed(range(len(w))):
            torch.mm(into[i].T, out[i], out=dw[i])
            if i:  # nobody asks for the gradient in the data
                torch.mm(out[i], w[i].T, out=dx[i])

    steps = loops(step, bits, grey).steps
    ready = [grey[:batch] for _ in range(len(grey) // batch)]

    def epoch() -> None:
        for x in ready:
            step(x)

    return Peer(steps, timed(epoch))


def numpyro(bits: Tensor, grey: Tensor) -> Peer:
    """NumPyro as its VAE example has it: stax networks, SVI, an epoch in one jitted loop."""
    import jax
    import numpyro as np_
    import numpyro.distributions as dist
    from jax import lax, nn, random
    from jax import numpy as jnp
    from jax.example_libraries import stax
    from numpyro import infer, optim

    def hidden(sizes: tuple[int, ...]) -> list:
        return [layer for n in sizes for layer in (stax.Dense(n), stax.Tanh)]

    softplus = stax.elementwise(nn.softplus)
    heads = stax.parallel(stax.Dense(LATENT), stax.serial(stax.Dense(LATENT), softplus))
    encoder = stax.serial(*hidden(SIZES), stax.FanOut(2), heads)
    decoder = stax.serial(*hidden(SIZES), stax.Dense(784))
    batch = bits.shape[1]

    def model(x):  # noqa: ANN001, ANN202
        decode = np_.module("decoder", decoder, (batch, LATENT))
        with np_.plate("data", batch):
            z = np_.sample("z", dist.Normal(jnp.zeros(LATENT), 1).to_event(1))
            return np_.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)

    def guide(x):  # noqa: ANN001, ANN202
        loc, scale = np_.module("encoder", encoder, (batch, 784))(x)
        with np_.plate("data", batch):
            return np_.sample("z", dist.Normal(loc, scale).to_event(1))

    svi = infer.SVI(model, guide, optim.Adam(LR), infer.Trace_ELBO())
    data, images = jnp.asarray(bits.cpu().numpy()), jnp.asarray(grey.cpu().numpy())
    batches = list(data)
    update = jax.jit(svi.update)

    @jax.jit
    def sweep(state, key):  # noqa: ANN001, ANN202
        order_key, bits_key = random.split(key)
        order = random.permutation(order_key, len(images))

        def body(i, carry):  # noqa: ANN001, ANN202
            total, state = carry
            x = images[lax.dynamic_slice_in_dim(order, i * batch, batch)]
            x = random.bernoulli(random.fold_in(bits_key, i), x).astype(x.dtype)
            state, loss = svi.update(state, x)
            return total + loss, state

        return lax.fori_loop(0, len(images) // batch, body, (0.0, state))

    state = [svi.init(random.PRNGKey(0), batches[0])]

    def steps() -> None:
        for x in batches:
            state[0], _ = update(state[0], x)
        jax.block_until_ready(state[0])

    def epoch() -> None:
        key = random.PRNGKey(torch.randint(2**31, ()).item())
        _, state[0] = jax.block_until_ready(sweep(state[0], key))

    return Peer(timed(steps), timed(epoch))


def pythae(bits: Tensor, grey: Tensor) -> Peer:
    """pythae's trainer, without its progress bar."""
    import logging

    from pythae.data.datasets import BaseDataset, DatasetOutput
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import CallbackHandler, TrainingCallback

    logging.getLogger("pythae").setLevel(logging.ERROR)

    def mlp(*sizes: int) -> list[nn.Module]:
        pairs = pairwise(sizes)
        return [layer for a, b in pairs for layer in (nn.Linear(a, b), nn.Tanh())]

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(*mlp(784, *SIZES))
            self.loc, self.log_var = (nn.Linear(SIZES[-1], LATENT) for _ in range(2))

        def forward(self, x: Tensor) -> ModelOutput:
            h = self.body(x)
            return ModelOutput(embedding=self.loc(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            top = nn.Linear(SIZES[-1], 784), nn.Sigmoid()
            self.body = nn.Sequential(*mlp(LATENT, *SIZES), *top)

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.body(z))

    class Bits(BaseDataset):
        def __getitem__(self, index: int) -> DatasetOutput:
            found = super().__getitem__(index)
            return DatasetOutput(data=torch.bernoulli(found.data), labels=found.labels)

    def trainer(data: BaseDataset) -> Callable[[], object]:
        told = BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(), learning_rate=LR, no_cuda=bits.device.type == "cpu",
            per_device_train_batch_size=bits.shape[1],
        )  # fmt: skip
        model = VAE(
            VAEConfig(input_dim=(784,), latent_dim=LATENT, reconstruction_loss="bce"),
            Encoder(), Decoder(),
        )  # fmt: skip
        found = BaseTrainer(model, data, training_config=told)
        found.prepare_training()
        found.callback_handler = CallbackHandler([TrainingCallback()], model)
        return timed(lambda: found.train_step(1))

    flat = bits.flatten(0, 1)
    with redirect_stdout(None):
        return Peer(
            trainer(BaseDataset(flat, torch.zeros(len(flat)))),
            trainer(Bits(grey, torch.zeros(len(grey)))),
        )


PEERS: dict[str, Callable[[Tensor, Tensor], Peer]] = {
    "Pyro SVI, as its tutorial": by_svi(adam, Trace_ELBO, True),
    "Pyro SVI, validation off": by_svi(adam, Trace_ELBO, False),
    "Pyro SVI, JitTrace_ELBO": by_svi(adam, JitTrace_ELBO, False),
    "pyro_vae, eager": ours(False),
    "pyro_vae, captured": ours("capture"),
    "pyro_vae, compiled": ours(True),
    "pyro_vae, CUDA graphs": ours("reduce-overhead"),
    "PyTorch by hand, eager": by_hand(False),
    "PyTorch by hand, compiled": by_hand(True),
    "NumPyro, jit": numpyro,
    "pythae's trainer": pythae,
    "matrix products alone": floor,
}


def versions() -> str:
    """Of the peers that are not dependencies."""
    found = []
    for name in ("numpyro", "jax", "pythae"):
        with suppress(ImportError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)
