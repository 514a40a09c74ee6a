"""Desired state: from Git to snapshots, in a process of its own."""
