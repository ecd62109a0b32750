"""A new network: any ``nn.Module``; ``build`` tells it its ends before training."""

import math

from torch import Tensor, nn


class Residual(nn.Module):
    """A layer and blocks that add to what they read: ``(B, *in_shape)`` to ``(B, width)``.

    Args:
        width: of the layers.
        blocks: how many of them add.
    """

    def __init__(self, width: int = 32, blocks: int = 2) -> None:
        super().__init__()
        self.width, self.blocks = width, blocks

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        """Make the layers for inputs of shape ``in_shape``."""
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(in_shape), self.width))
        self.layers = nn.ModuleList(nn.Linear(self.width, self.width) for _ in range(self.blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Features of each data point."""
        h = self.first(x)
        for layer in self.layers:
            h = h + layer(h.relu())
        return h
