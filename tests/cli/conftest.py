"""Runs commands as a user does, in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from gwctl.cli import main
from tests.manifests import (
    Manifest,
    backend,
    endpoints,
    gateway,
    gateway_class,
    http_route,
    listener,
    prefix_rule,
    service,
    tcp_route,
)

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line."""
    monkeypatch.setenv("COLUMNS", "110")

    def run(*arguments: str | Path) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def write(folder: Path, *manifests: Manifest) -> Path:
    """Write manifests to a file."""
    path = folder / "manifests.yaml"
    path.write_text(yaml.safe_dump_all(manifests))
    return path


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A Gateway with an HTTP and a TCP listener, and a shop behind them."""
    redirect = {"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}
    admin = {"path": {"value": "/cart"}, "method": "POST", "headers": [{"name": "X-User", "value": "admin"}]}
    by_query = {"path": {"value": "/cart"}, "queryParams": [{"name": "q", "value": "a b"}]}
    rules = [
        {"matches": [admin, by_query], "backendRefs": [backend("web", weight=3), backend("idle")]},
        prefix_rule("/cart", backend("web")),
        {"matches": [{"path": {"type": "Exact", "value": "/old"}}], "filters": [redirect]},
        {"matches": [{"path": {"value": "/none"}}]},
        prefix_rule("/", backend("web")),
    ]
    listeners = [listener("http", 8080, "*.example.com"), listener("tcp", 9000, protocol="TCP")]
    return write(
        tmp_path,
        gateway_class(),
        gateway(listeners),
        http_route("shop", rules, ("shop.example.com",)),
        tcp_route("db", [backend("web")]),
        service("web"),
        service("idle"),
        *endpoints("web", [("10.0.0.1", 8080), ("10.0.0.2", 8080)]),
    )
