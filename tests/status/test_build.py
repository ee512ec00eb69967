"""Statuses upon previous ones: equal to those computed anew, and no more work than what changed."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gwctl.api.parse import Resource
from gwctl.api.ref import Ref
from gwctl.graph.build import build_graph
from gwctl.graph.node import Graph, ListenerKey
from gwctl.snapshot import Snapshot
from gwctl.status.build import build_statuses
from gwctl.status.outcome import GatewayAddresses, Outcome
from gwctl.status.status import Statuses
from tests.graph.manifests import CONTROLLER, GATEWAY, graph_of, read_all
from tests.graph.test_build import BASE, BATCHES
from tests.status.resources import ADDRESSES, GATEWAY_REF, ROUTE_REF, gateway, served
from tests.status.test_route import route

SERVICE = "{kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}\n---\n"
WORLD = GATEWAY + route(meta="name: r") + route(meta="name: q") + SERVICE


class World:
    """A graph that changes step by step, and the statuses that follow it."""

    def __init__(self, text: str) -> None:
        self.snapshot = Snapshot.of(read_all(text))
        self.graph = build_graph(self.snapshot, CONTROLLER)
        self.statuses = build_statuses(served(self.graph))

    def change(self, text: str, *gone: Ref) -> Statuses:
        changes: dict[Ref, Resource | None] = {item.ref: item for item in read_all(text)}
        changes |= dict.fromkeys(gone)
        self.snapshot = self.snapshot.apply(changes)
        self.graph = build_graph(self.snapshot, CONTROLLER, self.graph, frozenset(changes))
        return self.follow(served(self.graph))

    def follow(self, outcome: Outcome) -> Statuses:
        before, self.statuses = self.statuses, build_statuses(outcome, self.statuses)
        anew = build_statuses(outcome)
        assert dict(self.statuses.by_ref) == dict(anew.by_ref)
        refs = {*before.by_ref, *anew.by_ref}
        assert self.statuses.changed == {ref for ref in refs if before.by_ref.get(ref) != anew.by_ref.get(ref)}
        same = anew.by_ref.keys() - self.statuses.changed
        assert all(self.statuses.by_ref[ref] is before.by_ref[ref] for ref in same)
        return self.statuses


def test_all_are_new_at_first() -> None:
    world = World(WORLD)
    assert world.statuses.changed == set(world.statuses.by_ref)


def test_nothing_changes_when_nothing_changed() -> None:
    world = World(WORLD)
    assert world.follow(served(world.graph)).changed == frozenset()


def test_a_route_that_changes_changes_nothing_else() -> None:
    world = World(WORLD)
    assert world.change(route(meta="name: q, generation: 2")).changed == {Ref("HTTPRoute", "default", "q")}


def test_a_route_that_comes_or_goes_is_counted() -> None:
    world = World(WORLD)
    new = Ref("HTTPRoute", "default", "new")
    assert world.change(route(meta="name: new")).changed == {new, GATEWAY_REF}
    assert world.change("", new).changed == {new, GATEWAY_REF}
    assert new not in world.statuses.by_ref


def test_a_route_that_turns_to_others_is_no_longer_there() -> None:
    world = World(WORLD)
    assert world.change(route("[]")).changed == {ROUTE_REF, GATEWAY_REF}
    assert ROUTE_REF not in world.statuses.by_ref


def test_a_gateway_that_goes_takes_the_entries_of_its_routes_away() -> None:
    world = World(WORLD)
    statuses = world.change("", GATEWAY_REF)
    assert GATEWAY_REF not in statuses.by_ref
    assert statuses.by_ref[ROUTE_REF].parents == ()


def test_a_gateway_of_another_class_takes_the_entries_of_its_routes_away() -> None:
    text = gateway("[{name: http, port: 80, protocol: HTTP}, {name: a, port: 81, protocol: HTTP}]") + SERVICE
    other = "{kind: Gateway, metadata: {name: other}, spec: {gatewayClassName: gwctl, listeners: ["
    unsupported = ", rules: [{matches: [{headers: [{name: x, type: RegularExpression, value: '['}]}]}]"
    listeners = "{name: http, port: 82, protocol: HTTP}]}}\n---\n"
    world = World(text + other + listeners + route("[{name: gw}, {name: other}]", unsupported))
    assert len(world.statuses.by_ref[ROUTE_REF].parents or ()) == 2
    theirs = "{kind: Gateway, metadata: {name: other}, spec: {gatewayClassName: none, listeners: ["
    world.change(theirs + listeners)
    assert [parent.ref.name for parent in world.statuses.by_ref[ROUTE_REF].parents or ()] == ["gw"]


def test_what_becomes_of_a_gateway_changes_it_alone() -> None:
    world = World(WORLD)
    outcome = served(world.graph)
    for other in (
        replace(outcome, applied=None),
        outcome,
        replace(outcome, refused={ListenerKey("default", "gw", "http"): "no"}),
        replace(outcome, refused={ListenerKey("default", "gw", "http"): "never"}),
        replace(outcome, addresses={GATEWAY_REF: GatewayAddresses()}),
    ):
        assert world.follow(other).changed == {GATEWAY_REF}


OUTCOMES = st.sampled_from(["served", "late", "nothing", "refused", "waiting"])


def outcome_of(word: str, graph: Graph, before: Graph | None) -> Outcome:
    whole = served(graph)
    refused = {key: f"no {key.listener}" for key in list(graph.listeners)[:1]}
    return {
        "served": whole,
        "late": replace(whole, applied=before),
        "nothing": Outcome(graph),
        "refused": replace(whole, refused=refused),
        "waiting": replace(whole, addresses=dict.fromkeys(graph.gateways, replace(ADDRESSES, reason="Pending"))),
    }[word]


@settings(max_examples=50, deadline=None)
@given(BATCHES, st.lists(OUTCOMES, min_size=8, max_size=8))
def test_statuses_upon_previous_ones_equal_those_computed_anew(
    batches: list[list[tuple[Resource, bool]]], outcomes: list[str]
) -> None:
    snapshot = Snapshot.of(BASE)
    graph = build_graph(snapshot, CONTROLLER)
    statuses = build_statuses(Outcome(graph))
    for batch, word in zip(batches, outcomes, strict=False):
        changes = {resource.ref: None if gone else resource for resource, gone in batch}
        snapshot = snapshot.apply(changes)
        before, graph = graph, build_graph(snapshot, CONTROLLER, graph, frozenset(changes))
        outcome = outcome_of(word, graph, before)
        statuses = build_statuses(outcome, statuses)
        assert dict(statuses.by_ref) == dict(build_statuses(outcome).by_ref)


def test_graphs_that_were_left_out_do_no_harm() -> None:
    first, third = graph_of(WORLD), graph_of(WORLD + route(meta="name: z"))
    statuses = build_statuses(served(third), build_statuses(served(first)))
    assert dict(statuses.by_ref) == dict(build_statuses(served(third)).by_ref)
