"""Callbacks that write each epoch's figures down."""

import csv
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..run import Callback

__all__ = ["Log", "TensorBoard"]


class Log(Callback):
    """Append each epoch's row of the history to a file; a resumed run goes on in it.

    Args:
        path: ``.jsonl`` holds an object a line, ``.csv`` a table.

    Raises:
        ValueError: another kind of file; when training starts, a file that another run has written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix not in (".csv", ".jsonl"):
            raise ValueError(f"a log is a .csv or .jsonl file, got {self.path.name!r}")

    def start(self) -> None:
        """Write the rows of a resumed run anew, and drop those past its checkpoint."""
        if self.run.processes.rank == 0:
            if not self.run.history and self.path.exists() and self.path.stat().st_size:
                raise ValueError(f"{self.path} exists: remove it, or log to another file")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("")
        for row in self.run.history:
            self.after_epoch(row)

    def after_epoch(self, row: dict[str, float]) -> None:
        """Append a row."""
        if self.run.processes.rank:
            return
        with self.path.open("a", newline="") as file:
            if self.path.suffix == ".jsonl":
                file.write(json.dumps(row) + "\n")
                return
            table = csv.DictWriter(file, list(self.run.history[0]), extrasaction="ignore")
            if file.tell() == 0:
                table.writeheader()
            table.writerow(row)


class TensorBoard(Callback):
    """Show each epoch's row of the history in TensorBoard: ``tensorboard --logdir runs``.

    Args:
        folder: where its event files go.

    Raises:
        ValueError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.writer: Any = None
        if find_spec("tensorboard") is None:
            raise ValueError("TensorBoard is missing: pip install 'pyro-vae[tensorboard]'")

    def start(self) -> None:
        """Open the file; what it shows past the checkpoint of a resumed run is dropped."""
        from torch.utils.tensorboard import SummaryWriter

        if self.run.processes.rank == 0:
            resumed = self.run.epoch + 1 if self.run.epoch else None
            self.writer = SummaryWriter(str(self.folder), purge_step=resumed)

    def after_epoch(self, row: dict[str, float]) -> None:
        """Write a row."""
        if self.writer:
            for name in row.keys() - {"epoch"}:
                self.writer.add_scalar(name, row[name], self.run.epoch)
            self.writer.flush()

    def end(self, finished: bool) -> None:
        """Close the file."""
        if self.writer:
            self.writer.close()
