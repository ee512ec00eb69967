"""The Kubernetes API, seen by a client: against a stand-in, and some of it against a real one."""
