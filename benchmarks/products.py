"""PyTorch's way or oneDNN: what each takes for a product, and which one `choose` takes.

    python benchmarks/products.py

The three products of a layer with n_in and n_out units, each compiled alone, in turns. What oneDNN
wants transposed is copied in a pass of its own here; a step fuses that with what comes before.
"""

from unittest.mock import patch

import pandas as pd
import torch
from common import publish, table
from torch import Tensor
from torch.utils.benchmark import Timer

from pyro_vae.infer.engine import lowering, products
from pyro_vae.infer.engine.capture import capture_function
from pyro_vae.infer.engine.compiled import compile_module

LAYERS = (784, 200), (200, 784), (200, 200), (200, 50), (50, 200)
BATCHES, ROUNDS = (10, 30, 100, 300, 1000), 5
EITHER = {"PyTorch's way, ms": ("torch",), "oneDNN, ms": ("oneDNN",)}
PRODUCTS = {
    "forward": lambda a, w, d: a @ w.T,
    "input's gradient": lambda a, w, d: d @ w,
    "weights' gradient": lambda a, w, d: d.T @ a,
}


def compared(batch: int, n_in: int, n_out: int, product: str) -> dict[str, object]:
    """Medians of milliseconds, the least of some rounds."""

    def run(*given: Tensor) -> tuple[Tensor]:
        return (PRODUCTS[product](*given),)

    given = torch.randn(batch, n_in), torch.randn(n_out, n_in), torch.randn(batch, n_out)
    module, _ = capture_function(run, *given)
    linear = torch.ops.pyro_vae.linear.default
    oneDNN = any(node.target is linear for node in lowering.for_cpu(module, {}).graph.nodes)
    timers = {}
    for name, ways in EITHER.items():
        with patch.object(products, "choose", return_value=ways[0]):
            names = {"run": compile_module(module, given), "given": given}
        timers[name] = Timer("run(*given)", globals=names, num_threads=torch.get_num_threads())
    found = pd.DataFrame(
        {name: 1000 * t.blocked_autorange(min_run_time=0.02).median for name, t in timers.items()}
        for _ in range(ROUNDS)
    )
    least = found.min()
    taken, other = least[::-1] if oneDNN else least
    return {
        "batch": batch, "n_in": n_in, "n_out": n_out, "product": product,
        "multiplications": f"{batch * n_in * n_out / 1e6:.2f} M",
        **{name: f"{ms:.4f}" for name, ms in least.items()},
        "chosen": "oneDNN" if oneDNN else "PyTorch's way",
        "over the other": f"{taken / other:.2f}",
    }  # fmt: skip


def main() -> None:
    """Measure and publish."""
    rows = [
        compared(batch, *layer, product)
        for batch in BATCHES for layer in LAYERS for product in PRODUCTS
    ]  # fmt: skip
    how = (
        f"Least of {ROUNDS} medians, {torch.get_num_threads()} threads. Inductor's own templates "
        "in C++ (`max_autotune_gemm`, torch 2.15) take constants alone, as frozen weights are, so "
        "no product of a step that trains goes to them."
    )
    cells = [list(row.values()) for row in rows]
    publish("products", "PyTorch's way or oneDNN", f"{how}\n\n{table(list(rows[0]), cells)}")


if __name__ == "__main__":
    main()
