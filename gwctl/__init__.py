"""gwctl: a Kubernetes Gateway API operator that drives HAProxy through the HAProxy Data Plane API."""

__version__ = "0.1.0"
