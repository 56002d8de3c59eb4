"""What is deployed: one package per service; no service imports another."""
