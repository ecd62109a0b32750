"""Whether recommend_estimator picks one that trains about as fast as the best.

python benchmarks/recommendation.py [--seconds 12] [--race 3] [MODEL ...]

For six small models of scikit-learn's digits as bits: what is recommended after so many seconds,
and its gain in a race of all of the shortlist at equal seconds, with other seeds, beside the best
gain. Each finished model is a line of the results, and a later call goes on.
"""

import argparse

import torch
from common import finished, keep, publish, table

import pyro_vae as pv
from pyro_vae.evaluate.gradients.recommendation import Race, _suitable

NETWORKS = {"encoder": "MLP([20])", "decoder": "MLP([20])", "seed": 0}
BITS = {"prior": "Bernoulli", "guide": "Bernoulli", "encoder": "MLP([])", "decoder": "MLP([])"}
ONE_HOT = {"prior": "OneHotCategorical", "guide": "OneHotCategorical"}
MODELS = {  # the model, and K
    "normal": ({"latent_dim": 5}, 1),
    "bernoulli": ({"latent_dim": 200, **BITS}, 1),
    "categorical": ({"latent_dim": (3, 4), **ONE_HOT}, 1),
    "flow": ({"latent_dim": 5, "guide": "Flow(IAF, transforms=1, hidden_features=[20])"}, 1),
    "K = 50": ({"latent_dim": 5}, 50),
    "layers": ({"layers": [6, 3]}, 1),
}


def row(name: str, x: torch.Tensor, seconds: float, each: float) -> dict[str, object]:
    """What is recommended for a model, its gain in nats, and the best one."""
    options, k = MODELS[name]
    vae = pv.VAE(64, **{**NETWORKS, **options})
    found = pv.recommend_estimator(vae, x, num_particles=k, seconds=seconds, seed=0)
    lines, _ = _suitable(vae, x[:100], None, k, 1)
    race, entrants = Race(vae, x[200:], x[:200], k, 100, 1e-3, 1), {str(n): n for n in lines}
    gain = race.run(entrants, race.time(entrants), each).gain
    return {
        "model": name, "shortlist": len(lines), "recommended": found.estimator,
        "best": str(gain.idxmax()), "gain": gain[found.estimator], "best_gain": gain.max(),
        "seconds": seconds, "race": each,
    }  # fmt: skip


def main() -> None:
    """The models one after the other."""
    say = argparse.ArgumentParser()
    say.add_argument("--seconds", type=float, default=12.0)
    say.add_argument("--race", type=float, default=3.0)
    say.add_argument("models", nargs="*", default=[*MODELS])
    told = say.parse_args()
    x = (pv.load_data("digits").train.flatten(1) > 0.5).float()
    same = {"seconds": told.seconds, "race": told.race}
    for name in told.models:
        asked = {"model": name, **same}
        if not any(asked == {key: r[key] for key in asked} for r in finished("recommendation")):
            keep("recommendation", row(name, x, told.seconds, told.race))
    rows = [
        [r["model"], r["shortlist"], f"`{r['recommended']}`", f"`{r['best']}`",
         f"{r['gain']:.2f}", f"{r['gain'] / r['best_gain']:.2f}"]
        for r in finished("recommendation") if same == {key: r[key] for key in same}
    ]  # fmt: skip
    head = ["model", "shortlist", "recommended", "best of another race", "gain, nats",
            "its share of the best gain"]  # fmt: skip
    text = (
        f"Recommended after {told.seconds:g} s; races of {told.race:g} s an estimator. Of models "
        "that gain alike the clock of a machine that others use decides.\n\n"
    )
    publish("recommendation", "Recommended estimators", text + table(head, rows))


if __name__ == "__main__":
    main()
