"""`python -m tests.cluster.loadbalancer`: gives each Service of type LoadBalancer an address, as a cloud would.

In: the Services of the cluster, watched with kubectl. Out: `status.loadBalancer`. An address that a Service asks for in
`spec.loadBalancerIP` is given if it is in the pool and free, and otherwise the Service waits. kube-proxy serves the
addresses, so nothing else is needed.
"""

import json
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

POOL = tuple(f"10.250.0.{number}" for number in range(100, 251))
_SERVICES = ["kubectl", "get", "services", "--all-namespaces", "-o", "json"]


def assign(services: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], str | None]:
    """What address to write for which Service, by namespace and name; None takes one away that is not wanted."""
    waiting: list[tuple[tuple[str, str], str | None]] = []
    taken: set[str] = set()
    result: dict[tuple[str, str], str | None] = {}
    for service in services:
        key = (service["metadata"]["namespace"], service["metadata"]["name"])
        wanted = service["spec"].get("loadBalancerIP") or None
        if service["spec"].get("type") != "LoadBalancer":
            continue
        ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress", [])
        given = ingress[0].get("ip") if ingress else None
        if given and wanted in (None, given):
            taken.add(given)
            continue
        if given:
            result[key] = None
        waiting.append((key, wanted))
    for key, wanted in sorted(waiting, key=lambda entry: entry[1] is None):  # those that ask come first
        free = [address for address in POOL if address not in taken and wanted in (None, address)]
        if free:
            result[key] = free[0]
            taken.add(free[0])
    return result


def main() -> None:
    while True:  # the API server ends a watch now and then
        with subprocess.Popen([*_SERVICES[:4], "--watch", "-o", "name"], stdout=subprocess.PIPE, text=True) as watch:
            assert watch.stdout is not None
            for _ in watch.stdout:
                _give_addresses()


def _give_addresses() -> None:
    listed = subprocess.run(_SERVICES, capture_output=True, text=True)
    if listed.returncode:
        return
    for (namespace, name), address in assign(json.loads(listed.stdout)["items"]).items():
        patch = json.dumps({"status": {"loadBalancer": {"ingress": [{"ip": address}] if address else []}}})
        target = ["-n", namespace, "patch", "service", name, "--subresource=status", "--type=merge", "-p", patch]
        subprocess.run(["kubectl", *target], capture_output=True)
        print(namespace, name, address, flush=True)


if __name__ == "__main__":
    main()
