"""Sources of resources: a directory of manifests today, a Kubernetes cluster later."""
