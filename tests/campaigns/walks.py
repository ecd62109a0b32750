"""The command line, walked as one who has it for the first time: each command answers or advises.

``python tests/campaigns/walks.py [walk ...]`` prints faults, and every answer with ``--all``.
"""

import contextlib
import os
import re
import shlex
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pandas as pd
from PIL import Image
from scipy import io, sparse

from helpers.commands import Done, run

RNG = np.random.default_rng(0)
TINY = ["--epochs", "1", "--latent-dim", "2", "--no-progress"]
MLP = [*TINY, "--encoder", "MLP([4])", "--decoder", "MLP([4])"]
GRU = [*TINY, "--encoder", "GRU(4)", "--decoder", "GRU(4)"]
FEW = ["--num-samples", "40", "--steps", "2"]
MACHINERY = ("Traceback", "has no attribute", "'NoneType'", "positional argument", "0x", "nan nan")
# What a message names by a flag, and no words of its own.
FLAG = re.compile(
    r"(?<!without )(?<!leave out )(--[a-z][a-z-]*)(?:[ =]('[^']+'|\"[^\"]+\"|[^\s,;:)']+))?"
)
SWITCHES = {"--force", "--train", "--no-progress"}
VERBS = {"takes", "writes", "goes", "is", "brings", "puts", "says", "at", "keeps", "reads", "and"}


def table(n=60):
    """Rows as a spreadsheet has them."""
    return pd.DataFrame(
        {
            "Name": [f"person {i}" for i in range(n)],
            "Born": pd.date_range("1980-01-01", periods=n, freq="31D").strftime("%d.%m.%Y"),
            "Income": RNG.gamma(2, 1000, n).round(2),
            "Rate": [f"{x:.1f}%" for x in RNG.random(n) * 100],
            "Town": RNG.choice(["Rome", "Oslo", "Bern", ""], n),
            "Kids": RNG.poisson(1.5, n),
            "Smokes": RNG.choice(["yes", "no", "n/a"], n),
        }
    )


def files() -> None:
    """What a stranger has, in the folder where the walk begins."""
    rows = table()
    rows.to_csv("rows.csv", index=False)
    rows.to_csv("rows.tsv", sep="\t", index=False)
    try:
        rows.to_parquet("rows.parquet")
    except ImportError:
        Path("rows.parquet").write_bytes(b"PAR1")
    rows.assign(Income=rows.Income.astype(str).str.replace(".", ",")).to_csv(
        "semicolons.csv", sep=";", index=False
    )
    Path("bom.csv").write_text("\ufeff" + rows.to_csv(index=False), encoding="utf-8")
    Path("latin.csv").write_bytes(rows.assign(Town="Zürich").to_csv(index=False).encode("latin-1"))
    Path("my own folder").mkdir()
    rows.to_csv("my own folder/größe 😀.csv", index=False)
    rows.drop(columns="Kids").to_csv("lacks.csv", index=False)
    rows[rows.columns[::-1]].to_csv("turned.csv", index=False)
    rows.assign(Kids="many").to_csv("words.csv", index=False)
    rows.assign(Town="Paris").to_csv("levels.csv", index=False)
    rows.head(0).to_csv("header.csv", index=False)
    rows.head(1).to_csv("one.csv", index=False)
    Path("empty.csv").touch()
    Path("empty.npy").touch()
    Path("empty.txt").touch()
    Path("binary.csv").write_bytes(RNG.bytes(400))
    Path("ragged.csv").write_text("a,b\n1,2\n3,4,5\n6\n" * 9)
    Path("dup.csv").write_text("a,a,b\n" + "".join(f"{i}.5,{i},x{i % 3}\n" for i in range(40)))
    bits = RNG.integers(0, 2, (60, 6)).astype(np.float32)
    np.save("bits.npy", bits)
    np.save("holes.npy", np.where(RNG.random(bits.shape) < 0.2, np.nan, bits))
    np.save("my own folder/ünï bits.npy", bits)
    np.save("wide.npy", RNG.integers(0, 2, (60, 7)))
    np.save("reals.npy", RNG.normal(1e5, 1e4, (60, 3)))
    np.save("vector.npy", RNG.random(50))
    np.save("words.npy", np.array(["a", "b"]))
    np.save("none.npy", np.zeros((0, 6)))
    np.save("last.npy", RNG.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8))
    np.savez("bits.npz", train=bits[:40], test=bits[40:], test_labels=np.arange(20) % 2)
    np.savez("labels.npz", labels=np.arange(9))
    np.savez("lengths.npz", x=RNG.normal(size=(40, 5, 2)), lengths=RNG.integers(1, 6, 40))
    for i in range(24):
        home = Path("pictures", "ab"[i % 2])
        home.mkdir(parents=True, exist_ok=True)
        size = (8, 8 + (i == 23), 3)
        Image.fromarray(RNG.integers(0, 256, size, dtype=np.uint8)).save(home / f"{i}.png")
    Path("nothing").mkdir()
    Path("broken").mkdir()
    Path("broken", "a.png").write_bytes(b"no picture")
    Path("lines.txt").write_text("\n".join(["the cat sat", "a dog", "the dog sat on it"] * 9))
    Path("other.txt").write_text("the zebra sat\n")
    Path("one.txt").write_text("one line")
    Path("latin.txt").write_bytes("café\n".encode("latin-1") * 20)
    counts = sparse.csr_matrix(RNG.poisson(2, (40, 5)))
    io.mmwrite("counts.mtx", counts)
    io.mmwrite("genes.mtx", counts.T)
    sparse.save_npz("counts.npz", counts)
    pd.DataFrame(counts.toarray(), columns=[*"vwxyz"]).assign(batch=[*"ab"] * 20).to_csv(
        "counts.csv", index=False
    )
    for name in ("book.xlsx", "cells.loom", "counts.mtx.gz", "rows.csv.gz", "notes.md"):
        Path(name).write_text("x")
    Path("broken.toml").write_text("epochs = 'x")
    Path("unknown.toml").write_text("epoch = 1")
    Path("file").touch()
    Path("folder.npy").mkdir()
    for suffix in ("csv", "npy", "txt"):
        Path(f"gone.{suffix}").symlink_to("nowhere")
        os.mkfifo(f"pipe.{suffix}")
    Path("loop.npy").symlink_to("loop.npy")


# A walk: commands that answer (+), that are refused (-), or either (?). Of {a|b} each is a command.
WALKS = {
    "help": """
+ --help
+ --version
+ families
+ {fit|sample|encode|impute|compress|decompress|check|show|evaluate|report|compare} --help
+ compare {runs|estimators|priors|likelihoods|guides} --help
- ft digits
- train digits
- fit --epoch 1
- fit digits --epochs one
- compare
- show
- show nowhere
- sample file
""",
    "data that is none": """
- fit {digit|nowhere.csv|nowhere.npy|nowhere/|''|' '|empty.csv|empty.npy|empty.txt} MLP --out no
- fit {header.csv|one.csv|binary.csv|ragged.csv|words.npy|none.npy|vector.npy} MLP --out no
- fit {labels.npz|nothing|broken|pictures|pictures/a/0.png|one.txt|latin.txt} MLP --out no
- fit {book.xlsx|cells.loom|counts.mtx.gz|notes.md|file|my|rows.csv.gz} MLP --out no
- fit --config {nowhere.toml|broken.toml|unknown.toml|bits.npy|nothing}
- fit --resume {nowhere|nothing|file}
- fit bits.npy MLP --out {file/run|/proc/run|bits.npy}
- fit bits.npy MLP {--device cuda:7|--size 8|--layout HWC|--layout hwc|--inputs none} --out no
- fit bits.npy MLP {--condition '~ a'|--offset a|--covariates a=Normal|--weight w} --out no
- fit bits.npy MLP {--likelihood a=Normal|--tokens syllables|--prior Norml|--beta -1} --out no
- fit bits.npy MLP {--missing maybe|--layers '[3,'|--layers 3.5|--validation 0|--lr fast} --out no
- fit bits.npy MLP {--estimator ELBO|--encoder 'GRU(4)'|--batch-size 0|--seed -1} --out no
- fit bits.npy MLP {--censored a=b|--na-values 7|--kinds a=real|--dates a=%Y} --out no
? fit bits.npy MLP --tokens words
- fit rows.csv MLP --layout HWC --out no
- fit holes.npy MLP --missing false --out no
- fit {reals.npy|last.npy} MLP --out no
- fit digits --data-root nowhere MLP --layout HWC --out no
- fit mnist --data-root nothing MLP --out no
- fit {gone.csv|gone.npy|gone.txt|loop.npy|pipe.csv|pipe.npy|pipe.txt|folder.npy} MLP --out no
- fit bits.npy MLP --out {gone.csv|loop.npy|pipe.csv|file}
- fit --config {gone.csv|loop.npy|pipe.csv|folder.npy}
""",
    "a table": """
+ fit {rows.csv|rows.tsv|semicolons.csv|bom.csv} MLP
- fit dup.csv MLP
? fit {latin.csv|rows.parquet} MLP
+ fit rows.csv MLP --out r
+ fit rows.tsv MLP --out t
+ show r
+ check r
- fit rows.csv MLP --out r
+ fit --resume r
+ fit --resume r --epochs 2
- fit --resume r --latent-dim 3
+ encode r rows.csv
- encode r rows.csv
+ encode r rows.csv --force
+ encode r {turned.csv|one.csv|rows.tsv --out t.npy}
? encode r rows.parquet --out p.npy
- {encode|impute} r {lacks.csv|words.csv|levels.csv|empty.csv|header.csv|binary.csv} --out no.csv
- {encode|impute} r {bits.npy|lines.txt|nowhere.csv|pictures|nothing|counts.mtx|file} --out no.csv
+ impute r rows.csv --num-samples 40
- impute r rows.csv --num-samples 40
+ impute r rows.csv --num-samples 40 --draws 2 --out i.tsv
? impute r rows.csv --num-samples 40 --draws 2 --out i.parquet
- impute r rows.csv {--out i.npy|--draws 0}
+ sample r
- sample r
+ sample r --out g{1.csv --given Town=Rome|2.csv --given Kids=2 --given Smokes=yes}
- sample r --out no.csv --given {Born=01.02.1980|Name=Ann}
- sample r --out no.csv --given {Town=Paris|town=Rome|Town|Kids=many|Kids=-3|Kids=1.5|=3}
- sample r --out no.csv --given {Born=yesterday|Rate=nan|Kids=2 --given Kids=3}
- sample r --num-samples 0 --out no.csv
+ evaluate r FEW
+ evaluate r rows.csv FEW
- evaluate r {words.csv|nowhere.csv|bits.npy} FEW
+ report r FEW
? compress r rows.csv
+ compare runs r t --num-samples 40
- compare runs r {nowhere|nothing}
+ compare estimators r --estimator Trace_ELBO --num-draws 4 --batch-size 5
- compare estimators r --estimator ELBO --num-draws 4
+ compare likelihoods rows.csv MLP --likelihood Kids=Poisson --likelihood Kids=NegativeBinomial
- fit rows.csv MLP --out no --likelihood {Poisson|kids=Poisson|Kids=Poison|Town=Normal}
- fit rows.csv MLP --out no --likelihood Kids=Normal --likelihood Kids=Poisson
- fit rows.csv MLP --out no --condition {town|'~ Twn'|'~'|'~ Kids +'|'~ Kids' --covariates Kids}
- fit rows.csv MLP --out no --condition '~ Town' {--covariates Kids=Normal|--likelihood Town=Normal}
- fit rows.csv MLP --out no {--covariates Town=Normal|--offset town|--weight Town|--missing maybe}
+ fit rows.csv MLP --kinds Kids=integer --kinds Smokes=no,yes --dates Born=%d.%m.%Y --out k
- fit rows.csv MLP --out no {--kinds Kids|--kinds Kids=many|--kinds Twn=real|--kinds Town=ordinal}
- fit rows.csv MLP --out no {--dates Born|--dates Born=%Y|--dates Name=%d.%m.%Y|--kinds Town=A,B}
- fit rows.csv MLP --out no {--censored Income|--censored Income=Twn|--na-values Kds=3}
? fit rows.csv MLP --offset Kids --out o
+ fit rows.csv MLP --condition '~ Kids' --out c
+ fit rows.csv MLP --condition '~ Kids' --covariates Kids=Normal --out v
+ encode v rows.csv --out v.npy
+ sample c --given Kids=2
? sample c --out c2.csv
+ fit rows.csv MLP --na-values n/a --out n
+ fit rows.csv MLP --inputs raw --units data --out raw
+ fit 'my own folder/größe 😀.csv' MLP --out 'my own folder/rün 😀'
+ {show|check} 'my own folder/rün 😀'
+ encode 'my own folder/rün 😀' 'my own folder/größe 😀.csv'
+ {evaluate|report} 'my own folder/rün 😀' FEW
+ fit 'my own folder/größe 😀.csv' MLP
""",
    "an array": """
+ fit bits.npy MLP --out a
+ fit bits.npz MLP --out z
+ fit 'my own folder/ünï bits.npy' MLP --out 'my own folder/ü'
+ fit holes.npy MLP --out h
+ impute h holes.npy --num-samples 40
+ impute h holes.npy --num-samples 40 --draws 3 --out three
+ encode h holes.npy
- encode a holes.npy --out new
+ evaluate h FEW
? compress h holes.npy
? impute a bits.npy
+ encode a bits.npy
- {encode|impute|compress} a {wide.npy|reals.npy|vector.npy|words.npy|none.npy|last.npy} --out new
- {encode|impute|compress} a {empty.npy|rows.csv|lines.txt|nowhere.npy|nothing} --out new
? encode a bits.npz --out from-npz
? compress z bits.npz --out zz
+ compress a bits.npy
- compress a bits.npy
- decompress a bits.pvc
+ decompress a bits.pvc --out back.npy
- decompress {z bits.pvc|a bits.npy|a empty.npy} --out new
+ sample a
- sample a
- sample a {--given x=1 --out new|--out new.csv|--out /proc/new|--seed -1 --out new}
- sample a --out nowhere/new
- encode a bits.npy --out file/new
+ evaluate {a|z|a bits.npy} FEW
- evaluate a wide.npy FEW
+ report a FEW
+ report a FEW --out r.html
- report a FEW --out file/r.html
+ compare runs a z --num-samples 40 --data bits.npy
- compare runs a h --num-samples 40 --data wide.npy
? compare runs {a|a a} --num-samples 40
+ {check|show} a
+ compare estimators a --estimator Trace_ELBO --num-draws 4
- compare estimators a {--estimator IWAE --num-draws 4|--estimator Trace_ELBO --epochs 2}
- compare estimators a
- compare estimators a --estimator Trace_ELBO --train --num-draws 4
+ compare estimators a --estimator Trace_ELBO --estimator TraceGraph_ELBO --train --epochs 1
+ compare priors bits.npy MLP --prior Normal --prior Laplace --num-samples 40
- compare priors bits.npy MLP --prior Normal
- compare priors bits.npy MLP --prior Normal --prior {Normal|Laplce}
+ compare guides bits.npy MLP --guide Normal --guide MultivariateNormal --num-samples 40 --out g
+ fit --config a/config.toml --seed 1 --out again
- fit --config a
+ fit reals.npy MLP --likelihood Normal --units data --out reals
- fit reals.npy MLP --likelihood Poisson --out no
+ fit lengths.npz GRU --likelihood Normal --out l
+ sample l
? {encode|impute} l lengths.npz
""",
    "pictures": """
- fit pictures MLP --out no
+ fit pictures MLP --size 8 --out p
+ sample p
+ encode p pictures
- encode p {nothing|broken|pictures/a/0.png|last.npy} --out new
? encode p pictures/a --out new.npy
+ evaluate p FEW
+ evaluate p pictures FEW
+ report p FEW
? impute p pictures --num-samples 40
+ compress p pictures
+ decompress p pictures.pvc
- fit pictures MLP --size 0
+ fit last.npy MLP --layout HWC --likelihood 'DiscretizedLogistic(components=2)' --out i
+ encode i last.npy
+ report i FEW
+ fit last.npy MLP --likelihood 'DiscretizedLogistic(components=2)' --out f
- fit digits MLP --layout HWC
+ show p
""",
    "texts": """
+ fit lines.txt GRU --out t
+ fit lines.txt GRU --tokens words --out w
- fit lines.txt {MLP|GRU --likelihood Normal} --out no
+ sample w
- sample w
- sample w {--out s.npy|--given a=b --out new.txt}
+ encode w lines.txt
- encode w other.txt
- encode w {latin.txt|empty.txt|rows.csv|bits.npy|nothing} --out new
+ evaluate w FEW
+ evaluate w lines.txt FEW
+ report w FEW
? impute w lines.txt --num-samples 40
? compress w lines.txt
+ {show|check} w
""",
    "counts": """
+ fit counts.mtx MLP --likelihood Poisson --out m
+ fit counts.npz MLP --likelihood Poisson --offset library --out n
- fit counts.mtx MLP --out no
- encode m {genes.mtx|rows.csv|nothing|lines.txt} --out new
+ encode m counts.mtx
+ sample m
? impute m counts.mtx
+ evaluate m FEW
+ report n FEW
+ show m
? compress m counts.npz --out c
? decompress m c.pvc
- fit counts.mtx MLP --likelihood Poisson --out no {--condition '~ C(batch)'|--offset depth}
+ fit counts.csv MLP --likelihood Poisson --offset library --condition '~ C(batch)' --out b
- fit counts.csv MLP --likelihood Poisson --offset library --condition '~ C(bach)' --out no
? encode b counts.csv
- encode b lacks.csv --out new
+ evaluate b FEW
? sample b
+ report b FEW
""",
}
CODES = {"+": 0, "-": 2, "?": None}
SAID = {"MLP": MLP, "GRU": GRU, "FEW": FEW}


def steps(walk: str) -> Iterator[tuple[int | None, list[str]]]:
    """The commands of a walk, each with its exit code."""
    for line in WALKS[walk].strip().splitlines():
        groups = [part.split("|") for part in re.split(r"[{}]", line[2:])]
        for words in product(*groups):
            args = shlex.split("".join(words))
            yield CODES[line[0]], [part for word in args for part in SAID.get(word, [word])]


def attempt(args: list[str]) -> tuple[Done | None, str]:
    """How a command ended, and what is wrong with it as such."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        try:
            done = run(*args)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            return None, f"{type(error).__name__} at {last.filename}:{last.lineno}: {error}"
    said = done.out + done.err
    if found := [word for word in MACHINERY if word in said]:
        return done, f"says {found[0]!r}"
    if others := [w for w in warned if "site-packages" in w.filename]:
        return done, f"warns in another's words: {others[0].message}"
    if done.code not in (0, 2):
        return done, f"ends with {done.code}"
    if done.code == 2 and not 20 < len(done.err.split("error:")[-1]) < 900:
        return done, f"is refused in {len(done.err)} letters"
    return done, ""


def advised(args: list[str], err: str) -> Iterator[list[str]]:
    """The commands that a message advises: flags beside those of the command, and lines."""
    text = " ".join(err.split("error:")[-1].split())
    if "Usage:" in err:
        return
    yield from (shlex.split(line)[1:] for line in re.findall(r"pyro-vae [^:;,]*[^:;,. ]", text))
    for flag, value in FLAG.findall(text):
        if flag in SWITCHES:
            yield [*args, flag]
        elif (value and value not in VERBS and not value.isupper()) or value == "HWC":
            i = args.index(flag) if flag in args else len(args)
            yield [*args[:i], flag, value.strip("'\""), *args[i + 2 :]]


def failures(walk: str, told: bool = False) -> Iterator[tuple[str, str]]:
    """``(command, what)`` of the commands of a walk that do not answer as they should."""
    for code, args in steps(walk):
        before = set(Path().rglob("*"))
        done, wrong = attempt(args)
        line = shlex.join(a for a in args if a not in {*MLP, *FEW, *GRU})
        if done and not wrong and code not in (None, done.code):
            wrong = f"ends with {done.code}"
        if done and done.code and not wrong and (new := set(Path().rglob("*")) - before):
            wrong = f"is refused, and leaves {', '.join(sorted(map(str, new)))}"
        if done and done.code == 2 and not wrong:
            for other in advised(args, done.err):
                again, what = attempt(other)
                if what or again is None or again.err == done.err:
                    wrong = f"advises {shlex.join(other)}, which {what or 'says the same'}"
        said = "" if done is None else (done.err if done.code else done.out).strip()
        if told:
            print(f"$ {line}\n    {'' if done is None else done.code} {said[-700:]}", flush=True)
        if wrong:
            yield line, f"{wrong}\n    {said[-700:]}"


def main(walks: list[str], told: bool) -> None:
    kinds: Counter[str] = Counter()
    for walk in walks or WALKS:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            files()
            for line, what in failures(walk, told):
                kinds[walk] += 1
                print(f"FAULT $ {line}\n    {what}", flush=True)
        print(f"{walk}: {len(list(steps(walk)))} commands, {kinds[walk]} faults", flush=True)
    count = sum(len(list(steps(walk))) for walk in walks or WALKS)
    print(f"{count} commands, {kinds.total()} faults")


if __name__ == "__main__":
    main([a for a in sys.argv[1:] if a != "--all"], "--all" in sys.argv)
