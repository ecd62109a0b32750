"""What can be named in a line, and what each name takes.

``python -m pyro_vae.describe StudentT`` prints the table.
"""

import inspect
import sys
from types import ModuleType

import pandas as pd

from .families.family import Family
from .families.names import family_names, find_distribution
from .families.parameters import ALTERNATIVES, Parameter, parameters_of
from .families.registry import REGISTRY
from .families.support import describe_constraint
from .infer.estimators.table import ESTIMATORS
from .language.spec import Spec, SpecError, as_spec, nearest

__all__ = ["describe", "estimators", "families"]

ROLES = ("prior", "likelihood", "guide")


def describe(name: str | None = None) -> pd.DataFrame:
    """A table of what a family or structure takes; of all names, where none is given.

    Args:
        name: of a family, such as ``"StudentT"``, or of a structure, such as ``"Mixture"``.

    Returns:
        Of a family, a row for each parameter: its constraint, and what it is in a prior, likelihood
        or guide where it is not named. Of a structure, a row for each argument with its default;
        ``attrs["roles"]`` says what it can be. Of no name, a row for each name.

    Raises:
        SpecError: an unknown name; the message has the nearest ones.

    >>> describe("StudentT").loc["scale", "constraint"]
    'a number greater than 0'
    """
    if name is None:
        return families()
    spec = as_spec(name)
    if spec.name in REGISTRY.structures:
        return _structure(spec.name)
    if spec.name not in (known := family_names()):
        near = nearest(spec.name, known | set(REGISTRY.structures))
        raise spec.error(f"unknown name {spec.name!r}{near} (pv.families() lists all)")
    return _family(spec)


def _family(spec: Spec) -> pd.DataFrame:
    rows = {}
    for p in parameters_of(find_distribution(spec)):
        rows[p.name] = {
            "constraint": _constraint(p),
            **{role: _default(p.default(role), required=p.required) for role in ROLES},
        }
        if p.size:
            rows[p.size] = {"constraint": "a whole number of at least 1"}
            rows[p.size] |= dict.fromkeys(ROLES, "must be given")
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")
    table.attrs = {"name": spec.name, "roles": ROLES}
    return table


def _structure(name: str) -> pd.DataFrame:
    cls = REGISTRY.structures[name]
    rows = {}
    for p in inspect.signature(cls).parameters.values():
        annotation = inspect.formatannotation(p.annotation).replace("pyro_vae.language.spec.", "")
        annotation = "number, list, learned or amortized" if "Source" in annotation else annotation
        default = "must be given" if p.default is p.empty else str(p.default)
        default = "" if p.kind is p.VAR_KEYWORD else default
        rows[str(p).split(":")[0]] = {"takes": annotation, "default": default}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("argument")
    table.attrs = {"name": name, "roles": tuple(r for r in ROLES if r in cls.roles)}
    return table


def _constraint(parameter: Parameter) -> str:
    if parameter.constraint is not None:
        return describe_constraint(parameter.constraint)
    alternative = any(parameter.name in group for group in ALTERNATIVES)
    return "another parametrization" if alternative else "an option"


def _default(value: object, *, required: bool) -> str:
    if value is None:
        return "must be given" if required else "Pyro's"
    return str(value)


def families() -> pd.DataFrame:
    """A table of the families and structures that a line can name.

    Returns:
        A row for each name: its ``kind`` (family or structure), the ``roles`` that it can play, and
        what it is ``about``. :func:`describe` says what each takes.

    >>> families().loc["StudentT", "roles"]
    'prior, likelihood, guide'
    """
    rows = {}
    for name, cls in REGISTRY.structures.items():
        roles = ", ".join(r for r in ROLES if r in cls.roles)
        rows[name] = {"kind": "structure", "roles": roles, "about": _about(cls)}
    for name in family_names() - set(rows):
        try:
            cls = Family(name).distribution
        except SpecError:
            continue
        if any(p.constraint for p in parameters_of(cls)):
            rows[name] = {"kind": "family", "roles": ", ".join(ROLES), "about": _about(cls)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("name").sort_index()


def estimators() -> pd.DataFrame:
    """A table of the estimators that a line can name: bounds, and rules of their gradients.

    Returns:
        A row for each name: its ``gradients``, the number of ``particles`` where it is not said,
        further ``options``, the ``guides`` that it serves, and a ``note`` on bias and cost.

    >>> estimators().loc["VIMCO", "gradients"]
    'score'
    """
    rows = {
        name: {
            "gradients": ", ".join(profile.gradients),
            "particles": profile.num_particles,
            "options": ", ".join(profile.options),
            "guides": profile.guides,
            "note": profile.note,
        }
        for name, profile in ESTIMATORS.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("name")


def _about(cls: type) -> str:
    """The first paragraph of a class's documentation; PyTorch's where Pyro wraps its class."""
    text = inspect.getdoc(cls) or ""
    if text.startswith("Wraps"):
        text = inspect.getdoc(cls.__mro__[1]) or ""
    return " ".join(text.split("\n\n")[0].split())


def main() -> None:
    """Print the table of the name on the command line."""
    try:
        table = describe(*sys.argv[1:2])
    except SpecError as problem:
        sys.exit(str(problem))
    if table.attrs:
        print(f"{table.attrs['name']}: {', '.join(table.attrs['roles'])}")
    print(table.to_string(max_colwidth=70))


class _Described(ModuleType):
    """The module's name is the function's, so the module can be called as the function is."""

    def __call__(self, name: str | None = None) -> pd.DataFrame:
        return describe(name)


sys.modules[__name__].__class__ = _Described

if __name__ == "__main__":
    main()
