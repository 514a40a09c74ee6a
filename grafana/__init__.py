"""The Grafana dashboards of driftwatch, made by code: `python -m grafana` writes their JSON beside it."""
