"""Small VAEs of binary images, trained for few epochs: what several scripts measure."""

from dataclasses import dataclass

import torch
from common import RUNS, place, static_mnist

import pyro_vae as pv

__all__ = ["SETTINGS", "Setting", "images", "trained"]


@dataclass(frozen=True)
class Setting:
    """What a VAE is trained on, and how large it is."""

    train: int
    latent: int
    widths: tuple[int, ...]
    epochs: int
    batch: int = 100
    lr: str = "cosine(2e-3)"

    @property
    def words(self) -> str:
        """In a line of text."""
        sizes = "-".join(map(str, (*self.widths, self.latent)))
        return (
            f"{self.train:,} training images, hidden layers and latent dimensions {sizes}, gated, "
            f"{self.epochs} epochs at batch {self.batch}"
        )


SETTINGS = {
    "mnist": Setting(train=20_000, latent=40, widths=(200, 200), epochs=25),
    "digits": Setting(train=1300, latent=10, widths=(100, 100), epochs=100, batch=50),
}


def images(data: str) -> dict[str, torch.Tensor]:
    """Bits of static MNIST; of scikit-learn's digits, where grey values are above a half."""
    if data == "mnist":
        return static_mnist()
    found = pv.load_data("digits")
    digits = torch.cat([found.train, found.test]).flatten(1).gt(0.5).float()
    digits = digits[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]
    n = SETTINGS[data].train
    return {"train": digits[:n], "valid": digits[n : n + 100], "test": digits[n + 100 :]}


def trained(
    data: str, prior: str = "Normal", seed: int = 0, how: Setting | None = None
) -> tuple[pv.VAE, pv.Fit]:
    """A VAE with this prior; a folder keeps it, and a later call goes on."""
    x, size = images(data), "" if how is None else f"-{how.train}-{how.epochs}"
    how = how or SETTINGS[data]
    word = "".join(c if c.isalnum() else "-" for c in prior)
    folder = RUNS / f"short-{data}{size}-{word}-{seed}"
    networks = [pv.MLP(list(how.widths), activation="GLU") for _ in range(2)]
    vae = pv.VAE(
        x["train"].shape[1], how.latent, prior=prior,
        encoder=networks[0], decoder=networks[1], seed=seed,
    )  # fmt: skip
    fit = pv.fit(
        vae, x["train"][: how.train], epochs=how.epochs, batch_size=how.batch, lr=how.lr,
        seed=seed, beta=f"linear(0, 1, epochs={how.epochs // 4})", validation=x["valid"][:2000],
        checkpoint_every=10, compile=False, progress=False, **place(folder),
    )  # fmt: skip
    if fit.interrupted:
        raise SystemExit("interrupted: call it again to go on")
    return vae.eval(), fit
