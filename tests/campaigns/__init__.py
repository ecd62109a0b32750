"""Larger runs of what the suite samples: each is a script that prints what fails.

``python tests/campaigns/compositions.py 5000`` and the like, from the root of the repository.
"""
