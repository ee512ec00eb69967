"""crt-lists: which certificate is shown to which name, and that every step of a change keeps one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gwctl.haproxy.crtlist import ENTRY_LIMIT, compile_crt_lists
from gwctl.haproxy.desired import Pools, build_state
from gwctl.haproxy.names import (
    authorities_name,
    certificate_name,
    crt_list_name,
    frontend_name,
    is_certificate,
    is_crt_list,
)
from gwctl.haproxy.plan import AddCertificate, AddEntry, Plan, RemoveCertificate, RemoveEntry, diff
from gwctl.haproxy.program import Layout, crt_list_text, needs_certificates
from gwctl.haproxy.state import CrtEntry, CrtList, State
from gwctl.routing.virtualhost import FrontendKey
from gwctl.runtime.pipeline import Pipeline
from tests.certificates import Pair, make_authority, make_pair
from tests.manifests import (
    Manifest,
    backend,
    config_map,
    gateway,
    gateway_class,
    http_route,
    https_listener,
    prefix_rule,
    service,
    validation,
)
from tests.pipeline import LAYOUT, NOTHING, build_pipeline, desired_state

PORT = 443
LISTENERS = ("", "*.a.test", "x.a.test", "*.test", "b.test")
NAMES = ("a.test", "x.a.test", "y.a.test", "z.y.a.test", "b.test", "c.test", "other.org")
SANS = (("*.a.test",), ("x.a.test", "z.y.a.test"), ("*.test", "b.test"), ("other.org",), ())


def build(listeners: list[Manifest], pairs: dict[str, Pair], *hostnames: str) -> Pipeline:
    manifests = [gateway_class(), gateway(listeners), service("web")]
    manifests.append(http_route("web", [prefix_rule("/", backend("web"))], tuple(hostnames)))
    manifests += [pair.secret(name) for name, pair in pairs.items()]
    return build_pipeline(manifests)


def only_list(pipeline: Pipeline, refused: Iterable[str] = ()) -> CrtList:
    (entries,) = compile_crt_lists(pipeline.routing, set(refused)).lists.values()
    return entries


def names_of(pipeline: Pipeline) -> dict[str, str]:
    """The names of Secrets by those of their certificates in HAProxy."""
    found = (item for items in pipeline.graph.certificates.values() for item in items)
    return {certificate_name(item.identity): item.secret.name for item in found}


def shown(pipeline: Pipeline, name: str) -> set[str]:
    """The Secrets of which HAProxy may show the certificate to a name, as its documentation has it."""
    secrets = names_of(pipeline)
    entries = only_list(pipeline)
    for wanted in (name, f"*.{name.partition('.')[2]}" if "." in name else name, "*"):
        found = {secrets[entry.certificate] for entry in entries if wanted in entry.filters}
        if found:
            return found
    return set()


@pytest.mark.parametrize("slot", [None, 22001])
@pytest.mark.parametrize(
    ("mode", "verify", "ignored"),
    [("AllowValidOnly", "required", None), ("AllowInsecureFallback", "optional", "all")],
)
def test_where_any_client_is_let_in_its_bind_ignores_what_is_wrong(
    mode: str, verify: str, ignored: str | None, slot: int | None
) -> None:
    asking = gateway([https_listener("l", PORT, "one")])
    asking["spec"]["tls"] = {"frontend": {"default": validation("staff", mode=mode)}}
    authority = config_map("staff", make_authority("staff"))
    pipeline = build_pipeline([gateway_class(), asking, make_pair("one.test").secret("one"), authority])
    assert [entry.options.rpartition(" ")[2] for entry in only_list(pipeline)] == [verify]
    (frontend,) = pipeline.routing.frontends.values()
    served = replace(frontend, slot=slot)
    routing = replace(pipeline.routing, frontends={served.key: served}, hosts={})
    sections = build_state(routing, pipeline.tables, NOTHING, LAYOUT, Pools(1, 1, https_listeners=2)).state.sections
    binds = {
        key.name: {
            bind.get(error) for bind in section["binds"].values() for error in ("ca_ignore_err", "crt_ignore_err")
        }
        for key, section in sections.items()
        if needs_certificates(section)
    }
    name = frontend_name(*served.key)
    assert binds.pop(name) == {ignored}
    assert set().union(*binds.values()) == {None}


def test_entries_name_the_authorities_that_clients_are_verified_by() -> None:
    pair, listeners = make_pair("one.test"), [https_listener("l", PORT, "one")]
    asking = gateway(listeners)
    asking = {**asking, "spec": {**asking["spec"], "tls": {"frontend": {"default": validation("staff")}}}}
    manifests = [gateway_class(), asking, pair.secret("one"), config_map("staff", make_authority("staff"))]
    pipeline = build_pipeline(manifests)
    (trusted,) = pipeline.graph.client_authorities.values()
    name = authorities_name(trusted.identity)
    (entry,) = only_list(pipeline)
    assert (entry.authorities, entry.filters) == (name, ("*", "one.test"))
    assert str(entry) == f"{entry.certificate} [ca-file {name} verify required] * one.test"
    state = desired_state(pipeline).state
    assert (state.authorities, state.certificates) == (frozenset({name}), frozenset({entry.certificate}))
    assert state.pems[name].reveal() == make_authority("staff")
    # What HAProxy does not take lets nobody in, rather than everybody.
    assert only_list(pipeline, {name}) == frozenset()
    # And without its listener's certificate it is not needed.
    assert compile_crt_lists(pipeline.routing, {entry.certificate}).authorities == {}


def test_a_listener_for_any_host_is_shown_to_all_even_to_who_names_nobody() -> None:
    pipeline = build([https_listener("l", PORT, "one")], {"one": make_pair("one.test")})
    assert {entry.filters for entry in only_list(pipeline)} == {("*", "one.test")}


def test_of_several_certificates_the_first_that_is_made_for_a_name_is_shown() -> None:
    pairs = {"a": make_pair("a.test"), "b": make_pair("b.test", "c.test"), "c": make_pair("c.test", "d.test")}
    pipeline = build([https_listener("l", PORT, *pairs)], pairs)
    names = ("a.test", "b.test", "c.test", "d.test", "x.test", "")
    assert [shown(pipeline, name) for name in names] == [{"a"}, {"b"}, {"b"}, {"c"}, {"a"}, {"a"}]


def test_a_listeners_hostname_is_shown_the_certificate_that_is_made_for_it() -> None:
    pairs = {"other": make_pair("other.test"), "wild": make_pair("*.a.test")}
    pipeline = build([https_listener("l", PORT, *pairs, hostname="x.a.test")], pairs)
    assert shown(pipeline, "x.a.test") == {"wild"}
    assert shown(pipeline, "y.a.test") == set()


def test_keys_of_both_kinds_are_shown_for_one_name() -> None:
    pairs = {"ecdsa": make_pair("a.test"), "rsa": make_pair("a.test", algorithm="rsa")}
    pipeline = build([https_listener("l", PORT, *pairs, hostname="a.test")], pairs)
    assert shown(pipeline, "a.test") == {"ecdsa", "rsa"}


def test_a_name_that_belongs_to_another_listener_is_not_taken() -> None:
    pairs = {"both": make_pair("a.test", "b.test"), "b": make_pair("b.test")}
    listeners = [https_listener("any", PORT, "both"), https_listener("b", PORT, "b", hostname="b.test")]
    assert shown(build(listeners, pairs), "b.test") == {"b"}


def test_a_host_deeper_below_a_wildcard_than_one_label_is_named() -> None:
    pairs = {"wild": make_pair("*.a.test", "s.t.a.test")}
    listeners = [https_listener("l", PORT, "wild", hostname="*.a.test")]
    pipeline = build(listeners, pairs, "x.a.test", "y.x.a.test", "*.z.a.test")
    (entry,) = only_list(pipeline)
    assert entry.filters == ("*.a.test", "*.z.a.test", "s.t.a.test", "y.x.a.test")


def test_a_certificate_that_haproxy_did_not_take_is_left_out_and_another_takes_its_names() -> None:
    pairs = {"first": make_pair("a.test"), "second": make_pair("b.test")}
    pipeline = build([https_listener("l", PORT, *pairs, hostname="a.test")], pairs)
    refused = {name for name, secret in names_of(pipeline).items() if secret == "first"}
    (entry,) = only_list(pipeline, refused)
    assert (names_of(pipeline)[entry.certificate], entry.filters) == ("second", ("a.test",))


def test_one_certificate_of_several_listeners_of_a_port_is_one_entry() -> None:
    pairs = {"wild": make_pair("*.a.test")}
    listeners = [https_listener(name, PORT, "wild", hostname=f"{name}.a.test") for name in ("x", "y")]
    (entry,) = only_list(build(listeners, pairs))
    assert entry.filters == ("x.a.test", "y.a.test")


def test_many_names_are_several_entries() -> None:
    names = [f"host-{number}.{'x' * 50}.test" for number in range(120)]
    pipeline = build([https_listener("l", PORT, "many")], {"many": make_pair(*names)})
    entries = only_list(pipeline)
    assert len(entries) > 1
    assert sorted(name for entry in entries for name in entry.filters) == sorted([*names, "*"])
    assert all(len(" ".join(entry.filters)) <= ENTRY_LIMIT + 253 for entry in entries)


def test_the_file_begins_with_what_is_never_served() -> None:
    entry = CrtEntry("gwctl-1.pem", ("*", "a.test"))
    assert crt_list_text([entry], Layout("/maps", "/general")).splitlines() == [
        "/general/gwctl-placeholder.pem [sigalgs ECDSA+SHA256] gwctl.invalid",
        "gwctl-1.pem * a.test",
    ]


def test_files_have_names_that_the_api_leaves_alone() -> None:
    assert crt_list_name("gwctl-listener-22001") == "gwctl-listener-22001.crt-list"
    names = {crt_list_name(f"gwctl.{namespace}.{gateway}.443") for namespace in "ab" for gateway in ("c.d", "c-d")}
    assert len(names) == 4
    long = crt_list_name(f"gwctl.{'n' * 63}.{'g' * 253}.443")
    assert len(long) < 200
    assert all(is_crt_list(name) and "." not in name.removesuffix(".crt-list") for name in (*names, long))
    assert is_certificate(certificate_name("0" * 32))
    assert not is_certificate("gwctl-placeholder.pem")


def random_site(random: Random) -> Pipeline:
    """A Gateway whose listeners and certificates collide."""
    pairs = {
        f"s{number}": make_pair(*names, serial=random.randint(1, 2))
        for number, names in enumerate(random.sample(SANS, random.randint(0, len(SANS))))
    }
    secrets = [*pairs, "missing"]
    listeners = [
        https_listener(f"l{index}", PORT, *random.sample(secrets, random.randint(1, len(secrets))), hostname=hostname)
        for index, hostname in enumerate(random.sample(LISTENERS, random.randint(1, 4)))
    ]
    return build(listeners, pairs, *random.sample(NAMES, random.randint(0, 2)))


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False))
def test_whoever_has_a_certificate_for_a_name_shows_it(random: Random) -> None:
    pipeline = random_site(random)
    frontend = pipeline.routing.frontends[FrontendKey("default", "gateway", PORT)]
    for name in NAMES:
        owner = frontend.owner(name)
        own = pipeline.graph.certificates[owner] if owner is not None else ()
        fitting = {
            item.secret.name
            for item in own
            if name in item.hostnames or f"*.{name.partition('.')[2]}" in item.hostnames
        }
        if fitting:
            assert shown(pipeline, name) <= fitting, (name, owner)
            assert shown(pipeline, name)


def states(plan: Plan, actual: State) -> Iterator[State]:
    """Yield the certificates and crt-lists after each operation."""
    certificates = set(actual.certificates)
    lists = {name: set(entries) for name, entries in actual.crt_lists.items()}
    for operation in plan.operations:
        match operation:
            case AddCertificate(name, pem):
                assert name not in certificates
                assert "PRIVATE KEY" in pem.reveal()
                certificates.add(name)
            case RemoveCertificate(name):
                certificates.remove(name)
            case AddEntry(name, entry):
                lists.setdefault(name, set()).add(entry)
            case RemoveEntry(name, entry):
                lists[name].remove(entry)
            case _:
                continue
        frozen = {name: frozenset(entries) for name, entries in lists.items()}
        yield State(actual.sections, {}, {}, actual.lua, certificates=frozenset(certificates), crt_lists=frozen)


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_change_of_certificates_is_consistent_at_every_step(random: Random) -> None:
    before = desired_state(random_site(random))
    after = desired_state(random_site(random), before.state, before)
    plan = diff(after.state, before.state)
    reached = before.state
    for reached in states(plan, before.state):
        for name, entries in reached.crt_lists.items():
            assert {entry.certificate for entry in entries} <= reached.certificates
            if before.state.crt_lists[name] and after.state.crt_lists[name]:
                assert entries
    assert plan.transaction is None
    assert (reached.certificates, reached.crt_lists) == (after.state.certificates, after.state.crt_lists)


def test_what_a_reload_loads_holds_no_certificate_that_haproxy_has_not_taken_before() -> None:
    pairs = {"a": make_pair("a.test")}
    first = desired_state(build([https_listener("l", PORT, "a")], pairs))
    transaction = diff(first.state, NOTHING).transaction
    assert transaction is not None
    assert transaction.state.certificates == frozenset()
    assert set(transaction.state.crt_lists.values()) == {frozenset()}
    both = [https_listener("l", PORT, "a"), https_listener("m", 444, "a", "b")]
    second = desired_state(build(both, {**pairs, "b": make_pair("b.test")}), first.state, first)
    transaction = diff(second.state, first.state).transaction
    assert transaction is not None
    assert transaction.state.certificates == first.state.certificates
    assert [len(entries) for entries in transaction.state.crt_lists.values()] == [1, 1]
    assert [len(entries) for entries in second.state.crt_lists.values()] == [1, 2]


def test_what_is_unchanged_is_taken_over_as_it_is() -> None:
    pairs = {"a": make_pair("a.test")}
    pipeline = build([https_listener("l", PORT, "a")], pairs)
    first = desired_state(pipeline)
    second = desired_state(pipeline, first.state, first)
    assert second.state.crt_lists is first.state.crt_lists
    assert not diff(second.state, first.state)


def test_a_plan_names_no_key() -> None:
    first = desired_state(build([https_listener("l", PORT, "a")], {}))
    plan = diff(
        desired_state(build([https_listener("l", PORT, "a")], {"a": make_pair("a.test")}), first.state, first).state,
        first.state,
    )
    assert [type(operation).__name__ for operation in plan.operations] == ["AddCertificate", "AddEntry"]
    assert "PRIVATE" not in f"{plan} {plan!r}"
