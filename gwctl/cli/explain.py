"""``gwctl explain``: which rule takes a request, why, and what then happens.

The reference matcher answers, so the answer is the specification's. The rows that gwctl makes are asked too,
and with ``--live`` the rows that HAProxy has; where they say something else, that is said.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from gwctl.cli.filters import describe_filters, describe_session
from gwctl.cli.live import read_live_state
from gwctl.cli.manifests import one_line, read_pipeline
from gwctl.cli.option import DATA_PLANE, config_options, manifests_option, read_config
from gwctl.cli.request import Target, read_request, shown
from gwctl.cli.translate import LAYOUT, NOTHING
from gwctl.graph.node import ListenerKey, ServicePort
from gwctl.haproxy import grpc
from gwctl.haproxy.desired import Pools, build_state
from gwctl.haproxy.lookup import DanglingReference, Outcome, Share, look_up, look_up_connection, look_up_handshake
from gwctl.haproxy.names import frontend_name
from gwctl.haproxy.state import SectionKey, SectionKind, Servers, State
from gwctl.haproxy.table import ERROR_TARGET, http_frontend_name
from gwctl.routing.effect import redirect_location
from gwctl.routing.filter import Filters, Redirect
from gwctl.routing.matcher import Verdict, find_rule, find_sni_rule, match_fits, method_fits, path_fits
from gwctl.routing.request import Request
from gwctl.routing.rule import Candidate, Match, PathKey, Rule, ValueMatch
from gwctl.routing.virtualhost import ANY_HOST, Frontend, FrontendKey, Routing, Scheme, VirtualHost
from gwctl.runtime.pipeline import Pipeline

_INDENT = " " * 13


@click.command(short_help="Tell which rule takes a request, and why.")
@manifests_option
@click.argument("method")
@click.argument("url")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="a header of the request")
@click.option("--all", "show_all", is_flag=True, help="list the rules of other paths too")
@click.option("--live", is_flag=True, help="ask the running HAProxy's rows as well")
@config_options("gateway_controller_name", *DATA_PLANE)
def explain(
    manifests: Path,
    method: str,
    url: str,
    headers: tuple[str, ...],
    show_all: bool,
    live: bool,
    config_file: Path | None,
    **flags: Any,
) -> None:
    """Tell which rule takes a request, why, and what then happens.

    \b
    gwctl explain -f manifests GET http://shop.example.com/cart?id=7 -H 'x-user: 1'

    The exit status is 0 whatever the answer is; with --live it is 1 when HAProxy's rows say something else.
    """
    config = read_config(config_file, flags)
    target = read_request(method, url, headers)
    pipeline = read_pipeline(manifests, config.gateway_controller_name).pipeline
    actual = read_live_state(config)[0] if live else None
    explanation = _Explanation(pipeline, target, show_all, actual)
    for line in explanation.lines():
        click.echo(one_line(line))
    if explanation.disagrees:
        raise click.exceptions.Exit(1)


class _Explanation:
    def __init__(self, pipeline: Pipeline, target: Target, show_all: bool, actual: State | None) -> None:
        self.pipeline = pipeline
        self.routing = pipeline.routing
        self.port, self.request, self.tls, self.server_name = target
        self.show_all = show_all
        self.expected = build_state(pipeline.routing, pipeline.tables, NOTHING, LAYOUT, Pools()).state
        self.actual = actual
        self.disagrees = False

    def lines(self) -> Iterator[str]:
        keys = sorted(key for key in self.routing.frontends if key.port == self.port)
        if not keys:
            ports = sorted({key.port for key in self.routing.frontends})
            listened = f"ports with a listener: {', '.join(map(str, ports))}" if ports else "there is no listener"
            yield _line("port", f"{self.port} has no listener, so connections are refused ({listened})")
        elif len(keys) > 1:
            names = ", ".join(f"{key.namespace}/{key.gateway}" for key in keys)
            yield _line("port", f"{self.port} belongs to several Gateways, by address: {names}")
        for key in keys:
            yield from self._explain_frontend(key, self.routing.frontends[key])
        if self.pipeline.problems:
            number = len(self.pipeline.problems)
            yield _line("note", f"the manifests have {number} problem{'' if number == 1 else 's'}: see gwctl validate")

    def _explain_frontend(self, key: FrontendKey, frontend: Frontend) -> Iterator[str]:
        where = f" on {', '.join(frontend.addresses)}" if frontend.addresses else ""
        yield _line("gateway", f"{key.namespace}/{key.gateway}, port {key.port}{where}")
        name = frontend_name(*key)
        if frontend.mode == "tcp":
            yield from self._explain_connection(key, frontend, name)
            return
        if self.tls != (frontend.scheme == "https"):
            word = "TLS" if frontend.scheme == "https" else "no TLS"
            yield _line("then", f"refused: the port speaks {word}, so the URL begins with {frontend.scheme}://")
            return
        if frontend.mode == "tls" and not (yield from self._explain_handshake(key, frontend)):
            return
        expected = look_up(self.expected.tables, http_frontend_name(frontend), self.request)
        verdict = find_rule(self.routing, key, self.request)
        if frontend.terminates and not (yield from self._explain_tls(frontend, verdict)):
            return
        if verdict.host is None:
            yield _line("listener", f"none for the host {shown(self.request.hostname) or '(none)'}")
            yield _line("then", self._error(404, []))
            yield from self._compare(frontend, expected, None)
            return
        yield from self._explain_host(verdict.host, frontend)
        candidate = verdict.candidate
        if candidate is None:
            yield _line("rule", "none fits")
        else:
            yield _line("rule", f"{candidate.rule.name}: {_describe_match(candidate.match)}")
            yield from self._explain_precedence(verdict.host, candidate)
        yield from self._explain_passed_over(verdict.passed_over)
        if candidate is None:
            yield _line("then", self._error(404, _candidates(self.routing, verdict.host)))
        else:
            yield from self._explain_rule(candidate)
        yield from self._compare(frontend, expected, candidate.rule if candidate is not None else None)

    def _explain_connection(self, key: FrontendKey, frontend: Frontend, name: str) -> Iterator[str]:
        yield _line("listener", f"{_listener(frontend.listeners[0].key)} (TCP: the request itself is not looked at)")
        rule = self.routing.tcp[key]
        expected = look_up_connection(self.expected.tables, name)
        if rule is None:
            yield _line("then", "no TCPRoute: connections are closed at once")
        else:
            yield _line("rule", rule.name)
            yield from self._explain_backends(rule, "connections are closed")
        yield from self._compare(frontend, expected, rule)

    def _explain_handshake(self, key: FrontendKey, frontend: Frontend) -> Generator[str, None, bool]:
        """Explain what becomes of a connection by the name in its handshake, and whether HTTP goes on from there."""
        sni = find_sni_rule(self.routing, key, self.server_name)
        if sni is not None and sni.inner == "https":
            return True
        expected = look_up_handshake(self.expected.tables, frontend_name(*key), self.server_name)
        asked = self.server_name or "no name"
        if sni is None:
            yield _line("then", f"connections are closed at once: {asked} is no listener's")
        else:
            how = "passed through" if sni.inner is None else "terminated"
            yield _line("listener", f"{_listener(sni.listener)} (TLS is {how}: the request itself is not looked at)")
            certificates = self.routing.certificates.get(sni.listener, ()) if sni.inner is not None else ()
            if certificates:
                yield _line("certificate", ", ".join(str(item.secret) for item in certificates))
            if sni.rule is None:
                yield _line("then", f"no TLSRoute has {asked}: connections are closed at once")
            elif sni.inner is not None and not certificates:
                yield _line("then", f"the handshake is refused: listener {_listener(sni.listener)} has no certificate")
            else:
                yield _line("rule", sni.rule.name)
                yield from self._explain_backends(sni.rule, "connections are closed")
        yield from self._compare(frontend, expected, sni.rule if sni is not None else None)
        return False

    def _explain_tls(self, frontend: Frontend, verdict: Verdict) -> Generator[str, None, bool]:
        """Explain the handshake, and whether the listener that it finds is the one of the request's host."""
        asked = self.server_name or "no name"
        meant = frontend.owner(self.server_name or ANY_HOST)
        certificates = self.routing.certificates.get(meant, ()) if meant is not None else ()
        if meant is None or not certificates:
            why = f"{asked} is no listener's" if meant is None else f"listener {_listener(meant)} has no certificate"
            yield _line("then", f"the handshake is refused: {why}")
            return False
        yield _line("certificate", ", ".join(str(item.secret) for item in certificates))
        if meant in self.routing.client_authorities:
            rule = "may show one" if frontend.falls_back else "must show one themselves"
            yield _line("", f"clients {rule}, of an authority that the Gateway trusts")
        if verdict.host is not None and verdict.host.listener != meant:
            other = _listener(verdict.host.listener)
            yield _line("then", f"421: the handshake was for listener {_listener(meant)}, the host is one of {other}")
            return False
        return True

    def _explain_host(self, host: VirtualHost, frontend: Frontend) -> Iterator[str]:
        node = next(node for node in frontend.listeners if node.key == host.listener)
        yield _line("listener", f"{_listener(node.key)} ({node.hostname or 'any host'})")
        yield _line("host", "any (*)" if host.host == "*" else host.host)

    def _explain_precedence(self, host: VirtualHost, winner: Candidate) -> Iterator[str]:
        fitting = (
            candidate
            for candidate in _candidates(self.routing, host)
            if candidate.order > winner.order and match_fits(candidate.match, self.request)
        )
        second = min(fitting, key=lambda candidate: candidate.order, default=None)
        if second is None:
            yield _line("why", "no other rule fits")
        else:
            name = "another match of the same rule" if second.rule == winner.rule else second.rule.name
            yield _line("why", f"it goes before {name}, which fits too: {_precedence(winner, second)}")

    def _explain_passed_over(self, passed: tuple[Candidate, ...]) -> Iterator[str]:
        hidden = 0
        title = "passed over"
        for candidate in passed:
            if not self.show_all and not path_fits(candidate.match.path, self.request.path):
                hidden += 1
                continue
            reasons = "; ".join(_failures(candidate.match, self.request))
            yield _line(title, f"{candidate.rule.name}: {reasons}")
            title = ""
        if hidden:
            more = f"{hidden} whose path does not fit (--all lists them)"
            yield _line(title, more if title else f"and {more}")

    def _explain_rule(self, candidate: Candidate) -> Iterator[str]:
        rule = candidate.rule
        for title, text in self._describe_filters(rule.filters, candidate):
            yield _line(title, text)
        if rule.session is not None and rule.filters.redirect is None:
            yield _line("session", shown(describe_session(rule.session)))
        if any(auth.service is None for auth in rule.filters.auths):
            yield _line("then", self._error(500, [candidate]))
        elif rule.filters.redirect is not None:
            yield _line("then", self._redirect(rule.filters.redirect, candidate))
        else:
            yield from self._explain_backends(rule, self._error(500, [candidate]), candidate)

    def _describe_filters(self, filters: Filters, candidate: Candidate) -> Iterator[tuple[str, str]]:
        for title, text in describe_filters(filters, candidate.match.path, self.request):
            yield title, shown(text)

    def _explain_backends(self, rule: Rule, error: str, candidate: Candidate | None = None) -> Iterator[str]:
        total = sum(backend.weight for backend in rule.backends)
        if not total:
            yield _line("then", f"{error}: the rule has no backend with a weight")
            return
        title = "then"
        for backend in rule.backends:
            share = "" if backend.weight == total else f", {backend.weight} of {total}"
            if backend.service is None:
                text = f"{error}: its backendRef is invalid, forbidden or missing, or its policy cannot be honoured"
            elif candidate is not None and backend.filters.redirect is not None:
                text = self._redirect(backend.filters.redirect, candidate)
            else:
                tls = backend.service.tls if candidate is not None else None
                verified = f", TLS as {tls.hostname}" if tls is not None else ""
                text = f"{_name(backend.service)}{verified} ({self._endpoints(backend.service, rule)})"
            yield _line(title, f"{text}{share}")
            title = ""
            if candidate is not None and backend.service is not None:
                for what, change in self._describe_filters(backend.filters, candidate):
                    yield _line(title, f"  {what}: {change}")

    def _redirect(self, redirect: Redirect, candidate: Candidate) -> str:
        scheme: Scheme = "https" if self.tls else "http"
        location = redirect_location(redirect, candidate.match.path, self.request, self.port, scheme)
        return f"{redirect.status} to {shown(location)}"

    def _endpoints(self, service: ServicePort, rule: Rule) -> str:
        endpoints = self.routing.endpoints.get(service, ())
        if not endpoints:
            closed = rule.route.kind in ("TCPRoute", "TLSRoute")
            return f"no endpoint is ready: {'connections are closed' if closed else self._error(503, [rule])}"
        return ", ".join(f"{endpoint.address}:{endpoint.port}" for endpoint in endpoints[:3]) + (
            f" and {len(endpoints) - 3} more" if len(endpoints) > 3 else ""
        )

    def _error(self, status: int, meant: Iterable[Candidate | Rule]) -> str:
        """Name an error of the gateway's, also as gRPC clients see it where the request or what it meets is gRPC's."""
        routes = (item.rule.route if isinstance(item, Candidate) else item.route for item in meant)
        content = self.request.header("content-type") or ""
        is_grpc = content.startswith("application/grpc") or any(route.kind == "GRPCRoute" for route in routes)
        return f"{status} (gRPC: {grpc.name_status(status)})" if is_grpc else str(status)

    # What rows say

    def _compare(self, frontend: Frontend, expected: Outcome | None, rule: Rule | None) -> Iterator[str]:
        name = frontend_name(*frontend.key)
        if (expected.rule if expected is not None else "") != (rule.name if rule is not None else ""):
            self.disagrees = True
            said = _describe_outcome(expected)
            yield _line("!", f"the rows that gwctl makes of it say otherwise, which is a fault of gwctl: {said}")
        if self.actual is None:
            return
        if SectionKey(SectionKind.FRONTENDS, name) not in self.actual.sections:
            self.disagrees = True
            yield _line("live", f"HAProxy has no frontend {name}: disagrees")
            return
        try:
            found = self._look_up(self.actual, frontend)
        except DanglingReference as error:
            self.disagrees = True
            yield _line("live", f"a row of HAProxy leads nowhere: {error}")
            return
        yield _line("live", _describe_outcome(found))
        yield from self._describe_servers(found)
        differences = list(self._differences(expected, found))
        self.disagrees = self.disagrees or bool(differences)
        verdict = f"disagrees with the manifests: {', '.join(differences)}" if differences else "agrees"
        yield _line("", verdict)

    def _look_up(self, state: State, frontend: Frontend) -> Outcome | None:
        name = frontend_name(*frontend.key)
        if frontend.mode == "tcp":
            return look_up_connection(state.tables, name)
        if frontend.mode == "tls":
            outcome = look_up_handshake(state.tables, name, self.server_name)
            if outcome is None or outcome.rule:
                return outcome
        return look_up(state.tables, http_frontend_name(frontend), self.request)

    def _describe_servers(self, found: Outcome | None) -> Iterator[str]:
        assert self.actual is not None
        for slot in _slots(found) if found is not None else ():
            servers = self.actual.servers.get(slot, {})
            text = ", ".join(f"{name} {server.state}" for name, server in sorted(servers.items()))
            yield _line("", f"slot {slot}: {text or 'no server'}")

    def _differences(self, expected: Outcome | None, found: Outcome | None) -> Iterator[str]:
        assert self.actual is not None
        if expected is None or found is None:
            if expected is not found:
                yield "route"
            return
        for what in ("status", "host", "rule"):
            if getattr(expected, what) != getattr(found, what):
                yield what
        if [(share.weight, share.target) for share in expected.shares] != [
            (share.weight, share.target) for share in found.shares
        ]:
            yield "shares"
            return
        for what in ("filters", "location"):
            if [getattr(share, what) for share in expected.shares] != [getattr(share, what) for share in found.shares]:
                yield what
        here = [_ready(self.expected.servers.get(slot, {})) for slot in _slots(expected)]
        there = [_ready(self.actual.servers.get(slot, {})) for slot in _slots(found)]
        if here != there:
            yield "servers"


def _slots(outcome: Outcome) -> list[str]:
    return [share.slot for share in outcome.shares if share.slot]


def _ready(servers: Servers) -> set[str]:
    return {name for name, server in servers.items() if server.state == "ready"}


def _line(title: str, text: str) -> str:
    return f"{title:<{len(_INDENT)}}{text}"


def _listener(key: ListenerKey) -> str:
    return f"{key.listener} of {key.owner}" if key.listener_set else key.listener


def _name(service: ServicePort) -> str:
    return f"Service {service.namespace}/{service.name} port {service.port}"


def _candidates(routing: Routing, host: VirtualHost) -> Iterator[Candidate]:
    for found in routing.paths[host].values():
        yield from found


def _describe_outcome(outcome: Outcome | None) -> str:
    if outcome is None:
        return "connections are closed at once"
    if outcome.rule == "":
        return f"{outcome.status}: no rule"
    shares = outcome.shares
    texts = [_describe_share(share) for share in shares]
    if len(shares) == 1:
        return f"{outcome.rule}: {'500' if shares[0].target == ERROR_TARGET else texts[0]}"
    return f"{outcome.rule}: " + ", ".join(f"{share.weight} {text}" for share, text in zip(shares, texts, strict=True))


def _describe_share(share: Share) -> str:
    if share.location:
        return f"{share.status} to {shown(share.location)}"
    return "an error" if share.target == ERROR_TARGET else share.target


def _describe_path(path: PathKey) -> str:
    kind = {"exact": "exactly", "prefix": "prefix", "regex": "expression"}[path.kind]
    return f"path {kind} {path.value or '/'}"


def _describe_value(what: str, wanted: ValueMatch) -> str:
    return f"{what} {wanted.name} {'fits' if wanted.regex else '='} {wanted.value!r}"


def _describe_match(match: Match) -> str:
    parts = [_describe_path(match.path)]
    if match.method:
        parts.append(f"method {match.method}")
    parts += (_describe_value("header", header) for header in match.headers)
    parts += (_describe_value("query parameter", query) for query in match.queries)
    return ", ".join(parts)


_ANY = Match(PathKey("prefix", ""), "", (), ())


def _failures(match: Match, request: Request) -> Iterator[str]:
    """Yield the conditions that do not hold, each with what the request has instead."""
    if not path_fits(match.path, request.path):
        yield f"{_describe_path(match.path)} does not fit"
    here = replace(request, path="/")
    if not method_fits(match, request):
        yield f"method {match.method}, not {request.method}"
    for header in match.headers:
        if not match_fits(replace(_ANY, headers=(header,)), here):
            yield f"{_describe_value('header', header)}, {_describe_sent(request.header(header.name))}"
    for query in match.queries:
        if not match_fits(replace(_ANY, queries=(query,)), here):
            sent = request.parameter(query.name.encode().decode("latin-1"))
            yield f"{_describe_value('query parameter', query)}, {_describe_sent(sent)}"


def _describe_sent(value: str | None) -> str:
    return "which is not sent" if value is None else f"sent is {shown(value)!r}"


def _http_reasons(first: Candidate, second: Candidate) -> tuple[str, ...]:
    names = {"exact": "an exact path", "regex": "a regular expression", "prefix": "a prefix"}
    return (
        f"{names[first.match.path.kind]} goes before {names[second.match.path.kind]}",
        "the longer prefix goes first",
        "a rule with a method goes first",
        "more headers go first",
        "more query parameters go first",
    )


def _grpc_reasons(first: Candidate, second: Candidate) -> tuple[str, ...]:
    (service, _, method, *_), (second_service, _, second_method, *_) = first.order, second.order

    def ranks(what: str, one: int, other: int) -> str:
        names = (f"an exact {what}", f"an expression for the {what}", f"any {what}")
        return f"{names[one]} goes before {names[other]}"

    return (
        ranks("service", service, second_service),
        "the longer service goes first",
        ranks("method", method, second_method),
        "the longer method goes first",
        "more headers go first",
    )


def _precedence(first: Candidate, second: Candidate) -> str:
    """Say what decides between two candidates that fit (HTTPRouteRule.matches, GRPCRouteRule.matches)."""
    of_kind = _grpc_reasons if first.rule.route.kind == "GRPCRoute" else _http_reasons
    reasons = (
        *of_kind(first, second),
        "the older route goes first",
        "its namespace/name is first in the alphabet",
        "the earlier rule of a route goes first",
        "the earlier match of a rule goes first",
    )
    return next(reason for reason, mine, other in zip(reasons, first.order, second.order, strict=True) if mine != other)
