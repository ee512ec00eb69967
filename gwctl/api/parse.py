"""One manifest, as JSON or YAML gives it, to one typed resource and everything that is wrong with it.

Nothing here raises, whatever the manifest holds. The surprising facts: an unknown field is reported and the
resource stands, as with an API server that warns; a null is an absent field, as with an API server; and a
kind that we have nothing to do with gives neither a resource nor a report. A Gateway, a route or a BackendTLSPolicy
that cannot be read gives what stands in for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gwctl.api import wire
from gwctl.api.backendtlspolicy import BackendTLSPolicy, build_unreadable
from gwctl.api.configmap import ConfigMap
from gwctl.api.endpointslice import EndpointSlice
from gwctl.api.gateway import CONTROLLER_PATTERN, Gateway, GatewayClass
from gwctl.api.grpcroute import GRPCRoute
from gwctl.api.httproute import HTTPRoute
from gwctl.api.listenerset import ListenerSet
from gwctl.api.meta import Unreadable
from gwctl.api.namespace import Namespace
from gwctl.api.ref import Ref
from gwctl.api.referencegrant import ReferenceGrant
from gwctl.api.secret import Secret
from gwctl.api.service import Service
from gwctl.api.tcproute import TCPRoute
from gwctl.api.tlsroute import TLSRoute
from gwctl.api.unreadable import build_stand_in

Resource = (
    GatewayClass
    | Gateway
    | ListenerSet
    | HTTPRoute
    | GRPCRoute
    | TCPRoute
    | TLSRoute
    | ReferenceGrant
    | Service
    | EndpointSlice
    | Namespace
    | Secret
    | ConfigMap
    | BackendTLSPolicy
)

INVALID = "Invalid"
UNKNOWN_FIELD = "UnknownField"
UNSUPPORTED_KIND = "UnsupportedKind"

# Every version that a kind was ever served in.
_GATEWAY_KINDS: dict[str, tuple[type[Resource] | None, frozenset[str]]] = {
    "GatewayClass": (GatewayClass, frozenset({"v1", "v1beta1", "v1alpha2"})),
    "Gateway": (Gateway, frozenset({"v1", "v1beta1", "v1alpha2"})),
    "HTTPRoute": (HTTPRoute, frozenset({"v1", "v1beta1", "v1alpha2"})),
    "GRPCRoute": (GRPCRoute, frozenset({"v1", "v1alpha2"})),
    "TCPRoute": (TCPRoute, frozenset({"v1", "v1alpha2"})),
    "TLSRoute": (TLSRoute, frozenset({"v1", "v1alpha2", "v1alpha3"})),
    "ReferenceGrant": (ReferenceGrant, frozenset({"v1", "v1beta1", "v1alpha2"})),
    "UDPRoute": (None, frozenset({"v1", "v1alpha2"})),
    "ListenerSet": (ListenerSet, frozenset({"v1"})),
    "BackendTLSPolicy": (BackendTLSPolicy, frozenset({"v1", "v1alpha3"})),
}
_CORE_KINDS: dict[str, type[Resource]] = {
    "Service": Service,
    "Namespace": Namespace,
    "Secret": Secret,
    "ConfigMap": ConfigMap,
}

# What the long patterns of the CRDs mean.
_PATTERN_MESSAGES = {
    wire.LABEL_PATTERN: "must be a lowercase DNS label",
    wire.SUBDOMAIN_PATTERN: "must be a lowercase DNS name",
    wire.HOSTNAME_PATTERN: "must be a lowercase DNS name, of which the first label may be '*'",
    wire.GROUP_PATTERN: "must be empty or a lowercase DNS name",
    wire.KIND_PATTERN: "must be letters, digits and '-', beginning with a letter",
    wire.HEADER_NAME_PATTERN: "must be a token as RFC 9110 defines it: letters, digits and !#$%&'*+-.^_`|~",
    wire.DURATION_PATTERN: "must be a duration such as 1h30m, 10s or 500ms",
    CONTROLLER_PATTERN: "must be a DNS name, '/' and a path",
}


@dataclass(frozen=True, slots=True)
class Invalid:
    """Something wrong in a manifest.

    ``field`` is a path in the manifest's own words (``spec.rules[0].matches[0].path.value``), empty when it
    is about the whole. ``reason`` is ``Invalid`` (there is no resource, but for what stands in for it),
    ``UnknownField`` (the resource stands without it) or ``UnsupportedKind`` (one that we know of and do not
    support yet).
    """

    subject: Ref
    field: str
    message: str
    reason: str = INVALID


class ParseResult(NamedTuple):
    """What a manifest gave. ``resource`` is None when it is invalid, unsupported or none of our business.

    Of what is invalid there may be a stand-in: see `is_unreadable`.
    """

    resource: Resource | None
    invalid: tuple[Invalid, ...] = ()


def known_versions(kind: str) -> frozenset[str]:
    """The versions of a kind of the Gateway API that can be parsed."""
    return _GATEWAY_KINDS[kind][1]


def is_unreadable(resource: Resource | None) -> bool:
    """Tell whether a resource stands in for one that cannot be read."""
    return isinstance(resource, Unreadable)


def fall_back(resource: Resource | None, last: Resource | None) -> Resource | None:
    """Give what stands where ``resource`` is what could be read of an object that was ``last`` before.

    What can no longer be read is as it was, but for a policy that is now for more: that must not get plain text there.
    """
    if not is_unreadable(resource):
        return last if resource is None else resource
    if last is None or is_unreadable(last):
        return resource
    if isinstance(resource, BackendTLSPolicy) and isinstance(last, BackendTLSPolicy):
        return last if set(resource.spec.target_refs) <= set(last.spec.target_refs) else resource
    return last


def parse_resource(manifest: object) -> ParseResult:
    """Parses one manifest: a mapping with ``apiVersion``, ``kind`` and the rest."""
    if not isinstance(manifest, Mapping):
        return ParseResult(None, (Invalid(Ref("", "", ""), "", "a manifest must be an object"),))
    subject = _read_subject(manifest)
    kind, version = manifest.get("kind"), manifest.get("apiVersion")
    missing = [
        Invalid(subject, field, "must be a text that is not empty")
        for field, value in (("apiVersion", version), ("kind", kind))
        if not isinstance(value, str) or not value
    ]
    if missing or not isinstance(kind, str) or not isinstance(version, str):
        return ParseResult(None, tuple(missing))
    group, _, served = version.rpartition("/")
    if group == wire.GATEWAY_GROUP:
        if kind not in _GATEWAY_KINDS:
            return ParseResult(None, (Invalid(subject, "kind", f"{kind} is not a kind of {group}"),))
        model, versions = _GATEWAY_KINDS[kind]
        if served not in versions:
            message = f"{served} is not a version of {kind}; known are {', '.join(sorted(versions))}"
            return _refuse(model, manifest, (), [Invalid(subject, "apiVersion", message)])
        if model is None:
            return ParseResult(None, (Invalid(subject, "kind", f"{kind} is not supported yet", UNSUPPORTED_KIND),))
        return _parse(model, manifest, subject)
    if version == "v1" and kind in _CORE_KINDS:
        return _parse(_CORE_KINDS[kind], manifest, subject)
    if version == "discovery.k8s.io/v1" and kind == "EndpointSlice":
        return _parse(EndpointSlice, manifest, subject)
    return ParseResult(None)


def _parse(model: type[Resource], manifest: Mapping[Any, Any], subject: Ref) -> ParseResult:
    value: Any = dict(manifest)
    unknown: list[Invalid] = []
    pruned = False
    while True:
        try:
            resource = model.model_validate(value)
        except ValidationError as error:
            errors = _without_echoes(error.errors(include_url=False, include_context=True, include_input=True))
        except RecursionError:
            return _refuse(model, value, (), [Invalid(subject, "", "is nested too deeply")])
        else:
            violations = [Invalid(subject, field_path(v.loc), v.message) for v in resource.check()]
            if violations:
                return _refuse(model, value, unknown, violations)
            return ParseResult(resource, tuple(unknown))
        if not pruned:
            # The API server drops nulls before it defaults and validates.
            pruned = True
            value, had_null = _prune_nulls(value, 64)
            if had_null:
                continue
        extra = [detail for detail in errors if detail["type"] in ("extra_forbidden", "invalid_key")]
        for detail in extra:
            unknown.append(Invalid(subject, field_path(detail["loc"]), "unknown field", UNKNOWN_FIELD))
            value = _without(value, detail["loc"])
        if len(extra) < len(errors):
            wrong = [
                Invalid(subject, field_path(detail["loc"]), _describe(detail, model.echoes))
                for detail in errors
                if detail not in extra
            ]
            return _refuse(model, value, unknown, wrong)


def _refuse(
    model: type[Resource] | None, value: Mapping[Any, Any], unknown: Iterable[Invalid], wrong: list[Invalid]
) -> ParseResult:
    stand_in: Resource | None = None
    if model is not None:
        known, _ = _prune_nulls({key: value.get(key) for key in ("metadata", "spec")}, 8)
        told = tuple((item.field, item.message) for item in wrong)
        is_policy = model is BackendTLSPolicy
        stand_in = build_unreadable(known, told) if is_policy else build_stand_in(model, known, told)
    return ParseResult(stand_in, (*unknown, *wrong))


def _without_echoes(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Pydantic calls a list too short when an item of it is wrong. That is no error of its own."""
    locs = [detail["loc"] for detail in errors]
    return [
        detail
        for detail in errors
        if detail["type"] != "too_short"
        or not any(len(loc) > len(detail["loc"]) and loc[: len(detail["loc"])] == detail["loc"] for loc in locs)
    ]


def field_path(loc: tuple[str | int, ...]) -> str:
    """A location as a person writes it: ``spec.rules[0].name``, ``metadata.labels[example.com/x]``."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() or not path:
            path += f".{part}" if path else part
        elif part == "[key]":  # pydantic's mark of an error about a mapping's key
            continue
        else:
            path += f"[{part}]"
    return path


def _read_subject(manifest: Mapping[Any, Any]) -> Ref:
    kind, metadata = manifest.get("kind"), manifest.get("metadata")
    name: object = ""
    namespace: object = ""
    if isinstance(metadata, Mapping):
        name, namespace = metadata.get("name"), metadata.get("namespace")
    cluster_scoped = kind in ("GatewayClass", "Namespace") if isinstance(kind, str) else False
    return Ref(
        kind if isinstance(kind, str) else "",
        "" if cluster_scoped else namespace if isinstance(namespace, str) and namespace else "default",
        name if isinstance(name, str) else "",
    )


def _describe(detail: ErrorDetails, echoes: bool) -> str:
    context = detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return "is required"
        case "string_pattern_mismatch":
            pattern = context["pattern"]
            message = _PATTERN_MESSAGES.get(pattern, f"must match {pattern}")
        case "literal_error":
            message = f"must be {context['expected']}"
        case "string_type" | "string_unicode":
            message = "must be a text"
        case "int_type":
            message = "must be an integer"
        case "bool_type":
            message = "must be true or false"
        case "tuple_type":
            message = "must be a list"
        case "model_type" | "mapping_type" | "dict_type" | "model_attributes_type":
            message = "must be an object"
        case "string_too_long":
            return f"must have at most {context['max_length']} characters"
        case "string_too_short":
            return "must not be empty"
        case "too_long":
            return f"must have at most {_items(context['max_length'])}"
        case "too_short":
            return f"must have at least {_items(context['min_length'])}"
        case "greater_than_equal":
            message = f"must be at least {context['ge']}"
        case "less_than_equal":
            message = f"must be at most {context['le']}"
        case _:
            return detail["msg"]
    value = detail["input"]
    if echoes and isinstance(value, str | int | float) and len(repr(value)) < 80:
        return f"{message}, not {value!r}"
    return message


def _items(number: int) -> str:
    return f"{number} item{'' if number == 1 else 's'}"


def _prune_nulls(value: Any, depth: int) -> tuple[Any, bool]:
    """The value without the null fields of its objects, and whether it had any."""
    if depth == 0:
        return value, False
    found = False
    if isinstance(value, Mapping):
        kept = {}
        for key, item in value.items():
            if item is None:
                found = True
                continue
            kept[key], below = _prune_nulls(item, depth - 1)
            found = found or below
        return kept, found
    if isinstance(value, list | tuple):
        items = []
        for item in value:
            clean, below = _prune_nulls(item, depth - 1)
            items.append(clean)
            found = found or below
        return items, found
    return value, False


def _without(value: Any, loc: tuple[str | int, ...]) -> Any:
    """The value without the field at that location; what is not on the way there is shared."""
    if not loc:
        return value
    head, rest = loc[0], loc[1:]
    if isinstance(value, Mapping):
        if not rest or rest == ("[key]",):
            return {key: item for key, item in value.items() if str(key) != str(head)}
        return {key: _without(item, rest) if key == head else item for key, item in value.items()}
    if isinstance(value, list | tuple) and isinstance(head, int):
        return [_without(item, rest) if place == head else item for place, item in enumerate(value)]
    return value
