"""What a cluster adds: resources that are watched, and what is written back.

Every replica watches and programs its own HAProxy. Only the leader writes: statuses, Events, and Gateways' Services.
A replica that has never programmed a HAProxy does not stand for election: it would tell that nothing is served.
The surprising fact: what is written here comes back as an event of the source, which is how one replica's allocation
of listener slots reaches all.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import replace

from gwctl.api.ref import Ref
from gwctl.infrastructure.address import host_addresses, service_addresses
from gwctl.infrastructure.service import ServiceSettings
from gwctl.kube.bundle import BundleVersions
from gwctl.kube.client import SERVICE_ACCOUNT, KubeClient
from gwctl.kube.lease import Election
from gwctl.kube.reflector import Observer
from gwctl.providers.kubernetes import GATEWAY_KINDS, KubernetesSource
from gwctl.providers.statusapi import KubernetesStatusApi
from gwctl.runtime.config import Config, ConfigError
from gwctl.runtime.metrics import Metrics
from gwctl.runtime.pipeline import Pipeline
from gwctl.runtime.reconciler import Reconciler
from gwctl.runtime.services import ServiceWriter
from gwctl.status.build import build_statuses
from gwctl.status.event import build_events
from gwctl.status.outcome import GatewayAddresses, Outcome, Stale
from gwctl.status.recorder import EventRecorder
from gwctl.status.status import Statuses
from gwctl.status.writer import StatusWriter


class Cluster:
    """The cluster's side of one replica: its source, and what it writes while it is the leader."""

    def __init__(self, config: Config, client: KubeClient, metrics: Metrics) -> None:
        self._metrics = metrics
        self._namespace = config.pod_namespace or _own_namespace()
        self._has_services = config.gateway_service_type != "none"
        self._published = _service(config.publish_service)
        self._has_served = asyncio.Event()
        self._last: Outcome | None = None
        self._pipeline: Pipeline | None = None
        self._statuses: Statuses | None = None
        own = self._namespace if self._has_services else self._published.namespace if self._published else ""
        self.source = KubernetesSource(
            client,
            config.namespaces,
            own,
            controller_name=config.gateway_controller_name,
            observer=_Observer(metrics),
        )
        self._versions = BundleVersions(client, GATEWAY_KINDS, self._publish_again)
        identity = config.identity or socket.gethostname()
        self.election = Election(
            client,
            self._namespace,
            config.lease_name,
            identity,
            on_change=self._note_leadership,
        )
        api = KubernetesStatusApi(self.source, client)
        self._status_writer = StatusWriter(
            api,
            config.gateway_controller_name,
            is_leader=lambda: self.election.is_leader,
            count=lambda kind, result: metrics.kubernetes_writes.labels("status", kind, result).inc(),
        )
        self._recorder = EventRecorder(
            api,
            identity,
            is_leader=lambda: self.election.is_leader,
            count=lambda result: metrics.kubernetes_writes.labels("event", "Event", result).inc(),
        )
        self._service_writer: ServiceWriter | None = None
        if self._has_services:
            self._service_writer = ServiceWriter(
                client,
                _service_settings(config, self._namespace),
                lambda: self.election.is_leader,
                on_error=self._publish_again,
                count=lambda result: metrics.kubernetes_writes.labels("object", "Service", result).inc(),
                exists=lambda gateway: self.source.live(gateway) is not None,
            )
        self.source.on_status(self._status_writer.check)

    @property
    def service_namespace(self) -> str | None:
        """The namespace of Gateways' Services, None where listeners bind their own ports."""
        return self._namespace if self._has_services else None

    def waiting_for(self) -> str:
        """Say what has not been read yet, empty when all has."""
        return ", ".join(self.source.unread_kinds)

    async def run(self) -> None:
        """Take part in the election, once HAProxy serves, and write what is to be written, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._stand())
            tasks.create_task(self._versions.run())
            tasks.create_task(self._status_writer.run())
            tasks.create_task(self._recorder.run())
            if self._service_writer is not None:
                tasks.create_task(self._service_writer.run())

    async def _stand(self) -> None:
        await self._has_served.wait()
        await self.election.run()

    def publish(self, reconciler: Reconciler) -> None:
        """Take in what the resources ask for now and how much of it HAProxy has."""
        if reconciler.applied is not None:
            self._has_served.set()
        pipeline = reconciler.pipeline
        if pipeline is None:
            return
        if self._service_writer is not None and pipeline is not self._pipeline:
            self._service_writer.update(pipeline)
        stale = {ref: Stale(None, problems) for ref, problems in reconciler.lacking.items()} | {
            ref: Stale(live.generation, problems)
            for ref, problems in reconciler.stale.items()
            if (live := self.source.live(ref)) is not None
        }
        outcome = Outcome(pipeline.graph, reconciler.applied, reconciler.refused, stale=stale)
        last = self._last
        is_known = last is not None and last.graph is outcome.graph and last.applied is outcome.applied
        if last is None or not is_known or (last.refused, last.stale) != (outcome.refused, outcome.stale):
            self._pipeline, self._last = pipeline, outcome
            self._publish_again()

    def _publish_again(self) -> None:
        if self._last is None or self._pipeline is None or not self.election.is_leader or not self._versions.has_looked:
            return
        addresses = self._addresses(self._pipeline)
        outcome = replace(
            self._last, addresses=addresses, bundle_versions=self._versions.found, channels=self._versions.channels
        )
        before, self._statuses = self._statuses, build_statuses(outcome, self._statuses)
        self._status_writer.update(self._statuses)
        self._recorder.record(build_events(before, self._statuses))

    def _addresses(self, pipeline: Pipeline) -> Mapping[Ref, GatewayAddresses]:
        gateways, snapshot = pipeline.graph.gateways.items(), pipeline.snapshot
        if self._service_writer is None:
            return {ref: host_addresses(gateway, snapshot, self._published) for ref, gateway in gateways}
        errors = self._service_writer.errors
        return {
            ref: service_addresses(gateway, snapshot, self._namespace, errors.get(ref, "")) for ref, gateway in gateways
        }

    def _note_leadership(self, is_leader: bool) -> None:
        self._metrics.leader.set(is_leader)
        if not is_leader:
            return
        if self._service_writer is not None:
            self._service_writer.wake()
        self._publish_again()
        self._status_writer.check_all()


class _Observer(Observer):
    """Counts what reflectors tell."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def event(self, kind: str, event: str) -> None:
        self._metrics.kubernetes_events.labels(kind, event).inc()

    def listed(self, kind: str, cause: str) -> None:
        self._metrics.kubernetes_lists.labels(kind, cause).inc()

    def watch_error(self, kind: str, error: str) -> None:
        self._metrics.kubernetes_errors.labels(kind, error).inc()


def _service_settings(config: Config, namespace: str) -> ServiceSettings:
    if not config.gateway_service_selector:
        raise ConfigError("gateway-service-selector must name gwctl's pods, unless gateway-service-type is none")
    return ServiceSettings(
        config.gateway_controller_name,
        namespace,
        config.gateway_service_selector,
        config.gateway_service_type,
        config.gateway_service_annotations,
        config.gateway_service_external_traffic_policy,
        config.gateway_service_aliases,
        config.cluster_domain,
        config.ipv6,
        config.http3,
    )


def _service(text: str) -> Ref | None:
    namespace, _, name = text.partition("/")
    return Ref("Service", namespace, name) if name else None


def _own_namespace() -> str:
    """Give the namespace of the pod that this is, ``default`` where it is none."""
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text(encoding="ascii").strip()
    except OSError:
        return "default"
