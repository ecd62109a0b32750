"""Formulas: what a condition says, read without running any of it."""

import ast
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...language.spec import nearest

__all__ = [
    "OTHERS",
    "factors_of",
    "names_of",
    "numbers_in",
    "parsed",
    "sources_of",
    "within_c",
    "without",
    "words_of",
]

LONGEST = 1000  # letters of a formula
LARGEST = 1e6  # numbers in a formula; and of what makes columns of a spline, as many
MOST_COLUMNS = 200
# What a formula may call. Nothing else in it is evaluated.
FUNCTIONS = ("C", "I", "bs", "cc", "center", "cr", "cs", "exp", "log", "log10", "log2", "scale")
OTHERS = {"abs": np.abs, "log1p": np.log1p, "sqrt": np.sqrt}
NODES = (
    *(ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp),
    *(ast.UnaryOp, ast.USub, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.List, ast.Tuple),
)
SETTINGS = ("bs", "cc", "center", "cr", "cs", "scale")  # that take more than what they are of
QUOTED = re.compile("`([^`]*)`")
NOT_HERE = {  # what other formulas have, and what to say in its place
    r"\|": "has no effects of groups, which are the prior's: C(batch) of a condition, or "
    "prior=\"LinearMixed('time + (1 + time | subject)')\" of repeated measurements",
    r"(?<![\w.])\.(?!\w)": "names its columns one by one, '~ age + site' or ['age', 'site']: "
    "'.' would take those that are modelled too",
    r"[<>]|==": "compares nothing: make a column of it in the frame, df['old'] = df.age > 50",
    r"[^\s~][^~]*~": "has nothing before ~: all other columns are modelled given it, '~ age'",
}
INSTEAD = {  # of functions that other formulas call
    "poly": "age + I(age**2)",
    "ns": "cr(age, df=4), a natural spline",
    "factor": "C(age)",
    "standardize": "scale(age)",
    "offset": "VAE(..., offset='age'), beside the condition",
}
# Names and words of which formulaic reads what is read here: it evaluates what it takes for code.
PLAIN = re.compile(r"`[^`'\"\\]*`|'\w*'|\"\w*\"")


def factors_of(formula: str) -> list[str]:
    """The parts of a formula's terms, after a check that all of them are harmless.

    Raises:
        ValueError: a formula that cannot be read, or one that asks for more than a formula may.
    """
    from formulaic.errors import FormulaicError

    for wrong, advice in NOT_HERE.items():
        if re.search(wrong, QUOTED.sub("", formula)):
            raise ValueError(f"the condition {formula!r} {advice}")
    if alone := re.search(r"([A-Za-z_]\w*)\s*(?:\*\*|\^)\s*(\d+)", _uncalled(formula)):
        name, power = alone.groups()
        raise ValueError(
            f"the condition {formula!r} says a power of {name} alone, which a formula takes for "
            f"{name} itself: I({name}**{power}) is the power"
        )
    if len(formula) > LONGEST:
        raise ValueError(f"a formula has at most {LONGEST} letters, got {len(formula)}")
    if big := [n for n in re.findall(r"(?:\*\*|\^)\s*(\d+)", formula) if int(n) > 5]:
        raise ValueError(f"a power in a formula is at most 5, got {big[0]}")
    if formula.count("*") - 2 * formula.count("**") + formula.count("^") > 8:
        raise ValueError("a formula has at most 8 products: write out the terms that you mean")
    try:
        factors = [factor for term in parsed(formula) for factor in term.factors]
        kinds = [(str(factor.expr), factor.eval_method.value) for factor in factors]
    except (FormulaicError, AttributeError, SyntaxError, RecursionError) as problem:
        said = f": {words_of(problem)}" if isinstance(problem, FormulaicError) else ""
        raise ValueError(
            f"the condition {formula!r} is no formula such as '~ age + C(batch)'{said}"
        ) from problem
    for expression, kind in kinds:
        if kind == "python":
            _check_harmless(expression, formula)
    return [f"`{text}`" if kind == "lookup" else text for text, kind in kinds if kind != "literal"]


def _uncalled(formula: str) -> str:
    """A formula without what its functions and braces hold."""
    rest = QUOTED.sub("", formula)
    while (less := re.sub(r"\w+\([^()]*\)|\{[^{}]*\}", "#", rest)) != rest:
        rest = less
    return rest


def parsed(formula: str) -> Any:  # noqa: ANN401
    """The terms of a formula."""
    from formulaic import Formula

    return Formula(formula)  # pyrefly: ignore[bad-instantiation]


def _check_harmless(expression: str, formula: str) -> None:
    """Raise for anything but arithmetic and the functions that a formula may call."""
    if re.search(r"[`'\"\\]", PLAIN.sub("", expression)):
        raise ValueError(
            f"names in backticks hold no quotes, and words letters and digits alone, within a "
            f"function of a formula: rename the column, got {expression!r}"
        )
    try:
        tree = ast.parse(_placed(expression), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise ValueError(f"{expression!r} in the condition {formula!r} cannot be read") from problem
    settings: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            settings |= _check_call(node)
        elif not isinstance(node, NODES):
            what = type(node).__name__.lower()
            raise ValueError(f"a formula holds no {what}, got {expression!r}")
        value: Any = node.value if isinstance(node, ast.Constant) else 0
        number = type(value) in (int, float)
        if (not number or isinstance(node, ast.List | ast.Tuple)) and id(node) not in settings:
            raise ValueError(f"a formula computes with columns and numbers, got {expression!r}")
        inside = "(" in expression and isinstance(value, int)
        if number and abs(value) > (MOST_COLUMNS if inside else LARGEST):
            raise ValueError(f"the number {value:g} in {expression!r} is too large for a formula")
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and not _names_in(node):
            raise ValueError(f"a power in a formula is of a column, got {expression!r}")


def _check_call(node: ast.Call) -> set[int]:
    """Raise for a function that a formula may not call; the nodes of its settings, by id."""
    name, known = node.func.id if isinstance(node.func, ast.Name) else "", {*FUNCTIONS, *OTHERS}
    if name not in known:
        got = name or ast.unparse(node.func)
        advice = f"; say {INSTEAD[got]}" if got in INSTEAD else nearest(got, sorted(known))
        raise ValueError(
            f"a formula may not call {got!r}; it may call {', '.join(sorted(known))}{advice}"
        )
    settings = [*node.args[1:], *(keyword.value for keyword in node.keywords)]
    if name == "C" and (settings or not all(isinstance(arg, ast.Name) for arg in node.args)):
        raise ValueError("C() takes the name of one column: C(batch)")
    if not node.args or (settings and name not in SETTINGS):
        raise ValueError(f"{name}() takes one thing: {name}(age)")
    try:
        _ = [ast.literal_eval(setting) for setting in settings]
    except ValueError as problem:
        said = ast.unparse(node)
        raise ValueError(f"what follows the first thing in {said} is a number or word") from problem
    return {id(inner) for setting in settings for inner in ast.walk(setting)}


def names_of(factor: str) -> set[str]:
    """The columns that a factor names."""
    own = _names_in(ast.parse(_placed(factor), mode="eval"))
    return {*QUOTED.findall(factor)} | {n for n in own if not n.startswith("quoted_column_")}


def _names_in(tree: ast.AST) -> set[str]:
    """The names in an expression, without those of functions."""
    nodes = list(ast.walk(tree))
    functions = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    return {n.id for n in nodes if isinstance(n, ast.Name) and id(n) not in functions}


def within_c(factor: str) -> set[str]:
    """The column that a factor takes as categories."""
    found = re.fullmatch(r"C\((?:`([^`]*)`|(\w+))\)", factor.strip())
    return {found[1] or found[2]} if found else set()


def sources_of(formula: str) -> set[str]:
    """The columns that a formula names; its parser takes a column "1" for the constant one."""
    found = {name for factor in factors_of(formula) for name in names_of(factor)}
    return found | {*QUOTED.findall(formula)}


def without(formula: str, names: Sequence[str]) -> str | None:
    """A formula without some columns, which stand in it as they are; ``None`` if none is left.

    Raises:
        ValueError: one of them is not in it, or stands within a function or a product.
    """
    rest, gone = [], set()
    for term in parsed(formula):
        own = [str(factor.expr) for factor in term.factors]
        inside = {name for one in factors_of(f"~ {term}") for name in names_of(one)} & {*names}
        if inside and len(own) == 1 and own[0] in inside:
            gone |= inside
        elif inside:
            name = min(inside)
            raise ValueError(
                f"{name!r} stands in {str(term)!r}, and a covariate with holes enters as it is: "
                f"'~ {name}'"
            )
        elif own != ["1"]:
            rest.append(str(term))
    if absent := [name for name in names if name not in gone]:
        raise ValueError(f"covariates= names {absent[0]!r}, and the condition {formula!r} does not")
    return f"~ {' + '.join(rest)}" if rest else None


def numbers_in(formula: str) -> set[str]:
    """The columns that a formula names outside of ``C()``."""
    factors = factors_of(formula)
    return sources_of(formula) - {name for factor in factors for name in within_c(factor)}


def _placed(expression: str) -> str:
    """An expression with a plain name in the place of each quoted column."""
    return QUOTED.sub(lambda found: f"quoted_column_{len(found[1])}", expression)


def words_of(problem: BaseException) -> str:
    """An error's first line, without marks for a terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m|[\u29db\u29da]", "", str(problem)).strip()
    return text.split("\n")[0]
