"""Numbers that are none are refused in one wording by every function that evaluates or draws."""

import inspect
import math
import re

import pandas as pd
import pytest
import torch

import pyro_vae as pv
from pyro_vae import evaluate, plots

WRONG = {
    "whole": (True, 1.5, -3, "a", math.nan),
    "boolean": (1, "yes", None),
}
WORDING = {"whole": "is a whole number (of at least|from)", "boolean": "is True or False"}
KINDS = {"int": "whole", "int | None": "whole", "bool": "boolean"}


def model():
    return pv.VAE((1, 2, 2), 2, encoder="MLP([3])", decoder="MLP([3])", seed=0)


def arguments(function, x):
    """Something for each argument that has no default."""
    known = {
        "vae": model(), "vaes": {"a": model(), "b": model()}, "x": x, "result": None,
        "prior": "Normal(loc=learned)", "reference": x, "start": x, "end": x,
        "labels": torch.arange(len(x)) % 2, "factors": torch.arange(len(x))[:, None] % 2,
        "rows": [torch.arange(3)], "estimators": ["Trace_ELBO"], "source": 0, "target": 1,
        **dict.fromkeys(("test", "synthetic", "train"), pd.DataFrame(x.flatten(1).numpy())),
    }  # fmt: skip
    parameters = inspect.signature(function).parameters.values()
    return {p.name: known[p.name] for p in parameters if p.default is p.empty and p.kind.value < 4}


def cases():
    for room in (evaluate, plots):
        for name in room.__all__:
            function = getattr(room, name)
            if not inspect.isfunction(function):
                continue
            for p in inspect.signature(function).parameters.values():
                kind = KINDS.get(str(getattr(p.annotation, "__name__", p.annotation)))
                if kind and not {"observation", "source", "target"} & {p.name}:
                    yield pytest.param(function, p.name, kind, id=f"{name}-{p.name}")


@pytest.mark.slow
@pytest.mark.parametrize(("function", "name", "kind"), list(cases()))
def test_what_is_no_number_is_refused_in_one_wording(function, name, kind):
    x = torch.rand(24, 1, 2, 2, generator=torch.Generator().manual_seed(0)).round()
    given = arguments(function, x)
    for wrong in WRONG[kind]:
        with pytest.raises(ValueError, match=f"^{name} {WORDING[kind]}.*{re.escape(repr(wrong))}$"):
            function(**given | {name: wrong})


def test_the_cases_are_those_of_the_rooms():
    names = [case.id for case in cases()]
    assert {"elbo-num_samples", "compare_estimators-compile", "gaps-seed", "ais-seed"} <= set(names)
    assert len(names) > 50
