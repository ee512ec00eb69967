"""Level-based reconciling: batches of changed resources in, a HAProxy in the desired state out.

Everything from resource to plan is a pure function; this module keeps the last value of each step, so that the next
run builds upon it. There is no hold-off: an event on an idle gwctl is worked on at once, and what arrives while a plan
is in flight forms the next batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import NamedTuple

from gwctl.api.parse import Invalid, Resource
from gwctl.api.ref import Ref
from gwctl.dataplane import ReloadFailed
from gwctl.dataplane.client import Client, Process
from gwctl.dataplane.executor import Executor
from gwctl.dataplane.reader import read_layout, read_state
from gwctl.graph.node import Problem
from gwctl.haproxy.desired import Desired, Pools, build_state
from gwctl.haproxy.names import Table, slot_mode
from gwctl.haproxy.plan import Plan, RemoveRow, SetRow, diff, retired_servers
from gwctl.haproxy.state import State
from gwctl.runtime.metrics import Metrics
from gwctl.runtime.pipeline import Pipeline, advance

log = logging.getLogger(__name__)

_ROUNDS = 5
"""How often one run plans anew before it gives up: a transaction and its sequel take two."""


class NotConverging(Exception):
    """HAProxy did not reach the desired state: what is written reads back differently again and again."""


class Observation(NamedTuple):
    """What HAProxy had at some moment. It stands while ``writes``, the number of plans begun, is still the same."""

    writes: int
    state: State


class Reconciler:
    """Keeps one HAProxy in the state that the resources ask for."""

    def __init__(self, client: Client, controller_name: str, pools: Pools, metrics: Metrics) -> None:
        self._client = client
        self._controller_name = controller_name
        self._pools = pools
        self._metrics = metrics
        self._executor: Executor | None = None
        self._pipeline: Pipeline | None = None
        self._desired: Desired | None = None
        self._actual: State | None = None
        self._process: Process | None = None
        self._writes = 0
        self._reported: frozenset[Problem | Invalid] = frozenset()

    @property
    def has_resources(self) -> bool:
        """Tell whether the source has delivered its complete first state."""
        return self._pipeline is not None

    def update(self, changes: Mapping[Ref, Resource | None]) -> None:
        """Take changes of resources in. Nothing is written before `apply`."""
        self._pipeline = advance(self._pipeline, changes, self._controller_name)

    async def apply(self) -> None:
        """Bring HAProxy to the desired state and read back what was written."""
        assert self._pipeline is not None
        started = time.perf_counter()
        if self._actual is None:
            await self._read()
        for _ in range(_ROUNDS):
            plan = self._plan()
            if not plan:
                break
            await self._execute(plan)
        else:
            raise NotConverging(f"after {_ROUNDS} plans HAProxy still differs from the desired state")
        self._metrics.apply_duration.observe(time.perf_counter() - started)

    def forget(self) -> None:
        """Forget what HAProxy was last seen to have, so that the next `apply` reads it again."""
        self._actual = None

    async def observe(self) -> Observation | None:
        """Read what HAProxy has while work goes on; None while a plan is in flight or nothing was ever written."""
        if self._desired is None or self._actual is None:
            return None
        writes = self._writes
        return Observation(writes, await read_state(self._client))

    async def repair(self, observation: Observation) -> bool:
        """Mend what an observation shows to differ from what was written, and delete servers that have retired.

        Gives False when the observation is worth nothing because something was written meanwhile.
        """
        if observation.writes != self._writes or self._actual is None:
            return False
        self._actual = observation.state
        drift = self._plan()
        if drift:
            log.warning("HAProxy differs from what was written, repairing", extra={"plan": _summary(drift)})
            for operation in drift.operations:
                self._metrics.drift_repaired.labels(kind=type(operation).__name__).inc()
            if drift.transaction is not None:
                self._metrics.drift_repaired.labels(kind="Section").inc()
            await self.apply()
        await self._delete_retired()
        return True

    async def watch_process(self) -> bool:
        """Tell whether HAProxy is another process than before; what is known of the old one is forgotten."""
        process = await self._client.process()
        before, self._process = self._process, process
        if before is None or (before.pid == process.pid and before.uptime <= process.uptime):
            return False
        log.warning("HAProxy was restarted or reloaded by others", extra={"pid": process.pid})
        self.forget()
        return True

    def report(self, invalid: tuple[Invalid, ...]) -> None:
        """Log problems that are new and those that are gone; set the metrics that describe the whole."""
        assert self._pipeline is not None and self._desired is not None
        current: frozenset[Problem | Invalid] = frozenset((*invalid, *self._pipeline.problems))
        for problem in sorted(current - self._reported, key=str):
            log.warning("resource problem", extra=_describe(problem))
        for problem in sorted(self._reported - current, key=str):
            log.info("resource problem solved", extra=_describe(problem))
        self._reported = current
        conditions = ["Invalid" if isinstance(problem, Invalid) else problem.condition for problem in current]
        self._metrics.set_problems(conditions)
        services = self._desired.state.tables[Table.SERVICES]
        self._metrics.set_service_slots(services)
        used = [slot_mode(slot) for slot in services.values()]
        for mode, size in self._desired.sizes.items():
            self._metrics.set_pool(mode, used.count(mode), size)

    def _plan(self) -> Plan:
        assert self._pipeline is not None and self._actual is not None and self._executor is not None
        self._desired = build_state(
            self._pipeline.routing,
            self._pipeline.tables,
            self._actual,
            self._executor.layout,
            self._pools,
            self._desired,
        )
        return diff(self._desired.state, self._actual)

    async def _read(self) -> None:
        if self._executor is None:
            self._executor = Executor(self._client, await read_layout(self._client))
        self._process = await self._client.process()
        self._actual = await read_state(self._client)

    async def _execute(self, plan: Plan) -> None:
        assert self._desired is not None and self._actual is not None and self._executor is not None
        actual, self._actual = self._actual, None
        self._writes += 1
        log.debug("applying plan", extra={"plan": str(plan)})
        mismatches = await self._executor.apply_operations(plan.operations, actual)
        for operation in plan.operations:
            table = operation.table if isinstance(operation, SetRow | RemoveRow) else "servers"
            self._metrics.plan_operations.labels(operation=type(operation).__name__, table=table).inc()
        for mismatch in mismatches:
            self._metrics.readback_mismatches.inc()
            log.warning("read back differs from what was written", extra={"what": str(mismatch)})
        if plan.transaction is not None:
            for reason in plan.transaction.reasons:
                log.info("reloading HAProxy", extra={"reason": reason})
            try:
                await self._executor.apply_transaction(plan.transaction)
            except ReloadFailed:
                self._metrics.reloads.labels(reason="failed").inc()
                raise
            self._metrics.reloads.labels(reason=", ".join(plan.transaction.reasons)).inc()
        if mismatches or plan.transaction is not None:
            await self._read()
        else:
            self._actual = _after(self._desired.state, actual)

    async def _delete_retired(self) -> None:
        assert self._desired is not None and self._actual is not None and self._executor is not None
        retired = list(retired_servers(self._desired.state, self._actual))
        gone = await self._executor.delete_retired(retired)
        if gone:
            self._writes += 1
            servers = {slot: dict(there) for slot, there in self._actual.servers.items()}
            for slot, name in gone:
                del servers[slot][name]
            actual = self._actual
            self._actual = State(actual.sections, actual.tables, servers, actual.lua)


def _after(desired: State, actual: State) -> State:
    """Give the state after a plan that was read back: the desired one, with the servers that wait for deletion."""
    servers = dict(desired.servers)
    for slot, there in actual.servers.items():
        kept = {
            name: server._replace(state="maint")
            for name, server in there.items()
            if name not in desired.servers.get(slot, {})
        }
        if kept:
            servers[slot] = {**servers.get(slot, {}), **kept}
    return State(desired.sections, desired.tables, servers, desired.lua)


def _summary(plan: Plan) -> str:
    lines = str(plan).splitlines()
    return "; ".join(lines[:10]) + (f"; … {len(lines) - 10} more" if len(lines) > 10 else "")


def _describe(problem: Problem | Invalid) -> dict[str, str]:
    fields = {"object": str(problem.subject), "field": problem.field, "problem": problem.message}
    if isinstance(problem, Problem):
        fields |= {"condition": problem.condition, "reason": problem.reason}
    return fields
