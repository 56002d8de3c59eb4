"""Payment gateways: the only place that knows their vocabulary; one folder each."""
