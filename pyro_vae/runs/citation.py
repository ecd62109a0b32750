"""BibTeX of what a model and an estimator are made of, from the references of their classes."""

import inspect
import itertools
import re
from collections.abc import Iterator, Sequence

from pyro.infer import ELBO
from torch import nn

from .. import __version__
from ..infer.estimators.estimator import Estimator, make_estimator
from ..language.spec import Spec

__all__ = ["citation"]

PYRO = 'Bingham et al. (2019), "Pyro: deep universal probabilistic programming", JMLR 20.'
PYROS = {  # what Pyro's own estimators are from
    "TraceGraph_ELBO": "Schulman et al. (2015), arXiv:1506.05254.",
    "RenyiELBO": "Li & Turner (2016), arXiv:1602.02311.",
}
PACKAGE = {
    "title": "pyro_vae: variational autoencoders as Pyro models and guides",
    "author": "{The pyro_vae developers}",
    "year": "2026",
    "version": __version__,
}
ENTRY = re.compile(r"(?P<authors>[^();]+?)\s*\((?P<year>\d{4})\)[,.]?\s*(?P<rest>[^;]*)")
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
TITLE = re.compile(r'"([^"]+?)[.,]?"')


def citation(
    vae: nn.Module,
    estimator: "str | Spec | ELBO | Estimator" = "Trace_ELBO",
    callbacks: Sequence[object] = (),
) -> str:
    """The works behind a model and the estimator that trains it, as BibTeX.

    Args:
        vae: a model; the classes of its parts carry references in their docstrings.
        estimator: a line, or an ``ELBO`` of Pyro's.
        callbacks: of ``fit``; those that are from a paper say so.

    >>> from pyro_vae import VAE
    >>> print(citation(VAE(4, 2, prior="VampPrior(components=3)")).split("@")[5].strip())
    misc{tomczak2018,
      author = {Tomczak and Welling},
      year = {2018},
      eprint = {1705.07120},
      archiveprefix = {arXiv},
      note = {for VampPrior},
    }
    """
    works: dict[tuple[str, str], dict[str, str]] = {}
    for name, text in _references(vae, make_estimator(estimator), callbacks):
        for match in ENTRY.finditer(text):
            key, fields = _work(match["authors"], match["year"], match["rest"])
            works.setdefault((key, str(fields)), fields | {"note": f"for {name}"})
    entries = [_bibtex("software", "pyro_vae", PACKAGE)]
    for i, ((key, _), fields) in enumerate(works.items()):
        before = sum(other == key for other, _ in list(works)[:i])
        entries.append(_bibtex("misc", key + "abcdefgh"[before - 1] * (before > 0), fields))
    return "\n\n".join(entries) + "\n"


def _references(
    vae: nn.Module, estimator: Estimator, callbacks: Sequence[object]
) -> Iterator[tuple[str, str]]:
    """The name of each part, and the text of its references."""
    yield "Pyro", PYRO
    handlers = [estimator.rule] if estimator.rule else []
    families = (getattr(part, "distribution", None) for part in vae.modules())
    drawn = [cls for cls in families if isinstance(cls, type)]
    parts = [*vae.modules(), *drawn, estimator.elbo, *handlers, *callbacks]
    for part in parts:
        for cls in type(part).__mro__ if not isinstance(part, type) else (part,):
            text = PYROS.get(cls.__name__) or _section(cls)
            if text:
                yield cls.__name__, text


def _section(cls: type) -> str:
    """The references in the docstring of a class of this package."""
    if not cls.__module__.startswith("pyro_vae"):
        return ""
    _, _, section = inspect.cleandoc(cls.__doc__ or "").partition("References:\n")
    lines = itertools.takewhile(lambda line: line.startswith("    "), section.splitlines())
    return " ".join(line.strip() for line in lines)


def _work(authors: str, year: str, rest: str) -> tuple[str, dict[str, str]]:
    """The key of one work, and its fields."""
    names = [n for n in re.split(r",|&| and ", authors.replace("et al.", "")) if n.strip()]
    others = ["others"] if "et al." in authors else []
    fields = {"author": " and ".join([*map(str.strip, names), *others]), "year": year}
    if title := TITLE.search(rest):
        fields["title"] = title[1]
    if number := ARXIV.search(rest):
        fields |= {"eprint": number[1], "archiveprefix": "arXiv"}
    elif place := TITLE.sub("", rest).strip(" ,."):
        fields["howpublished"] = place
    return re.sub(r"\W", "", names[0].lower()) + year, fields


def _bibtex(kind: str, key: str, fields: dict[str, str]) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])
