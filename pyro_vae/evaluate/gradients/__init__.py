"""What gradient estimators cost: variance, bias and time."""
