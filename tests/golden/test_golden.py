"""Golden pairs of all seams: what manifests become, feature by feature.

``cases/NAME.in.yaml`` → ``NAME.routes.yaml`` (routes, and every problem as ``gwctl validate`` prints it) and
``NAME.haproxy.yaml`` (frontends, tables, servers and crt-lists; the fixed program and unused slots are left out). It is
the code of ``gwctl validate`` and ``gwctl translate`` that makes them, so a case can be tried by hand.
``NAME.status.yaml`` is what Kubernetes is told once HAProxy serves all of it and every Gateway has an address.
``--update-golden`` rewrites the expected files: read what changed. No file holds a private key: a Secret says
``$(certificate NAME …)`` and ``$(key NAME …)``, for which the test puts a pair that is made for these names.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gwctl.cli.manifests import find_findings, read_pipeline
from gwctl.cli.plain import to_plain, to_text
from gwctl.cli.translate import translate_to_haproxy
from gwctl.graph.node import Graph
from gwctl.haproxy.desired import Pools
from gwctl.haproxy.names import LOOP
from gwctl.status.build import build_statuses
from gwctl.status.condition import Condition
from gwctl.status.outcome import GatewayAddresses, Outcome
from gwctl.status.status import ParentStatus, Status
from tests.certificates import make_authority, make_pair
from tests.manifests import CONTROLLER

CASES = Path(__file__).parent / "cases"
NAMES = sorted(path.name.removesuffix(".in.yaml") for path in CASES.glob("*.in.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_manifests_become_what_the_golden_files_say(name: str, update_golden: bool, tmp_path: Path) -> None:
    manifests = tmp_path / f"{name}.in.yaml"
    manifests.write_text(with_pairs((CASES / manifests.name).read_text(encoding="utf-8")), encoding="utf-8")
    result = read_pipeline(manifests, CONTROLLER)
    problems = [str(finding) for finding in find_findings(result)]
    routes = to_text(without_empty(to_plain(result.pipeline.routing)), "yaml") + "\n"
    compare(CASES / f"{name}.routes.yaml", as_lines({"problems": problems}) + routes, update_golden)
    state = what_routes_decide(translate_to_haproxy(result.pipeline, Pools(http=4, tcp=4)))
    compare(CASES / f"{name}.haproxy.yaml", as_lines(state), update_golden)
    compare(CASES / f"{name}.status.yaml", as_lines(told(result.pipeline.graph)), update_golden)


def with_pairs(text: str) -> str:
    """Put certificates and keys in the places that ask for them, in base64, and authorities as quoted text."""

    def put(match: re.Match[str]) -> str:
        if match[1] == "authority":
            return make_authority(match[2]).replace("\n", "\\n")
        pair = make_pair(*match[2].split())
        content = pair.certificate if match[1] == "certificate" else pair.key
        return base64.b64encode(content.encode()).decode()

    return re.sub(r"\$\((certificate|key|authority) ([^)]*)\)", put, text)


def compare(path: Path, text: str, update: bool) -> None:
    """Compare a text with a golden file, or make it the new one."""
    if update:
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{path.name} is missing: run with --update-golden and read what it says"
    assert text == path.read_text(encoding="utf-8")


def what_routes_decide(state: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is the same whatever the routes are: the program, its Lua file and the slots."""
    frontends = {
        key.partition(" ")[2]: {name: value for name, value in section.items() if name != "tcp_request_rule_list"}
        for key, section in state["sections"].items()
        if key.startswith("frontends ") and key != f"frontends {LOOP}"
    }
    parts = ("tables", "servers", "server_tls", "crt_lists")
    return {"frontends": frontends, **{part: state[part] for part in parts if part in state}}


def told(graph: Graph) -> dict[str, Any]:
    """Give the statuses once all is served: a line for each condition."""
    addresses = dict.fromkeys(graph.gateways, GatewayAddresses((("IPAddress", "192.0.2.1"),)))
    statuses = build_statuses(Outcome(graph, applied=graph, addresses=addresses)).by_ref
    return {str(ref): _told(status) for ref, status in sorted(statuses.items())}


def _told(status: Status) -> dict[str, Any]:
    listeners = {
        item.name: {
            "supportedKinds": list(item.supported_kinds),
            "attachedRoutes": item.attached_routes,
            "conditions": _conditions(item.conditions),
        }
        for item in status.listeners or ()
    }
    parts: dict[str, Any] = {
        "conditions": _conditions(status.conditions or ()),
        "listeners": listeners,
        "parents": _entries(status.parents or ()),
        "ancestors": _entries(status.ancestors or ()),
    }
    if status.attached_listener_sets:
        parts["attachedListenerSets"] = status.attached_listener_sets
    return without_empty(parts)


def _entries(entries: tuple[ParentStatus, ...]) -> list[dict[str, Any]]:
    return [{**to_plain(entry.ref), "conditions": _conditions(entry.conditions)} for entry in entries]


def _conditions(conditions: tuple[Condition, ...]) -> list[str]:
    return [f"{item.type} {item.status}/{item.reason}: {item.message}" for item in conditions]


def as_lines(value: dict[str, Any]) -> str:
    """Write YAML with a line for each problem and row, however long."""
    text: str = yaml.safe_dump(
        without_empty(value), sort_keys=False, allow_unicode=True, default_flow_style=False, width=100_000
    )
    return text if without_empty(value) else ""


def without_empty(value: dict[str, Any]) -> dict[str, Any]:
    """Leave out the parts that hold nothing."""
    return {key: item for key, item in value.items() if item not in ({}, [])}


@pytest.mark.parametrize("name", NAMES)
def test_every_case_says_what_it_shows(name: str) -> None:
    assert re.match(r"# \S.*[.:)]", (CASES / f"{name}.in.yaml").read_text(encoding="utf-8"), re.DOTALL)


def test_no_golden_file_is_left_over() -> None:
    expected = {f"{name}.{part}.yaml" for name in NAMES for part in ("in", "routes", "haproxy", "status")}
    assert {path.name for path in CASES.iterdir()} == expected
