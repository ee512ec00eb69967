"""The process: starts the source, the reconciler and the health server, and keeps them going until it is cancelled.

Three tasks feed one worker: the source's batches, a look at HAProxy's process every second, and at longer intervals an
observation of all that HAProxy has, which goes on beside the work. Only the worker writes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from gwctl.api.parse import Invalid, Resource
from gwctl.api.ref import Ref
from gwctl.dataplane import DataPlaneError, UnsupportedVersion
from gwctl.dataplane.client import Client
from gwctl.dataplane.version import require_supported
from gwctl.haproxy.desired import Pools
from gwctl.kube.client import KubeClient
from gwctl.providers.file import FileSource
from gwctl.providers.source import Source
from gwctl.runtime.cluster import Cluster
from gwctl.runtime.config import Config
from gwctl.runtime.health import Health, serve_health
from gwctl.runtime.metrics import Metrics
from gwctl.runtime.reconciler import NotConverging, Observation, Reconciler

log = logging.getLogger(__name__)

_PROCESS_SECONDS = 1.0
_FIRST_RETRY_SECONDS = 0.2
_LONGEST_RETRY_SECONDS = 10.0


@dataclass(slots=True)
class Pending:
    """What has happened since the worker last looked. A later change of an object replaces an earlier one."""

    changes: dict[Ref, Resource | None] = field(default_factory=dict)
    invalid: tuple[Invalid, ...] = ()
    started: float | None = None
    retry: bool = False
    watch: bool = False
    observation: Observation | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)


async def run(config: Config, health: Health | None = None) -> None:
    """Run until cancelled."""
    metrics = Metrics()
    health = health or Health()
    client = Client(
        config.dataplane_url,
        config.dataplane_username,
        config.read_password(),
        observer=metrics.observe_request,
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(client)
        await stack.enter_async_context(serve_health(config.metrics_address, metrics, health))
        cluster: Cluster | None = None
        if config.source == "kubernetes":
            cluster = Cluster(config, await stack.enter_async_context(KubeClient()), metrics)
        await _wait_for_data_plane(client)
        reconciler = Reconciler(
            client,
            config.gateway_controller_name,
            _pools(config, has_listener_slots=cluster is not None and cluster.service_namespace is not None),
            metrics,
            service_namespace=cluster.service_namespace if cluster is not None else None,
            listening=config.listening,
        )
        pending = Pending()
        async with asyncio.TaskGroup() as tasks:
            if cluster is None:
                tasks.create_task(_pump(FileSource(Path(config.source.removeprefix("file:"))), pending))
            else:
                health.waiting_for = cluster.waiting_for
                tasks.create_task(_pump(cluster.source, pending))
                tasks.create_task(cluster.run())
            tasks.create_task(_watch_process(pending))
            tasks.create_task(_observe(reconciler, pending, config.resync_interval))
            publish = cluster.publish if cluster is not None else _publish_nothing
            tasks.create_task(_work(reconciler, pending, metrics, health, publish))


def _pools(config: Config, *, has_listener_slots: bool) -> Pools:
    if not has_listener_slots:
        return Pools(config.http_slots, config.tcp_slots)
    return Pools(
        config.http_slots,
        config.tcp_slots,
        http_listeners=config.http_listeners,
        tcp_listeners=config.tcp_listeners,
        https_listeners=config.https_listeners,
        tls_listeners=config.tls_listeners,
    )


def _publish_nothing(reconciler: Reconciler) -> None:
    """Files have no status."""


async def _wait_for_data_plane(client: Client) -> None:
    delay = _FIRST_RETRY_SECONDS
    while True:
        try:
            await require_supported(client)
            return
        except UnsupportedVersion:
            raise
        except DataPlaneError as error:
            log.warning("waiting for the Data Plane API", extra={"error": str(error)})
        await asyncio.sleep(delay)
        delay = min(delay * 2, _LONGEST_RETRY_SECONDS)


async def _pump(source: Source, pending: Pending) -> None:
    async for batch in source.batches():
        pending.changes.update(batch.changes)
        pending.invalid = batch.invalid
        pending.started = pending.started or time.perf_counter()
        pending.wake.set()


async def _watch_process(pending: Pending) -> None:
    while True:
        await asyncio.sleep(_PROCESS_SECONDS)
        pending.watch = True
        pending.wake.set()


async def _observe(reconciler: Reconciler, pending: Pending, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            pending.observation = await reconciler.observe()
        except DataPlaneError as error:
            log.warning("cannot check what HAProxy has", extra={"error": str(error)})
        else:
            pending.wake.set()


async def _work(
    reconciler: Reconciler,
    pending: Pending,
    metrics: Metrics,
    health: Health,
    publish: Callable[[Reconciler], None],
) -> None:
    delay = _FIRST_RETRY_SECONDS
    while True:
        await pending.wake.wait()
        pending.wake.clear()
        try:
            await _work_once(reconciler, pending, metrics, health)
        except (DataPlaneError, NotConverging) as error:
            metrics.dataplane_errors.labels(kind=type(error).__name__).inc()
            log.error("applying failed, trying again", extra={"error": str(error), "seconds": delay})
            reconciler.forget()
            pending.retry = True
            publish(reconciler)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_RETRY_SECONDS)
            pending.wake.set()
        else:
            publish(reconciler)
            delay = _FIRST_RETRY_SECONDS


async def _work_once(reconciler: Reconciler, pending: Pending, metrics: Metrics, health: Health) -> None:
    started, pending.started = pending.started, None
    tick, pending.watch = pending.watch, False
    if started is not None:
        changes, pending.changes = pending.changes, {}
        reconciler.update(changes)
    if not reconciler.has_resources:
        return
    restarted = tick and await reconciler.watch_process()
    if started is not None or restarted or pending.retry:
        await reconciler.apply()
        pending.retry = False
        if started is not None:
            metrics.event_to_applied.observe(time.perf_counter() - started)
        reconciler.report(pending.invalid)
        health.set_ready()
    observation, pending.observation = pending.observation, None
    if observation is not None:
        await reconciler.repair(observation)
        reconciler.report(pending.invalid)
    if tick:
        await reconciler.tend()
        await reconciler.checkpoint(lambda: pending.started is not None)
