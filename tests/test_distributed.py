"""Several processes train one model: the single run's numbers, resumable, one of them writing."""

import math
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from torch import nn
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import pyro_vae as pv
from helpers.commands import Fork, run
from pyro_vae.infer import FusedOptim
from pyro_vae.infer.engine import distributed
from pyro_vae.infer.engine.distributed import Processes, processes
from pyro_vae.infer.training.callbacks import settings

pytestmark = pytest.mark.process

X = torch.randn(112, 4, generator=torch.Generator().manual_seed(1)).double()
GIVEN = dict(  # 11 held out, 101 left: of the last batch the second process has no part
    epochs=3, batch_size=20, lr="cosine(1e-2)", validation=0.1, optimizer="Adam(clip_norm=20)",
    seed=3,
)  # fmt: skip
SIZES = [(2, 2), (3, 7), (5,), (4,), ()]  # of gradients, of two types by turns
DRAWN = dict(epochs=4, batch_size=30, seed=5, patience=4, validation=0.1)


class Wave(dist.Normal):
    """A Normal whose noise is given: a function of the observation."""

    def rsample(self, sample_shape=()):
        noise = 2 * torch.cos(5 * self.loc.detach())
        return (self.loc + noise * self.scale).expand(*sample_shape, *self.loc.shape)


class Given(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 2)

    def forward(self, features):
        return Wave(self.head(features), 0.5).to_event(1)


def vae(seed=0, **options):
    torch.manual_seed(seed)
    parts = dict(encoder=pv.MLP([8]), decoder=pv.MLP([8]), guide=Given(), seed=seed)
    return pv.VAE(4, 2, likelihood="Normal(scale=learned)", **{**parts, **options}).double()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


def threads():
    """The names of this process's threads, where the system tells them."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def sums(team):
    """Gradients of both processes together, in a message of each type and in one of each."""
    found, usual = [], distributed.BUCKET
    gradients = [
        torch.full(size, k + 10.0 * team.rank, dtype=(torch.float32, torch.float64)[k % 2])
        for k, size in enumerate(SIZES)
    ]
    for distributed.BUCKET in (usual, 1):
        totals = team.sum(gradients)
        assert [t.dtype for t in totals] == [g.dtype for g in gradients]
        assert [t.shape for t in totals] == [g.shape for g in gradients]
        found.append(torch.cat([t.flatten().double() for t in totals]))
    distributed.BUCKET = usual
    return torch.stack(found).numpy()


def late(team):
    """A parameter that each process starts elsewhere, after steps of the second's gradient too."""
    with pyro.get_param_store().scope():
        p = pyro.param("late", torch.tensor([10.0 + team.rank]))
        optim = FusedOptim(torch.optim.SGD, {"lr": 1.0})
        optim.processes = team
        for gradient in (1.0, None if team.rank else 2.0):  # of a batch the second has no rows
            p.grad = None if gradient is None else torch.tensor([gradient])
            optim([p])
        return p.item()


def work(folder, rank):
    """What each process does; the figures of each are kept."""
    found, step = {}, SVI.step
    with processes() as team:
        with team.in_turn():
            found["before"] = sorted(path.name for path in folder.glob("turn*"))
            time.sleep(0.2 * (rank == 0))
            (folder / f"turn{rank}").touch()
        found |= {"sums": sums(team), "late": late(team)}
        model = vae(seed=9 * rank)  # the first one's weights become everyone's
        history = pv.fit(model, X, **GIVEN).history
        found |= {"given": weights(model), "history": history.drop(columns="seconds").to_numpy()}

        seen, noise, stop_at = [], [], [0]

        def recorded(self, x):
            seen.append(x[:, 0].numpy())
            noise.append(zlib.crc32(torch.get_rng_state().numpy()))
            if len(seen) == stop_at[0] and rank == 1:
                os.kill(os.getpid(), signal.SIGINT)
            return step(self, x)

        def slowly(*args):
            time.sleep(0.1)  # the others may not go on, to the best weights, before it is written
            write(*args)

        SVI.step, settings.write, write = recorded, slowly, settings.write
        whole, parts = (vae(guide="Normal") for _ in range(2))
        history = pv.fit(whole, X, **DRAWN, out=folder / "whole").history
        found |= {"drawn": weights(whole), "noise": np.array(noise)}
        found |= {"seen": np.concatenate(seen), "first": seen[0], "loss": history.loss.to_numpy()}
        seen, stop_at = [], [6]
        first = pv.fit(parts, X, **DRAWN, out=folder / "parts")
        found |= {"steps": len(seen), "interrupted": first.interrupted}
        stop_at = [0]
        history = pv.fit(vae(guide="Normal"), X, **DRAWN, resume=folder / "parts").history
        found["resumed loss"] = history.loss.to_numpy()
        again = vae(guide="Normal")
        pv.fit(again, X, **DRAWN, resume=folder / "parts")
        found |= {"resumed": weights(again), "team": (team.rank, team.count)}
    found["threads"] = threads()
    np.savez(folder / f"rank{rank}.npz", **found)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def together(act, local):
    """Two processes that do this with their rank, so many of them on a machine."""
    port = free_port()

    def one(rank):
        environment = {
            "RANK": rank, "LOCAL_RANK": rank % local, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": local,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        }  # fmt: skip
        os.environ |= {name: str(value) for name, value in environment.items()}
        act(rank)

    started = [Fork(partial(one, rank)) for rank in range(2)]
    try:  # where one fails, the other would wait for it
        while any(p.is_alive() for p in started) and not any(p.exitcode for p in started):
            time.sleep(0.02)
    finally:
        for process in started:
            process.kill()
            process.join()
    assert [p.exitcode for p in started] == [0, 0]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Figures of two processes that worked together, and their folder."""
    folder = tmp_path_factory.mktemp("ranks")
    together(partial(work, folder), local=2)
    return folder, [np.load(folder / f"rank{rank}.npz") for rank in range(2)]


def test_the_first_process_of_a_machine_goes_before_its_others(ranks):
    _, (first, second) = ranks
    assert list(first["before"]) == []
    assert list(second["before"]) == ["turn0"]


def test_two_processes_are_the_single_run_where_the_noise_is_given(ranks):
    _, found = ranks
    alone = vae()
    history = pv.fit(alone, X, **GIVEN).history.drop(columns="seconds").to_numpy()
    for part in found:  # float64: what is left is the order of sums
        assert np.abs(part["given"] - weights(alone)).max() < 1e-12
        assert np.abs(part["history"] - history).max() < 1e-9
    assert np.abs(weights(alone) - weights(vae())).max() > 1e-2
    other = vae()  # ... and it is the sum, not the mean, over the global batch
    pv.fit(other, X[:60], **GIVEN)
    assert np.abs(weights(other) - weights(alone)).max() > 1e-3


def test_each_has_its_part_of_each_batch_and_noise_of_its_own(ranks):
    _, (first, second) = ranks
    assert tuple(first["team"]) == (0, 2)
    assert tuple(second["team"]) == (1, 2)
    seen = np.concatenate([first["seen"], second["seen"]])
    values, times = np.unique(seen, return_counts=True)
    assert len(values) == 101
    assert (times == DRAWN["epochs"]).all()
    assert set(values) <= set(X[:, 0].numpy())
    assert len(first["first"]) == len(second["first"]) == 15
    assert not set(first["noise"]) & set(second["noise"])
    assert np.array_equal(first["drawn"], second["drawn"])
    assert np.array_equal(first["loss"], second["loss"])  # of all data


def test_processes_stop_after_the_same_step_and_resume_bit_for_bit(ranks):
    folder, found = ranks
    for part in found:  # only the second was interrupted
        assert part["interrupted"]
        assert part["steps"] == 6
        assert np.array_equal(part["resumed"], part["drawn"])
        assert np.allclose(part["resumed loss"], part["loss"], rtol=1e-13)
    with pytest.raises(ValueError, match="processes=2, not with processes=1"):
        pv.fit(vae(guide="Normal"), X, **DRAWN, resume=folder / "parts")


def test_random_numbers_differ_by_process_and_seed():
    drawn = {}
    for seed in range(3):
        for rank in range(3):
            torch.manual_seed(seed)
            Processes(rank, 3).diverge(seed)
            drawn[seed, rank] = torch.rand(()).item()
    assert len(set(drawn.values())) == 9
    torch.manual_seed(2)
    assert drawn[2, 0] == torch.rand(()).item()  # the first has the single run's


def test_gradients_are_summed_in_messages_of_any_size(ranks):
    expected = [np.repeat(2.0 * k + 10, math.prod(size)) for k, size in enumerate(SIZES)]
    for part in ranks[1]:
        assert np.array_equal(part["sums"], np.stack([np.concatenate(expected)] * 2))


def test_a_parameter_that_comes_late_has_the_first_ones_value(ranks):
    for part in ranks[1]:  # 10 - (1 + 1) - 2
        assert part["late"] == 6


def test_no_thread_of_the_group_outlives_it(ranks):
    _, found = ranks
    for part in found:  # one that does may abort the interpreter's end
        assert not [name for name in part["threads"] if "gloo" in name]


def test_parts_make_the_batch():
    batch = torch.arange(7)
    for count in (1, 2, 3, 9):
        parts = [Processes(rank, count).part(batch) for rank in range(count)]
        assert torch.equal(torch.cat(parts), batch)


def told(folder, data="digits"):
    nets = ("--encoder", "MLP([16])", "--decoder", "MLP([16])", "--compile", "false")
    return ["fit", data, *nets, "--epochs", "2", "--out", str(folder / "run")]


def by_launcher(folder):
    """What torchrun's launcher says of the command in two processes, which are forks."""
    said = folder / "said"

    def launch():
        where = dict(rdzv_backend="static", rdzv_endpoint=f"127.0.0.1:{free_port()}")
        config = LaunchConfig(
            1, 1, 2, start_method="fork", rdzv_configs={"rank": 0, "timeout": 60}, **where
        )
        done = elastic_launch(config, run)(*told(folder))
        said.write_text("".join(one.out for one in done.values()))
        sys.exit(max(one.code for one in done.values()))

    process = Fork(launch)
    process.join()
    assert process.exitcode == 0
    return said.read_text()


@pytest.fixture(scope="module")
def one_machine(tmp_path_factory):
    """What two processes of one machine said, and the folder that they worked in."""
    folder = tmp_path_factory.mktemp("machine")
    return by_launcher(folder), folder


def test_torchrun_says_what_is_wrong_with_the_data(tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, "-m", "pyro_vae", *told(tmp_path, "none.npz")],
        capture_output=True, text=True, cwd=tmp_path, timeout=100,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode != 0
    assert "error: there is no file none.npz" in done.stderr
    assert "RuntimeError" not in done.stderr  # of those that waited for the first


def test_torchrun_trains_on_the_command_line(one_machine):
    said, folder = one_machine
    assert said.count("ELBO, test data") == 1  # one of them prints
    assert said.count("run folder:") == 1
    assert {"config.toml", "results.toml", "history.csv", "model.safetensors", "pictures"} <= set(
        os.listdir(folder / "run")
    )
    assert sorted(os.listdir(folder)) == ["run", "said"]
    assert pv.load(folder / "run").sample(2).shape == (2, 1, 8, 8)


def test_two_machines_are_one_with_two_processes(one_machine, tmp_path):
    _, folder = one_machine

    def machine(rank):
        done = run(*told(tmp_path))
        (tmp_path / f"machine{rank}").write_text(done.out)
        sys.exit(done.code)

    together(machine, local=1)
    first, second = ((tmp_path / f"machine{rank}").read_text() for rank in range(2))
    assert first.count("ELBO, test data") == 1
    assert not second
    one, two = (weights(pv.load(where / "run")) for where in (folder, tmp_path))
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6)
