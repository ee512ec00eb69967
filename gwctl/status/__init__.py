"""Graph and what became of it in; out comes what Kubernetes is told: statuses, and Events."""
