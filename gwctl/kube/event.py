"""Events (events.k8s.io/v1) that tell users what happened to their objects.

The surprising fact: an Event's name is made from what it says, so that the same thing said again, by any replica and
after any restart, is counted in one Event (its series) instead of filling the cluster.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from gwctl.kube.client import KubeClient
from gwctl.kube.error import AlreadyExists, Conflict, NotFound
from gwctl.kube.kind import Kind
from gwctl.kube.lease import now

EVENT = Kind("Event", "events", "events.k8s.io")

_TRIES = 4
_LONGEST_NAME = 220
_LONGEST_NOTE = 1024


async def record_event(
    client: KubeClient,
    regarding: dict[str, str],
    kind: Literal["Normal", "Warning"],
    reason: str,
    note: str,
    *,
    action: str,
    controller: str,
    instance: str,
) -> None:
    """Create an Event, or count it once more.

    ``regarding`` has ``apiVersion``, ``kind``, ``name``, ``uid`` and, where there is one, ``namespace``;
    ``controller`` is a qualified name, ``instance`` the process. Raises `KubeError`.
    """
    namespace = regarding.get("namespace") or "default"
    content = [*(value for _, value in sorted(regarding.items())), kind, reason, note, action, controller]
    digest = hashlib.sha256("\0".join(content).encode()).hexdigest()[:16]
    name = f"{regarding['name'][:_LONGEST_NAME].rstrip('.-')}.{digest}"
    collection = EVENT.path("v1", namespace)
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "eventTime": now(),
        "type": kind,
        "reason": reason,
        "note": note[:_LONGEST_NOTE],
        "action": action,
        "regarding": regarding,
        "reportingController": controller,
        "reportingInstance": instance[:128],
    }
    for tries in range(_TRIES):
        try:
            try:
                await client.create(collection, event)
            except AlreadyExists:
                await _count(client, f"{collection}/{name}")
            return
        except (Conflict, NotFound):  # counted by another replica, or expired, at this very moment
            if tries == _TRIES - 1:
                raise


async def _count(client: KubeClient, path: str) -> None:
    found: dict[str, Any] = await client.get(path)
    series = {"count": ((found.get("series") or {}).get("count") or 1) + 1, "lastObservedTime": now()}
    await client.patch(path, {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}, "series": series})
