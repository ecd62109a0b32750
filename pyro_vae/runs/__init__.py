"""Runs of ``fit`` in folders: settings, sweeps, comparisons, reports."""
