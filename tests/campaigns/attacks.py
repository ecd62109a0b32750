"""Files and lines that are made to harm: refused by a sentence, in seconds, and nothing runs.

``python tests/campaigns/attacks.py``
"""

import contextlib
import functools
import io
import json
import pickle
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import pyro_vae as pv
from helpers.commands import run as command
from pyro_vae.core.toml import read_config, write_toml
from pyro_vae.evaluate.compression.compress import HEADER
from pyro_vae.infer.training.checkpoint import CHECKPOINT, TENSOR
from pyro_vae.model.files import DESCRIPTION, WEIGHTS

MOST_SECONDS, MOST_BYTES = 5.0, 2**30  # the seconds are of the processor
ADDRESSES = 10 * 2**30  # of the process, so that a fault is seen before the machine is full
CANARY = "canary"
TOUCH = f"__import__('pathlib').Path('{CANARY}').touch()"
HUGE = (10**9, 10**12, 10**30)
CODE = [
    TOUCH,
    f"Normal(scale={TOUCH})",
    f"MLP([{TOUCH}])",
    f"[{TOUCH} for i in [1]]",
    f"(lambda: {TOUCH})()",
    f"f'{{{TOUCH}}}'",
    f"Normal.__init__.__globals__['x']({TOUCH!r})",
    f"(x := {TOUCH})",
    "9**9**9**9",
    "Normal(scale=9**9**9**9)",
    "Normal(scale='a'*10**10)",
    "Normal(*[0]*10**10)",
    "Normal(**{'scale': 1})",
    "(" * 10**5,
    "A(" * 10**4 + ")" * 10**4,
    "-" * 10**5 + "1",
    "a" * 10**6,
    "Normal(" + ",".join(["0"] * 10**4) + ")",
    "Normal(scale=" + "9" * 10**4 + ")",
    "Normal\x00",
    "\ud800",
]
SIZES = [
    ("encoder", "MLP([{}])"),
    ("encoder", "MLP([20, {}])"),
    ("decoder", "MLP([{}, {}])"),
    ("encoder", "ConvEncoder([{}])"),
    ("prior", "VampPrior(components={})"),
    ("prior", "Mixture(Normal, components={})"),
    ("prior", "Flow(MAF, transforms={})"),
    ("prior", "Flow(NSF, bins={})"),
    ("guide", "Flow(MAF, transforms={})"),
    ("likelihood", "Mixture(Bernoulli, components={})"),
    ("likelihood", "Categorical(categories={})"),
    ("likelihood", "Binomial(total_count={})"),
    ("likelihood", "Normal(scale={})"),
]
OPTIONS = [
    ("estimator", "IWAE(num_particles={})"),
    ("estimator", "Trace_ELBO(num_particles={})"),
    ("optimizer", "Adam(lr={})"),
    ("lr", "cosine({})"),
    ("beta", "linear(0, 1, epochs={})"),
]
NETS = {"encoder": "MLP([4])", "decoder": "MLP([4])", "seed": 0}
X = (torch.rand(60, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()


class Harm:
    """Pickled, it does what :data:`TOUCH` says."""

    def __reduce__(self):
        return eval, (TOUCH,)


def model(**parts):
    return pv.VAE(6, 2, **NETS | parts)


def trained(folder):
    """A small run with everything that ``pyro-vae fit`` writes."""
    np.save("x.npy", X.numpy())
    flags = ("--encoder", "MLP([4])", "--decoder", "MLP([4])", "--latent-dim", 2, "--epochs", 2)
    done = command("fit", "x.npy", *flags, "--out", folder)
    assert done.code == 0, done.err
    return folder


def lines():
    for role in ("encoder", "prior", "guide", "likelihood"):
        for i, line in enumerate(CODE):
            yield f"{role} code {i}", lambda role=role, line=line: model(**{role: line})
    for role in ("estimator", "optimizer", "lr"):
        for i, line in enumerate(CODE):
            told = {role: line, "epochs": 1}
            yield f"{role} code {i}", lambda told=told: pv.fit(model(), X, **told)
    for size in HUGE:
        for role, line in SIZES:
            line = line.replace("{}", str(size))
            yield f"{role}={line}", lambda role=role, line=line: model(**{role: line})
        for role, line in OPTIONS:
            told = {role: line.replace("{}", str(size)), "epochs": 1}
            yield f"{told}", lambda told=told: pv.fit(model(), X, **told)
        yield f"latent_dim={size}", lambda size=size: pv.VAE(6, size, **NETS)
        yield f"layers={size}", lambda size=size: pv.VAE(6, layers=[size, 2], **NETS)
        yield f"x_shape={size}", lambda size=size: pv.VAE(size, 2, **NETS)


def npy(shape, descr="'<f4'", content=b"\0" * 400, version=b"\x01\x00", end=None):
    """A ``.npy`` file with any header."""
    end = (
        f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}" if end is None else end
    )
    header = end.encode() + b"\n"
    width = "<H" if version == b"\x01\x00" else "<I"
    return b"\x93NUMPY" + version + struct.pack(width, len(header)) + header + content


HEADERS = {
    "10**9 rows": npy("(1000000000, 10)"),
    "10**18 rows": npy("(1000000000000000000, 10)"),
    "10**30 rows": npy(f"({10**30}, 10)"),
    "negative rows": npy("(-10, -10)"),
    "no rows": npy("(0, 10)"),
    "rows of code": npy(TOUCH),
    "no tuple": npy("[10, 10]"),
    "a float": npy("(1e9, 10)"),
    "true": npy("(True, 100)"),
    "objects": npy("(10,)", "'|O'", pickle.dumps([Harm()] * 10)),
    "records": npy("(10, 2)", "[('a', '<f4'), ('b', '|O')]"),
    "a deep type": npy("(10, 2)", "[" * 300 + "'<f4'" + "]" * 300),
    "text": npy("(10, 2)", "'<U500000000'"),
    "void": npy("(10, 2)", "'|V0'"),
    "no type": npy("(10, 2)", "'nonsense'"),
    "nested": npy("(" * 4000),
    "a long header": npy("(10, 10)", end="{" + " " * 60000 + "}"),
    "a header of 4 GB": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{}",
    "version 9": npy("(10, 10)", version=b"\x09\x00"),
    "half": npy("(10, 10)", content=b"\0" * 399),
    "nothing": b"",
    "a pickle": pickle.dumps(Harm()),
    "complex": npy("(10, 5)", "'<c8'"),
    "NaN": npy("(10, 10)", content=b"\xff" * 400),
}


def archive(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name.replace("__", "/"), content)
    return file.getvalue()


@functools.cache
def bomb():
    """200 MB of zeros in 200 kB, that tell of 10 GB."""
    return archive(**{"train.npy": npy("(2500000000, 1)", content=bytes(2 * 10**8))})


def arrays():
    for name, content in HEADERS.items():
        yield f"x.npy, {name}", lambda c=content: load_bytes("a.npy", c)
        yield f"encode, {name}", lambda c=content: of_file("encode", "a.npy", c)
        yield f"x.npz, {name}", lambda c=content: load_bytes("a.npz", archive(**{"train.npy": c}))
    others = {
        "a bomb": bomb(),
        "a path": archive(**{"..__..__a.npy": npy("(10, 10)")}),
        "no arrays": archive(**{"a.txt": b"x"}),
        "cut": archive(**{"a.npy": npy("(10, 10)")})[:-10],
        "labels": archive(**{"labels.npy": npy("(10,)", "'<f4'"), "x.npy": npy("(10, 10)")}),
    }  # fmt: skip
    for name, content in others.items():
        yield f"x.npz, {name}", lambda c=content: load_bytes("a.npz", c)


def load_bytes(name, content):
    Path(name).write_bytes(content)
    pv.load_data(name)


def of_file(verb, name, content):
    Path(name).write_bytes(content)
    return command(verb, "run", name, "--force")


def codes():
    """Headers of coded data."""
    good = bytes(pv.compress(model(), X))
    fields, body = HEADER.unpack(good[: HEADER.size]), good[HEADER.size :]
    for i in range(1, 7):
        for value in (0, 1, 61, 10**6, 10**8, 2**32 - 1):
            told = [*fields[:i], value, *fields[i + 1 :]]
            content = HEADER.pack(*told) + body
            yield f"code {i}={value}", lambda c=content: decode(c)
    for content in (good[:30], good[:-1], good[:-4], good + b"\0" * 4, b"PVC1", body, good * 2):
        yield "a damaged code", lambda c=content: decode(c)


def decode(content):
    pv.decompress(model(), pv.Compressed.from_bytes(content))


DESCRIBED = {
    "kind": ["os.system", "VAE.__init__", 3, [], "M2"],
    "dtype": ["load", "float16", "complex64", 3, "__name__", "int8"],
    "x_shape": [[10**9], [-6], [], 6, "6", [6.5], [[6]], [10**30], [6] * 1000],
    "latent_dim": [[10**9], [0], "x", [True], [10**30]],
    "layers": [[10**9, 2], [], "x", [2, 1]],
    "missing": [1, "yes"],
    "encoder": [f"MLP([{10**9}])", TOUCH, 3, "custom os.system", "MLP([5])", "ConvEncoder"],
    "prior": [f"VampPrior(components={10**9})", f"Flow(MAF, transforms={10**9})", [], "Normal(0)"],
    "likelihood": [f"Categorical(categories={10**9})", "Mixture(Normal, components=3)"],
    "columns": [["a"], 3, "abcdef"],
    "blocks": [[["x", [10**9], "observed"]], [[]], 3, [["x", 6, TOUCH]]],
    "classes": [10**9, -1],
    "format": [9, "x", -1, []],
    "checksum": ["0", 3, []],
}


def descriptions():
    for name, values in DESCRIBED.items():
        for value in values:
            yield f"model.toml, {name}={str(value)[:40]}", lambda n=name, v=value: describe(n, v)
    for name, values in {"data": ["/etc", "x.npy/", "", 3], "latent_dim": HUGE,
                         "layers": [[10**9]], "device": ["cuda:99", TOUCH], "lr": [TOUCH],
                         "data_file": ["/etc/passwd"], "binarize": ["x"]}.items():  # fmt: skip
        for value in values:
            yield f"config.toml, {name}={value}", lambda n=name, v=value: configure(n, v)


def describe(name, value):
    about = read_config(Path("run", DESCRIPTION)) | {name: value}
    write_toml(Path("run", DESCRIPTION), about, "an attack")
    command("check", "run")
    pv.load("run").sample(1)


def configure(name, value):
    told = read_config(Path("run", "config.toml")) | {name: value}
    write_toml(Path("run", "config.toml"), told, "an attack")
    for verb in ("show", "check"):
        command(verb, "run")
    shutil.rmtree("new", ignore_errors=True)
    return command("fit", "--config", "run/config.toml", "--out", "new")


def parts():
    """A checkpoint of one's own, with a checksum that fits."""

    def put(*path_and_value):
        *path, value = path_and_value

        def change(text, tensors):
            at = text
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = value

        return change

    yield "no parts", lambda text, tensors: text.clear()
    for part in ("identity", "machine", "progress", "model", "optimizer", "rng", "callbacks"):
        for value in ({}, [], "x", None, 3):
            yield f"{part}={value}", put(part, value)
    for name in ("epoch", "step", "history", "seconds", "loss", "count"):
        for value in (-1, 10**9, "x", None, [1], [{"a": 1}]):
            yield f"{name}={value}", put("progress", name, value)
    for value in ("x", {TENSOR: "nowhere"}, {TENSOR: 3}, {TENSOR: []}, {}):
        yield f"rng={value}", put("rng", "cpu", value)
    yield "the generator's state is other tensors", put("rng", "cpu", {TENSOR: "model/decoder"})
    yield "no tensors", lambda text, tensors: tensors.clear()
    for name in ("rng/cpu", "epoch_rng/cpu"):
        yield f"{name} is short", lambda text, tensors, n=name: tensors.update({n: torch.zeros(3)})
    yield (
        "NaN",
        lambda text, tensors: tensors.update(
            {name: t * float("nan") for name, t in tensors.items() if t.is_floating_point()}
        ),
    )


def checkpoints():
    for name, change in parts():
        yield f"checkpoint, {name}", lambda c=change: resume(c)
    raw = {
        "a pickle": pickle.dumps(Harm()),
        "a header of 2**63": struct.pack("<Q", 2**63) + b"{}",
        "a header of 10**8": struct.pack("<Q", 10**8) + b"{}",
        "no header": struct.pack("<Q", 2) + b"{}",
        "deep": structured({"__metadata__": {"parts": "[" * 10**5, "checksum": "0"}}),
        "a tensor of 10**12": structured({"a": {"dtype": "F32", "shape": [10**12],
                                                "data_offsets": [0, 4 * 10**12]}}),
        "offsets": structured({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}),
        "overlaps": structured({k: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
                                for k in "ab"}),
        "of 0.1.0": structured({"__metadata__": {"state": TOUCH}}),
    }  # fmt: skip
    for name, content in raw.items():
        for file in (CHECKPOINT, WEIGHTS):
            yield f"{file}, {name}", lambda f=file, c=content: replaced(f, c)


def structured(header):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * 64


def replaced(file, content):
    for name in {file, "checkpoint.previous.safetensors"} - {WEIGHTS}:
        Path("run", name).write_bytes(content)
    Path("run", file).write_bytes(content)
    command("check", "run")
    if file == WEIGHTS:
        pv.load("run")
    return command("fit", "--resume", "run", "--epochs", 3)


def resume(change):
    path = Path("run", CHECKPOINT)
    with safe_open(path, framework="pt") as file:
        text = json.loads(file.metadata()["parts"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(text, tensors)
    written = json.dumps(text)
    found = zlib.crc32(written.encode())
    for _, tensor in sorted(tensors.items()):
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, found)
    save_file(tensors, path, metadata={"parts": written, "checksum": f"{found:08x}"})
    Path("run", "checkpoint.previous.safetensors").unlink()
    return command("fit", "--resume", "run", "--epochs", 3)


def caches():
    object_array = io.BytesIO()
    np.savez(object_array, allow_pickle=True, key=np.array([Harm()], dtype=object))
    contents = [object_array.getvalue(), bomb(), b"", pickle.dumps(Harm())]
    for content in contents:
        yield "evidence.npz", lambda c=content: compare(c)
    for text in (
        "",
        "epoch\n",
        "a,b\n1,2,3\n",
        "epoch,elbo_train\nx,y\n",
        "\0",
        "epoch\n" + "9" * 10**6,
    ):
        yield "history.csv", lambda t=text: written("history.csv", t)
    for text in ("elbo_test = 'x'", "a.b = 1", "epochs = 1e400", "x = [1]", "weights = 3"):
        yield "results.toml", lambda t=text: written("results.toml", t)


def compare(content):
    Path("run", "evidence.npz").write_bytes(content)
    other = Path(shutil.copytree("run", "other", dirs_exist_ok=True))
    return command("compare", "runs", "run", other, "--num-samples", 4)


def written(name, text):
    Path("run", name).write_text(text)
    command("check", "run")
    command("show", "run")
    return command("report", "run", "--num-samples", 4, "--steps", 2)


ATTACKS = (lines, arrays, codes, descriptions, checkpoints, caches)


def failures(some=slice(None)):
    """``(attack, answer)`` of each that is not refused by a sentence, or taken, in time."""
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        whole = trained(Path("whole"))
        for name, attack in [one for attacks in ATTACKS for one in attacks()][some]:
            shutil.rmtree("run", ignore_errors=True)
            shutil.copytree(whole, "run")
            answer = attempt(attack)
            if Path(CANARY).exists():
                answer = "it was executed"
                Path(CANARY).unlink()
            yield name, answer


def attempt(attack):
    """What an attack does, other than to be refused or taken."""
    start, before = time.process_time(), peak()
    answer = ""
    signal.signal(signal.SIGALRM, late)
    signal.alarm(round(8 * MOST_SECONDS))  # of the clock, on a machine that is busy
    try:
        done = attack()
        if getattr(done, "code", 0) not in (0, 2):
            answer = f"ended with {done}"
    except (ValueError, FloatingPointError, OSError):
        pass
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        answer = f"{type(error).__name__}: {str(error)[:200]!r}"
    finally:
        signal.alarm(0)
    if (seconds := time.process_time() - start) > MOST_SECONDS:
        answer += f" {seconds:.1f} s"
    if (more := peak() - before) > MOST_BYTES:
        answer += f" {more / 2**30:.1f} GiB"
    return answer


def late(*_):
    """End an attack that goes on and on."""
    raise LateError


class LateError(BaseException):
    """An attack took too long."""


def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(first=0):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    kinds, n, start = Counter(), 0, time.perf_counter()
    for name, answer in failures(slice(first, None)):
        n += 1
        if answer:
            kinds[answer.split(":")[0]] += 1
            print(f"{n}: {name}\n    {answer}", flush=True)
    print(f"{n} attacks in {time.perf_counter() - start:.0f} s: {sum(kinds.values())} failures")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
