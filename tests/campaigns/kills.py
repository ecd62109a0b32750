"""Runs that are killed anywhere, inside each file's writing too, go on bit for bit.

``python tests/campaigns/kills.py [kills of each configuration] [seed] [first configuration]``

Each run is a fork of this process. An audit hook counts what it does to the files of its folder,
and ends it by SIGKILL at one of these; other kills come by the clock. What a kill within the
writing of bytes leaves is a file that was cut, so the temporary file is cut before some kills:
the first of them once for each file of the run, before it takes its place.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import matplotlib

matplotlib.use("Agg")

import pandas as pd
import torch
import torch._dynamo  # which an optimizer imports: seconds of each fork
from safetensors.torch import load_file
from torch import nn

import pyro_vae as pv
from pyro_vae.core.files import PARTIAL
from pyro_vae.core.toml import read_config
from pyro_vae.infer.training.checkpoint import is_kept
from pyro_vae.runs.folder import train
from pyro_vae.runs.settings import RunSettings

X = torch.randn(120, 4, generator=torch.Generator().manual_seed(1))
SMALL = {"encoder": "MLP([6])", "decoder": "MLP([6])"}
EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}
BY_CLOCK = 0.3  # the share of kills at a random time


class Normalized(nn.Module):
    """A network with buffers and noise."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3))

    def forward(self, x):
        """Features of x."""
        return self.layers(x)


def fitted(**told):
    """A run of ``pv.fit``, with these arguments."""
    told = {"epochs": 4, "batch_size": 30, "seed": 3, "validation": 0.2, "compile": False} | told
    x, parts = told.pop("x", X), told.pop("model", {})

    def go(folder):
        for name in parts.keys() & {"own"}:
            torch.manual_seed(0)
            parts["encoder"] = Normalized() if parts[name] else parts["encoder"]
        options = {**SMALL, "likelihood": "Normal(scale=learned)", "seed": 0, **parts}
        options.pop("own", None)
        where = {"resume" if is_kept(folder) else "out": folder}
        pv.fit(pv.VAE(4, 2, **options), x, **told, **where, progress=False)

    return go


def command(folder):
    """A run as of ``pyro-vae fit``: with figures and pictures."""
    settings = RunSettings(
        data="digits",
        epochs=3,
        latent_dim=2,
        batch_size=400,
        compile=False,
        progress=False,
        **SMALL,
    )
    train(settings, Path(folder), resume=is_kept(folder))


CONFIGURATIONS = {
    "command": (command, 1),
    "schedules, patience": (
        fitted(lr="cosine(1e-2, warmup=1)", beta="linear(0, 1, epochs=3)", patience=3,
               optimizer="Adam(clip_norm=5)"), 1),
    "score, neural baseline, within epochs": (
        fitted(estimator="TraceGraph_ELBO(gradient=score, baseline=neural)",
               checkpoint_minutes=1e-9), 1),
    "bits, momentum": (
        fitted(x=X.sigmoid(), binarize="dynamic", optimizer="SGD(momentum=0.9)", lr=1e-4,
               model={"likelihood": "Bernoulli"}), 1),
    "own modules, pseudo-inputs": (
        fitted(model={"own": True, "prior": "VampPrior(components=5)"},
               checkpoint_minutes=1e-9), 1),
    "two processes": (fitted(checkpoint_minutes=1e-9), 2),
}  # fmt: skip


class Killer:
    """Counts what a process does to the files of a folder, and ends it at one of these."""

    def __init__(self, folder, at=None, cut=False):
        self.folder, self.at, self.cut, self.count = str(folder), at, cut, 0
        self.partial = None
        self.written = {}  # by name of a file, the events at which it takes its place
        sys.addaudithook(self)

    def __call__(self, event, args):
        """Hear of an event."""
        if event not in EVENTS or not str(args[0]).startswith(self.folder):
            return
        if event == "open" and not self._writes(args):
            return
        if PARTIAL in str(args[0]):
            self.partial = str(args[0])
        self.count += 1
        if event == "os.rename" and PARTIAL in str(args[0]):
            self.written.setdefault(Path(args[1]).name, []).append(self.count)
        if self.count == self.at:
            if self.cut and self.partial and os.path.exists(self.partial):
                os.truncate(self.partial, os.path.getsize(self.partial) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def _writes(self, args):
        return PARTIAL in str(args[0]) or bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR))


def fork(run, folder, count, at=None, cut=False, seconds=None):
    """Run in forks; how the first one ended, how many events there were, and of which files."""
    meeting = Path(tempfile.mkdtemp())
    children = [_child(run, folder, count, rank, meeting, at, cut) for rank in range(count)]
    first = children[0]
    if seconds is not None:
        time.sleep(seconds)
        for child in children:
            os.kill(child, signal.SIGKILL)
    status = os.waitpid(first, 0)[1]
    if os.WIFSIGNALED(status):
        for child in children[1:]:
            os.kill(child, signal.SIGKILL)
    for child in children[1:]:
        os.waitpid(child, 0)
    told = meeting / "events"
    events = json.loads(told.read_text()) if told.exists() else None
    shutil.rmtree(meeting)
    return os.waitstatus_to_exitcode(status), events


def _child(run, folder, count, rank, meeting, at, cut):
    if child := os.fork():
        return child
    try:
        warnings.simplefilter("ignore")
        killer = Killer(folder, at if rank == 0 else None, cut)
        if count > 1:
            import torch.distributed as dist

            os.environ |= {"LOCAL_WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
            os.environ["RANK"] = str(rank)
            dist.init_process_group(
                "gloo", init_method=f"file://{meeting}/meet", rank=rank, world_size=count
            )
        run(folder)
        if rank == 0:
            (meeting / "events").write_text(json.dumps([killer.count, killer.written]))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def left_by(folder):
    """What a finished run says: weights, history, figures, and the names of its files."""
    history = pd.read_csv(folder / "history.csv").drop(columns="seconds")
    results = read_config(folder / "results.toml") if (folder / "results.toml").exists() else {}
    figures = {k: v for k, v in results.items() if k != "training_seconds"}
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return load_file(folder / "model.safetensors"), history, figures, names


def differences(expected, found):
    """What is not the same, to the bit."""
    weights = expected[0].keys() == found[0].keys() and all(
        torch.equal(value, found[0][name]) for name, value in expected[0].items()
    )
    same = {
        "weights": weights,
        "history": expected[1].equals(found[1]),
        "figures": expected[2] == found[2],
        "files": expected[3] == found[3],
    }
    return [name for name, is_same in same.items() if not is_same]


def failures(kills, seed=0, names=tuple(CONFIGURATIONS)):
    """``(configuration, kill, answer)`` of each kill; an empty answer is bit for bit."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        for name in names:
            run, count = CONFIGURATIONS[name]
            whole = Path(place, "whole")
            start = time.perf_counter()
            code, (events, written) = fork(run, whole, count)
            seconds = time.perf_counter() - start
            assert code == 0, name
            expected = left_by(whole)
            shutil.rmtree(whole)
            each = rng.sample([*written.values()], len(written))
            for i in range(kills):
                folder = Path(place, "run")
                at = rng.choice(each[i]) if i < len(each) else None
                share = (i - len(each)) / max(1, kills - len(each))
                first = {"at": at, "cut": True} if at else a_kill(events, seconds, share, rng)
                answer, how = killed(run, folder, count, events, seconds, first, rng)
                yield name, how, answer or ", ".join(differences(expected, left_by(folder)))
                shutil.rmtree(folder)


def a_kill(events, seconds, share, rng):
    """By the clock, or at this share of the events."""
    if rng.random() < BY_CLOCK:
        return {"seconds": rng.random() * seconds}
    return {"at": 1 + int(share * events), "cut": rng.random() < 0.5}


def killed(run, folder, count, events, seconds, first, rng):
    """Kill a run, twice at times, and let it finish; an answer where it cannot."""
    told, kills = [], [first]
    if rng.random() < 0.3:
        kills.append(a_kill(events, seconds, rng.random(), rng))
    for how in kills:
        told.append(json.dumps(how))
        fork(run, folder, count, **how)
        if is_kept(folder):
            try:
                pv.load(folder)
            except ValueError as problem:
                if not any(
                    word in str(problem) for word in ("goes on with", "damaged", "your own")
                ):
                    return f"load says: {problem}", told
    code, _ = fork(run, folder, count)
    return ("" if code == 0 else "it does not go on"), told


def main(kills=20, seed=0, first=0):
    """Print how each configuration fared."""
    torch.set_num_threads(1)
    counts, total, start = Counter(), Counter(), time.perf_counter()
    for name, how, answer in failures(kills, seed, [*CONFIGURATIONS][first:]):
        total[name] += 1
        counts[name] += not answer
        if answer:
            print(f"{name}: {how}\n    {answer}", flush=True)
        if total[name] == kills:
            print(f"{counts[name]} of {kills} bit for bit: {name}", flush=True)
    print(f"{sum(counts.values())} of {sum(total.values())}, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
