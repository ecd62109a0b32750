"""The usual VAE on MNIST: 784-200-200-50 (tanh), batch 100, fresh bits every epoch.

    python benchmarks/mnist.py [EPOCHS]

Prints the test ELBO (10 draws of z per observation, bits drawn once), log p(x) by 5,000 draws of z
for each of the 10,000 test data, the times and the peak memory.
"""

import resource
import sys
import time

import torch
from common import mnist, publish, table

import pyro_vae as pv

ESTIMATOR, LR = "TraceMeanField_ELBO", "cosine(1.5e-3)"


def main() -> None:
    """Train, measure and publish."""
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    data = mnist()
    train, test = data.train.flatten(1), data.test.flatten(1)
    networks = [pv.MLP([200, 200], activation="Tanh") for _ in range(2)]
    vae = pv.VAE(784, 50, encoder=networks[0], decoder=networks[1], seed=0)
    start = time.perf_counter()
    history = pv.fit(
        vae, train, estimator=ESTIMATOR, epochs=epochs, batch_size=100, lr=LR, binarize="dynamic"
    ).history
    wall = time.perf_counter() - start
    torch.manual_seed(0)
    bits = torch.rand_like(test).lt(test).float()
    bound = pv.elbo(vae, bits, num_samples=10, seed=0)
    start = time.perf_counter()
    evidence = pv.log_evidence(vae, bits, num_samples=5000, seed=0)
    evidence_wall = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = [
        ["test ELBO, nats per observation", f"{bound.mean():.2f}"],
        ["its standard error over the data", f"{bound.std() / len(bound) ** 0.5:.2f}"],
        ["log p(x) of the test data, 5,000 draws each", f"{evidence.mean:.2f}"],
        ["its standard error over the data, of drawing z",
         f"{evidence.mean_error:.2f}, {evidence.monte_carlo_error:.4f}"],
        ["test data with k-hat > 0.7", f"{(evidence.khat > 0.7).double().mean():.1%}"],
        ["log p(x) in all, seconds", f"{evidence_wall:.0f}"],
        ["training ELBO at the end", f"{history.elbo_train.iloc[-1]:.2f}"],
        ["KL at the end", f"{history.kl.iloc[-1]:.2f}"],
        ["epochs", epochs],
        ["training, seconds", f"{history.seconds.iloc[-1]:.0f}"],
        ["fit in all, seconds", f"{wall:.0f}"],
        ["seconds per epoch, median", f"{history.seconds.diff().median():.2f}"],
        ["peak memory, MB", f"{memory:.0f}"],
    ]  # fmt: skip
    text = f'784-200-200-50 (tanh), `{ESTIMATOR}`, Adam, `lr="{LR}"`, batch 100, fresh bits.\n\n'
    publish("mnist", "MNIST", text + table(["", ""], rows))


if __name__ == "__main__":
    main()
