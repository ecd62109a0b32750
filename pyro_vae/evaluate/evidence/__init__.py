"""The marginal likelihood log p(x): importance sampling and annealing."""
