"""Hashes of the training paths of fixed configurations: what a change of the code must not move.

``python benchmarks/training_paths.py`` compares with the committed hashes, ``--write`` writes them.
Bits hang on the processor and on PyTorch's version, so both are recorded, and hashes of another
machine are not comparable: run the script at the commit before a change and at the one after it.
"""

import argparse
import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from common import processor
from torch import Tensor

import pyro_vae as pv

RESULTS = Path(__file__).parent / "results" / "training_paths.json"
BITS = "Bernoulli"
SMALL = "MLP([20])"


def configurations() -> Iterator[tuple[str, pv.VAE, Tensor, dict]]:
    """Name, model and arguments of ``fit``; each is made when it is asked for."""
    images = pv.load_data("digits").train[:300]
    digits = images.flatten(1)
    bits = (digits > 0.5).float()
    holes = digits.clone()
    holes[torch.rand(holes.shape, generator=torch.Generator().manual_seed(0)) < 0.3] = float("nan")
    nets = {"encoder": SMALL, "decoder": SMALL, "seed": 0}

    def labelled() -> tuple[pv.M2, Tensor]:
        vae = pv.M2(64, 3, classes=4, alpha=0.5, merge=SMALL, **nets)
        labels = torch.arange(300) % 6 - 1
        return vae, vae.labelled(bits, labels.clamp(-1, 3))

    yield "plain", pv.VAE(64, 5, **nets), digits, {"binarize": "dynamic", "validation": 0.2}
    yield (
        "layers", pv.VAE(64, layers=[6, 3], guide="TopDown(Normal)", **nets), bits,
        {"estimator": "TraceMeanField_ELBO", "beta": "linear(0, 1, epochs=2)"},
    )  # fmt: skip
    yield (
        "vamp", pv.VAE(64, 4, prior="VampPrior(components=7)", **nets), bits,
        {"validation": 0.2, "patience": 2, "optimizer": "AdamW(clip_norm=5)"},
    )  # fmt: skip
    yield (
        "missing",
        pv.VAE(64, 4, likelihood="StudentT(df=4, scale=learned)", missing=True, **nets),
        holes, {"lr": "cosine(2e-3, warmup=1)"},
    )  # fmt: skip
    vae, x = labelled()
    yield "labels", vae, x, {"estimator": "TraceEnum_ELBO"}
    yield (
        "score", pv.VAE(64, 6, prior=BITS, guide=BITS, **nets), bits,
        {"estimator": "TraceGraph_ELBO(gradient=score, baseline=neural)"},
    )  # fmt: skip
    yield (
        "flow", pv.VAE(64, 3, prior="Flow(NSF, transforms=2)", guide="Flow(IAF)", **nets), bits,
        {"estimator": "DReG(num_particles=3)"},
    )  # fmt: skip
    yield (
        "rebar", pv.VAE(64, 6, prior=BITS, guide=BITS, **nets), bits,
        {"estimator": "REBAR", "beta": 0.5},
    )  # fmt: skip
    yield (
        "collapse", pv.VAE(64, 5, **nets), bits, {"free_bits": 0.1, "aggressive": 2, "epochs": 4},
    )  # fmt: skip
    convolutions = {"encoder": "ConvEncoder([4, 8])", "decoder": "ConvDecoder([8, 4])", "seed": 0}
    mixture = "Mixture(Normal(loc=learned, scale=learned), components=5)"
    yield (
        "compiled",
        pv.VAE((1, 8, 8), 4, prior=mixture, likelihood="ContinuousBernoulli", **convolutions),
        images, {"compile": True, "estimator": "Trace_ELBO(num_particles=2)"},
    )  # fmt: skip
    yield (
        "concrete", pv.VAE(64, 6, prior=BITS, guide=BITS, **nets), bits,
        {"estimator": "Trace_ELBO(gradient=concrete, temperature='linear(1, 0.5)')"},
    )  # fmt: skip
    yield (
        "vimco", pv.VAE(64, 6, prior=BITS, guide=BITS, **nets), bits,
        {"estimator": "VIMCO(num_particles=4)", "precision": "bf16"},
    )  # fmt: skip


def digest(vae: pv.VAE, fitted: pv.Fit) -> str:
    """One hash of all weights, whatever their names, and of the history."""
    weights = sorted(
        hashlib.sha256(v.detach().numpy().tobytes()).hexdigest()
        for name, v in vae.state_dict().items()
        if not name.startswith("inputs.")
    )
    history = fitted.history.drop(columns="seconds").to_numpy(dtype=float).tobytes()
    return hashlib.sha256("".join(weights).encode() + history).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep today's hashes")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    found = {"processor": processor(), "torch": torch.__version__}
    for name, vae, x, options in configurations():
        told = {"epochs": 3, "batch_size": 64, "compile": False, "progress": False} | options
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[name] = digest(vae, pv.fit(vae, x, seed=1, **told))
    if write:
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    kept = json.loads(RESULTS.read_text())
    for name, value in found.items():
        print(f"{name:<12}{value:<28}{'' if value == kept.get(name) else kept.get(name)}")


if __name__ == "__main__":
    main()
