"""What one run is told: flags, or a TOML file in their place; a flag beats the file."""

from collections.abc import Mapping

from ..language.spec import nearest

__all__ = ["CONFIG", "DEFAULTS", "merge"]

CONFIG = "config.toml"

# Every setting of `pyro-vae fit`, by the name of its flag; None is left to the data or the package.
DEFAULTS: dict[str, object] = {
    "data": "digits",
    "likelihood": "Bernoulli",
    "prior": "Normal",
    "guide": "Normal",
    "estimator": "Trace_ELBO",
    "latent_dim": 10,
    "layers": None,
    "encoder": "MLP([200, 200])",
    "decoder": "MLP([200, 200])",
    "epochs": 100,
    "batch_size": 100,
    "lr": "cosine(2e-3)",
    "optimizer": "Adam",
    "beta": "1",
    "binarize": None,
    "validation": 0.1,
    "patience": None,
    "checkpoint_every": 1,
    "seed": 0,
    "data_root": None,
    "device": "auto",
    "compile": "auto",
}
NUMBERS = {
    "latent_dim": int, "epochs": int, "batch_size": int, "patience": int, "checkpoint_every": int,
    "seed": int, "validation": float,
}  # fmt: skip


def merge(flags: Mapping[str, object], config: Mapping[str, object]) -> dict[str, object]:
    """Defaults, beaten by the file, beaten by the flags that were given (those not ``None``).

    Raises:
        ValueError: a key of the file that no flag has, or a value of the wrong kind.
    """
    for key, value in config.items():
        if key not in DEFAULTS:
            raise ValueError(
                f"the configuration has an unknown key {key!r}{nearest(key, DEFAULTS)}"
            )
        kinds: tuple[type, ...] = (NUMBERS[key],) if key in NUMBERS else (str,)
        kinds += {"lr": (int, float), "beta": (int, float), "layers": (list,)}.get(key, ())
        if key == "compile" and isinstance(value, bool):
            continue
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(
                f"{key} in the configuration must be {' or '.join(k.__name__ for k in kinds)}, "
                f"got {value!r}"
            )
    given = {k: v for k, v in flags.items() if v is not None}
    return {**DEFAULTS, **config, **given}
