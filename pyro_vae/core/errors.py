"""Errors that Pyro raises within a model, in a sentence."""

import re
from collections.abc import Generator
from contextlib import contextmanager

import torch

__all__ = ["NO_GRADIENTS", "in_words"]

TABLE = "Trace Shapes:"  # what Pyro adds to every error that passes a trace
PARAMETER = re.compile(
    r"Expected parameter (\w+) \(.*?\) of distribution (\w+).* constraint (.*), but found invalid"
)
VALUE = re.compile(
    r"Expected value argument \(.*?\) to be within the support \((\w+).*?\) "
    r"of the distribution (\w+)",
    re.DOTALL,
)
GRADIENT = ("element 0 of tensors does not require grad", "Inference tensors cannot be saved")
NO_GRADIENTS = (
    "takes gradients, which torch.inference_mode() allows nowhere within it: call it outside, or "
    "use torch.no_grad() there"
)
# PyTorch's word for a scale of NaN, where Pyro validates nothing.
SPREAD = "normal expects all elements of std >= 0.0"


@contextmanager
def in_words() -> Generator[None]:
    """Within it errors have no tables of shapes and no pages of numbers.

    >>> import torch
    >>> with in_words():
    ...     torch.distributions.Normal(torch.tensor([float("nan")] * 9), 1.0)
    Traceback (most recent call last):
    ValueError: loc of Normal is not what it must be, Real(): weights are not finite, or x is of \
another scale than what the model was trained on
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if (said := _said(error)) is error:
            raise
        raise said from said.__cause__


def _said(error: Exception) -> Exception:
    """The error itself, without what Pyro added to its text."""
    while TABLE in str(error) and type(error.__cause__) is type(error):
        error = error.__cause__
    first = str(error).split("\n")[0]
    match = PARAMETER.match(first)
    if match or first == SPREAD:
        parameter, family, constraint = match.groups() if match else ("scale", "Normal", "positive")
        return ValueError(
            f"{parameter} of {family} is not what it must be, {constraint}: weights are not "
            "finite, or x is of another scale than what the model was trained on"
        )
    if first.startswith(GRADIENT) and torch.is_inference_mode_enabled():
        return ValueError(f"this model, or what is asked of it, {NO_GRADIENTS}")
    if match := VALUE.match(str(error)):
        constraint, family = match.groups()
        return ValueError(
            f"a value lies outside the support of {family}, {constraint}: "
            "it is one of x, or a draw of a guide with a larger support than its prior; if the "
            "ends of the support are parameters, fix them around all of x, as Pareto(scale=1) does"
        )
    return error
