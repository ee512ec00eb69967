"""Golden pairs of both seams: what manifests become, feature by feature.

``cases/NAME.in.yaml`` → ``NAME.routes.yaml`` (routes, and every problem as ``gwctl validate`` prints it) and
``NAME.haproxy.yaml`` (frontends, tables and servers; the fixed program and unused slots are left out). It is the code
of ``gwctl validate`` and ``gwctl translate`` that makes them, so a case can be tried by hand. ``--update-golden``
rewrites the expected files: read what changed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gwctl.cli.manifests import find_findings, read_pipeline
from gwctl.cli.plain import to_plain, to_text
from gwctl.cli.translate import translate_to_haproxy
from gwctl.haproxy.desired import Pools
from tests.manifests import CONTROLLER

CASES = Path(__file__).parent / "cases"
NAMES = sorted(path.name.removesuffix(".in.yaml") for path in CASES.glob("*.in.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_manifests_become_what_the_golden_files_say(name: str, update_golden: bool) -> None:
    result = read_pipeline(CASES / f"{name}.in.yaml", CONTROLLER)
    problems = [str(finding) for finding in find_findings(result)]
    routes = to_text(without_empty(to_plain(result.pipeline.routing)), "yaml") + "\n"
    compare(CASES / f"{name}.routes.yaml", as_lines({"problems": problems}) + routes, update_golden)
    state = what_routes_decide(translate_to_haproxy(result.pipeline, Pools(http=4, tcp=4)))
    compare(CASES / f"{name}.haproxy.yaml", as_lines(state), update_golden)


def compare(path: Path, text: str, update: bool) -> None:
    """Compare a text with a golden file, or make it the new one."""
    if update:
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{path.name} is missing: run with --update-golden and read what it says"
    assert text == path.read_text(encoding="utf-8")


def what_routes_decide(state: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is the same whatever the routes are: the program, its Lua file and the slots."""
    frontends = {
        key.partition(" ")[2]: section for key, section in state["sections"].items() if key.startswith("frontends ")
    }
    return {"frontends": frontends, **{part: state[part] for part in ("tables", "servers")}}


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
    expected = {f"{name}.{part}.yaml" for name in NAMES for part in ("in", "routes", "haproxy")}
    assert {path.name for path in CASES.iterdir()} == expected
