"""The Helm chart, as Helm itself renders it."""
