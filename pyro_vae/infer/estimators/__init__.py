"""Gradient estimators: a bound on log p(x) times a rule for its gradient."""
