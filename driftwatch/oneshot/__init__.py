"""Commands that run once, without the daemon: diff, validate, render, rbac and status."""
