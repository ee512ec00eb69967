"""The longest rule that is accepted fits into the rows of HAProxy's tables; a longer one is refused by its field."""

from __future__ import annotations

from typing import Any

import pytest

from gwctl.api.parse import parse_resource
from gwctl.graph.validate import HEADERS_LIMIT, MATCH_LIMIT
from gwctl.haproxy.names import Table
from gwctl.haproxy.table import ROW_LIMIT
from gwctl.runtime.pipeline import Pipeline, advance
from tests.manifests import CONTROLLER, Manifest, backend, gateway, gateway_class, http_route, listener, service
from tests.pipeline import parse

COMMAND_LIMIT = 15_360
"""What HAProxy takes in one command: a buffer of 16,384 bytes less the 1,024 that it keeps free."""

NAMESPACE = "n" * 63
SERVICES = [f"{index:02d}" + "s" * 61 for index in range(16)]
FIXED = parse(
    [
        gateway_class(),
        gateway([listener("l" * 253, 80)], namespace=NAMESPACE),
        *(service(name, 65535, NAMESPACE) for name in SERVICES),
    ]
)


def build(**fields: Any) -> Pipeline:
    """Build a route of one rule where every name is as long as can be."""
    refs = [backend(name, 65535, 1_000_000) for name in SERVICES]
    hostname = "*." + ".".join(["h" * 61] * 4)
    rules = [{"backendRefs": refs, **fields}]
    parents = ({"name": "gateway", "sectionName": "l" * 253},)
    result = parse_resource(http_route("r" * 253, rules, (hostname,), parents, NAMESPACE))
    assert result.resource is not None, result.invalid
    return advance(None, {**FIXED, result.resource.ref: result.resource}, CONTROLLER)


def longest_command(pipeline: Pipeline) -> int:
    rows = pipeline.tables.rows.items()
    return max(len(f"add map /{'d' * 1000}/{table} {key} {value}") for table, of in rows for key, value in of.items())


def header(length: int) -> Manifest:
    """A condition on a header that takes so many bytes, name, value and two signs."""
    assert length >= 7
    return {"name": "x", "value": "a" * (length - 5)}


@pytest.mark.parametrize("sixteen", [False, True])
def test_the_longest_match(sixteen: bool) -> None:
    path = {"type": "PathPrefix", "value": "/" + "p" * 999}
    left = MATCH_LIMIT - 1002
    headers = [header(100 + index) | {"name": "abcdefghijklmnop"[index]} for index in range(14 if sixteen else 0)]
    left -= sum(100 + index for index in range(14 if sixteen else 0))
    headers += [header(left // 2) | {"name": "y"}, header(left - left // 2) | {"name": "z"}]
    pipeline = build(matches=[{"path": path, "headers": headers}])
    assert pipeline.problems == ()
    assert max(map(len, pipeline.tables.rows[Table.GROUPS].values())) <= ROW_LIMIT
    assert longest_command(pipeline) < COMMAND_LIMIT
    headers[0]["value"] += "a"
    (problem,) = build(matches=[{"path": path, "headers": headers}]).problems
    assert (problem.field, problem.condition) == ("spec.rules[0].matches[0]", "Accepted")


def test_bytes_count_as_they_travel() -> None:
    """A letter of two bytes takes six, a sign of one byte three."""
    regex = {"type": "RegularExpression", "name": "q"}
    for text, length in (("é", 6), ("%", 3), ("€", 9), ("𐍈", 12)):
        fits = [
            regex | {"value": text * 700, "name": f"q{index}"} for index in range((MATCH_LIMIT - 50) // 700 // length)
        ]
        assert build(matches=[{"queryParams": fits}]).problems == ()
        (problem,) = build(matches=[{"queryParams": [*fits, regex | {"value": text * 700}]}]).problems
        assert problem.field == "spec.rules[0].matches[0]"


def test_the_longest_header_modifier() -> None:
    values = [("a", 4096), ("b", 4096), ("c", HEADERS_LIMIT - 2 * 4103 - 7)]
    change = {"set": [{"name": name, "value": "v" * length} for name, length in values]}
    filters = [{"type": "RequestHeaderModifier", "requestHeaderModifier": change}]
    pipeline = build(filters=filters)
    assert pipeline.problems == ()
    assert longest_command(pipeline) < COMMAND_LIMIT
    change["set"][2]["value"] += "v"
    (problem,) = build(filters=filters).problems
    assert problem.field == "spec.rules[0].filters[0].requestHeaderModifier"


def test_bytes_of_header_values_count() -> None:
    change = {"set": [{"name": "a", "value": "€" * ((HEADERS_LIMIT - 7) // 3)}]}
    filters = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": change}]
    assert build(filters=filters).problems == ()
    change["set"][0]["value"] += "€"
    (problem,) = build(filters=filters).problems
    assert problem.field == "spec.rules[0].filters[0].responseHeaderModifier"


def test_the_longest_paths() -> None:
    """A path and what a redirect makes of it have limits of their own, which need no other."""
    path = {"type": "PathPrefix", "value": "/" + "$" * 1023}
    redirect = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/" + "%" * 1023}, "hostname": "h" * 253}
    pipeline = build(
        matches=[{"path": path, "method": "OPTIONS"}],
        filters=[{"type": "RequestRedirect", "requestRedirect": redirect}],
    )
    assert pipeline.problems == ()
    assert longest_command(pipeline) < COMMAND_LIMIT
