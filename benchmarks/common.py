"""What the scripts share: the machine in words, data from PYRO_VAE_DATA, tables in Markdown."""

import json
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyro
import torch

import pyro_vae as pv
from pyro_vae.infer.training.checkpoint import is_kept

RESULTS = Path(os.environ.get("RESULTS", Path(__file__).parent / "results"))
RUNS = Path(__file__).parent / "runs"


def processor() -> str:
    """Its maker's name and family, where the system tells them."""
    about, name = Path("/proc/cpuinfo"), r"^(?:model name|cpu family)\s*: (.*)"
    lines = re.findall(name, about.read_text(), re.MULTILINE) if about.exists() else []
    return f" ({lines[1]}, family {lines[0]})" if len(lines) > 1 else ""


def machine() -> str:
    """Versions and the machine, in a line."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{os.cpu_count()} cores{processor()}, {where}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, Pyro {pyro.__version__}, pyro_vae {pv.__version__}"
    )


def mnist() -> pv.Data:
    """MNIST from the folder that PYRO_VAE_DATA names, or downloaded."""
    return pv.load_data("mnist", os.environ.get("PYRO_VAE_DATA"))


def static_mnist() -> dict[str, torch.Tensor]:
    """The fixed binarization that the literature uses, test images in a fixed random order.

    In the file they are sorted by digit, so that the first of them are all zeros.
    """
    root = os.environ.get("PYRO_VAE_DATA")
    if root is None:
        raise SystemExit("set PYRO_VAE_DATA to the folder that holds binarized_mnist.npz")
    with np.load(Path(root) / "binarized_mnist.npz") as packed:
        data = {
            part: torch.tensor(np.unpackbits(packed[part], axis=1)[:, :784]).float()
            for part in ("train", "valid", "test")
        }
    order = torch.randperm(len(data["test"]), generator=torch.Generator().manual_seed(0))
    return data | {"test": data["test"][order]}


def finished(name: str) -> list[dict]:
    """The runs of a script that have been measured, a line each."""
    lines = RESULTS / f"{name}.jsonl"
    return [json.loads(t) for t in lines.read_text().splitlines()] if lines.exists() else []


def keep(name: str, row: dict) -> None:
    """Add a run to those that are finished."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def place(folder: Path) -> dict[str, Path]:
    """Where ``fit`` is to keep a run, or to go on with it."""
    return {"resume" if is_kept(folder) else "out": folder}


def each(row: dict) -> np.ndarray:
    """log p(x) of each test observation, as a run's folder keeps it."""
    return np.load(RUNS / row["folder"] / "log_evidence.npy")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows as a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines)


def publish(name: str, title: str, text: str) -> None:
    """Print a result, and keep it beside the script."""
    RESULTS.mkdir(exist_ok=True)
    page = f"# {title}\n\n{text}\n\n{machine()}\n"
    (RESULTS / f"{name}.md").write_text(page)
    print(page)
