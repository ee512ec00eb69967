"""A real one-node Kubernetes for tests, images without a registry, and the conformance suite.

In: this machine (root, Go, openssl, iproute2, util-linux) and its package registries. Out: `Cluster`, whose
kubeconfig anything may use. Surprising: the node is a handful of processes in namespaces of their own (network,
mounts, processes), so ending one process ends all of it, and nothing is left of it.
"""
