"""What `make` runs, all in the environment that nox itself runs in, so that nothing is installed twice."""

import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2026.1"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["test"]

PYTHON = [sys.executable, "-m"]
SCRIPTS = Path(sys.executable).parent
STANDIN = Path("tests/dataplane")


@nox.session
def lint(session: nox.Session) -> None:
    """Rules and format of the Python and Go sources."""
    session.run(*PYTHON, "ruff", "check")
    session.run(*PYTHON, "ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict."""
    session.run(*PYTHON, "mypy")


@nox.session
def imports(session: nox.Session) -> None:
    """The layers of docs and pyproject.toml: who may import whom."""
    session.run(sys.executable, str(SCRIPTS / "lint-imports"), "--no-logo")


@nox.session
def standin(session: nox.Session) -> None:
    """Format and vet of the Data Plane API's stand-in, which is written in Go; tests/contract tests it."""
    go = shutil.which("go") or session.error("Go is not on PATH; the Data Plane API's stand-in needs it")
    unformatted = session.run("gofmt", "-l", str(STANDIN), silent=True)
    if unformatted:
        session.error(f"gofmt would change:\n{unformatted}")
    with session.chdir(STANDIN):
        session.run(go, "vet", "./...", env={"CGO_ENABLED": "0"})


@nox.session
def test(session: nox.Session) -> None:
    """All checks, then all tests; arguments after `--` go to pytest, and then only pytest runs."""
    session.run(*PYTHON, "tests.parts")
    if not session.posargs:
        for check in (lint, types, imports, standin):
            check(session)
    session.run(*PYTHON, "pytest", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """gwctl with HAProxy on this machine; stays up with KEEP=1."""
    session.run(*PYTHON, "tests.demo", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """How long a change takes to reach traffic."""
    session.run(*PYTHON, "tests.bench", *session.posargs)


@nox.session
def images(session: nox.Session) -> None:
    """gwctl's and HAProxy's image, into the cache."""
    session.run(*PYTHON, "tests.cluster", "images")


@nox.session
def cluster(session: nox.Session) -> None:
    """Start a one-node Kubernetes that stays up."""
    session.run(*PYTHON, "tests.cluster", "up", *session.posargs)


@nox.session
def cluster_down(session: nox.Session) -> None:
    """Stop it."""
    session.run(*PYTHON, "tests.cluster", "down")


@nox.session
def cluster_test(session: nox.Session) -> None:
    """The tests that need a Kubernetes."""
    session.run(*PYTHON, "pytest", "--cluster", "tests/cluster", *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """The Gateway API's conformance suite against gwctl in a Kubernetes."""
    session.run(*PYTHON, "tests.cluster", "conformance", *session.posargs)


@nox.session
def golden(session: nox.Session) -> None:
    """Rewrite the expected files of the golden tests."""
    session.run(*PYTHON, "pytest", "--update-golden", *session.posargs)


@nox.session
def fmt(session: nox.Session) -> None:
    """Rewrite the sources in the project's format."""
    session.run(*PYTHON, "ruff", "check", "--fix-only", "--quiet")
    session.run(*PYTHON, "ruff", "format")
    if shutil.which("gofmt") and STANDIN.exists():
        session.run("gofmt", "-w", str(STANDIN))


@nox.session
def lock(session: nox.Session) -> None:
    """Lock the newest versions that pyproject.toml allows."""
    compile_ = [
        *PYTHON, "uv", "pip", "compile", "--quiet", "--upgrade", "--universal", "--python-version", "3.11",
        "--generate-hashes", "--no-emit-index-url", "--no-annotate", "--custom-compile-command", "make lock",
        "pyproject.toml",
    ]  # fmt: skip
    session.run(*compile_, "--output-file", "requirements/runtime.txt")
    dev = ["--group", "dev", "--constraint", "requirements/runtime.txt"]
    session.run(*compile_, *dev, "--output-file", "requirements/dev.txt")
