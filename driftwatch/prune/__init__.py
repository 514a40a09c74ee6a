"""Deletes what left Git: which orphans, in which order, with which safeguards."""
