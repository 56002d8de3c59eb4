"""Manifests for Kubernetes (docs/kubernetes.md)."""
