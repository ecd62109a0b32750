"""The settings of a training run, said once: for ``fit``, files, the command line and sweeps."""

from dataclasses import dataclass, field

__all__ = ["FitSettings"]


def setting(default: object, text: str, metavar: str = "LINE") -> object:
    """A field with the help that the command line shows for it."""
    return field(default=default, metadata={"help": text, "metavar": metavar})


@dataclass(frozen=True)
class FitSettings:
    """What ``fit`` is asked to do, apart from the model, the data and callbacks; all plain values.

    :func:`~pyro_vae.fit` describes each. Importing this module imports no heavy library.
    """

    estimator: str = setting("Trace_ELBO", "The bound and its gradient.")  # pyright: ignore
    epochs: int = setting(100, "Passes over the data.", "N")  # pyright: ignore
    batch_size: int = setting(100, "Observations a step.", "N")  # pyright: ignore
    lr: float | str = setting(1e-3, "A number, or a schedule.")  # pyright: ignore
    optimizer: str = setting("Adam", "A class of torch.optim.")  # pyright: ignore
    beta: float | str = setting(1.0, "The weight of the KL term.")  # pyright: ignore
