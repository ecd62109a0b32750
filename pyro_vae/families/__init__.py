"""Families of distributions: the parts a prior, a likelihood or a guide is made of."""
