"""Texts as numbers of tokens, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from ..language.spec import nearest

__all__ = ["Unit", "Vocabulary"]

Unit: TypeAlias = Literal["characters", "words"]


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of texts: characters, or the words between spaces.

    ``VAE(vocabulary, latent_dim=16)`` is a model of texts: they come in and go out as strings.

    Args:
        tokens: those that there are; their places are their numbers.
        unit: what a token is.

    Raises:
        ValueError: no token, one that is there twice, or an unknown unit.

    >>> vocabulary = Vocabulary.of(["to be", "or not"], unit="words")
    >>> vocabulary.tokens, vocabulary.encode("not to be").tolist()
    (('be', 'not', 'or', 'to'), [1.0, 3.0, 0.0])
    >>> vocabulary.decode([3, 0])
    'to be'
    """

    tokens: tuple[str, ...]
    unit: Unit = "characters"

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise ValueError(f"unit is characters or words, got {self.unit!r}")
        if not self.tokens or len(set(self.tokens)) < len(self.tokens):
            raise ValueError("a vocabulary has a token or more, each of them once")

    @classmethod
    def of(cls, texts: Sequence[str], unit: Unit = "characters") -> "Vocabulary":
        """The tokens of these texts, in their alphabet's order."""
        if unit not in get_args(Unit):
            raise ValueError(f"unit is characters or words, got {unit!r}")
        return cls(tuple(sorted({token for text in texts for token in _split(text, unit)})), unit)

    @classmethod
    def from_dict(cls, about: Mapping[str, Any]) -> "Vocabulary":
        """A vocabulary again, from :meth:`as_dict`."""
        return cls(tuple(about["tokens"]), about["unit"])

    def as_dict(self) -> dict[str, object]:
        """The tokens and the unit, as plain values."""
        return {"tokens": list(self.tokens), "unit": self.unit}

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> np.ndarray:
        """The numbers of a text's tokens.

        Raises:
            ValueError: a token that is not in the vocabulary, with its place.
        """
        numbers = {token: i for i, token in enumerate(self.tokens)}
        found = _split(text, self.unit)
        for i, token in enumerate(found):
            if token not in numbers:
                raise ValueError(
                    f"the model knows no token {token!r}{nearest(token, self.tokens)} (step {i})"
                )
        return np.array([numbers[token] for token in found], dtype=np.float32)

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of tokens' numbers."""
        return ("" if self.unit == "characters" else " ").join(self.tokens[int(i)] for i in numbers)


def _split(text: str, unit: Unit) -> list[str]:
    """The tokens of a text."""
    return list(text) if unit == "characters" else text.split()
