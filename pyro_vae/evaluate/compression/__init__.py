"""Lossless compression by a trained model."""
