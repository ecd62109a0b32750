"""What messages say in Python of a table's columns, as the flags of the command line."""

import ast
import re
import shlex

__all__ = ["in_flags"]

VALUE = r"(kinds|dates|censored|na_values|likelihood)=(\{[^{}]+\}|\[[^\[\]]+\])"
ARGUMENT = re.compile(rf"Table\.from_frame\(df, {VALUE}\)|{VALUE}")


def in_flags(text: str) -> str:
    """A message in which arguments of :meth:`~pyro_vae.Table.from_frame` are flags.

    >>> in_flags("its order is not known: say kinds={'size': ['S', 'M']}")
    'its order is not known: say --kinds size=S,M'
    """
    return ARGUMENT.sub(_flags, text)


def _flags(match: re.Match[str]) -> str:
    name, value = [group for group in match.groups() if group is not None]
    try:
        said = ast.literal_eval(value)
    except (ValueError, SyntaxError):  # a placeholder
        return match[0]
    by_column = said.items() if isinstance(said, dict) else [("", said)]
    words: list[str] = []
    for column, what in by_column:
        several = (what or [""]) if isinstance(what, list) else [what]
        each = [",".join(map(str, several))] if name == "kinds" else several
        words += [f"{column}={one}" if column else str(one) for one in each]
    return " ".join(f"--{name.replace('_', '-')} {shlex.quote(word)}" for word in words)
