"""Pictures of topics."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..evaluate.counts.rates import column_names
from ..evaluate.counts.topics import mean_condition
from ..evaluate.counts.topics import topics as describe
from ..model.entry import of_model
from ..model.joint import reading
from ..model.vae import VAE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["topics"]

ACROSS = 5  # topics in a row


@of_model
@torch.no_grad()
def topics(
    vae: VAE,
    words: Sequence[str] | None = None,
    documents: Tensor | ArrayLike | None = None,
    *,
    top: int = 8,
) -> "Axes":
    """The words of each topic, by their probability in it: bars, a panel for each topic.

    Args:
        vae: a trained model with ``decoder="Topics"``.
        words: what the columns stand for.
        documents: held out; with them topics are under their mean condition, and in the order of
            their shares, which titles tell beside the coherence.
        top: words of a topic.

    Returns:
        The first panel; ``.figure`` has all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = describe(vae, words, documents, top=top)
    if documents is not None:
        table = table.sort_values("share", ascending=False)
    decoder, names = vae.decoder, column_names(vae) if words is None else list(words)
    with reading(vae, None):
        condition = mean_condition(vae, documents)
        weight = decoder.relevance(1.0, condition).exp()  # pyrefly: ignore[not-callable]
    across = min(ACROSS, len(table))
    down = -(-len(table) // across)
    figure = Figure(figsize=(2.3 * across, (0.22 * top + 0.6) * down), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for ax in axes[len(table) :]:
        ax.remove()
    for ax, (k, row) in zip(axes, table.iterrows(), strict=False):
        best = weight[int(k)].topk(min(top, len(names)))
        labels = [str(names[i]) for i in best.indices.tolist()]
        ax.barh(range(len(labels)), best.values.cpu().numpy(), color="C0", alpha=0.8)
        ax.set_yticks(range(len(labels)), labels, fontsize=8)
        ax.invert_yaxis()
        ax.tick_params(axis="x", labelsize=7)
        told = "" if documents is None else f": {row['share']:.0%}, NPMI {row['npmi']:.2f}"
        ax.set_title(f"topic {k}{told}", fontsize=8)
    return axes[0]
