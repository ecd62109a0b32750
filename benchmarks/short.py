"""A VAE of static MNIST, trained for few epochs: what several scripts measure."""

from common import RUNS, place, static_mnist

import pyro_vae as pv

__all__ = ["BATCH", "EPOCHS", "IMAGES", "LATENT", "WIDTHS", "trained"]

EPOCHS, IMAGES, LATENT, WIDTHS, BATCH = 25, 20_000, 40, [200, 200], 100


def trained(prior: str = "Normal", epochs: int = EPOCHS, seed: int = 0) -> tuple[pv.VAE, pv.Fit]:
    """784-200-200-40 (gated) with this prior; a folder keeps it, and a later call goes on."""
    word = "".join(c if c.isalnum() else "-" for c in prior)
    folder = RUNS / f"short-{word}-{epochs}-{seed}"
    networks = [pv.MLP(WIDTHS, activation="GLU") for _ in range(2)]
    vae = pv.VAE(784, LATENT, prior=prior, encoder=networks[0], decoder=networks[1], seed=seed)
    data = static_mnist()
    fit = pv.fit(
        vae, data["train"][:IMAGES], epochs=epochs, batch_size=BATCH, lr="cosine(2e-3)", seed=seed,
        beta=f"linear(0, 1, epochs={max(1, epochs // 4)})", validation=data["valid"][:2000],
        compile=False, progress=False, **place(folder),
    )  # fmt: skip
    if fit.interrupted:
        raise SystemExit("interrupted: call it again to go on")
    return vae.eval(), fit
