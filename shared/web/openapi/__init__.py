"""OpenAPI 3.1 of a process: drawn from its routes, joined for one address, shown as a page."""
