"""The language: families, estimators, networks and schedules said in one line."""
