"""Densities in float32 against mpmath: their values, and what may be lost."""

import mpmath as mp
import torch

ULPS = 32 * 2**-24  # of a figure in nats, or of 1 where it is smaller: some tens of roundings


def exact(function, *arrays):
    """The mpmath function at float32 arrays' very values, as a double tensor."""
    rows = zip(
        *(array.flatten().tolist() for array in torch.broadcast_tensors(*arrays)), strict=True
    )
    values = [float(function(*(mp.mpf(v) for v in row))) for row in rows]
    return torch.tensor(values, dtype=torch.float64).reshape(
        torch.broadcast_shapes(*(a.shape for a in arrays))
    )


def hold(found, expected, ulps=ULPS):
    assert found.dtype == torch.float32
    lost = (found - expected).abs() / (1 + expected.abs())
    assert lost.max() <= ulps, (
        f"{found.flatten()[lost.argmax()]} for {expected.flatten()[lost.argmax()]}"
    )


def finite_gradients(value, *leaves):
    for gradient in torch.autograd.grad(value.sum(), leaves):
        assert gradient.isfinite().all()


def leaf(*values):
    return torch.tensor(*values, dtype=torch.float32, requires_grad=True)
