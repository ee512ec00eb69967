"""The Kubernetes API: a client for JSON, discovery, list and watch, leader election."""
