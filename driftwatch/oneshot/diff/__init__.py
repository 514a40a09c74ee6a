"""Compares a cluster with Git once, without a daemon and without writing: what `driftwatch diff` says."""
