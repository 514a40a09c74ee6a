"""Sinks of drift events: Kubernetes Events, journal, notifications, Alertmanager."""
