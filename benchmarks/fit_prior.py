"""What a prior buys that is fitted after the model, beside one that is trained with it.

    python benchmarks/fit_prior.py [--data digits|mnist] [--test 1000] [--train N] [--epochs N]
        [--fitted N] [--priors LINE ...]

Each training is a folder that a later call resumes.
"""

import argparse
import math
import time
from dataclasses import replace

from common import publish, table
from short import SETTINGS, images, trained

import pyro_vae as pv

PRIORS = (
    "Flow(NSF, transforms=3)",
    "Mixture(Normal(loc=learned, scale=learned), components=20)",
    "VampPrior(components=500)",
)
DRAWS = 1000
FITTED = {"batch_size": 200, "lr": 5e-3}


def main() -> None:
    """Train what is not there yet, fit the priors, and publish the table."""
    say = argparse.ArgumentParser()
    say.add_argument("--data", choices=list(SETTINGS), default="digits")
    say.add_argument("--test", type=int, default=1000)
    say.add_argument("--train", type=int)
    say.add_argument("--epochs", type=int)
    say.add_argument("--fitted", type=int, default=60, help="epochs of fit_prior")
    say.add_argument("--priors", nargs="+", default=[*PRIORS])
    told = say.parse_args()
    fitted = {**FITTED, "epochs": told.fitted}
    sizes = {k: v for k in ("train", "epochs") if (v := getattr(told, k)) is not None}
    data, usual = images(told.data), SETTINGS[told.data]
    how = replace(usual, **sizes)
    size = how if sizes else None
    x = data["test"][: told.test]
    plain, fit = trained(told.data, how=size)
    first = fit.history.seconds.iloc[-1]
    lines = []
    for prior in told.priors:
        together, other = trained(told.data, prior, how=size)
        start = time.perf_counter()
        after = pv.fit_prior(plain, data["train"][: how.train], prior, **fitted, seed=0)
        seconds = time.perf_counter() - start
        models = {"Normal": plain, "after": after.vae, "together": together}
        found = pv.compare(models, x, num_samples=DRAWS, seed=0)
        gaps = found.pointwise.sub(found.pointwise["Normal"], axis=0)
        share = gaps["after"].mean() / gaps["together"].mean()
        rest = gaps["after"] - share * gaps["together"]  # the delta method, paired
        error = rest.std() / math.sqrt(len(rest)) / abs(gaps["together"].mean())
        mean = found.pointwise.mean()
        lines.append([
            f"`{prior}`", f"{mean['Normal']:.2f}",
            *(f"{mean[k]:.2f} ({gaps[k].mean():+.2f} ± {gaps[k].sem():.2f})"
              for k in ("after", "together")),
            f"{share:.0%} ± {error:.0%}", f"{after.gain:+.2f} ± {after.gain_error:.2f}",
            f"{first:.0f} + {seconds:.0f}", f"{other.history.seconds.iloc[-1]:.0f}",
        ])  # fmt: skip
    head = [
        "prior", "standard normal", "fitted after", "trained with the model", "share of the gain",
        "ELBO, validation part", "seconds, after", "seconds, with",
    ]  # fmt: skip
    text = (
        f"{told.data}, bits: {how.words}, one seed; the prior after it by `fit_prior` with "
        f"{fitted}. log p(x) in nats per observation, "
        f"of {len(x)} test images by {DRAWS} draws of the guide, with differences to the standard "
        "normal paired by image and their standard errors; each is a lower bound where k-hat "
        "is above .7.\n\n"
    )
    publish(f"fit_prior_{told.data}", "A prior after the model", text + table(head, lines))


if __name__ == "__main__":
    main()
