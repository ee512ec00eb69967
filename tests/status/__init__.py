"""Tests of what Kubernetes is told."""
