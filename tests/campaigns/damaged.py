"""Hundreds of damaged files of models, checkpoints and runs: ``ValueError`` or as before, in time.

``python tests/campaigns/damaged.py [how many] [seed]``
"""

import random
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

import pyro_vae as pv
from pyro_vae.runs.integrity import check_run

SAVED = Path(__file__).parents[1] / "fixtures" / "saved"
MOST = 5.0  # seconds
VALUES = ["3", "'a'", "[]", "true", "-1", "1e9", "{}"]
MODELS = ["vae", "layers", "missing", "vamp", "m2", "run", "today", "today"]


def damaged(content, rng):
    """The bytes of a file with one thing wrong."""
    i = rng.randrange(len(content) + 1)
    text = content.decode("latin-1").splitlines(keepends=True)
    line = rng.randrange(len(text))
    head = min(len(content), 3000)  # where a file says what it holds
    kinds = {
        "empty": lambda: b"",
        "cut": lambda: content[:i],
        "cut early": lambda: content[: rng.randrange(head)],
        "tail": lambda: content[i:],
        "a byte": lambda: content[:i] + bytes([rng.randrange(256)]) + content[i + 1 :],
        "an early byte": lambda: b"".join(
            (content[: (k := rng.randrange(head))], bytes([rng.randrange(256)]), content[k + 1 :])
        ),
        "zeros": lambda: content[:i] + bytes(64) + content[i + 64 :],
        "more": lambda: content + rng.randbytes(50),
        "other": lambda: b"another file\n",
        "noise": lambda: rng.randbytes(200),
        "no line": lambda: "".join(text[:line] + text[line + 1 :]).encode("latin-1"),
        "a line twice": lambda: "".join(text[: line + 1] + text[line:]).encode("latin-1"),
        "swapped lines": lambda: "".join(text[line:] + text[:line]).encode("latin-1"),
        "another value": lambda: "".join(
            [*text[:line], f"{text[line].split('=')[0]}= {rng.choice(VALUES)}\n", *text[line + 1 :]]
        ).encode("latin-1"),
    }
    kind = rng.choice(list(kinds))
    return kind, kinds[kind]()


def today(folder):
    """A run of this version, with two checkpoints."""
    x = (pv.load_data("digits").train[:100] > 0.5).float()
    vae = pv.VAE((1, 8, 8), 2, encoder="MLP([5])", decoder="MLP([5])", seed=0)
    pv.fit(vae, x, epochs=2, batch_size=50, out=folder, progress=False)
    return folder


def use(folder, kind):
    """What a user does with such a folder."""
    check_run(folder)
    vae = pv.load(folder)
    if kind == "today":
        x = (pv.load_data("digits").train[:100] > 0.5).float()
        pv.fit(vae, x, epochs=3, batch_size=50, resume=folder, progress=False)
    elif kind == "run":
        x = (pv.load_data("digits").train[:100] > 0.5).float()
        pv.fit(vae, x, epochs=1, batch_size=50, resume=folder, progress=False)
    else:
        vae.sample(1)


def failures(n, seed=0):
    """``(what was done, answer)`` of each that ends in another error, or late."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        new = today(Path(place, "today"))
        for i in range(n):
            kind = rng.choice(MODELS)
            source = new if kind == "today" else SAVED / kind
            folder = Path(shutil.copytree(source, Path(place) / str(i)))
            file = rng.choice(sorted(p for p in folder.iterdir() if p.is_file()))
            how, content = damaged(file.read_bytes(), rng)
            file.write_bytes(content)
            if rng.random() < 0.03:
                file.unlink()
            start, answer = time.process_time(), None
            try:
                use(folder, kind)
            except ValueError:
                pass
            except Exception as error:
                answer = f"{type(error).__name__}: {str(error)[:200]!r}"
            if (seconds := time.process_time() - start) > MOST:
                answer = f"{seconds:.1f} s ({answer})"
            if answer:
                yield f"{kind}/{file.name}, {how} (seed {seed}, case {i})", answer
            shutil.rmtree(folder)


def main(n=600, seed=0):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    kinds = Counter()
    for what, answer in failures(n, seed):
        kinds[answer.split(":")[0]] += 1
        print(f"{what}\n    {answer}", flush=True)
    print(f"{n} damaged files, {sum(kinds.values())} failures: {dict(kinds)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
