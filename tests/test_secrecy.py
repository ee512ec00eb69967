"""Private keys are in no file of the project, and the search for them finds what it should."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.certificates import make_pair
from tests.golden.test_golden import CASES, with_pairs
from tests.secrecy import find_keys

PROJECT = Path(__file__).parents[1]


def test_no_golden_file_holds_a_key_of_its_case() -> None:
    for path in CASES.glob("*.in.yaml"):
        with_pairs(path.read_text(encoding="utf-8"))
    assert make_pair("web.test").key
    files = sorted(CASES.glob("*.yaml"))
    assert {path.name: found for path in files if (found := find_keys([path.read_text(encoding="utf-8")]))} == {}


@pytest.mark.parametrize("folder", ["gwctl", "docs", "charts", "examples"])
def test_no_file_holds_a_private_key(folder: str) -> None:
    files = [path for path in (PROJECT / folder).rglob("*") if path.suffix in (".py", ".md", ".yaml", ".lua", ".tpl")]
    assert files
    assert [path for path in files if "BEGIN PRIVATE KEY" in path.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("form", ["pem", "line", "secret", "start of a secret"])
def test_a_key_is_found_in_every_form(form: str) -> None:
    key = make_pair("found.test").key
    encoded = base64.b64encode(key.encode()).decode()
    text = {"pem": key, "line": key.splitlines()[2], "secret": encoded, "start of a secret": encoded[:40]}[form]
    assert find_keys([f"something {text} else"])
    assert not find_keys(["something else", make_pair("found.test").certificate])
