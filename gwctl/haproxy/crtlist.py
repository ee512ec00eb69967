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
from gwctl.haproxy.names import (
    PLACEHOLDER,
    PLACEHOLDER_HOST,
    authorities_name,
    certificate_name,
    crt_list_name,
    frontend_name,
    inner_name,
)
from gwctl.haproxy.state import CrtEntry, CrtList
from gwctl.routing.virtualhost import ANY_HOST, Frontend, Routing, VirtualHost

ENTRY_LIMIT = 4_000
"""Longest list of names in an entry, in bytes; more names go on in another entry."""

EXCLUSION_LIMIT = 12_000
"""Longest list of names that a wildcard does not cover, in bytes. HAProxy's command line takes entries of 14,000."""


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
        drafts: dict[str, _Draft] = {}
        for node in frontend.listeners:
            if node.tls != "Terminate":
                continue
            draft = drafts.setdefault(crt_list_name(_where_terminated(frontend, node)), _Draft())
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
            falls_back = bool(verified) and frontend.falls_back
            for certificate, names in choose_certificates(frontend, node, usable, deeper.get(node.key, ())):
                entry = CrtEntry(certificate_name(certificate.identity), names, verified, falls_back)
                draft.add(node, certificate.algorithm, entry)
        for name, draft in drafts.items():
            lists[name] = frozenset(draft.finish(frontend, deeper))
    return CrtLists(lists, certificates, authorities)


class _Draft:
    """A crt-list in the making, which sees to it that no listener's certificate is shown to a name of another's.

    HAProxy looks through exact names and wildcards together and prefers ECDSA, then RSA, to what is neither. So a
    wildcard's entry leaves out the names that have no entry of their own for its kind of key. What nothing covers is
    shown what ``*`` says; there the names of a listener without certificates have the certificate that is never served.
    """

    def __init__(self) -> None:
        self._names: dict[tuple[int, str, CrtEntry], set[str]] = {}
        self._algorithms: dict[str, set[str]] = {}
        self._served: set[ListenerKey] = set()

    def add(self, listener: ListenerNode, algorithm: str, entry: CrtEntry) -> None:
        """Serve what a listener serves. Listeners whose names reach equally far share entries: see `diff`."""
        reach = CrtEntry("", (listener.hostname or ANY_HOST,)).reach
        self._names.setdefault((reach, algorithm, entry._replace(filters=())), set()).update(entry.filters)
        for name in entry.filters:
            self._algorithms.setdefault(name, set()).add(algorithm)
        self._served.add(listener.key)

    def finish(self, frontend: Frontend, deeper: Mapping[ListenerKey, Sequence[str]]) -> Iterator[CrtEntry]:
        """Give the entries."""
        below = self._find_below(frontend)
        for (_, algorithm, entry), names in self._names.items():
            yield from _split(entry, (self._with_exclusions(name, algorithm, below) for name in sorted(names)))
        if ANY_HOST in self._algorithms:
            bare = [node for node in frontend.listeners if node.key not in self._served]
            unserved = {name for node in bare for name in (node.hostname, *deeper.get(node.key, ()))}
            unserved.discard(PLACEHOLDER_HOST)  # each list begins with it
            yield from _split(CrtEntry(PLACEHOLDER, ()), ((name,) for name in sorted(unserved)))

    def _find_below(self, frontend: Frontend) -> Mapping[str, list[str]]:
        """Give the names that each wildcard of the list covers: those of listeners, by precedence, then others."""
        below: dict[str, list[str]] = {name: [] for name in self._algorithms if name.startswith("*.")}
        for name in dict.fromkeys((*(node.hostname for node in frontend.listeners), *sorted(self._algorithms))):
            covering = below.get(f"*.{name.partition('.')[2]}")
            if covering is not None and not name.startswith("*"):
                covering.append(name)
        return below

    def _with_exclusions(self, name: str, algorithm: str, below: Mapping[str, Sequence[str]]) -> list[str]:
        """Give a name with what it must not cover, which HAProxy takes in the same entry only."""
        filters, length = [name], 0
        for other in below.get(name, ()):
            if algorithm not in self._algorithms.get(other, ()):
                length += len(other) + 2
                if length > EXCLUSION_LIMIT:
                    break
                filters.append(f"!{other}")
        return filters


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
    """Say which of a listener's certificates serve which names.

    The names are the listener's own, those in ``hosts``, and those that the certificates are made for and no other
    listener of the port owns. A name goes to the first certificate that is made for it, else to the first: to
    one with an ECDSA and one with an RSA key where there are both.
    """
    wanted = {listener.hostname or ANY_HOST, *hosts}
    wanted |= {name for item in certificates for name in item.hostnames if frontend.owner(name) == listener.key}
    chosen: dict[str, set[str]] = {item.identity: set() for item in certificates}
    for name in wanted:
        made = [item for item in certificates if any(_is_made_for(made, name) for made in item.hostnames)]
        first = {item.algorithm: item for item in reversed(made or certificates)}
        for item in first.values():
            chosen[item.identity].add(name)
    for item in certificates:
        if chosen[item.identity]:
            yield item, tuple(sorted(chosen[item.identity]))


def _is_made_for(pattern: str, name: str) -> bool:
    """Tell whether a certificate's name is good for a name: a wildcard stands for one label (RFC 9525, section 6.3)."""
    if pattern == name:
        return True
    return pattern.startswith("*.") and not name.startswith("*") and name.partition(".")[2] == pattern[2:]


def _split(entry: CrtEntry, names: Iterable[Sequence[str]]) -> Iterator[CrtEntry]:
    """Give entries of names, each with its exclusions."""
    part: list[str] = []
    length = 0
    for filters in names:
        needed = sum(len(name) + 1 for name in filters)
        if part and length + needed > ENTRY_LIMIT:
            yield entry._replace(filters=tuple(sorted(part)))
            part, length = [], 0
        part += filters
        length += needed
    if part:
        yield entry._replace(filters=tuple(sorted(part)))
