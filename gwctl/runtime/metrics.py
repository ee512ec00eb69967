"""All metrics, on a registry of their own.

The surprising fact: what describes the current state (slots, pools, problems) is set as a whole, so that a
series whose object is gone disappears.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder

from gwctl import __version__

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("gwctl_build", "The version of gwctl", registry=registry).info({"version": __version__})
        self.reloads = Counter(
            "gwctl_reloads", "Reloads of HAProxy that gwctl caused, by why", ["reason"], registry=registry
        )
        self.plan_operations = Counter(
            "gwctl_plan_operations",
            "Operations applied at runtime, by kind and table",
            ["operation", "table"],
            registry=registry,
        )
        self.apply_duration = Histogram(
            "gwctl_apply_duration_seconds",
            "Time to bring HAProxy to the desired state and read it back",
            buckets=_BUCKETS,
            registry=registry,
        )
        self.event_to_applied = Histogram(
            "gwctl_event_to_applied_seconds",
            "Time from an event of the source to HAProxy having it",
            buckets=_BUCKETS,
            registry=registry,
        )
        self.dataplane_requests = Counter(
            "gwctl_dataplane_requests",
            "Requests to the Data Plane API (status 0: no answer)",
            ["method", "call", "status"],
            registry=registry,
        )
        self.dataplane_errors = Counter(
            "gwctl_dataplane_errors", "Errors that stopped an application", ["kind"], registry=registry
        )
        self.drift_repaired = Counter(
            "gwctl_drift_repaired",
            "What others changed in HAProxy and gwctl changed back",
            ["kind"],
            registry=registry,
        )
        self.checkpoints = Counter(
            "gwctl_checkpoints", "How often HAProxy's files were brought up to what it serves", registry=registry
        )
        self.readback_mismatches = Counter(
            "gwctl_readback_mismatches", "What was written and read back differently", registry=registry
        )
        self._mirror_losses = Counter(
            "gwctl_mirror_losses", "Requests of which a mirror got no copy, as HAProxy counts them", registry=registry
        )
        self._last_mirror_losses = 0
        self._slots = Gauge(
            "gwctl_service_slot_info",
            "Which slot a Service holds; always 1",
            ["service", "slot"],
            registry=registry,
        )
        self._pools = Gauge("gwctl_pool_slots", "Slots of HAProxy", ["mode", "state"], registry=registry)
        self._resources = Gauge("gwctl_resources", "Resources by kind", ["kind"], registry=registry)
        self._problems = Gauge(
            "gwctl_problems",
            "Problems of resources by the condition that tells them",
            ["condition"],
            registry=registry,
        )
        self._listeners = Gauge(
            "gwctl_listener_slot_info",
            "Which listener slot a Gateway's port holds; always 1",
            ["gateway", "port", "slot"],
            registry=registry,
        )
        self.kubernetes_events = Counter(
            "gwctl_kubernetes_events", "Events of watches", ["kind", "event"], registry=registry
        )
        self.kubernetes_lists = Counter(
            "gwctl_kubernetes_lists", "Lists from the API server, by why", ["kind", "cause"], registry=registry
        )
        self.kubernetes_errors = Counter(
            "gwctl_kubernetes_errors", "Lists and watches that failed", ["kind", "error"], registry=registry
        )
        self.kubernetes_writes = Counter(
            "gwctl_kubernetes_writes",
            "What the leader wrote, by what it is, kind and result",
            ["what", "kind", "result"],
            registry=registry,
        )
        self.leader = Gauge("gwctl_leader", "1 while this replica is the leader", registry=registry)
        self._listener_slots: frozenset[tuple[str, str, str]] = frozenset()
        self._certificates = Gauge(
            "gwctl_certificate_expiry_timestamp_seconds",
            "When the certificate of a Secret expires, in seconds since 1970",
            ["secret"],
            registry=registry,
        )
        self._service_slots: frozenset[tuple[str, str]] = frozenset()

    def observe_request(self, method: str, call: str, status: int) -> None:
        """Count a request to the Data Plane API; ``call`` is its template, never its path."""
        self.dataplane_requests.labels(method, call, status).inc()

    def set_service_slots(self, services: Mapping[str, str]) -> None:
        """Set the slot of each Service, by key."""
        current = frozenset((key.partition("~")[0], slot) for key, slot in services.items())
        for gone in self._service_slots - current:
            self._slots.remove(*gone)
        for new in current - self._service_slots:
            self._slots.labels(*new).set(1)
        self._service_slots = current

    def set_listener_slots(self, slots: Iterable[tuple[str, str, str]]) -> None:
        """Set the listener slot of each Gateway's port: (gateway, port, slot)."""
        current = frozenset(slots)
        for gone in self._listener_slots - current:
            self._listeners.remove(*gone)
        for new in current - self._listener_slots:
            self._listeners.labels(*new).set(1)
        self._listener_slots = current

    def set_certificates(self, expiries: Mapping[str, int]) -> None:
        """Set when the certificate of each Secret expires, in seconds since 1970."""
        self._certificates.clear()
        for secret, seconds in expiries.items():
            self._certificates.labels(secret).set(seconds)

    def set_pool(self, mode: str, used: int, size: int) -> None:
        """Set how many slots of a mode there are."""
        self._pools.labels(mode, "used").set(used)
        self._pools.labels(mode, "free").set(size - used)

    def set_resources(self, kinds: Iterable[str]) -> None:
        """Set how many resources there are: one kind for each."""
        _set_counts(self._resources, kinds)

    def set_mirror_losses(self, total: int) -> None:
        """Take over HAProxy's count of requests that a mirror lost; it begins anew with each of its processes."""
        self._mirror_losses.inc(total - self._last_mirror_losses if total >= self._last_mirror_losses else total)
        self._last_mirror_losses = total

    def set_problems(self, conditions: Iterable[str]) -> None:
        """Set how many problems there are: one condition for each."""
        _set_counts(self._problems, conditions)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """Give all metrics in the format that an Accept header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        text: bytes = encode(self.registry)
        return text, content_type


def _set_counts(gauge: Gauge, labels: Iterable[str]) -> None:
    counts = Count(labels)
    for metric in gauge.collect():
        for sample in metric.samples:
            if not counts.keys() >= set(sample.labels.values()):
                gauge.remove(*sample.labels.values())
    for label, number in counts.items():
        gauge.labels(label).set(number)
