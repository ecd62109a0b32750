"""A new callback: what it overrides is called around each step and epoch of ``fit``."""

import pyro_vae as pv
from pyro_vae.core.checks import positive


class StopAtTarget(pv.callbacks.Callback):
    """Stop once the ELBO of the training data has risen by so much.

    Args:
        improvement: nats per data point above the first epoch's.
    """

    def __init__(self, improvement: float) -> None:
        self.improvement = positive("improvement", improvement)
        self.first: float | None = None

    def after_epoch(self, row: dict[str, float]) -> bool:
        """Add a figure to the history; ``True`` stops the training."""
        self.first = row["elbo_train"] if self.first is None else self.first
        row["gain"] = row["elbo_train"] - self.first
        return row["gain"] >= self.improvement

    def state_dict(self) -> dict[str, object]:
        """What a resumed run must know."""
        return {} if self.first is None else {"first": self.first}

    def load_state_dict(self, state: dict) -> None:
        """Take it up again."""
        self.first = state["first"]
