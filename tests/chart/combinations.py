"""Values that go together, each for a way in which people install gwctl."""

from typing import Any

COMBINATIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "host network": {"kind": "DaemonSet", "hostNetwork": True, "privilegedPorts": True},
    "host network, Deployment": {"hostNetwork": True, "publishService": "gwctl-system/front"},
    "namespaces": {"namespaces": ["team-a", "team-b"], "rbac": {"secrets": False, "configMaps": False}},
    "autoscaled": {"autoscaling": {"enabled": True}, "metrics": {"monitor": {"kind": "PodMonitor", "interval": "15s"}}},
    "closed": {
        "networkPolicy": {"enabled": True, "metricsFrom": [{"namespaceSelector": {}}]},
        "metrics": {"monitor": {"kind": "ServiceMonitor", "relabelings": [{"action": "labeldrop", "regex": "pod"}]}},
        "imagePullSecrets": [{"name": "registry"}],
        "image": {"registry": "registry.example.com/team", "pullPolicy": "Always"},
    },
    "bare": {
        "gatewayClass": {"create": False},
        "serviceAccount": {"create": False, "name": "someone"},
        "rbac": {"create": False},
        "metrics": {"service": {"enabled": False}},
        "podDisruptionBudget": {"enabled": False},
        "shutdownDelaySeconds": 0,
        "replicas": 1,
    },
    "much": {
        "commonLabels": {"team": "edge"},
        "podLabels": {"side": "front"},
        "podAnnotations": {"example.com/a": "b"},
        "gatewayClass": {"annotations": {"helm.sh/resource-policy": "keep"}, "labels": {"tier": "one"}},
        "gatewayService": {
            "annotations": {"example.com/lb": "internal, fast"},
            "externalTrafficPolicy": "Local",
            "aliases": True,
        },
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "edge", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "priorityClassName": "system-cluster-critical",
        "podDisruptionBudget": {"maxUnavailable": None, "minAvailable": "50%"},
        "updateStrategy": {"type": "Recreate"},
        "gwctl": {
            "image": {"digest": "sha256:" + "0" * 64},
            "extraArgs": ["--log-level=debug"],
            "extraEnv": [{"name": "TZ", "value": "UTC"}],
            "config": {"http-slots": 1000000 // 50, "cluster-domain": "example.org"},
        },
        "haproxy": {
            "maxConnections": 1000000,
            "resources": {"limits": {"cpu": 2, "memory": "1Gi"}},
            "extraEnv": [{"name": "TZ", "value": "UTC"}],
        },
        "dataplane": {"logLevel": "debug", "extraEnv": [{"name": "GOMEMLIMIT", "value": "400MiB"}]},
    },
}
