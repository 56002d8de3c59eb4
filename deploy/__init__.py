"""How Sluice is put together and run: on one machine, in containers, on a cluster."""
