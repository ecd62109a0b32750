"""Bits of the digits, coded by a VAE with bits back, and by what compresses files.

python benchmarks/compression.py
"""

import bz2
import gzip
import io
import lzma
import math
import time

import numpy as np
import torch
from common import publish, table
from PIL import Image

import pyro_vae as pv

LATENTS = {"Normal": (10, "TraceMeanField_ELBO"), "Bernoulli": (40, "DisARM")}


def bits(x: torch.Tensor, seed: int) -> torch.Tensor:
    """Bits with the grey values as probabilities."""
    return torch.bernoulli(x, generator=torch.Generator().manual_seed(seed))


def png(x: np.ndarray) -> bytes:
    """All images as one, of one bit a pixel: a row each or one above the other, the smaller."""
    files = []
    for shape in ((-1, x[0].size), (-1, x.shape[-1])):
        file = io.BytesIO()
        image = Image.fromarray(x.reshape(shape).astype(bool))
        image.save(file, "PNG", optimize=True)
        files.append(file.getvalue())
    return min(files, key=len)


def main() -> None:
    """Train, compress, decompress, compare and publish."""
    data = pv.load_data("digits")
    x, train = bits(data.test, 0), data.train
    packed = np.packbits(x.numpy().astype(bool)).tobytes()
    peers = {
        "one bit a pixel": len(packed),
        "gzip -9": len(gzip.compress(packed, 9, mtime=0)),
        "bz2 -9": len(bz2.compress(packed, 9)),
        "xz -9e": len(lzma.compress(packed, preset=9 | lzma.PRESET_EXTREME)),
        "PNG, all in one image": len(png(x.numpy())),
    }
    frequency = bits(train, 1).mean(0).clamp(1e-3, 1 - 1e-3)
    rows = [[k, "", f"{8 * n / x.numel():.3f}", n, ""] for k, n in peers.items()]
    for name, p in (("its frequency", frequency), ("its grey value, a floor", data.test)):
        nats = -torch.distributions.Bernoulli(p).log_prob(x).mean().item()
        rows.append([f"each pixel at {name}", "", f"{nats / math.log(2):.3f}", "", ""])
    for line, (latent_dim, estimator) in LATENTS.items():
        vae = pv.VAE((1, 8, 8), latent_dim, prior=line, guide=line, seed=0)
        pv.fit(vae, train, estimator=estimator, epochs=40, lr="cosine(2e-3)", binarize="dynamic",
               seed=0)  # fmt: skip
        bound = pv.rate_distortion(vae, x, num_samples=100, seed=0).bits_per_dimension.mean()
        start = time.perf_counter()
        coded = pv.compress(vae, x)
        seconds = time.perf_counter() - start
        assert torch.equal(pv.decompress(vae, coded), x)
        net = coded.net_bits_per_observation / coded.num_dimensions
        name = f"VAE, {latent_dim} {line} z"
        rows.append([f"{name}: negative ELBO", f"{bound:.3f}", "", "", ""])
        rows.append([
            f"{name}: bits back", f"{net:.3f}", f"{coded.bits_per_dimension:.3f}",
            4 * len(coded.words), f"{1000 * seconds / len(x):.2f}",
        ])  # fmt: skip
    head = ["", "net bits per pixel", "bits per pixel", "bytes", "ms per image"]
    text = (
        f"{len(x)} test images of 8 by 8 bits; the VAEs were trained on the others, and their "
        "weights are not counted. *Net* leaves out the random words at the start. Decompressed bit "
        "for bit.\n\n"
    )
    publish("compression", "Compression of the digits' bits", text + table(head, rows))


if __name__ == "__main__":
    main()
