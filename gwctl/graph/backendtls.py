"""BackendTLSPolicies: for which ports of which Services connections are TLS, how, and what is wrong with policies.

In: a snapshot. Out: `Policies`. A policy for one port goes before one for the whole Service; of two for the same the
older has it. The surprising fact: a policy that cannot be honoured still has what it is for, and requests are answered
with an error there; it never gives way to plain text or to a younger policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import MappingProxyType

from gwctl.api.backendtlspolicy import SYSTEM, BackendTLSPolicy, PolicyTargetReference, UnreadablePolicy
from gwctl.api.ref import Ref
from gwctl.api.service import Service
from gwctl.api.wire import LocalObjectReference, full_kind
from gwctl.graph import problem
from gwctl.graph.authority import join_authorities, read_authorities
from gwctl.graph.node import Authorities, BackendTLS, Policies, Problem, in_order
from gwctl.snapshot import Snapshot

_VALIDATION = "spec.validation"


def judge_policies(snapshot: Snapshot) -> Policies:
    """Judge all policies of a snapshot."""
    if not snapshot.backend_tls_policies:
        return Policies()
    verdicts: dict[Ref, dict[str, BackendTLS | None]] = {}
    holders: dict[tuple[Ref, str], Ref] = {}
    judged: dict[Ref, tuple[BackendTLS | None, tuple[Problem, ...]]] = {}
    by_service: dict[Ref, list[Ref]] = {}
    for policy in sorted(snapshot.backend_tls_policies.values(), key=lambda item: item.age):
        found: list[Problem] = []
        tls = _read_policy(policy, snapshot, found)
        for index, (target, section) in enumerate(_targets(policy)):
            path = f"spec.targetRefs[{index}]"
            if target is None:
                named = policy.spec.target_refs[index]
                message = f"only a core Service can be targeted, not {full_kind(named.group, named.kind)}"
                found.append(problem.invalid_policy(policy.ref, f"{path}.kind", message))
                continue
            if policy.ref not in by_service.setdefault(target, []):
                by_service[target].append(policy.ref)
            found += _check_target(policy.ref, path, target, section, snapshot.services.get(target))
            holder = holders.setdefault((target, section), policy.ref)
            if holder == policy.ref:
                verdicts.setdefault(target, {})[section] = tls
            else:
                found.append(problem.policy_conflict(policy.ref, path, target, holder))
        judged[policy.ref] = (tls, in_order(found))
    return Policies(
        MappingProxyType(verdicts),
        MappingProxyType(judged),
        MappingProxyType({service: tuple(policies) for service, policies in by_service.items()}),
    )


def find_config_maps(policies: Iterable[BackendTLSPolicy]) -> Iterator[Ref]:
    """Yield the ConfigMaps that policies refer to, existing or not."""
    for policy in policies:
        for reference in policy.spec.validation.ca_certificate_refs:
            if _is_config_map(reference):
                yield Ref("ConfigMap", policy.ref.namespace, reference.name)


def services_of(policy: BackendTLSPolicy) -> Iterator[Ref]:
    """Yield the Services that a policy is for, existing or not."""
    return (target for target, _ in _targets(policy) if target is not None)


def _targets(policy: BackendTLSPolicy) -> Iterator[tuple[Ref | None, str]]:
    for target in policy.spec.target_refs:
        yield _service(policy, target), target.section_name or ""


def _service(policy: BackendTLSPolicy, target: PolicyTargetReference) -> Ref | None:
    if (target.group, target.kind) != ("", "Service"):
        return None
    return Ref("Service", policy.ref.namespace, target.name)


def _check_target(policy: Ref, path: str, target: Ref, section: str, service: Service | None) -> Iterator[Problem]:
    """A target without a port for TCP is refused, and beside one the ports for something else are named."""
    if service is None:
        yield problem.policy_target_not_found(policy, path, f"there is no {target}")
        return
    ports = [port for port in service.spec.ports if section in ("", port.name)]
    if section and not ports:
        yield problem.policy_target_not_found(policy, path, f"{target} has no port {section!r}")
    others = [port for port in ports if port.protocol != "TCP"]
    names = ", ".join(f"port {port.port} ({port.protocol})" for port in others)
    message = f"TLS is for TCP, not for {names} of {target}"
    if others and len(others) == len(ports):
        yield problem.invalid_policy(policy, path, message)
    elif others:
        yield problem.unsupported_policy_field(policy, path, message)


def _read_policy(policy: BackendTLSPolicy, snapshot: Snapshot, found: list[Problem]) -> BackendTLS | None:
    """Read how a policy wants TLS; None, and why, where that cannot be had."""
    ref, validation = policy.ref, policy.spec.validation
    if isinstance(policy, UnreadablePolicy):
        found += (problem.invalid_policy(ref, field, message) for field, message in policy.wrong)
        return None
    refused = [
        problem.invalid_policy(ref, f"spec.options[{key}]", "options of TLS are not supported")
        for key in sorted(policy.spec.options)
    ]
    for item in _check_names(policy):
        (refused if item.condition == problem.ACCEPTED else found).append(item)
    authorities = _read_authorities(policy, snapshot, found, refused)
    found += refused
    return None if refused else BackendTLS(validation.hostname, authorities)


def _check_names(policy: BackendTLSPolicy) -> Iterator[Problem]:
    """HAProxy verifies the one name that it sends (SNI), and knows of URIs nothing.

    So where that name is one of several, the others are left out: nothing is accepted then that is not asked for.
    """
    hostname, names = policy.spec.validation.hostname, policy.spec.validation.subject_alt_names
    stands = any(name.hostname == hostname for name in names)
    for index, name in enumerate(names):
        path = f"{_VALIDATION}.subjectAltNames[{index}]"
        if name.type == "URI":
            path, message = f"{path}.uri", "HAProxy cannot verify URIs"
        elif name.hostname != hostname:
            path = f"{path}.hostname"
            message = (
                f"HAProxy verifies the name that it sends, which is the policy's hostname {hostname}, and no other"
            )
        else:
            continue
        if stands:
            yield problem.unsupported_policy_field(
                policy.ref, path, f"{message}: backends need a certificate for {hostname}"
            )
        else:
            yield problem.invalid_policy(policy.ref, path, message)


def _read_authorities(
    policy: BackendTLSPolicy, snapshot: Snapshot, found: list[Problem], refused: list[Problem]
) -> Authorities | None:
    """Read the authorities of a policy; None are those of the system."""
    ref, validation = policy.ref, policy.spec.validation
    if validation.well_known_ca_certificates:
        if validation.well_known_ca_certificates != SYSTEM:
            message = f"only {SYSTEM} is known, not {validation.well_known_ca_certificates}"
            refused.append(problem.invalid_policy(ref, f"{_VALIDATION}.wellKnownCACertificates", message))
        return None
    sets: list[tuple[str, ...]] = []
    for index, reference in enumerate(validation.ca_certificate_refs):
        path = f"{_VALIDATION}.caCertificateRefs[{index}]"
        certificates = _resolve(policy, reference, snapshot, path)
        if isinstance(certificates, Problem):
            found.append(certificates)
        else:
            sets.append(certificates)
    path = f"{_VALIDATION}.caCertificateRefs"
    if not sets:
        refused.append(problem.no_valid_ca_certificate(ref, path, "none of the references leads to a CA certificate"))
        return None
    joined = join_authorities(sets)
    if isinstance(joined, Authorities):
        return joined
    refused.append(problem.no_valid_ca_certificate(ref, path, joined))
    return None


def _resolve(
    policy: BackendTLSPolicy, reference: LocalObjectReference, snapshot: Snapshot, path: str
) -> tuple[str, ...] | Problem:
    if not _is_config_map(reference):
        return problem.invalid_ca_kind(policy.ref, f"{path}.kind", reference.group, reference.kind)
    target = Ref("ConfigMap", policy.ref.namespace, reference.name)
    config_map = snapshot.config_maps.get(target)
    if config_map is None:
        return problem.invalid_ca_certificate_ref(policy.ref, path, f"there is no {target} that gwctl can read")
    certificates = read_authorities(config_map)
    if isinstance(certificates, str):
        return problem.invalid_ca_certificate_ref(policy.ref, path, f"{target} {certificates}")
    return certificates


def _is_config_map(reference: LocalObjectReference) -> bool:
    return (reference.group, reference.kind) == ("", "ConfigMap")
