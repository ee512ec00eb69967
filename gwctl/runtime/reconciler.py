"""Level-based reconciling: batches of changed resources in, a HAProxy in the desired state out.

Everything from resource to plan is a pure function; this module keeps the last value of each step, so that the next
run builds upon it. There is no hold-off: an event on an idle gwctl is worked on at once, and what arrives while a plan
is in flight forms the next batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from gwctl.api.parse import INVALID, UNKNOWN_FIELD, Invalid, Resource, is_unreadable
from gwctl.api.ref import Ref
from gwctl.dataplane import CertificateRefused, ConfigurationRefused, DataPlaneError, ReloadFailed
from gwctl.dataplane.client import Client, Process
from gwctl.dataplane.executor import Executor
from gwctl.dataplane.reader import read_layout, read_state
from gwctl.graph.certificateref import check_validity, served_secrets
from gwctl.graph.clientcertificate import FRONTEND
from gwctl.graph.endpoints import resolve_left
from gwctl.graph.node import Graph, ListenerKey, Problem
from gwctl.graph.problem import (
    authorities_refused,
    certificate_refused,
    fall_back,
    listener_not_programmed,
    unknown_field,
)
from gwctl.haproxy.desired import Desired, Pools, Resting, build_state
from gwctl.haproxy.names import (
    LOST_COPIES,
    SYSTEM_AUTHORITIES,
    Table,
    authorities_name,
    certificate_name,
    listener_slot_name,
    slot_mode,
)
from gwctl.haproxy.plan import (
    Operation,
    Plan,
    RemoveRow,
    RemoveServer,
    SetRow,
    SetServer,
    diff,
    leaves_tls,
    retired_servers,
)
from gwctl.haproxy.program import ANYWHERE, Layout, Listening, frontend_sections, stands_in
from gwctl.haproxy.state import Section, SectionKey, State
from gwctl.haproxy.table import Upstream
from gwctl.routing.virtualhost import Frontend, FrontendKey
from gwctl.runtime.metrics import Metrics
from gwctl.runtime.pipeline import Pipeline, advance, not_told
from gwctl.snapshot import Snapshot

log = logging.getLogger(__name__)

_REFUSED_SECONDS = 60.0
"""How long a listener that HAProxy did not take is left out before it is tried again."""

_CHECKPOINT_SECONDS = 10.0
"""How long HAProxy's files may be behind before gwctl no longer waits for a quiet moment to bring them up to date."""

_URGENT_CHECKPOINT_SECONDS = 60.0
"""How long before changes wait for that."""

_RETRY_CHECKPOINT_SECONDS = 30.0

_REST_SECONDS = 120.0
"""How long a Service that routes have left is kept for requests that chose it before and wait: for a body, an answer of
ExternalAuth, a pause between attempts. For as long again its slot is given to no other, for those that connect."""

_RETIRED_AT_ONCE = 50
"""How many servers are tried to be deleted before other work has its turn."""

_ROUNDS = 5
"""How often one run plans anew before it gives up: a transaction and its sequel take two."""


class Rest(NamedTuple):
    """A slot that a Service has left, until when it is kept, and what for: see `Resting`."""

    slot: str
    until: float
    upstream: Upstream | None


class NotConverging(Exception):
    """HAProxy did not reach the desired state: what is written reads back differently again and again."""


class Observation(NamedTuple):
    """What HAProxy had at some moment. It stands while ``writes``, the number of plans begun, is still the same.

    ``lost_copies``: how many requests have lost a copy to a mirror since this HAProxy began.
    """

    writes: int
    state: State
    lost_copies: int


class Reconciler:
    """Keeps one HAProxy in the state that the resources ask for."""

    def __init__(
        self,
        client: Client,
        controller_name: str,
        pools: Pools,
        metrics: Metrics,
        *,
        service_namespace: str | None = None,
        listening: Listening = ANYWHERE,
    ) -> None:
        self._client = client
        self._controller_name = controller_name
        self._service_namespace = service_namespace
        self._pools = pools
        self._listening = listening
        self._metrics = metrics
        self._executor: Executor | None = None
        self._pipeline: Pipeline | None = None
        self._applied: Graph | None = None
        self._desired: Desired | None = None
        self._actual: State | None = None
        self._process: Process | None = None
        self._writes = 0
        self._seen = 0
        # Nobody knows whether an earlier gwctl had brought the files up to date.
        self._saved = -1
        self._behind_since = 0.0
        self._retry_checkpoint = 0.0
        self._refused: dict[FrontendKey, str] = {}
        self._refused_certificates: dict[str, str] = {}
        self._retry_refused = 0.0
        self._retired_first = 0
        self._resting: dict[str, Rest] = {}
        self._reported: frozenset[Problem | Invalid] = frozenset()
        self._stale: Mapping[Ref, tuple[Problem, ...]] = {}
        self._lacking: Mapping[Ref, tuple[Problem, ...]] = {}

    @property
    def has_resources(self) -> bool:
        """Tell whether the source has delivered its complete first state."""
        return self._pipeline is not None

    @property
    def pipeline(self) -> Pipeline | None:
        """What the resources ask for, None before the source has delivered."""
        return self._pipeline

    @property
    def applied(self) -> Graph | None:
        """The graph that HAProxy was last read back to have."""
        return self._applied

    @property
    def refused(self) -> Mapping[ListenerKey, str]:
        """The listeners that HAProxy did not take, and what it said."""
        return dict(self._refused_listeners())

    @property
    def stale(self) -> Mapping[Ref, tuple[Problem, ...]]:
        """What is wrong with the resources that stand as they were before, because what they are now cannot be read."""
        return self._stale

    @property
    def lacking(self) -> Mapping[Ref, tuple[Problem, ...]]:
        """What is left out of the resources that have fields which nobody knows, but of those that are stale."""
        return self._lacking

    def update(self, changes: Mapping[Ref, Resource | None]) -> None:
        """Take changes of resources in. Nothing is written before `apply`."""
        before = self._pipeline
        self._pipeline = advance(before, changes, self._controller_name, self._service_namespace)
        if before is not None and self._refused:
            old, new = before.routing.frontends, self._pipeline.routing.frontends
            self._refused = {
                key: message
                for key, message in self._refused.items()
                if key in new and _bind(old[key]) == _bind(new[key])
            }

    async def apply(self) -> None:
        """Bring HAProxy to the desired state and read back what was written.

        A listener is to blame only where HAProxy fails to load it, or the API refuses the configuration twice.
        """
        assert self._pipeline is not None
        started = time.perf_counter()
        self._end_rests()
        try:
            try:
                await self._converge()
            except ConfigurationRefused:
                await self._converge()
        except (ReloadFailed, ConfigurationRefused) as error:
            await self._find_refused(error)
        self._applied = self._pipeline.graph
        self._metrics.apply_duration.observe(time.perf_counter() - started)

    async def _converge(self) -> None:
        if self._actual is None:
            await self._read()
        rounds = 0
        while rounds < _ROUNDS:
            plan = self._plan()
            if not plan:
                return
            try:
                await self._execute(plan)
                rounds += 1
            except CertificateRefused as error:
                # Each certificate is refused once only, so this ends.
                self._refused_certificates[error.certificate] = error.reason
                self._retry_refused = time.monotonic() + _REFUSED_SECONDS
                await self._read()
        raise NotConverging(f"after {_ROUNDS} plans HAProxy still differs from the desired state")

    async def _find_refused(self, error: ReloadFailed | ConfigurationRefused) -> None:
        """HAProxy did not take new listeners, as when a port is taken: find which, and serve all the others.

        One that HAProxy serves already stays as it was before.
        """
        self._retry_refused = time.monotonic() + _REFUSED_SECONDS
        assert self._pipeline is not None
        sections = (await self._read()).sections
        suspects: dict[FrontendKey, Frontend] = {}
        for key, frontend in self._pipeline.routing.frontends.items():
            wanted = () if key in self._refused or frontend.slot else frontend_sections(frontend, self._layout)
            if any(sections.get(name) != section for name, section in wanted):
                suspects[key] = frontend
        if not suspects:
            raise error
        self._refused |= dict.fromkeys(suspects, _last_line(str(error)))
        await self._converge()
        for key in sorted(suspects) if len(suspects) > 1 else ():
            message = self._refused.pop(key)
            try:
                await self._converge()
            except (ReloadFailed, ConfigurationRefused) as again:
                self._refused[key] = _last_line(str(again)) or message
                self._actual = None
        await self._converge()
        self._retry_refused = time.monotonic() + _REFUSED_SECONDS

    @property
    def _layout(self) -> Layout:
        assert self._executor is not None
        return self._executor.layout

    def forget(self) -> None:
        """Forget what HAProxy was last seen to have, so that the next `apply` reads it again."""
        self._actual = None

    async def observe(self) -> Observation | None:
        """Read what HAProxy has while work goes on; None while a plan is in flight or nothing was ever written."""
        if self._desired is None or self._actual is None:
            return None
        writes = self._writes
        return Observation(writes, await read_state(self._client), await self._client.count(LOST_COPIES))

    async def repair(self, observation: Observation) -> bool:
        """Mend what an observation shows to differ from what was written.

        Gives False when the observation is worth nothing because something was written meanwhile.
        """
        self._metrics.set_mirror_losses(observation.lost_copies)
        if observation.writes != self._writes or self._actual is None:
            return False
        if await self.tend():
            return True
        self._actual = observation.state
        drift = self._plan()
        if drift:
            log.warning("HAProxy differs from what was written, repairing", extra={"plan": _summary(drift)})
            for operation in drift.operations:
                self._metrics.drift_repaired.labels(kind=type(operation).__name__).inc()
            if drift.transaction is not None:
                self._metrics.drift_repaired.labels(kind="Section").inc()
            await self.apply()
        await self.tend()
        return True

    async def tend(self) -> bool:
        """Do what is due by now, however busy it is; tell whether anything was.

        What HAProxy has refused is tried again, Services that have rested go, and servers that have retired.
        """
        if self._desired is None or self._actual is None or self._executor is None:
            return False
        if (self._refused or self._refused_certificates) and time.monotonic() > self._retry_refused:
            self._refused, self._refused_certificates = {}, {}
            await self.apply()
            return True
        if self._end_rests():
            await self.apply()
            return True
        if not await self._delete_retired():
            return False
        if self._plan():
            # What only they needed, authorities and certificates, can go as well.
            await self.apply()
        return True

    async def checkpoint(self, is_interrupted: Callable[[], bool]) -> None:
        """Bring HAProxy's files up to what it serves, once nothing was written since the call before, or in due time.

        A HAProxy that starts anew then comes up complete. Failing is no harm: the next call tries again.
        """
        is_quiet, self._seen = self._seen == self._writes, self._writes
        now = time.monotonic()
        if self._saved == self._writes or now < self._retry_checkpoint:
            return
        self._behind_since = self._behind_since or now
        behind = now - self._behind_since
        if not is_quiet and behind < _CHECKPOINT_SECONDS:
            return
        if self._desired is None or self._actual is None or self._executor is None:
            return
        if behind >= _URGENT_CHECKPOINT_SECONDS:
            is_interrupted = _never
        try:
            if await self._executor.checkpoint(self._desired.state, is_interrupted):
                self._saved = self._writes
                self._behind_since = 0.0
                self._metrics.checkpoints.inc()
        except DataPlaneError as error:
            log.warning("cannot bring HAProxy's files up to date", extra={"error": str(error)})
            self._retry_checkpoint = time.monotonic() + _RETRY_CHECKPOINT_SECONDS

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
        graph = self._pipeline.graph
        refusals = (listener_not_programmed(key, message) for key, message in self._refused_listeners())
        warnings = (
            *check_validity(graph, time.time()),
            *self._refused_secrets(),
            *self._refused_policies(),
            *self._refused_validations(),
        )
        current: frozenset[Problem | Invalid] = frozenset(
            (*invalid, *not_told(graph.problems, invalid), *refusals, *warnings)
        )
        for problem in sorted(current - self._reported, key=str):
            log.warning("resource problem", extra=_describe(problem))
        for problem in sorted(self._reported - current, key=str):
            log.info("resource problem solved", extra=_describe(problem))
        self._reported = current
        self._stale = _find_stale(invalid, self._pipeline.snapshot)
        self._lacking = _find_lacking(invalid, self._pipeline.snapshot, self._stale)
        self._metrics.set_resources(resource.kind for resource in self._pipeline.snapshot.resources())
        conditions = ["Invalid" if isinstance(problem, Invalid) else problem.condition for problem in current]
        self._metrics.set_problems(conditions)
        self._metrics.set_certificates({str(ref): item.not_after for ref, item in served_secrets(graph).items()})
        services = self._desired.state.tables[Table.SERVICES]
        self._metrics.set_service_slots(services)
        self._metrics.set_listener_slots(
            (f"{key.namespace}/{key.gateway}", str(key.port), listener_slot_name(key.slot))
            for key in self._pipeline.routing.frontends
            if key.slot
        )
        used = [slot_mode(slot) for slot in services.values()]
        for mode, size in self._desired.sizes.items():
            self._metrics.set_pool(mode, used.count(mode), size)

    def _refused_listeners(self) -> Iterator[tuple[ListenerKey, str]]:
        """Yield every listener that HAProxy did not take, and what it said."""
        assert self._pipeline is not None
        for key, message in self._refused.items():
            for listener in self._pipeline.routing.frontends[key].listeners:
                yield listener.key, message
        for name, certificates in self._pipeline.graph.certificates.items():
            messages = [self._refused_certificates.get(certificate_name(item.identity)) for item in certificates]
            if messages and all(message is not None for message in messages):
                yield name, f"{certificates[0].secret}: {messages[0]}"

    def _refused_secrets(self) -> Iterator[Problem]:
        """Yield a problem for each Secret whose certificate HAProxy did not take."""
        assert self._pipeline is not None
        for ref, certificate in served_secrets(self._pipeline.graph).items():
            message = self._refused_certificates.get(certificate_name(certificate.identity))
            if message is not None:
                yield certificate_refused(ref, message)

    def _refused_policies(self) -> Iterator[Problem]:
        """Yield a problem for each policy whose authorities HAProxy did not take."""
        assert self._pipeline is not None
        for policy in self._pipeline.graph.policies.values() if self._refused_certificates else ():
            if policy.tls is None:
                continue
            trusted = policy.tls.authorities
            name = authorities_name(trusted.identity) if trusted is not None else SYSTEM_AUTHORITIES
            if name in self._refused_certificates:
                field = "spec.validation.caCertificateRefs"
                yield authorities_refused(policy.ref, field, self._refused_certificates[name])

    def _refused_validations(self) -> Iterator[Problem]:
        """Yield a problem for each Gateway whose clients' authorities HAProxy did not take."""
        assert self._pipeline is not None
        trusted = self._pipeline.graph.client_authorities if self._refused_certificates else {}
        refused = {
            Ref("Gateway", key.namespace, key.gateway): self._refused_certificates[name]
            for key, item in trusted.items()
            if (name := authorities_name(item.identity)) in self._refused_certificates
        }
        for ref, message in refused.items():
            yield authorities_refused(ref, FRONTEND, message)

    def _plan(self) -> Plan:
        assert self._pipeline is not None and self._actual is not None and self._executor is not None
        routing = self._pipeline.routing
        kept = self._serving_on()
        if self._refused:
            served = {
                key: frontend for key, frontend in routing.frontends.items() if key not in self._refused or key in kept
            }
            routing = replace(routing, frontends=served)
        desired = build_state(
            routing,
            self._pipeline.tables,
            self._actual,
            self._layout,
            self._pools,
            self._desired,
            frozenset(self._refused_certificates),
            self._rest(),
        )
        if kept:
            sections = dict(desired.state.sections)
            for there in kept.values():
                sections.update(there)
            desired = replace(desired, state=replace(desired.state, sections=sections))
        self._desired = desired
        return diff(desired.state, self._actual)

    def _serving_on(self) -> dict[FrontendKey, dict[SectionKey, Section]]:
        """Give the refused listeners that HAProxy serves as they were before, with the sections it has of them."""
        assert self._pipeline is not None and self._actual is not None
        found: dict[FrontendKey, dict[SectionKey, Section]] = {}
        for key in self._refused:
            wanted = dict(frontend_sections(self._pipeline.routing.frontends[key], self._layout))
            there = {name: self._actual.sections[name] for name in wanted.keys() & self._actual.sections.keys()}
            if len(there) == len(wanted) and all(stands_in(there[name], wanted[name]) for name in wanted):
                found[key] = there
        return found

    def _rest(self) -> Mapping[str, Resting]:
        """Give the slots that Services have left of late, by key."""
        assert self._pipeline is not None and self._actual is not None
        held, wanted = self._actual.tables.get(Table.SERVICES, {}), self._pipeline.tables.services
        before = self._desired.tables.services if self._desired is not None else {}
        until = time.monotonic() + _REST_SECONDS
        for key in held.keys() - wanted.keys():
            if key in before or key not in self._resting:
                self._resting[key] = Rest(held[key], until, before.get(key))
        return {key: self._resting_now(rest) for key, rest in self._resting.items()}

    def _resting_now(self, rest: Rest) -> Resting:
        """Leave out Services that are others now, and those that are shown what no Gateway shows any more."""
        assert self._pipeline is not None
        graph, upstream = self._pipeline.graph, rest.upstream
        if upstream is None or upstream.client not in (None, *graph.client_certificates.values()):
            return Resting(rest.slot)
        found = resolve_left(graph, upstream.service)
        return Resting(rest.slot) if found is None else Resting(rest.slot, upstream, found)

    def _end_rests(self) -> bool:
        """Give up the Services that nobody waits for any more; tell whether there were any."""
        now = time.monotonic()
        ended = {key: rest for key, rest in self._resting.items() if rest.until <= now}
        for key, rest in ended.items():
            del self._resting[key]
            if rest.upstream is not None:
                self._resting[key] = Rest(rest.slot, now + _REST_SECONDS, None)
        return any(rest.upstream is not None for rest in ended.values())

    async def _read(self) -> State:
        layout = replace(await read_layout(self._client), listening=self._listening)
        if self._executor is None or self._executor.layout != layout:
            self._executor, self._desired = Executor(self._client, layout), None
        self._process = await self._client.process()
        self._actual = await read_state(self._client)
        return self._actual

    async def _execute(self, plan: Plan) -> None:
        assert self._desired is not None and self._actual is not None and self._executor is not None
        actual, self._actual = self._actual, None
        self._writes += 1
        if log.isEnabledFor(logging.DEBUG):
            log.debug("applying plan", extra={"plan": str(plan)})
        mismatches = await self._executor.apply_operations(plan.operations, actual)
        for operation in plan.operations:
            self._metrics.plan_operations.labels(operation=type(operation).__name__, table=_table(operation)).inc()
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

    async def _delete_retired(self) -> bool:
        """Delete servers that have no connections left, some at a time; tell whether there were any."""
        assert self._desired is not None and self._actual is not None and self._executor is not None
        retired = list(retired_servers(self._desired.state, self._actual))
        first = self._retired_first if self._retired_first < len(retired) else 0
        self._retired_first = first + _RETIRED_AT_ONCE
        gone = await self._executor.delete_retired(retired[first : first + _RETIRED_AT_ONCE])
        if gone:
            self._writes += 1
            servers = {slot: dict(there) for slot, there in self._actual.servers.items()}
            for slot, name in gone:
                del servers[slot][name]
            actual = self._actual
            self._actual = replace(actual, servers=servers)
        return bool(gone)


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
    after = replace(desired, servers=servers, changes={})
    if not leaves_tls(desired, after):
        return after
    return replace(
        after,
        certificates=desired.certificates | actual.certificates,
        authorities=desired.authorities | actual.authorities,
    )


def _bind(frontend: Frontend) -> tuple[object, ...]:
    """What HAProxy may refuse of a frontend."""
    return (frontend.mode, frontend.addresses, frontend.port)


def _table(operation: Operation) -> str:
    match operation:
        case SetRow(table) | RemoveRow(table):
            return table
        case SetServer() | RemoveServer():
            return "servers"
        case _:
            return "certificates"


def _summary(plan: Plan) -> str:
    lines = str(plan).splitlines()
    return "; ".join(lines[:10]) + (f"; … {len(lines) - 10} more" if len(lines) > 10 else "")


def _never() -> bool:
    return False


def _find_stale(invalid: Iterable[Invalid], snapshot: Snapshot) -> Mapping[Ref, tuple[Problem, ...]]:
    found: dict[Ref, tuple[Problem, ...]] = {}
    for item in invalid:
        known = snapshot.get(item.subject)
        if item.reason == INVALID and known is not None and not is_unreadable(known):
            problem = fall_back(item.subject, item.field, item.message)
            found[item.subject] = (*found.get(item.subject, ()), problem)
    return found


def _find_lacking(
    invalid: Iterable[Invalid], snapshot: Snapshot, stale: Container[Ref]
) -> Mapping[Ref, tuple[Problem, ...]]:
    found: dict[Ref, tuple[Problem, ...]] = {}
    for item in invalid:
        is_ours = item.reason == UNKNOWN_FIELD and item.field.startswith("spec.")
        if is_ours and item.subject not in stale and not is_unreadable(snapshot.get(item.subject)):
            found[item.subject] = (*found.get(item.subject, ()), unknown_field(item.subject, item.field))
    return found


def _describe(problem: Problem | Invalid) -> dict[str, str]:
    fields = {"object": str(problem.subject), "field": problem.field, "problem": problem.message}
    if isinstance(problem, Problem):
        fields |= {"condition": problem.condition, "reason": problem.reason}
    return fields


def _last_line(text: str) -> str:
    """Give the line in which HAProxy says what it did not like, which is the last that says anything."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    alerts = [line for line in lines if "[ALERT]" in line]
    return (alerts or lines or [""])[0][:300]
