"""Training: ``fit``, its loop, and the callbacks around each step."""
