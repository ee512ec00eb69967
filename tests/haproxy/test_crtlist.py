"""crt-lists: which certificate is shown to which name, and that every step of a change keeps one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gwctl.haproxy.crtlist import ENTRY_LIMIT, EXCLUSION_LIMIT, compile_crt_lists
from gwctl.haproxy.desired import Pools, build_state
from gwctl.haproxy.names import (
    PLACEHOLDER,
    PLACEHOLDER_HOST,
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


CLIENTS = (("ecdsa", "rsa"), ("rsa",), ("ecdsa",))
"""What clients can verify, and prefer."""


def find_shown(
    entries: Iterable[CrtEntry], algorithms: Mapping[str, str], name: str, client: Iterable[str]
) -> set[str]:
    """The certificates of which HAProxy may show one to a client, as its source has it; none: it is refused."""
    wildcard = f"*.{name.partition('.')[2]}"
    for places in ((name, wildcard) if name else (), ("*",)):
        found: dict[str, set[str]] = {}
        for place in places:
            of_place: dict[str, set[str]] = {}
            for entry in entries:
                if place in entry.filters and f"!{name}" not in entry.filters:
                    of_place.setdefault(algorithms.get(entry.certificate, "neither"), set()).add(entry.certificate)
            found = of_place | found
        if found:
            return next((found[kind] for kind in client if kind in found), set())
    return set()


def algorithms_of(*pipelines: Pipeline) -> dict[str, str]:
    """The kinds of the keys of certificates, by their names in HAProxy."""
    found = (item for pipeline in pipelines for items in pipeline.graph.certificates.values() for item in items)
    return {certificate_name(item.identity): item.algorithm for item in found}


def shown(pipeline: Pipeline, name: str, *clients: tuple[str, ...]) -> set[str]:
    """The Secrets of which HAProxy may show the certificate to a name, to any client if nothing is said of them."""
    secrets, entries, algorithms = names_of(pipeline), only_list(pipeline), algorithms_of(pipeline)
    shows = (find_shown(entries, algorithms, name, client) for client in clients or CLIENTS)
    return {secrets[certificate] for found in shows for certificate in found}


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


EC, RSA = make_pair("b.a.test"), make_pair("x.a.test", algorithm="rsa")


def test_a_wildcards_certificate_of_another_kind_is_not_shown_to_the_name_of_another_listener() -> None:
    wild, exact = (
        https_listener("wild", PORT, "ec", hostname="*.a.test"),
        https_listener("exact", PORT, "rsa", hostname="x.a.test"),
    )
    pipeline = build([wild, exact], {"ec": EC, "rsa": RSA})
    assert shown(pipeline, "x.a.test", ("ecdsa", "rsa")) == {"rsa"}
    assert shown(pipeline, "x.a.test", ("ecdsa",)) == set()
    assert shown(pipeline, "y.a.test") == {"ec"}
    assert {entry.filters for entry in only_list(pipeline)} == {("!x.a.test", "*.a.test", "b.a.test"), ("x.a.test",)}


@pytest.mark.parametrize("hostname", ["", "*.a.test", "x.a.test"])
def test_of_keys_of_both_kinds_the_one_for_another_name_is_not_shown(hostname: str) -> None:
    pipeline = build([https_listener("l", PORT, "rsa", "ec", hostname=hostname)], {"ec": EC, "rsa": RSA})
    assert shown(pipeline, "x.a.test") == {"rsa"}
    if hostname != "x.a.test":
        assert shown(pipeline, "b.a.test") == {"ec"}
        assert shown(pipeline, "y.a.test") == {"ec", "rsa"}


@pytest.mark.parametrize(("missing", "other"), [("x.a.test", "*.a.test"), ("x.a.test", ""), ("*.a.test", "")])
def test_a_name_of_a_listener_without_certificates_is_shown_none_of_another(missing: str, other: str) -> None:
    listeners = [
        https_listener("missing", PORT, "missing", hostname=missing),
        https_listener("other", PORT, "one", hostname=other),
    ]
    for pair in (EC, RSA):
        pipeline = build(listeners, {"one": pair}, "z.y.a.test")
        assert shown(pipeline, "x.a.test") == set()
        assert shown(pipeline, "b.x.a.test" if not other else "b.a.test") == {"one"}
        if missing == "*.a.test":
            assert shown(pipeline, "z.y.a.test") == set()


def test_the_name_that_every_list_begins_with_is_in_no_entry() -> None:
    listeners = [
        https_listener("missing", PORT, "missing", hostname=PLACEHOLDER_HOST),
        https_listener("other", PORT, "one"),
    ]
    (entry,) = only_list(build(listeners, {"one": EC}))
    assert entry.certificate != PLACEHOLDER


def test_a_name_of_a_listener_without_certificates_is_refused_with_several_others() -> None:
    """The wildcard leaves the name out, and then it is not one of those that have no entry."""
    hostnames = {"missing": "x.a.test", "wild": "*.a.test", "any": ""}
    listeners = [https_listener(name, PORT, name, hostname=hostname) for name, hostname in hostnames.items()]
    pipeline = build(listeners, {"wild": make_pair("*.a.test"), "any": make_pair("*.test")})
    assert [shown(pipeline, name) for name in ("x.a.test", "y.a.test", "b.test")] == [set(), {"wild"}, {"any"}]


def test_what_a_wildcard_leaves_out_has_a_limit_and_the_first_listeners_go_first() -> None:
    names = [f"{number}{'x' * 60}.{'y' * 60}.{'z' * 60}.a.test" for number in range(63)]
    suffix = names[0].partition(".")[2]
    hostnames = [f"*.{suffix}", *(f"{number}{'x' * 60}.{suffix}" for number in range(63))]
    listeners = [https_listener(f"l{63 - index}", PORT, "no", hostname=name) for index, name in enumerate(hostnames)]
    listeners[0]["tls"]["certificateRefs"][0]["name"] = "ec"
    (entry,) = only_list(build(listeners, {"ec": EC}))
    left_out = [name[1:] for name in entry.filters if name.startswith("!")]
    assert sorted(left_out) == sorted(names[: len(left_out)])
    assert EXCLUSION_LIMIT - 200 < len(" ".join(entry.filters)) < EXCLUSION_LIMIT + 200


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
        f"s{number}": make_pair(*names, serial=random.randint(1, 2), algorithm=random.choice(("ecdsa", "rsa")))
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
def test_a_name_is_shown_a_certificate_of_its_own_listener_and_one_that_is_made_for_it(random: Random) -> None:
    pipeline = random_site(random)
    frontend = pipeline.routing.frontends[FrontendKey("default", "gateway", PORT)]
    hostnames = {node.key: node.hostname for node in frontend.listeners}
    for name in NAMES:
        owner = frontend.owner(name)
        own = pipeline.graph.certificates[owner] if owner is not None else ()
        made = [item for item in own if {name, f"*.{name.partition('.')[2]}"}.intersection(item.hostnames)]
        is_named = any(host.host == name for host in pipeline.routing.hosts[frontend.key].values())
        is_near = owner is None or hostnames[owner] in ("", name, f"*.{name.partition('.')[2]}")
        if made or is_named or is_near:
            assert shown(pipeline, name) <= {item.secret.name for item in made or own}, (name, owner)
            assert bool(shown(pipeline, name, CLIENTS[0])) == bool(own)


def certificates_of(pipeline: Pipeline, host: str) -> Iterator[str]:
    """Give the certificates of the listener that a name belongs to."""
    owner = pipeline.routing.frontends[FrontendKey("default", "gateway", PORT)].owner(host)
    if owner is not None:
        yield from (certificate_name(item.identity) for item in pipeline.graph.certificates[owner])


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
    sites = [random_site(random) for _ in range(2)]
    before = desired_state(sites[0])
    after = desired_state(sites[1], before.state, before)
    plan = diff(after.state, before.state)
    reached = before.state
    algorithms = algorithms_of(*sites)

    def shown_by(state: State, list_name: str, host: str) -> set[str]:
        shows = (find_shown(state.crt_lists[list_name], algorithms, host, client) for client in CLIENTS)
        return {certificate for found in shows for certificate in found}

    for reached in states(plan, before.state):
        for name, entries in reached.crt_lists.items():
            assert {entry.certificate for entry in entries} <= {*reached.certificates, PLACEHOLDER}
            for host in NAMES:
                own = {name for site in sites for name in certificates_of(site, host)}
                either = shown_by(before.state, name, host) | shown_by(after.state, name, host)
                assert shown_by(reached, name, host) <= own | either, host
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
