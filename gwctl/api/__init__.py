"""The wire: Kubernetes and Gateway API resources as JSON, parsed into frozen typed values."""
