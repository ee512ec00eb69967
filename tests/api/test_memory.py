"""What a large cluster costs: resources stay in memory for as long as they are there."""

import json
import tracemalloc

from pydantic_core import from_json

from gwctl.api.parse import parse_resource

ENDPOINTS = 100
SLICES = 20


def endpoint_slice(number: int) -> dict[str, object]:
    """An EndpointSlice as Kubernetes makes it."""
    name = f"shop-{number:05}"
    endpoints = [
        {
            "addresses": [f"10.{number // 250}.{number % 250}.{place}"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": f"node-{place}",
            "zone": "zone-a",
            "targetRef": {"kind": "Pod", "namespace": "default", "name": f"{name}-{place:05}", "uid": f"{place}"},
        }
        for place in range(ENDPOINTS)
    ]
    metadata = {
        "name": f"{name}-abcde",
        "namespace": "default",
        "uid": str(number),
        "labels": {"kubernetes.io/service-name": name},
        "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"},
        "managedFields": [{"manager": "kube-controller-manager", "fieldsV1": {"f:endpoints": {}}}],
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


def test_an_endpoint_costs_hundreds_of_bytes_and_not_thousands() -> None:
    page = json.dumps([endpoint_slice(number) for number in range(SLICES)])
    parse_resource(endpoint_slice(0))
    tracemalloc.start()
    try:
        kept = [parse_resource(manifest) for manifest in from_json(page)]
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(result.resource is not None and not result.invalid for result in kept)
    assert used / (SLICES * ENDPOINTS) < 500
