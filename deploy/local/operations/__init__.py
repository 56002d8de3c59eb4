"""What operators do to a running Sluice, over its API: `sluice pause` and its siblings."""
