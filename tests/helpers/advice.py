"""What an error text advises: the lines and names in it, as those who read it would try them."""

import re

from pyro_vae import SpecError, parse

ROLES = "prior|likelihood|guide|encoder|decoder|estimator|layers|labels|network"
# A call of the language, one level of brackets within another.
LINE = r"[A-Z]\w*(?:\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))?"


def assignments(message):
    """``{role: lines}`` that a message advises, as ``guide='Gamma' or 'LogNormal'`` does."""
    found = {}
    for role, lines in re.findall(rf"\b({ROLES})=('[^']+'(?:(?:,| or|, or) '[^']+')*)", message):
        found.setdefault(role, []).extend(re.findall(r"'([^']+)'", lines))
    return found


def suggestions(message):
    """``(misspelt, candidates)`` of "... 'Nomral'; did you mean Normal or LogNormal?"."""
    match = re.search(r"'([^']+)'(?:[^';]*); did you mean (.+?)\?", message)
    return (match.group(1), match.group(2).split(" or ")) if match else (None, [])


def uses(message):
    """Lines after "use": ``use RLOO(num_particles=2), Trace_ELBO or TVO``."""
    found = []
    for match in re.finditer(rf"\buse ({LINE}(?:(?:, | or |, or ){LINE})*)", message):
        found += re.findall(LINE, match.group(1))
    return found


def sentences(message):
    """How many sentences the part before the pointer to a column has."""
    text = message.split("\n")[0]
    return len(re.findall(r"[.!?](?: |$)", text)) + (not text.rstrip().endswith((".", "!", "?")))


def is_clear(error):
    """A refusal: ValueError, one or two sentences, no words of Python's own machinery."""
    text = str(error).split("\n")[0]
    machinery = ("Traceback", "has no attribute", "'NoneType' object", "required positional", "0x")
    return (
        isinstance(error, ValueError)
        and 10 < len(text) < 500
        and sentences(text) <= 2
        and not any(words in str(error) for words in machinery)
    )


def is_line(text):
    """Whether it is a line of the language."""
    try:
        parse(text)
    except SpecError:
        return False
    return True


def additions(message, lines):
    """``(role, line)`` with the argument of "Categorical needs categories=, for example ..."."""
    match = re.search(r"(\w+) needs .*for example (\w+=[\w.\[\], ]*[\w.\]])", message)
    for role, line in lines.items() if match else ():
        name, argument = match.groups()
        call = re.search(rf"\b{name}\b(\((?:[^()]|\([^()]*\))*\))?", line)
        if call and argument.split("=")[0] not in call.group():
            more = f"({argument}, {call.group(1)[1:]}" if call.group(1) else f"({argument})"
            yield role, line[: call.start()] + name + more + line[call.end() :]
