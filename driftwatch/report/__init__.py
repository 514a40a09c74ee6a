"""Reports of drift and healing: log lines, metrics, drift events."""
