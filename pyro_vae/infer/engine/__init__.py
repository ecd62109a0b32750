"""The machinery of a training step: compilation, optimizers, processes."""
