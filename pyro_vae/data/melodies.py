"""Melodies from a known Markov chain in a latent key: data whose entropy is known exactly."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.checks import number, whole

__all__ = ["Melodies"]

SCALE = (0, 2, 4, 7, 9)  # major pentatonic, in semitones above the key
NOTES = 12
MOST = 9  # notes of a melody whose entropy is enumerated
STEPS = ((0, 3, 2, 2, 1), (4, 0, 3, 1, 1), (2, 4, 0, 3, 1), (2, 1, 3, 0, 3), (3, 1, 1, 4, 0))


class Melodies:
    r"""Melodies: a key, uniform over twelve, and a Markov chain over the five notes of its scale.

    .. math:: p(x) = \frac{1}{12} \sum_k \pi(d_1)\, \prod_{t > 1} P(d_t \mid d_{t-1}), \quad
        d_t = \mathrm{degree}(x_t - k)

    A note is one of twelve pitch classes. The chain starts where it rests, so that given the key
    each note after the first has the entropy rate :math:`h = -\sum_i \pi_i \sum_j P_{ij} \log
    P_{ij}`. The notes of a scale are not those of another, so melodies tell their key, the longer
    the better: a latent variable worth up to log 12 = 2.48 nats, which a model of the notes before
    each can learn to do without.

    Args:
        sharpness: the power that the chain's probabilities are raised to: 0 takes all other notes
            alike, more makes melodies easier to foretell.

    >>> melodies = Melodies()
    >>> rows, keys = melodies.sample(3, (4, 8), seed=0)
    >>> [len(row) for row in rows], round(melodies.entropy_rate, 3)
    ([8, 8, 7], 1.273)
    """

    def __init__(self, sharpness: float = 1.0) -> None:
        weights = torch.tensor(STEPS, dtype=torch.float64)
        power = number("sharpness", sharpness, least=0.0)
        weights = torch.where(weights > 0, weights**power, 0.0)
        self.transition = weights / weights.sum(1, keepdim=True)
        self.rest = torch.linalg.matrix_power(self.transition, 512)[0]
        degree = torch.full((NOTES,), -1)
        degree[list(SCALE)] = torch.arange(len(SCALE))
        notes = (torch.arange(NOTES)[None] - torch.arange(NOTES)[:, None]) % NOTES
        self.degree = degree[notes]  # of a note in a key, -1 where it is not in its scale

    def sample(
        self, num_samples: int, lengths: Sequence[int] = (12, 24), *, seed: int = 0
    ) -> tuple[list[Tensor], Tensor]:
        """Melodies, as lists of notes 0 to 11, and their keys.

        Args:
            num_samples: how many.
            lengths: of the shortest and the longest; all between are alike likely.
            seed: of the draws.
        """
        least, most = (whole("a length", n) for n in lengths)
        draw = torch.Generator().manual_seed(whole("seed", seed, 0))
        n = torch.randint(least, most + 1, (whole("num_samples", num_samples),), generator=draw)
        keys = torch.randint(0, NOTES, n.shape, generator=draw)
        degrees = [torch.multinomial(self.rest, len(n), True, generator=draw)]
        for _ in range(most - 1):
            degrees.append(torch.multinomial(self.transition[degrees[-1]], 1, generator=draw)[:, 0])
        notes = (torch.tensor(SCALE)[torch.stack(degrees, 1)] + keys[:, None]) % NOTES
        return [row[:k] for row, k in zip(notes, n.tolist(), strict=True)], keys

    def log_prob_by_key(self, row: Tensor) -> Tensor:
        """log p(x | key) of each of the twelve keys, ``(12,)``, nats."""
        degrees = self.degree[:, row.long()]
        inside = (degrees >= 0).all(1)
        safe = degrees.clamp(min=0)
        steps = self.transition[safe[:, :-1], safe[:, 1:]].log().sum(1)
        return torch.where(inside, self.rest[safe[:, 0]].log() + steps, -math.inf)

    def log_prob(self, rows: Sequence[Tensor]) -> Tensor:
        """log p(x | length) of melodies, ``(N,)``, nats."""
        each = torch.stack([self.log_prob_by_key(row) for row in rows])
        return each.logsumexp(1) - math.log(NOTES)

    @property
    def entropy_rate(self) -> float:
        """h, nats per note: the entropy of a note given all those before it, of long melodies."""
        p = self.transition
        return -(self.rest[:, None] * torch.xlogy(p, p)).sum().item()

    def entropy(self, length: int) -> float:
        """H(x | length), nats: given the key, and what x says of it.

        Raises:
            ValueError: melodies of more than nine notes, which are too many to enumerate.
        """
        start = -torch.xlogy(self.rest, self.rest).sum().item()
        return start + (length - 1) * self.entropy_rate + self.information(length)

    def information(self, length: int) -> float:
        r"""I(x; key) of melodies of this length, nats, by enumeration: H(key) - H(key | x).

        All keys are alike, so that melodies in the first one tell it.

        Raises:
            ValueError: melodies of more than nine notes.
        """
        if whole("length", length) > MOST:
            raise ValueError(
                f"melodies of at most {MOST} notes are enumerated, got {length}: the mean of "
                "log_prob over drawn ones estimates the entropy of longer ones"
            )
        notes = torch.tensor(SCALE)
        at = self.degree[:, notes]  # (12, 5): of the notes of the first key
        safe = at.clamp(min=0)
        log_p = torch.where(at >= 0, self.rest[safe].log(), -math.inf)  # (12, M)
        last = torch.arange(len(SCALE))
        step = self.transition[safe[:, :, None], safe[:, None, :]].log()
        step = torch.where((at[:, :, None] >= 0) & (at[:, None, :] >= 0), step, -math.inf)
        for _ in range(length - 1):
            log_p = (log_p[:, :, None] + step[:, last]).flatten(1)
            last = torch.arange(len(SCALE)).repeat(len(last))
            possible = log_p[0] > -math.inf
            log_p, last = log_p[:, possible], last[possible]
        told = log_p[0] - log_p.logsumexp(0)  # log p(first key | x)
        return math.log(NOTES) + (log_p[0].exp() * told).sum().item()
