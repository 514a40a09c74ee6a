"""Desired state: reads Git and makes snapshots, in a child process."""
