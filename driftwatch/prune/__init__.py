"""Pruning: which orphans are deleted, in which order, with which safeguards."""
