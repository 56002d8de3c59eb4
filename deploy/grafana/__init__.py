"""Grafana's dashboards: written here, kept as the JSON that `python -m deploy.grafana` makes."""
