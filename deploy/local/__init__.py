"""Sluice on one machine: its servers, its services and the command line."""
