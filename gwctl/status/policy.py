"""BackendTLSPolicies: what each Gateway of ours that has routes to a policy's Services makes of it.

In: an Outcome. Out: the statuses that may have changed. The surprising fact: a policy whose Services none of our
Gateways uses gets no entry, whatever is wrong with it, because an entry names a Gateway.
"""

from __future__ import annotations

from collections.abc import Iterator

from gwctl.api.backendtlspolicy import ANCESTORS_LIMIT
from gwctl.api.ref import Ref
from gwctl.api.wire import ParentReference
from gwctl.graph.node import PolicyNode, Problem
from gwctl.status.condition import judge, other, select, with_notes
from gwctl.status.outcome import Outcome
from gwctl.status.status import ParentStatus, Status


def build_policies(outcome: Outcome, before: Outcome | None) -> Iterator[tuple[Ref, Status | None]]:
    """The status of every policy that may have changed; None for one that is no longer ours."""
    nodes, old = outcome.graph.policies, before.graph.policies if before is not None else {}
    stale = {ref for ref, _ in outcome.stale.items() ^ before.stale.items()} if before is not None else set()
    if nodes is old and stale.isdisjoint(nodes):
        return
    for ref in old.keys() - nodes.keys():
        yield ref, None
    for ref, node in nodes.items():
        if old.get(ref) is not node or ref in stale:
            yield ref, _build_policy(node, outcome)


def _build_policy(node: PolicyNode, outcome: Outcome) -> Status:
    notes = [*outcome.stale_problems(node.ref), *other(node.problems, ("Accepted", "ResolvedRefs"))]
    message = with_notes("the policy is accepted", notes)
    conditions = (
        judge("Accepted", sorted(select(node.problems, "Accepted"), key=_comes_later), message),
        judge("ResolvedRefs", select(node.problems, "ResolvedRefs"), "all references are resolved"),
    )
    ancestors = tuple(
        ParentStatus(ParentReference(namespace=gateway.namespace, name=gateway.name), conditions)
        for gateway in node.ancestors[:ANCESTORS_LIMIT]
    )
    metadata = node.resource.metadata
    generation = outcome.generation(node.ref, metadata.generation)
    return Status(metadata.uid, generation, ancestors=ancestors)


def _comes_later(problem: Problem) -> bool:
    """Whatever else is wrong, a policy that has lost a target says that first (BackendTLSPolicySpec.targetRefs)."""
    return problem.reason != "Conflicted"
