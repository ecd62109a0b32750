"""The pictures of the README: the VAE of its ten lines.

python benchmarks/digits.py
"""

import re
from pathlib import Path

import torch
from common import RESULTS, publish, table
from matplotlib import pyplot
from matplotlib.figure import Figure

import pyro_vae as pv
from pyro_vae.evaluate import Assessment

README = Path(__file__).parents[1] / "README.md"


def main() -> None:
    """Run the ten lines, draw and publish."""
    block = re.search(r"## Ten lines\n\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert block is not None
    scope = {}
    exec(block[1], scope)
    data, vae, fitted, x = (scope[name] for name in ("data", "vae", "fit", "x"))
    bound = pv.elbo(vae, x, num_samples=10, seed=0)
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7.6), layout="constrained")
    (curves, latent), (pairs, drawn) = axes
    pv.plots.learning_curves(fitted.history, curves)
    pv.plots.latent_space(vae, data.train, data.train_labels, latent)
    pv.plots.reconstructions(vae, x[:48], pairs)
    pv.plots.samples(vae, 72, ax=drawn)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "digits.png", dpi=130)
    found = pv.assess(vae, x)
    draw_diagnostics(vae, x, data.test_labels, found).savefig(RESULTS / "diagnostics.png")
    value = found.table["value"]
    rows = [
        ["test ELBO, nats per observation", f"{bound.mean():.2f}"],
        ["its standard error over the data", f"{bound.std() / len(bound) ** 0.5:.2f}"],
        ["log p(x), by 1,000 draws", f"{value['log p(x)']:.2f}"],
        *([name, verdict] for name, verdict in found.verdicts.items()),
        ["training, seconds", f"{fitted.history.seconds.iloc[-1]:.1f}"],
    ]
    publish(
        "digits",
        "Digits",
        table(["", ""], rows) + "\n\n![digits](digits.png)\n\n![diagnostics](diagnostics.png)",
    )


def draw_diagnostics(
    vae: pv.VAE, x: torch.Tensor, labels: torch.Tensor, found: Assessment
) -> Figure:
    """Whether to believe the model, and what its latent space does."""
    figure, axes = pyplot.subplots(2, 3, figsize=(13, 7), dpi=100, layout="constrained")
    pv.plots.khat(found.evidence, axes[0, 0])
    pv.plots.gaps(found.gaps, axes[0, 1])
    pv.plots.calibration(found.calibration, axes[0, 2])
    pv.plots.latent_kl(found.latents, axes[1, 0])
    largest = found.latents.dimensions["kl"].argsort().iloc[::-1][:6].tolist()
    pv.plots.traversals(vae, x[0], largest, ax=axes[1, 1])
    pv.plots.attribute_arithmetic(vae, x, labels, source=0, target=7, ax=axes[1, 2])
    return figure


if __name__ == "__main__":
    main()
