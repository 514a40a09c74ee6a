"""Prometheus metrics: registry, labels, collectors, exposition."""
