"""The language: a family, estimator, network or schedule said in one line of Python call syntax.

Text is read with :mod:`ast` and never evaluated. Only the standard library is imported here.
"""

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import accumulate
from typing import Any, NoReturn, TypeAlias

from .words import nearest

__all__ = [
    "Source",
    "Spec",
    "SpecError",
    "Value",
    "amortized",
    "as_spec",
    "learned",
    "nearest",
    "parse",
]


class SpecError(ValueError):
    """A line of the language that cannot be read or served; the message points at the column."""


@dataclass(frozen=True)
class Source:
    """Where a parameter comes from: ``learned`` (trained) or ``amortized`` (a network's output).

    ``learned`` alone is one value per dimension of z in a prior or guide, and in a likelihood one
    value for all of x, or for each column of a table; ``learned(shared=False)`` and
    ``learned(shared=True)`` override that, and ``learned(0.5)`` starts at 0.5.
    """

    kind: str
    init: float | None = None
    shared: bool | None = None

    def __call__(self, init: float | None = None, *, shared: bool | None = None) -> "Source":
        """The same source with a starting value, and shared by all dimensions or not."""
        if self.kind != "learned":
            raise SpecError(f"{self.kind} takes no arguments: a network gives its value")
        if init is not None and (isinstance(init, bool) or not isinstance(init, int | float)):
            raise SpecError(f"learned starts at a number, got {init!r}")
        if shared is not None and not isinstance(shared, bool):
            raise SpecError(f"learned(shared=...) takes True or False, got {shared!r}")
        return replace(self, init=init, shared=shared)

    def __str__(self) -> str:
        options = [] if self.init is None else [_text(self.init)]
        options += [] if self.shared is None else [f"shared={self.shared}"]
        return self.kind + (f"({', '.join(options)})" if options else "")

    __repr__ = __str__


learned = Source("learned")
amortized = Source("amortized")

Value: TypeAlias = "bool | int | float | str | tuple[Value, ...] | Source | Spec | None"


@dataclass(frozen=True, init=False, eq=False)
class Spec:
    """A name with arguments.

    >>> str(Spec("StudentT", df=4, scale=learned))
    'StudentT(df=4, scale=learned)'
    >>> parse("StudentT(df=4, scale=learned)") == Spec("StudentT", df=4, scale=learned)
    True
    """

    name: str
    args: tuple[Value, ...]
    kwargs: Mapping[str, Value]
    text: str = field(repr=False)
    columns: Mapping[str | int | None, int] = field(repr=False)

    def __init__(self, name: str, /, *args: object, **kwargs: object) -> None:
        if not name.isidentifier() or name in _RESERVED:
            raise SpecError(f"a spec's name is one Python name, got {name!r}")
        set_ = object.__setattr__
        set_(self, "name", name)
        set_(self, "args", tuple(_value(v) for v in args))
        set_(self, "kwargs", {k: _value(v) for k, v in kwargs.items()})
        set_(self, "text", "")
        set_(self, "columns", {})

    def _key(self) -> tuple[object, ...]:
        return (
            self.name,
            _typed(self.args),
            frozenset((k, _typed(v)) for k, v in self.kwargs.items()),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        inside = [_text(v) for v in self.args] + [f"{k}={_text(v)}" for k, v in self.kwargs.items()]
        return f"{self.name}({', '.join(inside)})" if inside else self.name

    __repr__ = __str__

    def error(self, message: str, at: str | int | None = None) -> SpecError:
        """A :class:`SpecError` that points at the argument ``at``, or at the name itself."""
        text, column = self.text or str(self), self.columns.get(at, self.columns.get(None, 0))
        return SpecError(f"{message}\n  {text}\n  {' ' * column}^ column {column + 1}")

    def bind(self, *names: str, what: str = "argument") -> dict[str, Value]:
        """Arguments by name; positional ones take ``names`` in order, unknown ones are errors."""
        bound: dict[str, Value] = {}
        for i, value in enumerate(self.args):
            if i >= len(names):
                raise self.error(
                    f"{self.name} takes at most {len(names)} arguments ({', '.join(names)})", at=i
                )
            bound[names[i]] = value
        for name, value in self.kwargs.items():
            if name not in names:
                raise self.error(
                    f"{self.name} has no {what} {name!r}{nearest(name, names)}", at=name
                )
            if name in bound:
                raise self.error(f"{self.name} is given {name!r} twice", at=name)
            bound[name] = value
        return bound


def parse(text: str) -> Spec:
    """Read one line of the language; nothing is evaluated.

    A value is a number, a string, ``True``, ``False``, ``None``, a list, the words ``learned`` and
    ``amortized``, or another name with or without arguments. ``parse(str(spec)) == spec``.

    Args:
        text: for example ``"NegativeBinomial(total_count=learned)"``.

    Returns:
        The :class:`Spec`.

    Raises:
        SpecError: the text is not in the language; the message points at the column.

    >>> parse("TraceGraph_ELBO(gradient=score, baseline=decaying)").kwargs["baseline"]
    decaying
    """
    if not isinstance(text, str):
        raise SpecError(
            f"expected a line such as 'Normal(scale=learned)', got {type(text).__name__}"
        )
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        column = max((getattr(problem, "offset", 1) or 1) - 1, 0)
        _fail(text.strip(), column, f"cannot read this: {getattr(problem, 'msg', None) or problem}")
    value = _read(tree, text.strip())
    if not isinstance(value, Spec):
        _fail(
            text.strip(),
            0,
            f"expected a name such as Normal or Normal(scale=learned), got {_text(value)}",
        )
    return value


def as_spec(value: "str | Spec", what: str = "", example: str = "Normal(scale=learned)") -> Spec:
    """A :class:`Spec` as it is, a text read by :func:`parse`.

    Args:
        value: the line.
        what: it is, for the message about what is no line.
        example: of one.
    """
    if not isinstance(value, str | Spec):
        raise SpecError(f"{what or 'this'} is a line such as {example!r}, got {_brief(value)}")
    return value if isinstance(value, Spec) else parse(value)


def _brief(value: object) -> str:
    """A value for a message: what is long, or has no look of its own, by its type."""
    text = repr(value)
    plain = value is None or isinstance(value, bool | int | float | list | tuple | dict)
    return text if plain and len(text) < 40 else type(value).__name__


# Words of other languages, as TOML has them, and ours.
_FOREIGN = {"true": "True", "false": "False", "none": "None", "null": "None"}
_RESERVED = {"learned", "amortized", "True", "False", "None", "inf", "nan", *_FOREIGN}


def _fail(text: str, column: int, message: str) -> NoReturn:
    raise SpecError(f"{message}\n  {text}\n  {' ' * column}^ column {column + 1}")


def _value(value: object) -> Value:
    """Check a value; lists become tuples, and numbers of other libraries Python's own."""
    if isinstance(value, list | tuple):
        return tuple(_value(v) for v in value)
    if isinstance(value, float) and math.isnan(value):
        raise SpecError("nan is not a value of the language")
    if value is None or isinstance(value, bool | int | float | str | Source | Spec):
        return value
    item = getattr(value, "item", None)
    if callable(item):
        return _value(item())
    raise SpecError(
        "a spec holds numbers, strings, lists, names, learned and amortized, "
        f"got {type(value).__name__}"
    )


def _typed(value: Value) -> object:
    """A key in which 1, 1.0 and True differ."""
    if isinstance(value, tuple):
        return tuple(_typed(v) for v in value)
    return type(value).__name__, value


def _text(value: Value) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_text(v) for v in value)}]"
    return str(value) if isinstance(value, Spec | Source) else repr(value)


def _read(node: ast.expr, text: str) -> Value:
    column = _column(node, text)
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            number = _read(operand, text)
            if isinstance(number, bool) or not isinstance(number, int | float):
                _fail(text, column, "a sign stands before a number only")
            return -number if isinstance(sign, ast.USub) else number
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return tuple(_read(e, text) for e in elements)
        case ast.Name(id="inf"):
            return math.inf
        case ast.Name(id="learned" | "amortized" as word):
            return learned if word == "learned" else amortized
        case ast.Name(id=name) if name in _FOREIGN:
            _fail(text, column, f"{name} is not a value here; did you mean {_FOREIGN[name]}?")
        case ast.Name(id=name) if name not in _RESERVED:
            return _placed(Spec(name), text, {None: column})
        case ast.Attribute(attr=name):
            full = ast.unparse(node)
            _fail(text, column, f"a name has no module here, got {full!r}; did you mean {name}?")
        case ast.Call(func=ast.Attribute(attr=name) as full):
            shown = ast.unparse(full)
            _fail(text, column, f"a name has no module here, got {shown!r}; did you mean {name}?")
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            return _call(name, args, keywords, text, column)
    _fail(
        text,
        column,
        "expected a number, a string, a list, learned, amortized, or a name with arguments",
    )


def _column(node: ast.expr | ast.keyword, text: str) -> int:
    """The node's column in characters; ast counts bytes."""
    if node.lineno != 1:
        return 0
    return node.col_offset if text.isascii() else _characters(text)[node.col_offset]


@lru_cache(maxsize=1)
def _characters(text: str) -> list[int]:
    """For each byte of a text, how many characters begin before it."""
    begins = (byte & 0xC0 != 0x80 for byte in text.encode())
    return [0, *accumulate(begins)]


def _call(
    name: str, args: list[ast.expr], keywords: list[ast.keyword], text: str, column: int
) -> Value:
    values = [_read(a, text) for a in args]
    named: dict[str, Value] = {}
    columns: dict[str | int | None, int] = {
        None: column,
        **{i: _column(a, text) for i, a in enumerate(args)},
    }
    for keyword in keywords:
        at = _column(keyword, text)
        if keyword.arg is None:
            _fail(text, at, "** is not in the language")
        if keyword.arg in named:
            _fail(text, at, f"{name} is given {keyword.arg!r} twice")
        named[keyword.arg] = _read(keyword.value, text)
        columns[keyword.arg] = at
    if name in ("learned", "amortized"):
        try:
            options: dict[str, Any] = Spec("source", *values, **named).bind("init", "shared")
            source = learned if name == "learned" else amortized
            return source(**options)
        except SpecError as problem:
            _fail(text, column, str(problem).split("\n")[0].replace("source", name, 1))
    if name in _RESERVED:
        _fail(text, column, f"{name} takes no arguments")
    return _placed(Spec(name, *values, **named), text, columns)


def _placed(spec: Spec, text: str, columns: Mapping[str | int | None, int]) -> Spec:
    object.__setattr__(spec, "text", text)
    object.__setattr__(spec, "columns", columns)
    return spec
