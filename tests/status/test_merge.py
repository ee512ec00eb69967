"""What is written: ours as desired, what is others' as it was, and nothing when nothing would change."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gwctl.api.wire import ParentReference
from gwctl.status.condition import TYPES, Condition
from gwctl.status.merge import has_own_entries, merge_status, release
from gwctl.status.status import ListenerStatus, ParentStatus, Status

CONTROLLER = "example.com/gwctl"
NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"
ACCEPTED = Condition("Accepted", "True", "Accepted", "fine")
REFUSED = Condition("Accepted", "False", "NotAllowedByListeners", "no")
RESOLVED = Condition("ResolvedRefs", "True", "ResolvedRefs", "fine")
PARTIAL = Condition("PartiallyInvalid", "True", "UnsupportedValue", "Dropped Rule: 1")

Json = dict[str, Any]


def merge(desired: Status, live: Json | None, now: str = NOW) -> Json | None:
    before = copy.deepcopy(live)
    new = merge_status(desired, live, namespace="default", controller_name=CONTROLLER, now=now)
    assert live == before
    return new


def merged(desired: Status, live: Json | None, now: str = NOW) -> Json:
    """The status after a write, which must happen; the same again would write nothing."""
    new = merge(desired, live, now)
    assert new is not None
    assert merge(desired, new, LATER) is None
    return new


def parent(name: str, *conditions: Condition, **more: Any) -> ParentStatus:
    return ParentStatus(ParentReference(name=name, **more), conditions or (ACCEPTED, RESOLVED))


def route(*parents: ParentStatus, generation: int = 1) -> Status:
    return Status("u", generation, parents=parents)


def live_condition(kind: str = "Accepted", status: str = "True", **more: Any) -> Json:
    return {
        "type": kind,
        "status": status,
        "observedGeneration": 1,
        "lastTransitionTime": "2020-01-01T00:00:00Z",
        "reason": kind,
        "message": "fine",
        **more,
    }


def entry(name: str, controller: str = CONTROLLER, conditions: list[Json] | None = None, **more: Any) -> Json:
    ref = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name, **more}
    found = [live_condition(), live_condition("ResolvedRefs")] if conditions is None else conditions
    return {"parentRef": ref, "controllerName": controller, "conditions": found}


DEFAULTS = [
    live_condition(kind, "Unknown", reason="Pending", message="Waiting for controller", observedGeneration=0)
    for kind in ("Accepted", "Programmed")
]


def test_the_first_status_of_a_route() -> None:
    assert merged(route(parent("gw", sectionName="http")), {}) == {
        "parents": [
            {
                "parentRef": {
                    "group": "gateway.networking.k8s.io",
                    "kind": "Gateway",
                    "name": "gw",
                    "sectionName": "http",
                },
                "controllerName": CONTROLLER,
                "conditions": [
                    {
                        "type": "Accepted",
                        "status": "True",
                        "observedGeneration": 1,
                        "lastTransitionTime": NOW,
                        "reason": "Accepted",
                        "message": "fine",
                    },
                    {
                        "type": "ResolvedRefs",
                        "status": "True",
                        "observedGeneration": 1,
                        "lastTransitionTime": NOW,
                        "reason": "ResolvedRefs",
                        "message": "fine",
                    },
                ],
            }
        ]
    }


def test_a_status_that_says_it_all_is_not_written() -> None:
    assert merge(route(parent("gw")), {"parents": [entry("gw")]}) is None
    assert merge(route(parent("gw")), {"parents": [entry("gw", namespace="default")]}) is not None


@pytest.mark.parametrize("live", [None, {}, {"parents": []}])
def test_no_entry_that_is_wanted_and_none_that_is_there(live: Json | None) -> None:
    assert merge(route(), live) is None


def test_only_a_status_that_moves_moves_the_time() -> None:
    live = {"parents": [entry("gw", conditions=[live_condition(message="old")])]}
    (condition,) = merged(route(parent("gw", ACCEPTED)), live)["parents"][0]["conditions"]
    assert (condition["message"], condition["lastTransitionTime"]) == ("fine", "2020-01-01T00:00:00Z")
    (condition,) = merged(route(parent("gw", REFUSED)), live)["parents"][0]["conditions"]
    assert (condition["reason"], condition["lastTransitionTime"]) == ("NotAllowedByListeners", NOW)


def test_a_new_generation_is_told_and_moves_no_time() -> None:
    new = merged(route(parent("gw"), generation=2), {"parents": [entry("gw")]})
    assert [(item["observedGeneration"], item["lastTransitionTime"]) for item in new["parents"][0]["conditions"]] == [
        (2, "2020-01-01T00:00:00Z")
    ] * 2


def test_what_is_about_a_newer_generation_stays() -> None:
    newer = [live_condition(status="False", observedGeneration=5), live_condition("ResolvedRefs", observedGeneration=5)]
    live = {"parents": [entry("gw", conditions=newer)]}
    assert merge(route(parent("gw"), generation=4), live) is None
    assert merge(route(generation=4), live) is None
    assert merge(route(generation=5), live) == {"parents": []}


def test_a_parent_that_is_removed_goes() -> None:
    live = {"parents": [entry("gone"), entry("gw")]}
    assert merged(route(parent("gw")), live) == {"parents": [entry("gw")]}


def test_entries_of_others_stay_where_they_are() -> None:
    others = [entry("gw", "example.com/other"), {"strange": 1}, entry("gone", "example.com/other")]
    live = {"parents": [others[0], entry("gone"), others[1], entry("gw"), others[2]], "other": {"a": 1}}
    new = merged(route(parent("new"), parent("gw")), live)
    assert new["parents"][:-1] == [others[0], others[1], entry("gw"), others[2]]
    assert new["parents"][-1]["parentRef"]["name"] == "new"
    assert new["other"] == {"a": 1}


def test_conditions_of_others_stay_where_they_are() -> None:
    theirs = live_condition("example.com/Checked", "Unknown", observedGeneration=0, more=1)
    live = {"conditions": [theirs, *DEFAULTS]}
    new = merged(Status("u", 1, conditions=(REFUSED,)), live)
    assert new["conditions"][0] == theirs
    assert [item["type"] for item in new["conditions"]] == ["example.com/Checked", "Accepted"]


def test_conditions_of_others_in_our_entry_stay() -> None:
    theirs = live_condition("example.com/Checked", more=1)
    live = {"parents": [entry("gw", conditions=[theirs])]}
    new = merged(route(parent("gw")), live)
    assert [item["type"] for item in new["parents"][0]["conditions"]] == [
        "example.com/Checked",
        "Accepted",
        "ResolvedRefs",
    ]


def test_a_condition_of_ours_that_no_longer_holds_goes() -> None:
    first = merged(route(parent("gw", ACCEPTED, RESOLVED, PARTIAL)), {})
    new = merged(route(parent("gw")), first, LATER)
    assert [item["type"] for item in new["parents"][0]["conditions"]] == ["Accepted", "ResolvedRefs"]


def test_the_same_parent_spelled_differently_is_the_same() -> None:
    live = {"parents": [{**entry("gw"), "parentRef": {"name": "gw", "namespace": "default"}}]}
    assert merged(route(parent("gw")), live)["parents"] == [entry("gw")]
    twice = {"parents": [entry("gw"), entry("gw", namespace="default")]}
    assert merged(route(parent("gw")), twice)["parents"] == [entry("gw")]


def test_parents_that_a_route_names_twice_have_one_entry() -> None:
    new = merged(route(parent("gw"), parent("gw", REFUSED, namespace="default")), {})
    assert [item["conditions"][0]["status"] for item in new["parents"]] == ["True"]


def test_sections_and_ports_are_different_parents() -> None:
    desired = route(parent("gw"), parent("gw", sectionName="a"), parent("gw", port=80), parent("gw", namespace="n"))
    assert len(merged(desired, {})["parents"]) == 4


@pytest.mark.parametrize(("field", "limit"), [("parents", 32), ("ancestors", 16)])
def test_a_full_list_takes_no_more(field: str, limit: int) -> None:
    name = {"parents": "parentRef", "ancestors": "ancestorRef"}[field]
    others = [{name: {"name": f"o{index}"}, "controllerName": "example.com/other"} for index in range(limit - 1)]
    both = (parent("a"), parent("b"))
    desired = Status("u", 1, parents=both) if field == "parents" else Status("u", 1, ancestors=both)
    new = merged(desired, {field: others})
    assert new[field][:-1] == others
    assert new[field][-1][name]["name"] == "a"
    assert merge(desired, {field: [*others, others[0]]}) is None


def test_which_entries_there_is_place_for_does_not_depend_on_which_came_first() -> None:
    others = [{"ancestorRef": {"name": f"o{index}"}, "controllerName": "example.com/other"} for index in range(15)]
    alone = merged(Status("u", 1, ancestors=(parent("younger"),)), {"ancestors": others})
    assert [item["ancestorRef"]["name"] for item in alone["ancestors"][15:]] == ["younger"]
    both = merged(Status("u", 1, ancestors=(parent("older"), parent("younger"))), alone)
    assert [item["ancestorRef"]["name"] for item in both["ancestors"][15:]] == ["older"]


def test_conditions_are_bounded_too() -> None:
    theirs = [live_condition(f"example.com/C{index}") for index in range(7)]
    new = merged(Status("u", 1, conditions=(ACCEPTED, RESOLVED)), {"conditions": theirs})
    assert [item["type"] for item in new["conditions"][7:]] == ["Accepted"]


HTTP = ListenerStatus("http", ("HTTPRoute",), 1, (ACCEPTED, RESOLVED))
GATEWAY = Status("u", 1, conditions=(ACCEPTED,), addresses=(("IPAddress", "192.0.2.1"),), listeners=(HTTP,))


def test_the_first_status_of_a_gateway() -> None:
    new = merged(GATEWAY, {"conditions": DEFAULTS})
    assert [(item["type"], item["status"], item["lastTransitionTime"]) for item in new["conditions"]] == [
        ("Accepted", "True", NOW)
    ]
    assert new["addresses"] == [{"type": "IPAddress", "value": "192.0.2.1"}]
    (listener,) = new["listeners"]
    assert [item["type"] for item in listener.pop("conditions")] == ["Accepted", "ResolvedRefs"]
    assert listener == {
        "name": "http",
        "supportedKinds": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}],
        "attachedRoutes": 1,
    }


def test_listeners_that_come_and_go() -> None:
    first = merged(replace(GATEWAY, listeners=(HTTP, replace(HTTP, name="old"))), {})
    new = merged(replace(GATEWAY, listeners=(replace(HTTP, name="new"), HTTP)), first, LATER)
    assert [item["name"] for item in new["listeners"]] == ["http", "new"]
    assert new["listeners"][0] == first["listeners"][0]


def test_order_where_it_does_not_matter_changes_nothing() -> None:
    two = replace(
        GATEWAY,
        addresses=(("IPAddress", "192.0.2.1"), ("IPAddress", "192.0.2.2")),
        listeners=(replace(HTTP, supported_kinds=("HTTPRoute", "GRPCRoute")), replace(HTTP, name="b")),
    )
    live = merged(two, {})
    live["addresses"].reverse()
    live["listeners"].reverse()
    live["listeners"][1]["supportedKinds"].reverse()
    live["listeners"][1]["conditions"].reverse()
    assert merge(two, live) is None


def test_an_address_that_is_gone() -> None:
    live = merged(GATEWAY, {})
    assert merged(replace(GATEWAY, addresses=()), live)["addresses"] == []
    assert merge(replace(GATEWAY, addresses=()), {key: live[key] for key in live if key != "addresses"}) is None


def test_what_a_kind_does_not_have_is_left_alone() -> None:
    live = {**merged(GATEWAY, {}), "attachedListenerSets": 3}
    assert merge(GATEWAY, live) is None
    assert merged(replace(GATEWAY, attached_listener_sets=0), live)["attachedListenerSets"] == 0


def test_features_are_written_in_their_order() -> None:
    desired = Status("u", 1, supported_features=("A", "B"))
    assert merged(desired, {"supportedFeatures": [{"name": "B"}, {"name": "A"}]})["supportedFeatures"] == [
        {"name": "A"},
        {"name": "B"},
    ]


def test_an_object_that_is_no_longer_ours_loses_our_entries() -> None:
    live = {"parents": [entry("gw"), entry("gw", "example.com/other")]}
    assert has_own_entries(live, CONTROLLER)
    new = merged(release(live, "u", 1), live)
    assert new["parents"] == [entry("gw", "example.com/other")]
    assert not has_own_entries(new, CONTROLLER)
    assert merge(release(new, "u", 1), new) is None


@pytest.mark.parametrize("live", [None, {}, {"parents": None}, {"parents": [1, {}]}, {"conditions": [{}]}])
def test_an_object_without_entries_has_none_of_ours(live: Json | None) -> None:
    assert not has_own_entries(live, CONTROLLER)
    assert merge(release(live or {}, "u", 1), live) is None


# Properties

WORDS = st.sampled_from(["a", "b", "c"])
KINDS = st.sampled_from([*sorted(TYPES)[:4], "example.com/Theirs", "Ready"])
CONDITIONS = st.builds(Condition, st.sampled_from(sorted(TYPES)[:4]), st.sampled_from(["True", "False"]), WORDS, WORDS)
UNIQUE = st.lists(CONDITIONS, min_size=1, max_size=3, unique_by=lambda item: item.type).map(tuple)
REFS = st.fixed_dictionaries({"name": WORDS}, optional={"namespace": WORDS, "sectionName": WORDS, "port": st.just(80)})
PARENTS = st.builds(ParentStatus, REFS.map(lambda fields: ParentReference.model_validate(fields)), UNIQUE)
LISTENERS = st.builds(ListenerStatus, WORDS, st.just(("HTTPRoute",)), st.integers(0, 2), UNIQUE)
DESIRED = st.one_of(
    st.builds(
        Status,
        uid=st.just("u"),
        generation=st.integers(1, 3),
        conditions=UNIQUE,
        addresses=st.lists(st.tuples(WORDS, WORDS), max_size=2).map(tuple),
        listeners=st.lists(LISTENERS, max_size=3, unique_by=lambda item: item.name).map(tuple),
        attached_listener_sets=st.sampled_from([None, 0, 1]),
    ),
    st.builds(
        Status,
        uid=st.just("u"),
        generation=st.integers(1, 3),
        parents=st.lists(PARENTS, max_size=4).map(tuple),
    ),
    st.builds(
        Status,
        uid=st.just("u"),
        generation=st.integers(1, 3),
        ancestors=st.lists(PARENTS, max_size=4).map(tuple),
    ),
)
LIVE_CONDITIONS = st.lists(
    st.fixed_dictionaries(
        {
            "type": KINDS,
            "status": st.sampled_from(["True", "False", "Unknown"]),
            "lastTransitionTime": st.just("2020-01-01T00:00:00Z"),
            "reason": WORDS,
            "message": WORDS,
        },
        optional={"observedGeneration": st.integers(0, 4)},
    ),
    max_size=4,
    unique_by=lambda item: item["type"],
)
CONTROLLERS = st.sampled_from([CONTROLLER, "example.com/other"])


def live_entries(name: str) -> st.SearchStrategy[list[Json]]:
    fields = {name: REFS, "controllerName": CONTROLLERS, "conditions": LIVE_CONDITIONS}
    return st.lists(st.fixed_dictionaries(fields), max_size=5)


LIVE = st.fixed_dictionaries(
    {},
    optional={
        "conditions": LIVE_CONDITIONS,
        "listeners": st.lists(
            st.fixed_dictionaries({"name": WORDS, "conditions": LIVE_CONDITIONS}),
            max_size=3,
            unique_by=lambda item: item["name"],
        ),
        "addresses": st.lists(st.fixed_dictionaries({"type": WORDS, "value": WORDS}), max_size=2),
        "parents": live_entries("parentRef"),
        "ancestors": live_entries("ancestorRef"),
        "unknown": st.just({"a": [1]}),
    },
)


def foreign(status: Json) -> Json:
    """All of a status that is none of our business, in its order."""
    return {
        "unknown": status.get("unknown"),
        "conditions": theirs(status),
        "listeners": {item["name"]: theirs(item) for item in status.get("listeners", [])},
        **{
            field: [item for item in status.get(field, []) if item["controllerName"] != CONTROLLER]
            for field in ("parents", "ancestors")
        },
    }


def theirs(holder: Json) -> list[Json]:
    return [item for item in holder.get("conditions", []) if item["type"] not in TYPES]


def times(status: Json) -> dict[tuple[Any, ...], tuple[Any, Any]]:
    """Status and time of every condition of the object itself and of its listeners."""
    holders = [((), status), *(((item["name"],), item) for item in status.get("listeners", []))]
    return {
        (*where, item["type"]): (item["status"], item["lastTransitionTime"])
        for where, holder in holders
        for item in holder.get("conditions", [])
    }


@settings(max_examples=150, deadline=None)
@given(DESIRED, LIVE)
def test_merging(desired: Status, live: Json) -> None:
    new = merge(desired, live)
    if new is None:
        return
    assert new != live
    # Again, and at another time, there is nothing to do.
    assert merge(desired, new, LATER) is None
    # What is others' is as it was; a listener that is gone takes all of its status along.
    before, after = foreign(live), foreign(new)
    assert after["listeners"].items() <= {**{name: [] for name in after["listeners"]}, **before["listeners"]}.items()
    assert {**before, "listeners": None} == {**after, "listeners": None}
    # A time is new only where the status is.
    old = times(live)
    for where, (status, time) in times(new).items():
        known = old.get(where)
        assert time == (known[1] if known is not None and known[0] == status else NOW)


@settings(max_examples=150, deadline=None)
@given(DESIRED, DESIRED, LIVE)
def test_what_was_written_before_leaves_no_trace(first: Status, second: Status, live: Json) -> None:
    second = replace(second, generation=4)
    between = merge(first, live) or live
    fields = [name for name in ("conditions", "listeners", "parents", "ancestors") if getattr(second, name) is not None]
    assert ours(merge(second, between) or between, fields) == ours(merge(second, live) or live, fields)


def ours(status: Json, fields: list[str]) -> list[str]:
    """Our parts of some fields, in any order and without their times."""
    found: list[str] = []
    for field in fields:
        for item in status.get(field, []):
            if item.get("controllerName", CONTROLLER) == CONTROLLER and item.get("type", "Accepted") in TYPES:
                conditions = [entry for entry in item.get("conditions", []) if entry["type"] in TYPES]
                clean = [{**entry, "lastTransitionTime": ""} for entry in conditions]
                clean.sort(key=lambda entry: str(entry["type"]))
                found.append(json.dumps({**item, "conditions": clean, "lastTransitionTime": ""}, sort_keys=True))
    return sorted(found)
