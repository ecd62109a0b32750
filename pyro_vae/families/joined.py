"""The likelihoods of several blocks, side by side."""

from collections.abc import Sequence

from torch import Tensor, nn

from ..distributions import Joined, Layout
from ..language.spec import Spec, as_spec
from .part import Ends, Line, Part, start_from

__all__ = ["JoinedLikelihood"]


class JoinedLikelihood(Part):
    r"""One likelihood a block: :math:`p(x \mid z) = \prod_b p_b(x_b \mid z)`.

    Args:
        lines: of each block its likelihood and its number of cells.
        default: the model's, of blocks that say none.
        layout: of the blocks' cells in x.
    """

    in_units = True

    def __init__(self, lines: Sequence[tuple[Line, int]], default: Line, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.spec = as_spec(default) if isinstance(default, str | Spec) else None
        self.lines = list(lines)
        self.parts = nn.ModuleList()

    def build(self, ends: Ends) -> None:
        """Make each likelihood for its cells."""
        for line, width in self.lines:
            self.parts.append(ends.make(line, shape=(width,), whole=True))

    def start_from(self, x: Tensor) -> None:
        """Each from its own cells."""
        for part, cells in zip(self.parts, self.layout.split(x), strict=True):
            start_from(part, cells)

    def forward(self, features: Tensor) -> Joined:
        """The product of the likelihoods, of batch shape that of the features."""
        return Joined([part(features) for part in self.parts], self.layout)
