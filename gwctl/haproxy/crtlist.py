"""crt-lists: which certificate each frontend that terminates TLS serves to which name.

Routing in; out come the entries of every list. The surprising fact: in HAProxy a wildcard covers one label, in the
Gateway API any number. So a list also names what a certificate says of itself, and the hosts of routes that lie
deeper below a listener's wildcard than one label.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from gwctl.api.sensitive import Sensitive
from gwctl.graph.node import Certificate, ListenerKey, ListenerNode
from gwctl.haproxy.names import authorities_name, certificate_name, crt_list_name, frontend_name, inner_name
from gwctl.haproxy.state import CrtEntry, CrtList
from gwctl.routing.virtualhost import ANY_HOST, Frontend, Routing, VirtualHost

ENTRY_LIMIT = 4_000
"""Longest list of names in an entry, in bytes; more names go on in another entry."""


class CrtLists(NamedTuple):
    """All lists by the names of their files, and the content of every certificate and set of authorities they name."""

    lists: Mapping[str, CrtList]
    certificates: Mapping[str, Sensitive]
    authorities: Mapping[str, Sensitive]


def compile_crt_lists(routing: Routing, refused: Collection[str] = ()) -> CrtLists:
    """Compile the lists of all frontends that terminate TLS.

    ``refused``: certificates and authorities that HAProxy did not take. A listener whose clients cannot be verified
    without them gets no entry, so that its handshakes are refused.
    """
    lists: dict[str, CrtList] = {}
    certificates: dict[str, Sensitive] = {}
    authorities: dict[str, Sensitive] = {}
    for key, frontend in routing.frontends.items():
        if not frontend.terminates:
            continue
        by_sni = (VirtualHost(rule.listener, name) for name, rule in routing.sni.get(key, {}).items())
        deeper = _find_deeper(frontend, (*routing.hosts.get(key, {}).values(), *by_sni))
        names: dict[str, dict[tuple[str, str, bool], list[str]]] = {}
        for node in frontend.listeners:
            if node.tls != "Terminate":
                continue
            of_list = names.setdefault(crt_list_name(_where_terminated(frontend, node)), {})
            trusted = routing.client_authorities.get(node.key)
            verified = authorities_name(trusted.identity) if trusted is not None else ""
            if verified in refused:
                continue
            usable = [
                item
                for item in routing.certificates.get(node.key, ())
                if certificate_name(item.identity) not in refused
            ]
            certificates.update((certificate_name(item.identity), item.pem) for item in usable)
            if trusted is not None and usable:
                authorities[verified] = Sensitive(trusted.pem)
            for certificate, filters in choose_certificates(frontend, node, usable, deeper.get(node.key, ())):
                served = (certificate_name(certificate.identity), verified, bool(verified) and frontend.falls_back)
                of_list.setdefault(served, []).extend(filters)
        for name, of_list in names.items():
            lists[name] = frozenset(entry for item in of_list.items() for entry in _split(*item))
    return CrtLists(lists, certificates, authorities)


def _where_terminated(frontend: Frontend, listener: ListenerNode) -> str:
    """Name the frontend of HAProxy that terminates a listener's TLS."""
    name = frontend_name(*frontend.key)
    if frontend.mode != "tls":
        return name
    return inner_name(name, "https" if listener.protocol == "HTTPS" else "tls")


def _find_deeper(frontend: Frontend, hosts: Iterable[VirtualHost]) -> Mapping[ListenerKey, list[str]]:
    """Give the hosts of each listener that HAProxy does not take for covered by the listener's wildcard."""
    wildcards = {node.key: node.hostname for node in frontend.listeners if node.hostname.startswith("*.")}
    found: dict[ListenerKey, list[str]] = {}
    for host in hosts if wildcards else ():
        wildcard = wildcards.get(host.listener)
        if wildcard is not None and host.host != wildcard and not _is_made_for(wildcard, host.host):
            found.setdefault(host.listener, []).append(host.host)
    return found


def choose_certificates(
    frontend: Frontend, listener: ListenerNode, certificates: Sequence[Certificate], hosts: Iterable[str]
) -> Iterator[tuple[Certificate, tuple[str, ...]]]:
    """Say which of a listener's certificates serve which names, for each kind of key apart.

    The names are the listener's own, those in ``hosts``, and those that the certificates are made for and no other
    listener of the port owns. A name goes to the first certificate that is made for it, else to the first.
    """
    own = listener.hostname or ANY_HOST
    for algorithm in ("ecdsa", "rsa"):
        pairs = [item for item in certificates if item.algorithm == algorithm]
        if not pairs:
            continue
        wanted = {own, *hosts}
        wanted |= {name for item in pairs for name in item.hostnames if frontend.owner(name) == listener.key}
        chosen: dict[str, set[str]] = {item.identity: set() for item in pairs}
        for name in wanted:
            fitting = (item for item in pairs if any(_is_made_for(made, name) for made in item.hostnames))
            chosen[next(fitting, pairs[0]).identity].add(name)
        for item in pairs:
            if chosen[item.identity]:
                yield item, tuple(sorted(chosen[item.identity]))


def _is_made_for(pattern: str, name: str) -> bool:
    """Tell whether a certificate's name is good for a name: a wildcard stands for one label (RFC 9525, section 6.3)."""
    if pattern == name:
        return True
    return pattern.startswith("*.") and not name.startswith("*") and name.partition(".")[2] == pattern[2:]


def _split(served: tuple[str, str, bool], filters: Iterable[str]) -> Iterator[CrtEntry]:
    certificate, authorities, falls_back = served
    part: list[str] = []
    length = 0
    for name in sorted(set(filters)):
        if part and length + len(name) > ENTRY_LIMIT:
            yield CrtEntry(certificate, tuple(part), authorities, falls_back)
            part, length = [], 0
        part.append(name)
        length += len(name) + 1
    if part:
        yield CrtEntry(certificate, tuple(part), authorities, falls_back)
