"""The folder of a run: held by one process at a time, with what it was told and what it gave."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ...core.files import folder_path, locked, replacing
from ...core.toml import read_config, write_toml
from .checkpoint import find, is_kept
from .settings import CONFIG, FROM_PYTHON

if TYPE_CHECKING:
    from .run import Trainable

__all__ = ["HISTORY", "RESULTS", "RunFolder"]

HISTORY, RESULTS = "history.csv", "results.toml"


class RunFolder:
    """The folder of a run.

    Args:
        path: where it is; it is made when it is held.
        told: the settings beside those of ``fit``, by name.
        made: whether it was made for this run, and goes where the run leaves it empty.
    """

    def __init__(
        self, path: str | Path, told: Mapping[str, object] | None = None, *, made: bool = False
    ) -> None:
        self.path, self.made = Path(path), made
        self.told = dict(told or {})
        self.is_held = False

    def __str__(self) -> str:
        return str(self.path)

    @classmethod
    def of(cls, folder: "str | Path | RunFolder", name: str = "folder") -> "RunFolder":
        """A folder as it is, or that of a path; ``name`` is how an error calls it."""
        return folder if isinstance(folder, RunFolder) else cls(folder_path(name, folder))

    @contextmanager
    def held(self, *, resume: bool = False) -> Generator[None]:
        """Hold it against other processes and threads; within it a second call does nothing.

        Raises:
            ValueError: another one holds it, it holds a run already, or none to resume.
        """
        if self.is_held:
            yield
            return
        if resume:
            find(self.path)
        self.made |= not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self.path):
                if not resume and is_kept(self.path):
                    raise ValueError(
                        f"{self} holds a run already: resume={str(self)!r} goes on with it "
                        f"(--resume in a shell), or choose another folder"
                    )
                self.is_held = True
                yield
        finally:
            self.is_held = False
            if self.made and not any(self.path.iterdir()):
                self.path.rmdir()

    def announce(self, settings: Mapping[str, object], data: Mapping[str, object]) -> None:
        """Write what the run is told, before it begins.

        Args:
            settings: of ``fit``.
            data: what tells its data from others, by the names in ``OF_DATA``.
        """
        path = self.path / CONFIG
        before = read_config(path) if path.exists() else {}
        told = {"data": FROM_PYTHON} | before | self.told | dict(settings) | dict(data)
        if before.get("epochs", told["epochs"]) != told["epochs"]:
            comment = "resumed with another --epochs: a schedule over all epochs had another length"
        elif before:
            comment = path.read_text("utf-8").split("\n")[0].removeprefix("# ")
        elif told["data"] == FROM_PYTHON:
            comment = "a run of pv.fit, whose model and data were given as objects"
        else:
            comment = "pyro-vae fit --config this file trains this model again"
        write_toml(path, told, comment)

    def keep(self, model: "Trainable", history: pd.DataFrame) -> None:
        """Write the model and its history; figures of other weights go first."""
        for name in (RESULTS, HISTORY):
            (self.path / name).unlink(missing_ok=True)
        model.save(self.path)
        with replacing(self.path / HISTORY) as new:
            history.to_csv(new)
