"""The picture of the README: a VAE of scikit-learn's digits, as `make demo` trains it.

python benchmarks/digits.py
"""

import torch
from common import RESULTS, publish, table
from matplotlib import pyplot

import pyro_vae as pv
from pyro_vae.settings import DEFAULTS


def main() -> None:
    """Train with the command line's own defaults, draw and publish."""
    told = DEFAULTS
    data = pv.load_data("digits")
    vae = pv.VAE((1, 8, 8), 10, likelihood="Bernoulli", prior="Normal", guide="Normal", seed=0)
    fitted = pv.fit(
        vae, data.train, epochs=int(str(told["epochs"])), lr=str(told["lr"]), binarize="dynamic",
        validation=0.1,
    )  # fmt: skip
    torch.manual_seed(0)
    bits = torch.bernoulli(data.test)
    bound = pv.elbo(vae, bits, num_samples=10, seed=0)
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7.6), layout="constrained")
    (curves, latent), (pairs, drawn) = axes
    pv.plots.learning_curves(fitted.history, curves)
    seen = torch.bernoulli(data.train)
    pv.plots.latent_space(vae, seen, data.train_labels, latent)
    pv.plots.reconstructions(vae, bits[:48], pairs)
    pv.plots.samples(vae, 72, ax=drawn)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "digits.png", dpi=130)
    rows = [
        ["test ELBO, nats per datum", f"{bound.mean():.2f}"],
        ["its standard error over the data", f"{bound.std() / len(bound) ** 0.5:.2f}"],
        ["training, seconds", f"{fitted.history.seconds.iloc[-1]:.1f}"],
    ]
    publish("digits", "Digits", table(["", ""], rows) + "\n\n![digits](digits.png)")


if __name__ == "__main__":
    main()
