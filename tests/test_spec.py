import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_vae.language.spec import (
    Source,
    Spec,
    SpecError,
    amortized,
    as_spec,
    learned,
    nearest,
    parse,
)

names = st.text(string.ascii_letters + "_", min_size=1, max_size=8).filter(
    lambda s: (
        s.isidentifier()
        and s not in {"learned", "amortized", "True", "False", "None", "inf", "nan"}
        and s not in {"true", "false", "none", "null"}
        and s not in __import__("keyword").kwlist
    )
)
sources = st.one_of(
    st.just(amortized),
    st.builds(
        Source,
        st.just("learned"),
        st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        st.none() | st.booleans(),
    ),
)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), sources
)


def specs(values):
    return st.builds(
        lambda n, a, k: Spec(n, *a, **k),
        names,
        st.lists(values, max_size=3),
        st.dictionaries(names, values, max_size=3),
    )


values = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | specs(v), max_leaves=8)


@pytest.mark.slow
@given(specs(values))
def test_a_spec_survives_its_text(spec):
    again = parse(str(spec))
    assert again == spec
    assert hash(again) == hash(spec)
    assert str(again) == str(spec)


@given(st.text(max_size=40))
def test_no_text_is_evaluated_or_crashes_the_reader(text):
    try:
        assert isinstance(parse(text), Spec)
    except SpecError as error:
        assert "^ column" in str(error)


def test_what_a_line_says():
    spec = parse("StudentT(df=4, scale=learned(0.5, shared=False))")
    assert spec.name == "StudentT"
    assert spec.kwargs == {"df": 4, "scale": learned(0.5, shared=False)}
    assert parse("Mixture(Normal(loc=learned), components=10)").args == (
        Spec("Normal", loc=learned),
    )
    assert parse("A(-1, [1, 'x'], -inf)").args == (-1, (1, "x"), float("-inf"))
    assert parse("A(x=1, y=2)") == parse("A(y=2, x=1)")
    assert parse("A(1)") != parse("A(1.0)") != parse("A(True)")
    assert as_spec(spec) is spec


ERRORS = {
    "Normal(": ("never closed", 7),
    "1 + 1": ("expected a number", 1),
    "Normal(scale=1 + 1)": ("expected a number", 14),
    "__import__('os').system('x')": ("a name has no module here", 1),
    "torch.optim.Adam": ("did you mean Adam?", 1),
    "Normal(x)(y)": ("expected a number", 1),
    "f(**a)": ("** is not in the language", 3),
    "f(*a)": ("expected a number", 3),
    "learned": ("expected a name", 1),
    "A(scale=learned(foo=1))": ("learned has no argument 'foo'", 9),
    "A(scale=learned('x'))": ("learned starts at a number", 9),
    "A(scale=amortized(1))": ("amortized takes no arguments", 9),
    "A(x=1, x=2)": ("given 'x' twice", 8),
    "A(-'x')": ("a sign stands before a number", 3),
    "A('é', 1 + 1)": ("expected a number", 8),
    "": ("cannot read this", 1),
}


@pytest.mark.parametrize("text", ERRORS)
def test_an_error_points_at_the_column(text):
    message, column = ERRORS[text]
    with pytest.raises(SpecError) as error:
        parse(text)
    assert message in str(error.value)
    assert f"^ column {column}" in str(error.value)
    assert str(error.value).splitlines()[-1].index("^") == column + 1


def test_bind_gives_arguments_their_names():
    assert parse("A(1, y=2)").bind("x", "y") == {"x": 1, "y": 2}
    with pytest.raises(SpecError, match="'scal'; did you mean scale"):
        parse("A(scal=1)").bind("loc", "scale")
    with pytest.raises(SpecError, match="given 'x' twice"):
        parse("A(1, x=2)").bind("x")
    with pytest.raises(SpecError, match="at most 1 arguments"):
        parse("A(1, 2)").bind("x")


@pytest.mark.parametrize("value", [float("nan"), object(), {"a": 1}, lambda: 0])
def test_a_spec_holds_only_the_languages_values(value):
    with pytest.raises(SpecError):
        Spec("A", value)


def test_other_libraries_numbers_become_pythons():
    import torch

    assert Spec("A", torch.tensor(2.0)) == parse("A(2.0)")


def test_nearest_names_the_likely_ones():
    assert nearest("norml", ["Normal", "Gamma"]) == "; did you mean Normal?"
    assert nearest("zzz", ["a", "b"]) == "; it has a, b"
