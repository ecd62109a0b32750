"""Pyro's own tests of gradients and inference, with each estimator of the table in its place.

python benchmarks/pyro_cases.py [PART OF A CASE'S NAME ...]
"""

import re
import string
import sys
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from common import publish

from helpers.pyro_cases import CASES, ELSEWHERE, LINES, outcome

SIGNS = string.ascii_lowercase + string.ascii_uppercase


PLAIN = {  # what a refusal names, and what stands for it
    r": (?:use|say|leave|pass)\b.*|, so it.*": "",
    r"(?:(?:, )?\w+ at site '\w+')+": "a site",
    r"(?<=states, and )[\w, ]+(?= has no)": "no site",
    r"no site has no finite": "no site has a finite",
    r"^\w+(?= scores further)": "it",
    r"(?<=it draws )[\w, ]+(?= in another order)": "its sites",
    r"'\w+'": "...",
}


def reason(why: str) -> str:
    """A refusal without the names of its sites and without the advice."""
    text = why.split("cannot serve this guide: ")[-1].split("\n")[0]
    for pattern, plain in PLAIN.items():
        text = re.sub(pattern, plain, text)
    return text


def main() -> None:
    """Try every estimator on every case, and publish the list."""
    parts = sys.argv[1:]
    cases = {n: c for n, c in CASES.items() if not parts or any(p in n for p in parts)}
    groups = [[*some] for _, some in groupby(cases, key=lambda name: cases[name].of)]
    signs: dict[str, str] = {}
    rows = []
    for line in LINES:
        marks = []
        for name in cases:
            why = outcome(line, cases[name])
            marks.append(signs.setdefault(reason(why), SIGNS[len(signs)]) if why else ".")
        found = iter(marks)
        rows.append(f"{line:<46} " + " ".join("".join(next(found) for _ in g) for g in groups))
    served = sum(row.count(".") for row in rows)
    text = [
        f"Of {len(LINES)} estimators with their gradient rules and {len(cases)} cases, written "
        "anew after `tests/infer/test_gradient.py` and `test_inference.py` of Pyro 1.9.2, "
        f"{served} pairs pass (`.`) and the others are refused, each for the reason of its letter.",
        "Gradients are held to exact ones by quadrature or by all states (2,000 draws, |z| < 5), "
        "and are zero at a conjugate posterior and lead there from beside it.\n",
        "```", *rows, "```\n", "The columns, group by group:\n",
    ]  # fmt: skip
    for group in groups:
        text += [f"- {cases[group[0]].of}:", *(f"  {i}. {n}" for i, n in enumerate(group, 1))]
    text += ["\nReasons:\n", *(f"- `{sign}`: {why}" for why, sign in signs.items())]
    text += ["\nOf Pyro's tests these hold no bound that one of ours could stand for:\n"]
    text += [f"- {name}: {why}." for name, why in ELSEWHERE.items()]
    publish("pyro_cases", "Pyro's tests with these estimators", "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
