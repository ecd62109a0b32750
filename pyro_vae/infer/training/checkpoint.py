"""A training run on disk: one safetensors file, written whole or not at all."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..engine.optim import FusedOptim

__all__ = [
    "CHECKPOINT", "Inner", "State", "read", "restore", "rng_state", "set_rng_state", "write",
]  # fmt: skip

CHECKPOINT = "checkpoint.safetensors"


class Stateful(Protocol):
    """A module, as far as its weights go."""

    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> object: ...


@dataclass
class Inner:
    """How far the guide is ahead of the model: see :class:`~.collapse.AggressiveGuide`.

    Attributes:
        steps: of the guide alone, since the model moved.
        loss: summed over the latest of them, and ``count`` their data.
        before: the mean loss of those just before these.
        moves: whether the model moves at the next step.
        information: the mutual information at the last epoch's end.
        over: whether both are trained at every step from now on.
    """

    steps: int = 0
    loss: float = 0.0
    count: float = 0.0
    before: float | None = None
    moves: bool = False
    information: float | None = None
    over: bool = False

    def start_anew(self) -> None:
        """Forget the steps, once the model has moved."""
        self.steps, self.loss, self.count, self.before, self.moves = 0, 0.0, 0.0, None, False


@dataclass
class State:
    """Where a run is; with the tensors of :func:`write` it is all that the rest depends on.

    Attributes:
        settings: what was asked of ``fit``; a resumed run must ask the same.
        epoch: epochs finished.
        step: steps taken in the unfinished epoch.
        loss: their summed loss in nats, and ``count`` their data.
        history: a row per finished epoch.
        seconds: of training, evaluation not counted.
        best: the highest validation ELBO, in epoch ``best_epoch``.
        inner: of an aggressive guide.
    """

    settings: dict[str, Any]
    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    count: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    best: float | None = None
    best_epoch: int | None = None
    inner: Inner = field(default_factory=Inner)


def rng_state() -> dict[str, Tensor]:
    """The state of torch's generators, as tensors."""
    states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), **{f"cuda{i}": s for i, s in enumerate(states)}}


def set_rng_state(state: Mapping[str, Tensor]) -> None:
    """Put torch's generators into a state of :func:`rng_state`."""
    torch.set_rng_state(state["cpu"])
    for i in range(len(state) - 1):
        torch.cuda.set_rng_state(state[f"cuda{i}"], i)


def write(
    folder: Path,
    state: State,
    vae: Stateful,
    network: nn.Module | None,
    moments: Mapping[str, Mapping[str, Tensor]],
    further: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Write a checkpoint; a crash in between leaves the one before.

    Args:
        folder: of the run.
        state: where the run is.
        vae: the model.
        network: the estimator's own network, if it has one.
        moments: the optimizer's tensors by parameter.
        further: the generators' states now and at the start of the unfinished epoch, and the best
            weights so far.
    """
    parts: dict[str, Mapping[str, Tensor]] = {
        "vae": vae.state_dict(),
        "network": network.state_dict() if network else {},
        **further,
    }
    for name, tensors in moments.items():
        parts[f"optim/{name}"] = {k: v for k, v in tensors.items() if isinstance(v, Tensor)}
    tensors = {
        f"{part}/{key}": value.detach().cpu().contiguous().clone()
        for part, values in parts.items()
        for key, value in values.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CHECKPOINT
    save_file(tensors, path.with_suffix(".new"), metadata={"state": json.dumps(asdict(state))})
    os.replace(path.with_suffix(".new"), path)


def read(folder: str | Path) -> tuple[State, dict[str, dict[str, Tensor]]]:
    """The state and the tensors of a checkpoint, by part.

    Raises:
        ValueError: no checkpoint, or a damaged or foreign one.
    """
    path = Path(folder) / CHECKPOINT
    if not path.exists():
        raise ValueError(f"{folder} holds no checkpoint ({CHECKPOINT}) to resume from")
    try:
        with safe_open(path, framework="pt") as file:
            said = json.loads(file.metadata()["state"])
            state = State(**said | {"inner": Inner(**said.get("inner", {}))})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as problem:
        raise ValueError(f"{path} is damaged, or not a checkpoint of pyro_vae: {problem}") from None
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        part, name = key.rsplit("/", 1)
        parts.setdefault(part, {})[name] = value
    return state, parts


def restore(
    parts: Mapping[str, Mapping[str, Tensor]],
    vae: Stateful,
    network: nn.Module | None,
    optim: FusedOptim,
) -> None:
    """Put the tensors of :func:`read` back; the generators are set apart.

    Raises:
        ValueError: the checkpoint is of another model.
    """
    try:
        vae.load_state_dict(dict(parts["vae"]))
        if network is not None:
            network.load_state_dict(dict(parts.get("network", {})))
    except (RuntimeError, KeyError) as problem:
        raise ValueError(f"the checkpoint is of another model: {problem}") from None
    state = {part[6:]: tensors for part, tensors in parts.items() if part.startswith("optim/")}
    optim.set_state({k: dict(v) for k, v in state.items()})
