"""Thousands of compositions of lines, each built and consistent or clearly refused.

``python tests/campaigns/compositions.py [how many] [seed]`` prints every failure and their number.
"""

import random
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.composition import build, draw_case, hold


def cases(n, seed=0):
    rng = random.Random(seed)
    return [draw_case(rng.choice) for _ in range(n)]


def is_built(case):
    try:
        build(case)
    except Exception:
        return False
    return True


def failures(n, seed=0):
    """``(case, fault)`` of those that fail."""
    with tempfile.TemporaryDirectory() as folder:
        for i, case in enumerate(cases(n, seed)):
            if fault := hold(case, Path(folder) / str(i)):
                yield case, fault


def main(n=2000, seed=0):
    warnings.simplefilter("ignore")
    kinds = Counter()
    for case, fault in failures(n, seed):
        kinds[fault.split(":")[0]] += 1
        print(f"{case}\n    {fault}", flush=True)
    print(f"{n} compositions, {sum(kinds.values())} failures: {dict(kinds)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
