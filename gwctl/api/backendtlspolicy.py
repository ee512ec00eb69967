"""BackendTLSPolicy: that connections to a Service are TLS, and how its backends are verified.

The surprising facts: of two policies for one Service the CRD knows nothing; which counts is the graph's business. And a
policy that cannot be read is still a policy (`UnreadablePolicy`), so that its Services do not get plain text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictStr, ValidationError

from gwctl.api.meta import Object, ObjectMeta, Unreadable
from gwctl.api.wire import (
    Group,
    Hostname,
    Kind,
    Loc,
    LocalObjectReference,
    ObjectName,
    PreciseHostname,
    Violation,
    Wire,
)

SYSTEM = "System"

ANCESTORS_LIMIT = 16
"""How many entries the status of a policy may have, those of all controllers together."""


class PolicyTargetReference(Wire):
    """What a policy is for. ``section_name`` is the name of a Service's port; None or empty: all its ports."""

    group: Group
    kind: Kind
    name: ObjectName
    section_name: Annotated[StrictStr, Field(max_length=253)] | None = None


class SubjectAltName(Wire):
    type: Literal["Hostname", "URI"]
    hostname: Hostname | Literal[""] = ""
    uri: Annotated[StrictStr, Field(max_length=253)] = ""


class BackendTLSPolicyValidation(Wire):
    ca_certificate_refs: Annotated[tuple[LocalObjectReference, ...], Field(max_length=8)] = ()
    well_known_ca_certificates: Annotated[StrictStr | None, Field(alias="wellKnownCACertificates", max_length=253)] = (
        None
    )
    hostname: PreciseHostname
    subject_alt_names: Annotated[tuple[SubjectAltName, ...], Field(max_length=5)] = ()


class BackendTLSPolicySpec(Wire):
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Field(min_length=1, max_length=16)]
    validation: BackendTLSPolicyValidation
    options: Annotated[Mapping[StrictStr, Annotated[StrictStr, Field(max_length=4096)]], Field(max_length=16)] = Field(
        default_factory=dict
    )


class BackendTLSPolicy(Object):
    kind: ClassVar[str] = "BackendTLSPolicy"

    spec: BackendTLSPolicySpec

    def check(self) -> list[Violation]:
        found = super().check()
        _check_targets(self.spec.target_refs, found)
        loc: Loc = ("spec", "validation")
        validation = self.spec.validation
        if bool(validation.ca_certificate_refs) == bool(validation.well_known_ca_certificates):
            message = "must specify either caCertificateRefs or wellKnownCACertificates, and not both"
            found.append(Violation(loc, message))
        for index, name in enumerate(validation.subject_alt_names):
            for kind, field, value in (("Hostname", "hostname", name.hostname), ("URI", "uri", name.uri)):
                if (name.type == kind) != bool(value):
                    message = f"must be given where type is {kind}, and there only"
                    found.append(Violation((*loc, "subjectAltNames", index, field), message))
        return found


_UNKNOWN = BackendTLSPolicyValidation.model_validate({"hostname": "unknown.invalid", "wellKnownCACertificates": SYSTEM})


class UnreadablePolicy(Unreadable, BackendTLSPolicy):
    """Stands in for a policy that cannot be read: all that is known is what it is for."""


def build_unreadable(manifest: Mapping[Any, Any], wrong: tuple[tuple[str, str], ...]) -> UnreadablePolicy | None:
    """Build what stands in for a policy; None where nothing can be told of what it is for."""
    spec = manifest.get("spec")
    items = spec.get("targetRefs") if isinstance(spec, Mapping) else None
    targets = tuple(filter(None, map(_read_target, items))) if isinstance(items, list | tuple) else ()
    try:
        metadata = ObjectMeta.model_validate(manifest.get("metadata"))
    except (ValidationError, RecursionError):
        return None
    known = BackendTLSPolicySpec.model_construct(target_refs=targets, validation=_UNKNOWN, options={})
    policy = UnreadablePolicy(metadata=metadata, spec=known, wrong=wrong)
    return policy if targets and not policy.check() else None


def _read_target(item: object) -> PolicyTargetReference | None:
    try:
        return PolicyTargetReference.model_validate(item)
    except (ValidationError, RecursionError):
        return None


def _check_targets(targets: tuple[PolicyTargetReference, ...], found: list[Violation]) -> None:
    """References to one target must differ in sectionName, and each must have one (CRD, targetRefs' CEL rules)."""
    seen: dict[tuple[str, str, str], list[str]] = {}
    for index, target in enumerate(targets):
        loc: Loc = ("spec", "targetRefs", index, "sectionName")
        sections = seen.setdefault((target.group, target.kind, target.name), [])
        section = target.section_name or ""
        if section in sections:
            found.append(Violation(loc, "must be unique when targetRefs name the same target twice"))
        elif sections and ("" in sections) != (section == ""):
            found.append(Violation(loc, "must be specified when targetRefs name the same target twice"))
        sections.append(section)
