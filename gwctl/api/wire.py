"""The base of every wire model, and the scalar types that the CRDs share.

In: JSON values. Out: frozen pydantic models in snake_case, with tuples for lists. The surprising fact: an
unknown field is an *error* here, because pydantic then says where it is; ``parse`` reports it, takes it away
and parses again. Fields that we know of and never read are listed in ``unused`` so that they do not count as
unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator
from pydantic.alias_generators import to_camel

GATEWAY_GROUP = "gateway.networking.k8s.io"

LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
HOSTNAME_PATTERN = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
GROUP_PATTERN = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
KIND_PATTERN = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"
HEADER_NAME_PATTERN = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$"
DURATION_PATTERN = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"

Group = Annotated[StrictStr, Field(max_length=253, pattern=GROUP_PATTERN)]
Kind = Annotated[StrictStr, Field(min_length=1, max_length=63, pattern=KIND_PATTERN)]
ObjectName = Annotated[StrictStr, Field(min_length=1, max_length=253)]
NamespaceName = Annotated[StrictStr, Field(min_length=1, max_length=63, pattern=LABEL_PATTERN)]
SectionName = Annotated[StrictStr, Field(min_length=1, max_length=253, pattern=SUBDOMAIN_PATTERN)]
Hostname = Annotated[StrictStr, Field(min_length=1, max_length=253, pattern=HOSTNAME_PATTERN)]
PreciseHostname = Annotated[StrictStr, Field(min_length=1, max_length=253, pattern=SUBDOMAIN_PATTERN)]
PortNumber = Annotated[StrictInt, Field(ge=1, le=65535)]
HeaderName = Annotated[StrictStr, Field(min_length=1, max_length=256, pattern=HEADER_NAME_PATTERN)]
HeaderValue = Annotated[StrictStr, Field(min_length=1, max_length=4096)]
Duration = Annotated[StrictStr, Field(pattern=DURATION_PATTERN)]

Loc = tuple[str | int, ...]


class Violation(NamedTuple):
    """A rule that spans several fields and is broken: where (names as in the JSON) and what must hold."""

    loc: Loc
    message: str


class Wire(BaseModel):
    """A part of a resource."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        hide_input_in_errors=True,
        regex_engine="rust-regex",
    )


class PartialWire(Wire):
    """A part of which we keep only some fields; the others that exist are named in ``unused``."""

    unused: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _drop_unused(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and not cls.unused.isdisjoint(value):
            return {key: item for key, item in value.items() if key not in cls.unused}
        return value


class LabelSelectorRequirement(Wire):
    key: StrictStr
    operator: StrictStr
    values: tuple[StrictStr, ...] = ()


class LabelSelector(Wire):
    match_labels: Mapping[StrictStr, StrictStr] = Field(default_factory=dict)
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


class ParentReference(Wire):
    """What a route wants to attach to. ``namespace`` None: the route's own."""

    group: Group = GATEWAY_GROUP
    kind: Kind = "Gateway"
    namespace: NamespaceName | None = None
    name: ObjectName
    section_name: SectionName | None = None
    port: PortNumber | None = None


class BackendObjectReference(Wire):
    """An object that takes requests. ``namespace`` None: the route's own."""

    group: Group = ""
    kind: Kind = "Service"
    name: ObjectName
    namespace: NamespaceName | None = None
    port: PortNumber | None = None


class BackendRef(BackendObjectReference):
    weight: Annotated[StrictInt, Field(ge=0, le=1_000_000)] = 1


class LocalObjectReference(Wire):
    group: Group
    kind: Kind
    name: ObjectName


class SecretObjectReference(Wire):
    group: Group = ""
    kind: Kind = "Secret"
    name: ObjectName
    namespace: NamespaceName | None = None


class ObjectReference(Wire):
    group: Group
    kind: Kind
    name: ObjectName
    namespace: NamespaceName | None = None


ParentRefs = Annotated[tuple[ParentReference, ...], Field(max_length=32)]


def check_parent_refs(refs: tuple[ParentReference, ...], loc: Loc) -> list[Violation]:
    """Several references to one parent must differ in sectionName or port (CRD, parentRefs' CEL rules)."""
    found: list[Violation] = []
    seen: dict[tuple[str, str, str | None, str], ParentReference] = {}
    whole: set[tuple[object, ...]] = set()
    for index, ref in enumerate(refs):
        parent = (ref.group, ref.kind, ref.namespace, ref.name)
        first = seen.setdefault(parent, ref)
        if (first.section_name is None, first.port is None) != (ref.section_name is None, ref.port is None):
            message = "sectionName or port must be specified when parentRefs name the same parent twice"
            found.append(Violation((*loc, index), message))
        section = (*parent, ref.section_name, ref.port)
        if section in whole:
            message = "sectionName or port must be unique when parentRefs name the same parent twice"
            found.append(Violation((*loc, index), message))
        whole.add(section)
    return found


def check_matches(numbers: Iterable[int]) -> list[Violation]:
    """How many matches the rules of a route have: all together have a limit.

    Names of rules may be the same, as the standard channel's CRDs allow: nothing refers to them.
    """
    if sum(numbers) > 128:
        return [Violation(("spec", "rules"), "the rules have more than 128 matches in all")]
    return []


def check_backend_port(ref: BackendObjectReference, loc: Loc) -> list[Violation]:
    if ref.group == "" and ref.kind == "Service" and ref.port is None:
        return [Violation((*loc, "port"), "must have port for Service reference")]
    return []


def full_kind(group: str, kind: str) -> str:
    """Name a kind as messages do: with its group, but for the core group."""
    return f"{group}/{kind}" if group else kind


def is_label(text: str) -> bool:
    """A DNS label (RFC 1123), as names of namespaces and Services are."""
    return len(text) <= 63 and re.fullmatch(LABEL_PATTERN[1:-1], text) is not None


def is_subdomain(text: str) -> bool:
    """A DNS name (RFC 1123), as names of most objects are."""
    return len(text) <= 253 and re.fullmatch(SUBDOMAIN_PATTERN[1:-1], text) is not None
