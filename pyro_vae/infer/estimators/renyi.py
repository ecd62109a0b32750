"""Pyro's Rényi bound, without the slopes that are too slight to count."""

from collections.abc import Callable

from pyro import infer
from pyro.poutine.trace_struct import Trace

from ...core.slight import not_slight
from ..sites import samples

__all__ = ["RenyiELBO"]


class RenyiELBO(infer.RenyiELBO):
    """Pyro's, with zeros for what weighs less than 1e-26: see :func:`not_slight`.

    References:
        Li & Turner (2016), arXiv:1602.02311.
    """

    def _get_trace(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Trace, Trace]:
        traces = super()._get_trace(model, guide, args, kwargs)
        for trace in traces:
            for site in samples(trace):
                if site["log_prob"].requires_grad:
                    site["log_prob"].register_hook(not_slight)
        return traces
