"""Which family a column of numbers is of, by what it holds."""

import numpy as np

from .columns import Kind, Sort
from .declared import KIND_OF
from .fits import fitted

__all__ = [
    "HEAVY",
    "are_counts",
    "by_values",
    "count_line",
    "positive_line",
    "step_and_low",
    "step_of",
]

ROWS = 5_000  # of a longer column that are fitted
SPIKE, WITHIN = 0.1, 0.25  # shares of a column that make a value a spike: at an end, or within
LEAST = 4  # whole numbers from 0 that may be counts, not codes
FEW = 12  # values that are too few for a spike beside numbers
SHARE = 0.5  # which some of the numbers in (0, 1) exceed, if they are shares
HEAPED, AGAIN = 0.5, 5  # nats a row that a probability for each value wins, and rows a value
MANY, PLACES = 20, 6  # values whose common step is no accident, and its decimals
SECONDS, MINUTE = 86_400, 60  # of a day, and of a minute
SINGLE = 2**20  # steps that single precision tells apart, with digits to spare
DIGITS = 2.0**40  # numbers beyond have too few digits to tell what they are rounded to
GAIN = 0.05  # nats a row that a family of numbers must win over the Normal
# Degrees of freedom that follow z come near 0, and draws are then larger than any value seen.
HEAVY = "StudentT(df=4)"
LINES = {"StudentT": HEAVY}


def by_values(
    x: np.ndarray, whole: bool, fractions: bool = True, step: float | None = None
) -> tuple[Kind, str, float | None, str]:
    """The kind of a quantity, the line of its family, its spike, and why.

    Args:
        x: ``(N,)`` finite numbers, of two values at least.
        whole: whether all are whole.
        fractions: whether numbers in (0, 1) may be shares of something.
        step: by which the values lie apart.
    """
    x, unit = _some(x), step or float(whole)
    spike, scores = _spike(x), _scores(x, whole, fractions)
    if spike is not None:
        rest = x[x != spike]
        share = 1 - len(rest) / len(x)
        beside = _scores(rest, False, fractions)
        name, gain = _best(beside)
        sides = share * np.log(share) + (1 - share) * np.log1p(-share)
        hurdle = (1 - share) * beside[name] + sides
        counts = [scores[n] for n in ("Poisson", "NegativeBinomial") if n in scores]
        if not counts or hurdle > max(counts) + GAIN:
            inner = LINES.get(name, name)
            line = f"Hurdle({inner})" if spike == 0 else f"Hurdle({inner}, at={spike!r})"
            why = f"{share:.0%} of the values are {spike:g}, the others are numbers"
            why += _gain_in_words(name, gain) + _heaps_in_words(rest, beside[name], unit)
            return "hurdle", line, spike, why
    name, gain = _best(scores)
    kind = KIND_OF[name]
    if kind == "real" and whole:
        kind = "integer"
    reason = {
        "real": "numbers",
        "integer": "numbers",
        "heavy-tailed": "numbers with heavy tails",
        "positive": "positive numbers",
        "bounded": "numbers within (0, 1)",
        "count": "numbers from 0 or 1, read as counts",
    }[kind]
    why = ("whole " if whole else "") + reason + _gain_in_words(name, gain)
    why += _heaps_in_words(x, scores[name], unit)
    return kind, LINES.get(name, name), None, why


def are_counts(x: np.ndarray) -> bool:
    """Whether few whole numbers, 0 and most up to the greatest, occur about as counts do.

    ``Poisson`` or ``NegativeBinomial`` then fit nearly as well as a probability for each, and
    better than a normal distribution.
    """
    x = _some(x)
    values, counts = np.unique(x, return_counts=True)
    k, n = len(values), len(x)
    if k < LEAST or values[0] != 0 or values[-1] >= 2 * k:
        return False
    codes = (counts * np.log(counts / n)).sum() - (k - 1) / 2 * np.log(n)
    best = max(fitted(name, x) for name in ("Poisson", "NegativeBinomial"))
    return best / n > codes / n - GAIN and best > fitted("Normal", x)


def step_of(x: np.ndarray, sort: Sort = "number", least: int = 0) -> float | None:
    """The largest step by which all values lie apart: 0.01 of cents, 1,000 of rounded salaries.

    Of times and durations, which are days, one of whole seconds. Few values may lie farther apart
    by accident, so theirs is that of their last decimal, or at most a minute. ``None`` of whole
    numbers that are not rounded, and of more decimals.

    Args:
        x: ``(N,)``.
        sort: of the column.
        least: decimals with which all numbers are written, zeros too.
    """
    values = np.unique(x)
    few = len(values) < MANY
    if sort in ("time", "duration"):
        seconds = np.round(values * SECONDS, PLACES - 1)
        apart = [*seconds, MINUTE] if few else seconds - seconds[0]
        step = int(np.gcd.reduce(np.asarray(apart).astype(np.int64)))
        plain = not (seconds % SECONDS).any() and (few or step == SECONDS)  # whole days
        return None if plain or (seconds % 1).any() else step / SECONDS
    for places in range(PLACES + 1):
        scaled = values * 10.0**places
        ticks = np.round(scaled)
        if np.abs(ticks).max() > DIGITS:
            return None
        if np.allclose(scaled, ticks, rtol=4 * np.finfo(float).eps, atol=0):
            if few:
                return 1 / 10 ** max(places, least) if places else None
            step = int(np.gcd.reduce((ticks - ticks[0]).astype(np.int64)))
            return None if step == 1 and places == 0 else step / 10**places
    return None


def step_and_low(x: np.ndarray, sort: Sort, least: int) -> tuple[float | None, float]:
    """The step of numbers and the least; of single precision in the decimals that they stand for.

    Args:
        x: ``(N,)``.
        sort: of the column.
        least: see :func:`step_of`.
    """
    step, single = step_of(x, sort, least), x.astype(np.float32)
    if step is None and sort == "number" and (single == x).all():
        decimals = np.array([float(str(value)) for value in np.unique(single)])
        step = step_of(decimals, sort, least)
        if step and np.abs(decimals).max() < step * SINGLE:
            return step, float(decimals[0])
        step = None
    return step, float(x.min())


def positive_line(x: np.ndarray) -> str:
    """The better of the families of positive numbers."""
    x = _some(x)
    return max(("LogNormal", "Gamma"), key=lambda name: fitted(name, x))


def count_line(x: np.ndarray) -> str:
    """The better of the families of counts."""
    x = _some(x)
    return max(("Poisson", "NegativeBinomial"), key=lambda name: fitted(name, x))


def _gain_in_words(name: str, gain: float) -> str:
    if name == "Normal":
        return ""
    return f"; {name} fits better than Normal by {gain:.2f} nats a row"


def _heaps_in_words(x: np.ndarray, score: float, unit: float) -> str:
    """What to do where numbers are heaped at some values, as at round ones, more than rounded.

    Args:
        x: ``(N,)``, which the family models.
        score: the nats a row of the family's density.
        unit: by which the values lie apart; 0 where that is not known.
    """
    values, counts = np.unique(x, return_counts=True)
    shares = (counts * np.log(counts / len(x))).sum() - (len(counts) - 1) / 2 * np.log(len(x))
    if unit == 0 or len(x) < AGAIN * len(values):
        return ""
    if (gain := shares / len(x) - score - np.log(unit)) < HEAPED:
        return ""
    top = values[np.argsort(counts)[-3:]]
    return (
        f"; heaped at {', '.join(f'{v:.6g}' for v in sorted(top))}, where a probability for each "
        f"value fits better by {gain:.2f} nats a row: 'OrderedLogistic' has them, but no new values"
    )


def _some(x: np.ndarray) -> np.ndarray:
    """All, or some thousand at even distances in the column's order."""
    return x if len(x) <= ROWS else x[np.linspace(0, len(x) - 1, ROWS).astype(int)]


def _spike(x: np.ndarray) -> float | None:
    """A value that occurs far more often than the others; within the range it needs a quarter.

    Zeros that are few count where the rest is of a family of positive numbers.
    """
    values, counts = np.unique(x, return_counts=True)
    if len(values) < FEW:
        return None
    order = np.argsort(counts)
    often, share = float(values[order[-1]]) + 0.0, counts[order[-1]] / len(x)
    ends = (values[0], values[-1], 0.0)
    least = SPIKE if often in ends else WITHIN
    if share >= least and counts[order[-1]] >= 3 * counts[order[-2]]:
        return often
    if values[0] == 0 and KIND_OF[_best(_scores(x[x > 0], whole=False))[0]] == "positive":
        return 0.0
    return None


def _scores(x: np.ndarray, whole: bool, fractions: bool = True) -> dict[str, float]:
    """The nats a row of each family that could be.

    Numbers in (0, 1), some above a half, are most likely shares, whose family wins where it is
    about as good.
    """
    names = ["Normal", "StudentT"]
    if x.min() > 0:
        names += ["LogNormal", "Gamma"] + (["Beta"] if fractions and x.max() < 1 else [])
    if whole and 0 <= x.min() <= 1:
        names += ["NegativeBinomial", "Poisson"]
    scores = {name: fitted(name, x) / len(x) for name in names}
    if "Beta" in scores and x.max() > SHARE:
        scores["Beta"] += 2 * GAIN
    return scores


def _best(scores: dict[str, float]) -> tuple[str, float]:
    """The winner and its gain in nats a row: over the Normal by enough, or a count by any."""
    name = max(scores, key=lambda name: scores[name])
    positive = [n for n, kind in KIND_OF.items() if kind == "positive" and n in scores]
    if name == "StudentT" and positive:  # which gives numbers below 0 a part of its mass
        other = max(positive, key=lambda name: scores[name])
        name = other if scores[other] > scores[name] - GAIN else name
    gain = scores[name] - scores["Normal"]
    return (name, gain) if gain > GAIN or KIND_OF[name] == "count" else ("Normal", 0.0)
