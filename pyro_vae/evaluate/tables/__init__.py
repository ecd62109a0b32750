"""Synthetic tables against real ones: fidelity, usefulness and privacy."""
