"""HTTP server of the daemon: metrics, probes, status and webhooks."""
