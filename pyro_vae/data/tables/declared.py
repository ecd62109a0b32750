"""The kind of a column whose likelihood line a user declared."""

from collections.abc import Mapping, Sequence

from ...language.spec import Spec, as_spec
from .columns import Kind, Level

__all__ = [
    "KIND_OF",
    "WORDS",
    "declared_levels",
    "declared_lines",
    "kind_of_line",
    "with_categories",
]

FAMILIES: dict[Kind, tuple[str, ...]] = {
    "real": ("Normal", "Laplace", "Cauchy", "Gumbel", "Logistic", "AsymmetricLaplace"),
    "heavy-tailed": ("StudentT", "Stable"),
    "positive": ("LogNormal", "Gamma", "Weibull", "InverseGamma", "Exponential", "Pareto"),
    "bounded": ("Beta", "Kumaraswamy", "LogitNormal"),
    "count": (
        "Poisson",
        "NegativeBinomial",
        "GammaPoisson",
        "Geometric",
        "Binomial",
        "BetaBinomial",
        "ZeroInflatedPoisson",
        "ZeroInflatedNegativeBinomial",
    ),
    "binary": ("Bernoulli",),
    "categorical": ("Categorical", "OneHotCategorical"),
    "ordinal": ("OrderedLogistic",),
    "hurdle": ("Hurdle",),
    "survival": ("Censored",),
}
KIND_OF: dict[str, Kind] = {name: kind for kind, names in FAMILIES.items() for name in names}
AROUND = ("Mixture", "Transformed")  # of the kind of the family within
CATEGORIES = ("Categorical", "OrderedLogistic")

WORDS = {
    "real": "numbers",
    "integer": "whole numbers, rounded on return",
    "heavy-tailed": "numbers with heavy tails",
    "positive": "positive numbers",
    "bounded": "numbers within (0, 1)",
    "count": "whole numbers from 0",
    "hurdle": "one value that occurs often, and numbers beside it",
    "survival": "a time until an event, or until it was censored",
    "event": "whether the event of a survival time was seen",
}


def declared_levels(name: str, wish: object) -> tuple[Level, ...] | None:
    """The levels that a user says of a column, in their order; ``None`` where a kind is said.

    Raises:
        ValueError: what has no order.
    """
    if wish is None or isinstance(wish, str):
        return None
    wish = wish.tolist() if hasattr(wish, "tolist") else wish  # of NumPy and pandas
    if not isinstance(wish, Sequence):
        raise ValueError(
            f"the levels of column {name!r} are a list, from the least to the greatest, "
            f"got {wish!r}"
        )
    return tuple(wish)


def declared_lines(likelihood: object) -> dict[str, str]:
    """The likelihood lines that a user says of columns.

    Raises:
        ValueError: one line for all.
    """
    if isinstance(likelihood, Mapping):
        return {name: str(line) for name, line in likelihood.items()}
    if likelihood != "auto":
        raise ValueError(
            f"the likelihood of a table is 'auto' or a line for each column, got {likelihood!r}\n"
            "say the column: likelihood={'Income': 'LogNormal'}"
        )
    return {}


def kind_of_line(line: str | Spec) -> Kind | None:
    """The kind of column that a family is of; ``None`` where it is of several or unknown.

    >>> kind_of_line("Mixture(LogNormal, components=5)")
    'positive'
    """
    spec = as_spec(line)
    if spec.name in AROUND and spec.args and isinstance(spec.args[0], Spec):
        return kind_of_line(spec.args[0])
    return KIND_OF.get(spec.name)


def with_categories(line: str | Spec, levels: int) -> str:
    """The line with the number of its categories, where it needs one and does not say it.

    Raises:
        ValueError: it says another number than there are levels.
    """
    spec = as_spec(line)
    if spec.name in AROUND and spec.args and isinstance(spec.args[0], Spec):
        inner = as_spec(with_categories(spec.args[0], levels))
        return str(Spec(spec.name, inner, *spec.args[1:], **spec.kwargs))
    if spec.name not in CATEGORIES:
        return str(spec)
    count = spec.kwargs.get("categories", levels)
    if count != levels:
        raise ValueError(f"{spec} says {count} categories, and the column has {levels} levels")
    return str(Spec(spec.name, *spec.args, **{"categories": levels, **spec.kwargs}))
