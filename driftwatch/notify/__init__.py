"""Tells others of drift and heals: Kubernetes Events, journal, notifications, Alertmanager."""
