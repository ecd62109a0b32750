"""Numbers and booleans that are written as words: amounts, percentages, TRUE and FALSE."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from .cells import Cells, OddWord

__all__ = [
    "boolean_form",
    "has_commas",
    "number_form",
    "pairs_in",
    "read_booleans",
    "read_numbers",
    "units_in",
    "write_booleans",
    "write_numbers",
]

DIGITS = 15  # that a float64 keeps
OR_WORDS = "or say that they are levels: kinds={name: 'categorical'}"
SIGN = r"[$€£¥₹%‰°]"
WORD, GLUED = (  # with a space before a unit, and maybe without one, as codes have it
    re.compile(
        rf"(?P<minus>[-+]?)(?P<prefix>(?:[A-Z]{{0,2}}{SIGN}|[A-Z]{{3}}\s)?\s?)"
        r"(?P<number>-?(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:[eE][-+]?\d+)?)"
        rf"(?P<suffix>\s?{SIGN}|\s?°[CF]|{space}[A-Za-zµμ]+(?:/[A-Za-zµμ]+)?[²³]?|)",
        re.ASCII,
    )
    for space in (r"\s", r"\s?")
)
UNIT = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?P<unit>-|\s?[^\W\d_][^\s\d]*|)")
FEW = 5  # words that may be numbers with a unit after them
PAIR, MANY = re.compile(r"\d+(\.\d+)?\s?/\s?\d+(\.\d+)?"), 10  # two numbers, and words of such
APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
LOCAL = re.compile(  # with a decimal comma, or with points, spaces or apostrophes by thousands
    rf"[-+]?{SIGN}?\s?(\d{{1,3}}([.\s{APOSTROPHES}]\d{{3}})+|\d+)([.,]\d+)?\s?{SIGN}?"
)
# Of a comma that it is a decimal one, and stands between no thousands.
SURE = re.compile(r"\d\.\d{3},\d|(?<!\d)0,\d|,(\d\d?|\d{4,})(?!\d)")
SWAP = str.maketrans(",.", ".,")
POINTS = re.compile(r"(?<![\d.])\d{1,3}(\.\d{3})+(?![\d.])")
INFINITE = {"inf", "-inf", "+inf", "infinity", "-infinity"}


def number_form(words: Iterable[str], glued: bool = False) -> str | None:
    """The form in which all of the words are numbers, as ``str.format`` has it, or ``None``.

    They have one sign or unit before or after them, and thousands by commas, or not. A number that
    starts with 0 and goes on is a code. Points by thousands and decimal commas change places with
    commas and points, and brackets around the form are around what is negative.

    Args:
        words: all that a column holds.
        glued: whether there may be no space before a unit, as in 12kg.

    Raises:
        OddWord: numbers in several forms, with a comma that may be a decimal one, or infinite.

    >>> number_form(["$1,200", "$950.50"]), number_form(["12%", "7%"]), number_form(["007", "12"])
    ('${:,.2f}', '{:.0f}%', None)
    >>> number_form(["1.200,50", "7,25"]), number_form(["(7.25)", "8.50"])
    ('{:.,2f}', '({:.2f})')
    """
    words = list(words)
    if any(map(SURE.search, words)):
        with suppress(OddWord):
            form = (_form([word.translate(SWAP) for word in words], glued) or "").translate(SWAP)
            if has_commas(form):
                return form
    return _form(words, glued)


def _form(words: list[str], glued: bool) -> str | None:
    """The form of numbers with decimal points."""
    found = {word: _match(word, glued) for word in words}
    matches = {word: m for word, m in found.items() if m and re.search(r"\d", m["number"])}
    finite = [word for word in words if word.strip().lower() not in INFINITE]
    if not matches or len(matches) < len(finite):
        _check_local(words)
        return None
    numbers = [m["number"].lstrip("-") for m in matches.values()]
    if any(re.match(r"0\d", x) or len(re.sub(r"\D", "", x)) > DIGITS for x in numbers):
        return None
    if len(finite) < len(words):
        other = next(word for word in words if word not in finite)
        problem = f"{other!r} is no number that can be modelled"
        raise OddWord(other, problem, f"put a number there, or say na_values=[{other!r}]")
    forms: dict[tuple[str, str], str] = {}
    for word, match in matches.items():
        forms.setdefault((match["prefix"], match["suffix"]), word)
    if len(forms) > 1:
        one, other, *_ = forms.values()
        problem = f"numbers are written in several ways, {other!r} beside {one!r}"
        raise OddWord(other, problem, f"write all in one way, {OR_WORDS}")
    comma, power = any("," in x for x in numbers), any("e" in x.lower() for x in numbers)
    places = max(len(x.partition(".")[2]) for x in numbers)
    digits = "" if power else f":{',' * comma}.{places}f"
    [(prefix, suffix)] = forms
    form = f"{prefix}{{{digits}}}{suffix}"
    return f"({form})" if any(map(_in_brackets, words)) else form


def _check_local(words: list[str]) -> None:
    """Raise for the first number among numbers that are written as another country has it."""
    if not all(map(LOCAL.fullmatch, words)):
        return
    spaced = [word for word in words if re.search(r"\d\s\d", word)]
    lengths = {len(re.split(r"\s", word.strip())[0]) for word in words}  # of a code all are one
    gaps = dict.fromkeys(c for c in "".join(spaced) if c.isspace()) if len(lengths) > 1 else ()
    pointed = [word for word in words if "." in word and not POINTS.search(word)]
    points = ["."] if not pointed and any(word.count(".") > 1 for word in words) else []
    for sign in ",", *APOSTROPHES, *gaps, *points:
        other = next((word for word in words if sign in word.strip()), None)
        if other is not None:
            point = {",": ",", ".": ""}.get(sign, ".")
            digits = rf"frame[name].str.replace(r'[^\d{point}-]', '', regex=True)"
            digits += ".str.replace(',', '.')" if sign == "," else ""
            advice = f"make numbers of them, pandas.to_numeric({digits}), {OR_WORDS}"
            named = {",": "a decimal comma", **dict.fromkeys(gaps, "a space within")}
            named["."] = "points between thousands"
            what = named.get(sign, "an apostrophe")
            raise OddWord(other, f"{other!r} has {what}", advice)


def units_in(words: Sequence[str], name: str) -> tuple[str, str] | None:
    """What words are that end in one unit, or some in a minus, and how numbers are made of them.

    >>> units_in([f"{i}kg" for i in range(9)], "x")
    ('numbers', "kinds={'x': 'real'}")
    """
    matches = [UNIT.fullmatch(word) for word in words]
    units = {match["unit"] for match in matches if match}
    column = f"df[{name!r}].str"
    if len(words) < FEW or not all(matches) or not any(units):
        return None
    if units == {"", "-"}:
        numbers = rf"{column}.replace(r'(.*)-$', r'-\1', regex=True)"
    elif len(units) == 1 and number_form(words, glued=True):
        return "numbers", f"kinds={{{name!r}: 'real'}}"
    elif len(units) == 1:
        numbers = f"{column}.removesuffix({next(iter(units))!r})"
    else:
        return None
    if any("," in word for word in words):
        numbers += ".str.replace(',', '')"
    return "numbers", f"df.assign(**{{{name!r}: pandas.to_numeric({numbers})}})"


def pairs_in(words: Sequence[str], name: str) -> tuple[str, str] | None:
    """What words are that hold two numbers each, such as 120/80, and how columns are made of them.

    >>> pairs_in([f"{i}/80" for i in range(99)], "x")[1]
    "df.join(df['x'].str.split('/', expand=True).astype(float).add_prefix('x ')).drop(columns='x')"
    """
    if len(words) <= MANY or not all(map(PAIR.fullmatch, words)):
        return None
    both = f"df[{name!r}].str.split('/', expand=True).astype(float).add_prefix({f'{name} '!r})"
    return "two numbers each", f"df.join({both}).drop(columns={name!r})"


def read_numbers(cells: Cells, form: str) -> Cells:
    """Words as numbers.

    Raises:
        ValueError: the first that is not written like this.
    """
    prefix, suffix = form.removeprefix("(").split("{")[0], form.removesuffix(")").split("}")[1]
    read: dict[str, float] = {}
    for row in np.flatnonzero(cells.known):
        word = cells.values[row]
        if word in read:
            continue
        glued = suffix[:1].isalpha()
        match = _match(word.translate(SWAP) if has_commas(form) else word, glued)
        if match is None or (match["prefix"], match["suffix"]) != (prefix, suffix):
            raise cells.error(
                int(row),
                f"{word!r} is no number of the form {write_numbers(np.array([1200.0]), form)[0]}",
                f"mend it, or say that it is missing: na_values={{{cells.name!r}: [{word!r}]}}",
            )
        number = float(match["minus"] + match["number"].replace(",", ""))
        read[word] = -number if _in_brackets(word) else number
    values = np.full(len(cells), np.nan)
    values[cells.known] = [read[word] for word in cells.seen]
    return replace(cells, sort="number", values=values)


def write_numbers(numbers: np.ndarray, form: str) -> np.ndarray:
    """Numbers as words; a minus stands before all, or brackets are around."""
    if has_commas(form):
        words = write_numbers(numbers, form.translate(SWAP)).tolist()
        return np.array([word.translate(SWAP) for word in words], dtype=object)
    plain = form.removeprefix("(").removesuffix(")")
    below = form if form != plain else f"-{form}"
    words = [(below if v < 0 else plain).format(abs(v)) for v in numbers.tolist()]
    return np.array(words, dtype=object)


def has_commas(form: str) -> bool:
    """Whether the numbers of a form have decimal commas."""
    return re.search(r"\{:(\.,|,\d)", form) is not None


def boolean_form(words: Iterable[str]) -> str | None:
    """How all of the words write false and true, or ``None`` where some write neither.

    >>> boolean_form(["TRUE", "FALSE"]), boolean_form(["true"]), boolean_form(["true", "maybe"])
    ('FALSE/TRUE', 'false/true', None)
    """
    spelled = {word.lower(): word for word in words}
    if not spelled or not spelled.keys() <= {"false", "true"}:
        return None
    one = next(iter(spelled.values()))
    style = str.upper if one.isupper() else str.lower if one.islower() else str.title
    return "/".join(spelled.get(word, style(word)) for word in ("false", "true"))


def read_booleans(cells: Cells) -> Cells:
    """Words as booleans, whatever their capitals.

    Raises:
        ValueError: the first that is none.
    """
    words = np.array([word.lower() for word in cells.values[cells.known]])
    wrong, values = cells.known.copy(), np.zeros(len(cells), bool)
    wrong[wrong] = ~np.isin(words, ("false", "true"))
    if wrong.any():
        problem = f"{cells.first(wrong)!r} beside true and false"
        raise cells.error(wrong, problem, "write true, false, or nothing where it is not known")
    values[cells.known] = words == "true"
    return replace(cells, sort="boolean", values=values)


def write_booleans(values: np.ndarray, form: str) -> np.ndarray:
    """Booleans as words."""
    return np.array(form.split("/"), dtype=object)[values.astype(int)]


def _match(word: str, glued: bool) -> re.Match | None:
    """The parts of a number; brackets are a minus, as accountants have it."""
    word = word.strip().replace("\N{MINUS SIGN}", "-")
    match = (GLUED if glued else WORD).fullmatch(word[1:-1] if _in_brackets(word) else word)
    twice = match is not None and match["minus"] and match["number"].startswith("-")
    return None if twice else match


def _in_brackets(word: str) -> bool:
    return word.strip()[:1] == "(" and word.strip()[-1:] == ")"
