"""`gwctl validate`, and what all commands have in common."""

import json
from pathlib import Path

import pytest

from gwctl import __version__
from tests.cli.conftest import Run, write
from tests.manifests import backend, gateway, gateway_class, http_route, listener, prefix_rule, service


def test_good_manifests(run: Run, shop: Path) -> None:
    result = run("validate", "-f", shop)
    assert (result.exit_code, result.output) == (
        0,
        "7 resources (1 EndpointSlice, 1 Gateway, 1 GatewayClass, 1 HTTPRoute, 2 Service, 1 TCPRoute): no problems\n",
    )


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    write(
        tmp_path,
        gateway_class(),
        gateway([listener("http", 80)]),
        http_route("r", [prefix_rule("/", backend("missing"))]),
        service("web", 99999),
    )
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    (tmp_path / "line\nbreak.yaml").write_text("a: b: c")
    return tmp_path


def test_every_problem_is_a_line(run: Run, faulty: Path) -> None:
    result = run("validate", "-f", faulty)
    assert result.exit_code == 1
    field = "spec.rules[0].backendRefs[0].name"
    assert result.output.splitlines() == [
        "File broken.yaml line 2, column 1: Invalid: while parsing a flow sequence, did not find expected ',' or ']'",
        "File line\\nbreak.yaml line 1, column 5: Invalid: mapping values are not allowed in this context",
        f"HTTPRoute default/r {field}: ResolvedRefs/BackendNotFound: there is no Service default/missing",
        "Service default/web spec.ports[0].port: Invalid: must be at most 65535, not 99999",
        "3 resources (1 Gateway, 1 GatewayClass, 1 HTTPRoute): 4 problems",
    ]


def test_json(run: Run, faulty: Path) -> None:
    result = run("validate", "-f", faulty, "-o", "json")
    assert result.exit_code == 1
    body = json.loads(result.output)
    assert body["resources"] == {"Gateway": 1, "GatewayClass": 1, "HTTPRoute": 1}
    assert body["problems"][2] == {
        "object": "HTTPRoute default/r",
        "field": "spec.rules[0].backendRefs[0].name",
        "condition": "ResolvedRefs",
        "reason": "BackendNotFound",
        "message": "there is no Service default/missing",
    }


def test_the_controller_name_decides_which_gateways_count(run: Run, faulty: Path) -> None:
    result = run("validate", "-f", faulty, "--gateway-controller-name", "example.com/other")
    assert "BackendNotFound" not in result.output


@pytest.mark.parametrize("command", ["validate", "translate", "diff"])
def test_a_path_that_is_missing_is_one_sentence(run: Run, command: str, tmp_path: Path) -> None:
    result = run(command, "-f", tmp_path / "nowhere")
    assert (result.exit_code, result.output) == (2, f"Error: {tmp_path}/nowhere: no such file or directory\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--http-slots", "none"), "Error: --http-slots: must be a valid integer"),
        (("run", "--source", "http://x"), "Error: --source: must be file:PATH or kubernetes\n"),
        (("run", "--config", "/nowhere.yaml"), "Error: /nowhere.yaml: no such file or directory\n"),
        (("validate",), "Error: Missing option '-f' / '--file'."),
        (("fly",), "Error: No such command 'fly'."),
    ],
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_variables_count(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GWCTL_LOG_FORMAT", "xml")
    assert "GWCTL_LOG_FORMAT: must be 'text' or 'json'" in run("run").output


def test_version(run: Run) -> None:
    assert run("version").output == f"gwctl {__version__}\n"
    assert run("--version").output == f"gwctl {__version__}\n"


@pytest.mark.parametrize("command", ["run", "validate", "translate", "explain", "diff", "status", "version"])
def test_help(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Usage: main {command}" in result.output
